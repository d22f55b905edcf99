//! What the API forbids of filters that are each valid: of a list, and of a rule and its backends.

use gateway_api::httproutes::{HttpRouteRulesFilters as Typed, HttpRouteRulesFiltersType as Type};

use crate::{
    control::{
        decode::{DecodeFault, Decoded, fault::fail},
        objects::{RouteFilter, WeightedRef},
    },
    route::{PathModifier, Rewrite},
};

/// Bound of the API (HTTPRouteRule and HTTPBackendRef, `filters`).
const MAX_FILTERS: usize = 16;

/// Which types stand in one list.
pub(super) fn check(path: &str, filters: &[Typed]) -> Decoded<()> {
    let has = |wanted: &Type| filters.iter().any(|filter| filter.r#type == *wanted);
    if has(&Type::RequestRedirect) && has(&Type::UrlRewrite) {
        let reason = "RequestRedirect and URLRewrite exclude each other within a rule".to_owned();
        return fail(path, DecodeFault::Incompatible(reason));
    }
    if filters.len() > MAX_FILTERS {
        let reason = format!("{} filters: the API allows {MAX_FILTERS}", filters.len());
        return fail(path, DecodeFault::Invalid(reason));
    }
    for (at, filter) in filters.iter().enumerate() {
        let repeats = matches!(filter.r#type, Type::RequestMirror | Type::ExtensionRef);
        let before = || filters[..at].iter().position(|other| other.r#type == filter.r#type);
        if !repeats && let Some(first) = before() {
            let reason = format!(
                "filters[{first}] has this type already, and only RequestMirror and ExtensionRef may \
                 be repeated"
            );
            return fail(format!("{path}[{at}].type"), DecodeFault::Invalid(reason));
        }
    }
    Ok(())
}

/// Whether the filters of a rule, those of its backends and the backends fit together.
pub(in crate::control::decode) fn check_rule(
    path: &str,
    filters: &[RouteFilter],
    backend_refs: &[WeightedRef],
) -> Decoded<()> {
    let has =
        |filters: &[RouteFilter], wanted: fn(&RouteFilter) -> bool| filters.iter().any(wanted);
    let redirects = |filter: &RouteFilter| matches!(filter, RouteFilter::Redirect(_));
    let mirrors = |filter: &RouteFilter| matches!(filter, RouteFilter::Mirror(..));
    let backends = format!("{path}.backendRefs");
    match (has(filters, redirects), backend_refs.is_empty()) {
        (true, false) => {
            let reason = "a rule with RequestRedirect has no backendRefs, because none of them would \
                          get a request: remove either";
            return fail(backends, DecodeFault::Incompatible(reason.into()));
        }
        // Requests that match a rule without `backendRefs` get 500 (HTTPRouteRule, `backendRefs`). If the
        // rule mirrors, each would get 500 while its copy is sent: that is hardly intended.
        (false, true) if has(filters, mirrors) => {
            let reason = "is missing or empty: a rule that mirrors requests must name the Service \
                          that responds to them (often the parent itself); without one they would \
                          get 500";
            return fail(backends, DecodeFault::Invalid(reason.into()));
        }
        _ => {}
    }
    backend_refs
        .iter()
        .enumerate()
        .try_for_each(|(at, backend)| rewritten(&backends, at, filters, &backend.filters))
}

/// A backend's filters act on what the rule's have left: a path that is replaced has no prefix that
/// the rule's match holds for.
fn rewritten(
    path: &str,
    at: usize,
    of_rule: &[RouteFilter],
    filters: &[RouteFilter],
) -> Decoded<()> {
    let rewrite = of_rule.iter().find_map(|filter| match filter {
        RouteFilter::Rewrite(rewrite) => Some(rewrite),
        _ => None,
    });
    let Some(rewrite) = rewrite else { return Ok(()) };
    let by_prefix = |own: &Rewrite| matches!(own.path, Some(PathModifier::Prefix { .. }));
    let reason = filters.iter().find_map(|filter| match filter {
        RouteFilter::Redirect(_) => {
            Some("RequestRedirect is not combined with the rule's URLRewrite: remove either")
        }
        RouteFilter::Rewrite(own) if by_prefix(own) && rewrite.path.is_some() => Some(
            "replacePrefixMatch finds no prefix here, because the rule's URLRewrite has replaced \
                  the path before: remove either",
        ),
        _ => None,
    });
    match reason {
        Some(reason) => {
            fail(format!("{path}[{at}].filters"), DecodeFault::Incompatible(reason.into()))
        }
        None => Ok(()),
    }
}
