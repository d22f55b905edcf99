//! `rules` of a route, one by one: a rule that cannot be served is refused alone, with its matches as far
//! as they can be read.

use gateway_api::{
    grpcroutes::GrpcRouteRules,
    httproutes::{HttpRouteRules as Typed, HttpRouteRulesBackendRefs, HttpRouteRulesTimeouts},
};
use serde_json::Value;

use super::{
    DecodeFault, Decoded, Defaults,
    duration::duration,
    fault::{Path, fail},
    filter::{RuleContext, backend_filters, check_rule, filters, same},
    matching::TypedMatch,
    retry::retry as decode_retry,
    route::{Reference, target},
    strict_at,
};
use crate::{
    control::{
        expressions::Allowance,
        objects::{RouteFilter, RouteRule, RuleRefusal, WeightedRef},
    },
    model::RouteKind,
    route::{Matcher, Retry, Timeouts},
};

/// Bound of the API (HTTPBackendRef, `weight`).
const MAX_WEIGHT: i32 = 1_000_000;

/// A rule as it deserialized, with its `retry`; or its document and why it did not.
pub(super) enum RuleDocument {
    /// `matches` of either kind of route; `rest` is the rule without them and `retry`.
    Typed {
        matches: Vec<TypedMatch>,
        rest: Box<Typed>,
        retry: Option<Value>,
    },
    Refused(Value, (Path, DecodeFault)),
}

impl Default for RuleDocument {
    fn default() -> Self {
        Self::Typed { matches: Vec::new(), rest: Box::default(), retry: None }
    }
}

impl RuleDocument {
    /// The rule at a place of a route of this kind.
    pub(super) fn of(kind: RouteKind, at: usize, document: Value, defaults: &Defaults) -> Self {
        let place = place(at);
        let typed = match kind {
            RouteKind::Http => strict_at(&place, &document, defaults).map(Self::http),
            RouteKind::Grpc => {
                strict_at(&place, &document, defaults).and_then(|typed| Self::grpc(at, typed))
            }
        };
        typed.unwrap_or_else(|fault| Self::Refused(document, fault))
    }

    pub(super) fn http(mut typed: Typed) -> Self {
        let matches = typed.matches.take().into_iter().flatten();
        let matches = matches.map(|typed| TypedMatch::Http(typed.into())).collect();
        Self::Typed { matches, rest: typed.into(), retry: None }
    }

    /// But for its matches, a rule of a GRPCRoute is one of an HTTPRoute with fewer fields.
    pub(super) fn grpc(at: usize, mut typed: GrpcRouteRules) -> Decoded<Self> {
        let matches = typed.matches.take().into_iter().flatten();
        let matches = matches.map(TypedMatch::Grpc).collect();
        Ok(Self::Typed { matches, rest: same(&place(at), &typed)?, retry: None })
    }

    /// The same with what its document has as `retry`.
    pub(super) fn with_retry(self, retry: Option<Value>) -> Self {
        match self {
            Self::Typed { matches, rest, .. } => Self::Typed { matches, rest, retry },
            refused @ Self::Refused(..) => refused,
        }
    }
}

fn place(at: usize) -> String {
    format!("spec.rules[{at}]")
}

/// The rule at a place of the route, whose namespace is `namespace`.
pub(super) fn rule(
    kind: RouteKind,
    at: usize,
    document: RuleDocument,
    namespace: &str,
    defaults: &Defaults,
    expressions: &mut Allowance,
) -> RouteRule {
    let path = place(at);
    match document {
        RuleDocument::Typed { matches, rest: mut typed, retry } => {
            let name = typed.name.take();
            let matches = matches.into_iter().enumerate();
            let matches = matches
                .map(|(at, typed)| typed.decode(&format!("{path}.matches[{at}]"), expressions));
            let matches = Matches::of(matches);
            let context = RuleContext::new(namespace, &matches.read);
            let retry = retry.map(|retry| decode_retry(&format!("{path}.retry"), &retry, defaults));
            let effect = Effect::decode(&path, *typed, context, retry);
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
                        TypedMatch::of(kind, &path, document, defaults)?.decode(&path, expressions)
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
    let Effect { filters, backends, timeouts, retry } = match refusal {
        Some(_) => Effect::default(),
        None => effect,
    };
    RouteRule { name, matches, filters, backends, timeouts, retry, refusal }
}

/// What a rule does with the requests that match it.
#[derive(Default)]
struct Effect {
    filters: Vec<RouteFilter>,
    backends: Vec<WeightedRef>,
    timeouts: Timeouts,
    retry: Option<Retry>,
}

impl Effect {
    fn decode(
        path: &str,
        typed: Typed,
        context: RuleContext<'_>,
        retry: Option<Decoded<Option<Retry>>>,
    ) -> Decoded<Self> {
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
            retry: retry.transpose()?.flatten(),
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
