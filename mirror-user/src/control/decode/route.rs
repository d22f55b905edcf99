//! HTTPRoutes.

use gateway_api::httproutes::{
    HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesTimeouts,
    HttpRouteSpec,
};
use serde_json::Value;

use super::{
    DecodeFault, Decoded, GATEWAY, WithSpec, created,
    duration::duration,
    fault::fail,
    filter::{RuleContext, backend_filters, check_rule, filters},
    matching::matcher,
    misgrouped_parents, object_name, port, strict,
};
use crate::{
    control::{
        expressions::Allowance,
        objects::{HttpRoute, Object, ParentRef, RouteRule, TargetRef, WeightedRef},
    },
    model::ObjectName,
    route::Timeouts,
};

/// Bound of the API (HTTPBackendRef, `weight`).
const MAX_WEIGHT: i32 = 1_000_000;

pub(super) fn decode(document: Value, expressions: &mut Allowance) -> Decoded<Object> {
    let misgrouped = misgrouped_parents(&document);
    let WithSpec::<HttpRouteSpec> { metadata, spec } = strict(document)?;
    let name = object_name(&metadata)?;
    let parents = spec.parent_refs.into_iter().flatten().enumerate();
    let parents = parents
        .filter(|(_, parent)| {
            let group = parent.group.as_deref().unwrap_or(GATEWAY);
            is_service(group, parent.kind.as_deref().unwrap_or("Gateway"))
        })
        .map(|(at, typed)| parent(&format!("spec.parentRefs[{at}]"), typed, &name.namespace));
    let parents = parents.collect::<Decoded<_>>()?;
    // The API's default for `rules` is one rule that matches everything.
    let rules = spec.rules.unwrap_or_else(|| vec![HttpRouteRules::default()]);
    let rules = rules.into_iter().enumerate();
    let rules = rules
        .map(|(at, typed)| rule(&format!("spec.rules[{at}]"), typed, &name.namespace, expressions));
    let rules = rules.collect::<Decoded<_>>()?;
    Ok(Object::Route(HttpRoute {
        name,
        created: created(&metadata),
        hostnames: spec.hostnames.unwrap_or_default(),
        parents,
        misgrouped,
        rules,
    }))
}

/// Whether a reference's group and kind name a Service. (`core` is how some write the empty
/// group; the API server's own default for `group` differs between parents and backends.)
pub(super) fn is_service(group: &str, kind: &str) -> bool {
    matches!(group, "" | "core") && kind == "Service"
}

fn parent(path: &str, typed: HttpRouteParentRefs, namespace: &str) -> Decoded<ParentRef> {
    let namespace = typed.namespace.unwrap_or_else(|| namespace.into());
    Ok(ParentRef {
        service: ObjectName { namespace, name: typed.name },
        port: typed.port.map(|number| port(&format!("{path}.port"), number)).transpose()?,
        section: typed.section_name.filter(|section| !section.is_empty()),
    })
}

fn rule(
    path: &str,
    typed: HttpRouteRules,
    namespace: &str,
    expressions: &mut Allowance,
) -> Decoded<RouteRule> {
    let limits = typed.timeouts.map(|typed| timeouts(&format!("{path}.timeouts"), &typed));
    let matches = typed.matches.into_iter().flatten().enumerate();
    let matches = matches
        .map(|(at, typed)| matcher(&format!("{path}.matches[{at}]"), typed, expressions))
        .collect::<Decoded<Vec<_>>>()?;
    let context = RuleContext::new(namespace, &matches);
    let backends = typed.backend_refs.into_iter().flatten().enumerate();
    let rule = RouteRule {
        name: typed.name,
        filters: filters(&format!("{path}.filters"), typed.filters.unwrap_or_default(), context)?,
        backends: backends
            .map(|(at, typed)| backend(&format!("{path}.backendRefs[{at}]"), typed, context))
            .collect::<Decoded<_>>()?,
        timeouts: limits.transpose()?.unwrap_or_default(),
        matches,
    };
    check_rule(path, &rule)?;
    Ok(rule)
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

/// What the references to backends have in common.
pub(super) struct Reference {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<i32>,
}

/// A kind other than Service is not an error of the document: its share of requests gets 500
/// (HTTPRouteRule, `backendRefs`, reason InvalidKind).
pub(super) fn target(path: &str, reference: Reference, namespace: &str) -> Decoded<TargetRef> {
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Service");
    if !is_service(group, kind) {
        return Ok(TargetRef::Other(format!("{group}/{kind}")));
    }
    let path = format!("{path}.port");
    let Some(number) = reference.port else {
        return fail(path, DecodeFault::Missing("a reference to a Service"));
    };
    let namespace = reference.namespace.unwrap_or_else(|| namespace.into());
    let service = ObjectName { namespace, name: reference.name };
    Ok(TargetRef::Service(service, port(&path, number)?))
}
