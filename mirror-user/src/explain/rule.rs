//! What the rule does with the request: filters in their order, copies as they stand at their
//! filter's place, backends and what each share of the clients gets. In: a rule and the head as it
//! is matched. Out: the view. The order of the steps is that of `proxy::exchange`.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, StatusCode, header, request};

use super::{
    reply::Reply,
    report::{BackendView, CopyView, FilterStep, RuleView},
};
use crate::{
    proxy::{RequestKind, TIMED_OUT, shadow_host, without_upgrade},
    route::{
        Backend, BackendRef, Filter, HeaderModifier, HttpScheme, Mirror, Rewrite, Rule,
        ServicePort, Timeouts, Verbatim,
    },
};

/// What the filters need to know beside the request's head.
pub(super) struct Circumstances<'a> {
    pub(super) kind: RequestKind,
    /// The request is a gRPC call.
    pub(super) call: bool,
    /// Of the client's connection.
    pub(super) connected: SocketAddr,
    /// Of copies' hosts.
    pub(super) suffix: &'a str,
}

/// `address`: what requests for a backend are sent to where the cluster chooses the endpoint.
pub(super) fn view(
    rule: &Rule,
    matched: usize,
    mut head: request::Parts,
    given: &Circumstances<'_>,
    address: impl Fn(&Backend) -> Option<SocketAddr>,
) -> RuleView {
    let (filters, responds) = steps(&rule.filters, &mut head, given);
    let refs = rule.backends.refs();
    let total: u64 = refs.iter().map(|entry| u64::from(entry.weight)).sum();
    let reply = |status, why| Reply::new(given.call, status, why);
    let none = "the rule has no backend with a weight above 0";
    let no_backend = || format!("{}: {none}", reply(StatusCode::INTERNAL_SERVER_ERROR, none));
    RuleView {
        route: rule.route.to_string(),
        rule: rule.index,
        name: rule.name.clone(),
        r#match: matched,
        tunnel: given.kind == RequestKind::Tunnel,
        filters,
        timeouts: timeouts(&rule.timeouts),
        timed_out: reply(StatusCode::GATEWAY_TIMEOUT, TIMED_OUT),
        // A tunnel is no message that could be sent again.
        retry: rule
            .retry
            .as_ref()
            .filter(|_| given.kind != RequestKind::Tunnel)
            .map(ToString::to_string),
        backends: refs.iter().map(|entry| backend(entry, total, &head, given, &address)).collect(),
        no_backend: (total == 0).then(no_backend),
        responds,
    }
}

/// What each filter does, and the status of the one that responds.
fn steps(
    filters: &[Filter],
    head: &mut request::Parts,
    given: &Circumstances<'_>,
) -> (Vec<FilterStep>, Option<u16>) {
    let mut responds = None;
    let mut step = |filter: &Filter| {
        let preflight = responds == Some(StatusCode::NO_CONTENT.as_u16());
        if responds.is_some() && (preflight || !filter.changes_response()) {
            return FilterStep::NotReached;
        }
        match filter {
            Filter::RequestHeaders(modifier) => {
                modifier.apply(&mut head.headers);
                FilterStep::RequestHeaders { changes: changes(modifier) }
            }
            Filter::ResponseHeaders(modifier) => {
                FilterStep::ResponseHeaders { changes: changes(modifier) }
            }
            Filter::Mirror(mirror) => FilterStep::Mirror(copy(mirror, head, given)),
            Filter::Rewrite(rewrite) => rewritten(rewrite, head),
            Filter::Redirect(redirect) => {
                let status = redirect.status.as_u16();
                responds = Some(status);
                let location = redirect.location(head, HttpScheme::Http, given.connected);
                let location = location.as_ref().map(text).unwrap_or_default();
                FilterStep::Redirect { status, location }
            }
            Filter::Cors(cors) => {
                let preflight = cors.preflight(head).filter(|_| responds.is_none());
                let preflight = preflight.map(|headers| {
                    responds = Some(StatusCode::NO_CONTENT.as_u16());
                    fields(&headers).into_iter().map(|(n, v)| format!("{n}: {v}")).collect()
                });
                FilterStep::Cors { preflight }
            }
        }
    };
    (filters.iter().map(&mut step).collect(), responds)
}

