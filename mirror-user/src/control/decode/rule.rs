//! `rules` of a route, one by one: a rule that cannot be served is refused alone, with its matches as far
//! as they can be read.

use gateway_api::httproutes::{
    HttpRouteRules as Typed, HttpRouteRulesBackendRefs, HttpRouteRulesTimeouts,
};
use serde_json::Value;

use super::{
    DecodeFault, Decoded, Defaults,
    duration::duration,
    fault::{Path, fail},
    filter::{backend_filter, compatible, filter},
    matching::matcher,
    route::{Reference, target},
    strict_at,
};
use crate::{
    control::{
        expressions::Allowance,
        objects::{RouteFilter, RouteRule, RuleRefusal, WeightedRef},
    },
    route::{Matcher, Timeouts},
};

/// Bound of the API (HTTPBackendRef, `weight`).
const MAX_WEIGHT: i32 = 1_000_000;

/// A rule as it deserialized, or its document and why it did not.
pub(super) enum RuleDocument {
    Typed(Box<Typed>),
    Refused(Value, (Path, DecodeFault)),
}

impl RuleDocument {
    /// The rule at a place of the route.
    pub(super) fn of(at: usize, document: Value, defaults: &Defaults) -> Self {
        match strict_at(&place(at), &document, defaults) {
            Ok(typed) => Self::Typed(typed),
            Err(fault) => Self::Refused(document, fault),
        }
    }
}

fn place(at: usize) -> String {
    format!("spec.rules[{at}]")
}

/// The rule at a place of the route, whose namespace is `namespace`.
pub(super) fn rule(
    at: usize,
    document: RuleDocument,
    namespace: &str,
    defaults: &Defaults,
    expressions: &mut Allowance,
) -> RouteRule {
    let path = place(at);
    match document {
        RuleDocument::Typed(mut typed) => {
            let name = typed.name.take();
            let matches = typed.matches.take().filter(|matches| !matches.is_empty());
            let matches = matches.map(|matches| {
                let matches = matches.into_iter().enumerate();
                let matcher =
                    |(at, typed)| matcher(&format!("{path}.matches[{at}]"), typed, expressions);
                matches.map(matcher).collect()
            });
            let effect = Effect::decode(&path, *typed, namespace);
            assemble(name, matches, effect)
        }
        RuleDocument::Refused(document, fault) => {
            let name = document.get("name").and_then(Value::as_str).map(str::to_owned);
            let matches = match document.get("matches") {
                None | Some(Value::Null) if document.is_object() => None,
                Some(Value::Array(matches)) => (!matches.is_empty()).then(|| {
                    let matches = matches.iter().enumerate();
                    let read = matches.map(|(at, document)| {
                        let path = format!("{path}.matches[{at}]");
                        matcher(&path, strict_at(&path, document, defaults)?, expressions)
                    });
                    read.collect()
                }),
                // It is not known which requests it is about.
                _ => Some(vec![fail(fault.0.0.clone(), fault.1.clone())]),
            };
            assemble(name, matches, Err(fault))
        }
    }
}

/// `matches`: those of the document; without any, the API's default is one that every request meets.
fn assemble(
    name: Option<String>,
    matches: Option<Vec<Decoded<Matcher>>>,
    effect: Decoded<Effect>,
) -> RouteRule {
    let mut faults = Vec::new();
    let matches = matches.unwrap_or_else(|| vec![Ok(Matcher::default())]).into_iter();
    let matches =
        matches.filter_map(|read| read.map_err(|fault| faults.push(fault)).ok()).collect();
    let all_matches = faults.is_empty();
    let effect = effect.unwrap_or_else(|fault| {
        faults.push(fault);
        Effect::default()
    });
    let refusal = faults.into_iter().next().map(|(Path(path), fault)| RuleRefusal {
        path,
        fault,
        all_matches,
        kept: false,
    });
    let Effect { filters, backends, timeouts } = match refusal {
        Some(_) => Effect::default(),
        None => effect,
    };
    RouteRule { name, matches, filters, backends, timeouts, refusal }
}

