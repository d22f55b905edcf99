//! HTTPRoutes and GRPCRoutes.

use std::iter;

use gateway_api::{
    grpcroutes::GrpcRouteSpec,
    httproutes::{HttpRouteParentRefs, HttpRouteSpec},
};
use serde_json::Value;

use super::{
    DecodeFault, Decoded, Defaults, GATEWAY, Metadata, WithSpec, created,
    fault::{Path, fail},
    filter::same,
    misgrouped_parents, object_name, port, retry,
    rule::{RuleDocument, rule},
    strict_at,
};
use crate::{
    control::{
        expressions::Allowance,
        objects::{Object, ParentRef, Route, RouteRule, RuleRefusal, TargetRef},
    },
    model::{ObjectName, RouteKind},
};

pub(super) fn decode(
    kind: RouteKind,
    mut document: Value,
    defaults: &Defaults,
    expressions: &mut Allowance,
) -> Decoded<Object> {
    let misgrouped = misgrouped_parents(&document);
    let retries = match kind {
        RouteKind::Http => take_retries(&mut document),
        RouteKind::Grpc => Vec::new(),
    };
    let WholeRoute { metadata, hostnames, parents, rules } =
        match WholeRoute::of(kind, &document, defaults) {
            Ok(route) => route,
            Err(fault) => WholeRoute::in_parts(kind, &mut document, defaults, fault)?,
        };
    let name = object_name(&metadata)?;
    let parents = parents.into_iter().enumerate();
    let parents = parents
        .filter(|(_, parent)| {
            let group = parent.group.as_deref().unwrap_or(GATEWAY);
            is_service(group, parent.kind.as_deref().unwrap_or("Gateway"))
        })
        .map(|(at, typed)| parent(&format!("spec.parentRefs[{at}]"), typed, &name.namespace));
    let parents = parents.collect::<Decoded<_>>()?;
    let retries = retries.into_iter().chain(iter::repeat(None));
    let rules = rules.into_iter().zip(retries).map(|(rule, retry)| rule.with_retry(retry));
    let rules: Vec<_> = rules
        .enumerate()
        .map(|(at, document)| rule(kind, at, document, &name.namespace, defaults, expressions))
        .collect();
    if let Some(refusal) = refusal_of_all(&rules) {
        return fail(&refusal.path, refusal.fault.clone());
    }
    let name = kind.named(name);
    Ok(Object::Route(Route {
        name,
        created: created(&metadata),
        hostnames,
        parents,
        misgrouped,
        rules,
    }))
}

/// Takes `retry` out of each rule, in their order.
fn take_retries(document: &mut Value) -> Vec<Option<Value>> {
    let rules = document.pointer_mut("/spec/rules").and_then(Value::as_array_mut);
    rules.into_iter().flatten().map(retry::take).collect()
}

/// A route of which no rule can be served is not in force (condition Accepted): its first refusal. None
/// if any rule can be.
fn refusal_of_all(rules: &[RouteRule]) -> Option<&RuleRefusal> {
    let refusals: Option<Vec<_>> = rules.iter().map(|rule| rule.refusal.as_ref()).collect();
    refusals?.first().copied()
}

/// A route and its rules, each as it deserialized or did not.
struct WholeRoute {
    metadata: Metadata,
    hostnames: Vec<String>,
    parents: Vec<HttpRouteParentRefs>,
    rules: Vec<RuleDocument>,
}

impl WholeRoute {
    /// One that deserializes as a whole.
    fn of(kind: RouteKind, document: &Value, defaults: &Defaults) -> Decoded<Self> {
        match kind {
            RouteKind::Http => {
                let WithSpec { metadata, spec } =
                    strict_at::<WithSpec<HttpRouteSpec>>("", document, defaults)?;
                let rules = spec.rules.map(|rules| rules.into_iter().map(RuleDocument::http));
                Ok(Self {
                    metadata,
                    hostnames: spec.hostnames.unwrap_or_default(),
                    parents: spec.parent_refs.unwrap_or_default(),
                    // The API's default for `rules` is one rule that matches everything.
                    rules: rules.map_or_else(|| vec![RuleDocument::default()], Iterator::collect),
                })
            }
            RouteKind::Grpc => {
                let WithSpec { metadata, spec } =
                    strict_at::<WithSpec<GrpcRouteSpec>>("", document, defaults)?;
                let rules = spec.rules.into_iter().flatten().enumerate();
                Ok(Self {
                    metadata,
                    hostnames: spec.hostnames.unwrap_or_default(),
                    parents: same("spec.parentRefs", &spec.parent_refs.unwrap_or_default())?,
                    rules: rules
                        .map(|(at, typed)| RuleDocument::grpc(at, typed))
                        .collect::<Decoded<_>>()?,
                })
            }
        }
    }

    /// One that does not deserialize as a whole, because of `fault`: its rules one by one.
    fn in_parts(
        kind: RouteKind,
        document: &mut Value,
        defaults: &Defaults,
        fault: (Path, DecodeFault),
    ) -> Decoded<Self> {
        let rules = document.pointer_mut("/spec/rules").map(Value::take);
        let (Some(Value::Array(rules)), Ok(route)) = (rules, Self::of(kind, document, defaults))
        else {
            return Err(fault);
        };
        let rules = rules.into_iter().enumerate();
        let rules: Vec<_> =
            rules.map(|(at, rule)| RuleDocument::of(kind, at, rule, defaults)).collect();
        let typed = |rule: &RuleDocument| matches!(rule, RuleDocument::Typed { .. });
        if rules.iter().any(typed) { Ok(Self { rules, ..route }) } else { Err(fault) }
    }
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
