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
    filter::{RuleContext, backend_filters, check_rule, filters},
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
            let typed_matches = typed.matches.take().unwrap_or_default().into_iter().enumerate();
            let matches = typed_matches
                .map(|(at, typed)| matcher(&format!("{path}.matches[{at}]"), typed, expressions));
            let matches = Matches::of(matches);
            let context = RuleContext::new(namespace, &matches.read);
            let effect = Effect::decode(&path, *typed, context);
            assemble(name, matches, effect)
        }
        RuleDocument::Refused(document, fault) => {
            let name = document.get("name").and_then(Value::as_str).map(str::to_owned);
            let matches = match document.get("matches") {
                None | Some(Value::Null) if document.is_object() => Matches::of(std::iter::empty()),
                Some(Value::Array(matches)) => {
                    let matches = matches.iter().enumerate();
                    Matches::of(matches.map(|(at, document)| {
                        let path = format!("{path}.matches[{at}]");
                        matcher(&path, strict_at(&path, document, defaults)?, expressions)
                    }))
                }
                // It is not known which requests it is about.
                _ => Matches::of(std::iter::once(fail(fault.0.0.clone(), fault.1.clone()))),
            };
            assemble(name, matches, Err(fault))
        }
    }
}

/// The matches of a rule that could be read, and why others could not.
struct Matches {
    read: Vec<Matcher>,
    faults: Vec<(Path, DecodeFault)>,
}

impl Matches {
    /// Of those of the document; without any, the API's default is one that every request meets.
    fn of(decoded: impl Iterator<Item = Decoded<Matcher>>) -> Self {
        let mut faults = Vec::new();
        let read = decoded.filter_map(|read| read.map_err(|fault| faults.push(fault)).ok());
        let mut read: Vec<_> = read.collect();
        if read.is_empty() && faults.is_empty() {
            read.push(Matcher::default());
        }
        Self { read, faults }
    }
}

fn assemble(name: Option<String>, matches: Matches, effect: Decoded<Effect>) -> RouteRule {
    let Matches { read: matches, mut faults } = matches;
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
    fn decode(path: &str, typed: Typed, context: RuleContext<'_>) -> Decoded<Self> {
        let limits = typed.timeouts.map(|typed| timeouts(&format!("{path}.timeouts"), &typed));
        let backends = typed.backend_refs.into_iter().flatten().enumerate();
        let effect = Self {
            filters: filters(
                &format!("{path}.filters"),
                typed.filters.unwrap_or_default(),
                context,
            )?,
            backends: backends
                .map(|(at, typed)| backend(&format!("{path}.backendRefs[{at}]"), typed, context))
                .collect::<Decoded<_>>()?,
            timeouts: limits.transpose()?.unwrap_or_default(),
        };
        check_rule(path, &effect.filters, &effect.backends)?;
        Ok(effect)
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

fn backend(
    path: &str,
    typed: HttpRouteRulesBackendRefs,
    context: RuleContext<'_>,
) -> Decoded<WeightedRef> {
    let weight = typed.weight.unwrap_or(1);
    let weight = match u32::try_from(weight) {
        Ok(unsigned) if weight <= MAX_WEIGHT => unsigned,
        _ => {
            let reason = format!("{weight} is not within 0 to {MAX_WEIGHT}");
            return fail(format!("{path}.weight"), DecodeFault::Invalid(reason));
        }
    };
    let filters = typed.filters.unwrap_or_default();
    let filters = backend_filters(&format!("{path}.filters"), &filters, context)?;
    let reference = Reference {
        group: typed.group,
        kind: typed.kind,
        namespace: typed.namespace,
        name: typed.name,
        port: typed.port,
    };
    Ok(WeightedRef { target: target(path, reference, context.namespace)?, weight, filters })
}