fn rewritten(rewrite: &Rewrite, head: &mut request::Parts) -> FilterStep {
    // It always succeeds with what a route was decoded with.
    let _ = rewrite.apply(head);
    FilterStep::Rewrite {
        host: rewrite.hostname.as_ref().and_then(|_| host(&head.headers)),
        target: rewrite.path.as_ref().map(|_| target(head)),
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
    let entries = rule.backends.refs().iter().flat_map(|entry| &entry.filters);
    let mirrors = rule.filters.iter().chain(entries).filter_map(|filter| match filter {
        Filter::Mirror(mirror) => mirror.target.as_ref().ok(),
        _ => None,
    });
    let backends = rule.backends.refs().iter().filter_map(|entry| entry.target.as_ref().ok());
    mirrors.chain(backends).map(|backend| {
        let ServicePort { namespace, name, .. } = &*backend.service;
        format!("{namespace}/{name}")
    })
}

fn copy(mirror: &Mirror, head: &request::Parts, given: &Circumstances<'_>) -> CopyView {
    let Mirror { target, share } = mirror;
    let Circumstances { kind, suffix, .. } = *given;
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
    head: &request::Parts,
    given: &Circumstances<'_>,
    address: impl Fn(&Backend) -> Option<SocketAddr>,
) -> BackendView {
    let mut head = head.clone();
    let (steps, responds) = steps(&entry.filters, &mut head, given);
    let changed = steps.iter().flat_map(|step| match step {
        FilterStep::RequestHeaders { changes } => prefixed("request: ", changes),
        FilterStep::ResponseHeaders { changes } => prefixed("response: ", changes),
        // Its lines are indented for the list of the rule's filters.
        other => {
            let lines = other.to_string();
            let deeper = |line: &str| line.strip_prefix("     ").map(|rest| format!("  {rest}"));
            lines.lines().map(|line| deeper(line).unwrap_or_else(|| line.to_owned())).collect()
        }
    });
    let changed = changed.collect();
    let address = entry.target.as_ref().ok().and_then(|backend| address(backend));
    let unready = |backend: &Backend| backend.endpoints.is_empty() && address.is_none();
    let refused = |status, why: String| (Reply::new(given.call, status, &why), why);
    let reply = match (&entry.target, responds) {
        (Err(invalid), _) => Some(refused(StatusCode::INTERNAL_SERVER_ERROR, invalid.to_string())),
        (Ok(_), Some(status)) => {
            Some((Reply { status, grpc: None }, "one of its filters responds".to_owned()))
        }
        (Ok(backend), None) if unready(backend) => {
            let why = format!("Service {} has no ready endpoint", backend.service);
            Some(refused(StatusCode::SERVICE_UNAVAILABLE, why))
        }
        (Ok(_), None) => None,
    };
    let (answer, grpc) = reply.map(|(reply, why)| ((reply.status, why), reply.grpc)).unzip();
    BackendView {
        service: entry.target.as_ref().ok().map(|backend| backend.service.to_string()),
        weight: entry.weight,
        share: if total == 0 { 0.0 } else { f64::from(entry.weight) * 100.0 / total as f64 },
        changes: changed,
        address: address.map(|address| address.to_string()),
        endpoints: entry.target.iter().flat_map(|backend| endpoints(backend)).collect(),
        answer,
        grpc: grpc.flatten(),
        host: host(&head.headers),
    }
}

fn prefixed(prefix: &str, changes: &[String]) -> Vec<String> {
    changes.iter().map(|change| format!("{prefix}{change}")).collect()
}

/// As the request line has it.
pub(super) fn target(head: &request::Parts) -> String {
    Verbatim::of(head).map_or_else(
        || head.uri.to_string(),
        |verbatim| String::from_utf8_lossy(verbatim.as_bytes()).into_owned(),
    )
}

fn endpoints(backend: &Backend) -> impl Iterator<Item = String> {
    backend.endpoints.iter().map(ToString::to_string)
}

/// In the order in which they are applied.
fn changes(modifier: &HeaderModifier) -> Vec<String> {
    let set = modifier.set.iter().map(|(name, value)| format!("set {name}: {}", text(value)));
    let add = modifier.add.iter().map(|(name, value)| format!("add {name}: {}", text(value)));
    let remove = modifier.remove.iter().map(|name| format!("remove {name}"));
    set.chain(add).chain(remove).collect()
}

fn host(headers: &HeaderMap) -> Option<String> {
    headers.get(header::HOST).map(text)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

pub(super) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let fields = headers.iter();
    fields.map(|(name, value)| (name.to_string(), text(value))).collect()
}