/// What a rule does with the requests that match it.
#[derive(Default)]
struct Effect {
    filters: Vec<RouteFilter>,
    backends: Vec<WeightedRef>,
    timeouts: Timeouts,
}

impl Effect {
    fn decode(path: &str, typed: Typed, namespace: &str) -> Decoded<Self> {
        compatible(&format!("{path}.filters"), typed.filters.as_deref().unwrap_or_default())?;
        let limits = typed.timeouts.map(|typed| timeouts(&format!("{path}.timeouts"), &typed));
        let filters = typed.filters.into_iter().flatten().enumerate();
        let backends = typed.backend_refs.into_iter().flatten().enumerate();
        let effect = Self {
            filters: filters
                .map(|(at, typed)| filter(&format!("{path}.filters[{at}]"), typed, namespace))
                .collect::<Decoded<_>>()?,
            backends: backends
                .map(|(at, typed)| backend(&format!("{path}.backendRefs[{at}]"), typed, namespace))
                .collect::<Decoded<_>>()?,
            timeouts: limits.transpose()?.unwrap_or_default(),
        };
        effect.check_backends(path)?;
        Ok(effect)
    }

    /// Requests that match a rule without `backendRefs` get 500 (HTTPRouteRule, `backendRefs`). If the rule
    /// mirrors, each would get 500 while its copy is sent: that is hardly intended, so it is refused.
    fn check_backends(&self, path: &str) -> Decoded<()> {
        let mirrors = self.filters.iter().any(|filter| matches!(filter, RouteFilter::Mirror(..)));
        if mirrors && self.backends.is_empty() {
            let reason = "is missing or empty: a rule that mirrors requests must name the Service that \
                          responds to them (often the parent itself); without one they would get 500";
            return fail(format!("{path}.backendRefs"), DecodeFault::Invalid(reason.into()));
        }
        Ok(())
    }
}

fn timeouts(path: &str, typed: &HttpRouteRulesTimeouts) -> Decoded<Timeouts> {
    let limit = |field: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => match duration(text) {
            // GEP-1742: zero is no limit.
            Some(limit) => Ok((!limit.is_zero()).then_some(limit)),
            None => fail(
                format!("{path}.{field}"),
                DecodeFault::Invalid(format!(
                    "{text:?} is not a duration (GEP-2257), such as 1h30m or 500ms"
                )),
            ),
        },
    };
    let request = limit("request", &typed.request)?;
    let backend = limit("backendRequest", &typed.backend_request)?;
    if let (Some(request), Some(backend)) = (request, backend)
        && backend > request
    {
        let reason = "is longer than the request timeout, which includes it".to_owned();
        return fail(format!("{path}.backendRequest"), DecodeFault::Invalid(reason));
    }
    Ok(Timeouts { request, backend })
}

fn backend(path: &str, typed: HttpRouteRulesBackendRefs, namespace: &str) -> Decoded<WeightedRef> {
    let weight = typed.weight.unwrap_or(1);
    let weight = match u32::try_from(weight) {
        Ok(unsigned) if weight <= MAX_WEIGHT => unsigned,
        _ => {
            let reason = format!("{weight} is not within 0 to {MAX_WEIGHT}");
            return fail(format!("{path}.weight"), DecodeFault::Invalid(reason));
        }
    };
    let filters = typed.filters.into_iter().flatten().enumerate();
    let filters = filters
        .map(|(at, typed)| backend_filter(&format!("{path}.filters[{at}]"), &typed, namespace))
        .collect::<Decoded<_>>()?;
    let reference = Reference {
        group: typed.group,
        kind: typed.kind,
        namespace: typed.namespace,
        name: typed.name,
        port: typed.port,
    };
    Ok(WeightedRef { target: target(path, reference, namespace)?, weight, filters })
}
