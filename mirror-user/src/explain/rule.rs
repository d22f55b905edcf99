//! What the rule does with the request: filters in their order, copies as they stand at their
//! filter's place, backends and what each share of the clients gets. In: a rule and the head as it
//! is matched. Out: the view. The order of the steps is that of `proxy::exchange`.

use std::net::SocketAddr;

use http::{HeaderMap, header, request};

use super::report::{BackendView, CopyView, FilterStep, RuleView};
use crate::{
    proxy::{RequestKind, shadow_host, without_upgrade},
    route::{Backend, BackendRef, Filter, HeaderModifier, Mirror, Rule, ServicePort, Timeouts},
};

/// `address`: what requests for a backend are sent to where the cluster chooses the endpoint.
pub(super) fn view(
    rule: &Rule,
    matched: usize,
    mut head: request::Parts,
    kind: RequestKind,
    suffix: &str,
    address: impl Fn(&Backend) -> Option<SocketAddr>,
) -> RuleView {
    let mut filters = Vec::with_capacity(rule.filters.len());
    for filter in &rule.filters {
        filters.push(match filter {
            Filter::RequestHeaders(modifier) => {
                modifier.apply(&mut head.headers);
                FilterStep::RequestHeaders { changes: changes(modifier) }
            }
            Filter::ResponseHeaders(modifier) => {
                FilterStep::ResponseHeaders { changes: changes(modifier) }
            }
            Filter::Mirror(mirror) => FilterStep::Mirror(copy(mirror, &head, kind, suffix)),
        });
    }
    let refs = rule.backends.refs();
    let total: u64 = refs.iter().map(|entry| u64::from(entry.weight)).sum();
    RuleView {
        route: rule.route.to_string(),
        rule: rule.index,
        name: rule.name.clone(),
        r#match: matched,
        tunnel: kind == RequestKind::Tunnel,
        filters,
        timeouts: timeouts(&rule.timeouts),
        backends: refs.iter().map(|entry| backend(entry, total, &head.headers, &address)).collect(),
        no_backend: (total == 0)
            .then(|| "500: the rule has no backend with a weight above 0".to_owned()),
    }
}

/// As in `timeouts` of a rule.
fn timeouts(timeouts: &Timeouts) -> Vec<String> {
    let limits = [("request", timeouts.request), ("backendRequest", timeouts.backend)];
    let limits = limits.into_iter().filter_map(|(name, limit)| Some((name, limit?)));
    limits.map(|(name, limit)| format!("{name} {}", humantime::format_duration(limit))).collect()
}

/// The Services that a rule leads to, shadows as well.
pub(super) fn services(rule: &Rule) -> impl Iterator<Item = String> {
    let mirrors = rule.filters.iter().filter_map(|filter| match filter {
        Filter::Mirror(mirror) => mirror.target.as_ref().ok(),
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => None,
    });
    let backends = rule.backends.refs().iter().filter_map(|entry| entry.target.as_ref().ok());
    mirrors.chain(backends).map(|backend| {
        let ServicePort { namespace, name, .. } = &*backend.service;
        format!("{namespace}/{name}")
    })
}

fn copy(mirror: &Mirror, head: &request::Parts, kind: RequestKind, suffix: &str) -> CopyView {
    let Mirror { target, share } = mirror;
    let never = match target {
        Err(invalid) => Some(format!("no copy: {invalid}")),
        Ok(_) if kind == RequestKind::Tunnel => {
            Some("no copy: a tunnel (CONNECT, or Upgrade to WebSocket) is never copied".into())
        }
        Ok(_) if share.numerator == 0 => Some("no copy: its share is 0".into()),
        Ok(backend) if backend.endpoints.is_empty() => {
            Some(format!("the copy is dropped: Service {} has no ready endpoint", backend.service))
        }
        Ok(_) => None,
    };
    let mut headers = match kind {
        RequestKind::Upgrade => without_upgrade(head).headers,
        RequestKind::Message | RequestKind::Tunnel => head.headers.clone(),
    };
    let shadow = headers.get(header::HOST).and_then(|host| shadow_host(host, suffix));
    if let Some(shadow) = shadow {
        headers.insert(header::HOST, shadow);
    }
    CopyView {
        shadow: target.as_ref().ok().map(|backend| backend.service.to_string()),
        numerator: share.numerator,
        denominator: share.denominator,
        never,
        host: host(&headers),
        headers: fields(&headers),
        endpoints: target.iter().flat_map(|backend| endpoints(backend)).collect(),
    }
}

fn backend(
    entry: &BackendRef,
    total: u64,
    headers: &HeaderMap,
    address: impl Fn(&Backend) -> Option<SocketAddr>,
) -> BackendView {
    let mut headers = headers.clone();
    let mut changed = Vec::new();
    for filter in &entry.filters {
        match filter {
            Filter::RequestHeaders(modifier) => {
                modifier.apply(&mut headers);
                changed.extend(changes(modifier).into_iter().map(|c| format!("request: {c}")));
            }
            Filter::ResponseHeaders(modifier) => {
                changed.extend(changes(modifier).into_iter().map(|c| format!("response: {c}")));
            }
            Filter::Mirror(_) => {}
        }
    }
    let address = entry.target.as_ref().ok().and_then(|backend| address(backend));
    let answer = match &entry.target {
        Err(invalid) => Some((500, invalid.to_string())),
        Ok(backend) if backend.endpoints.is_empty() && address.is_none() => {
            Some((503, format!("Service {} has no ready endpoint", backend.service)))
        }
        Ok(_) => None,
    };
    BackendView {
        service: entry.target.as_ref().ok().map(|backend| backend.service.to_string()),
        weight: entry.weight,
        share: if total == 0 { 0.0 } else { f64::from(entry.weight) * 100.0 / total as f64 },
        changes: changed,
        address: address.map(|address| address.to_string()),
        endpoints: entry.target.iter().flat_map(|backend| endpoints(backend)).collect(),
        answer,
        host: host(&headers),
    }
}

fn endpoints(backend: &Backend) -> impl Iterator<Item = String> {
    backend.endpoints.iter().map(ToString::to_string)
}

/// In the order in which they are applied.
fn changes(modifier: &HeaderModifier) -> Vec<String> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let set = modifier.set.iter().map(|(name, value)| format!("set {name}: {}", text(value)));
    let add = modifier.add.iter().map(|(name, value)| format!("add {name}: {}", text(value)));
    let remove = modifier.remove.iter().map(|name| format!("remove {name}"));
    set.chain(add).chain(remove).collect()
}

fn host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?;
    Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
}

pub(super) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let fields = headers.iter();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    fields.map(|(name, value)| (name.to_string(), text(value))).collect()
}
