//! What matters of a CustomResourceDefinition: whether its schema keeps what routes say, and what it adds.

use serde_json::{Value, value::RawValue};

use super::kinds::Watched;
use crate::{control::decode::Defaults, model::RouteKind};

/// From a served version to the properties of a RequestMirror filter.
const MIRROR: &str = "/schema/openAPIV3Schema/properties/spec/properties/rules/items/properties/\
                      filters/items/properties/requestMirror/properties";

/// A CRD that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crd {
    /// The version that is watched is served.
    served: bool,
    /// Fields of a RequestMirror filter that its schema does not have.
    lacks: Vec<&'static str>,
    /// Of a route's schema.
    defaults: Defaults,
}

impl Crd {
    /// One that is not as expected lacks nothing: it is the API server that reads it.
    pub(crate) fn read(object: &RawValue) -> Self {
        let crd: Value = serde_json::from_str(object.get()).unwrap_or_default();
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        let kind = crd.pointer("/spec/names/kind").and_then(Value::as_str);
        let is_route = kind.and_then(RouteKind::of).is_some();
        let wanted = if is_route { "v1" } else { "v1beta1" };
        let version = versions.into_iter().flatten().find(|version| {
            version["name"] == wanted && version["served"].as_bool().unwrap_or_default()
        });
        let schema = version.filter(|_| is_route);
        let schema = schema.and_then(|version| version.pointer("/schema/openAPIV3Schema"));
        let mirror = version.filter(|_| is_route).and_then(|version| version.pointer(MIRROR));
        let lacks = |field: &&str| mirror.is_some_and(|mirror| mirror.get(field).is_none());
        Self {
            served: version.is_some(),
            lacks: ["percent", "fraction"].into_iter().filter(lacks).collect(),
            defaults: schema.map(Defaults::of_schema).unwrap_or_default(),
        }
    }

    /// What the API server writes into routes whose authors wrote nothing there.
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// A warning that there is none, as text. (Who installed no GRPCRoutes wants none.)
    pub(crate) fn missing(kind: Watched) -> Option<String> {
        let text = format!(
            "CustomResourceDefinition of {} does not exist, so that no {0} is in force: install Gateway \
             API v1.3 or later",
            kind.label()
        );
        (kind != Watched::Route(RouteKind::Grpc)).then_some(text)
    }

    /// A warning about it, as text.
    pub(crate) fn warning(&self, kind: Watched) -> Option<String> {
        let name = format!("CustomResourceDefinition of {}", kind.label());
        if !self.served {
            let version = kind.resource("").api_version;
            return Some(format!("{name}: {version} is not served: reinstall the Gateway API"));
        }
        let fields = self.lacks.join(" and ");
        (!fields.is_empty()).then(|| {
            format!(
                "{name}: its schema lacks {fields} of RequestMirror, so that the API server drops \
                 them and a mirror of 10 percent becomes one of 100: install Gateway API v1.3 or \
                 later"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn crd(kind: &str, version: &str, served: bool, mirror: &Value) -> Crd {
        let mut schema = json!({"requestMirror": {"properties": mirror}});
        for step in ["filters", "rules", "spec"] {
            let items = json!({"items": {"properties": schema}});
            schema = match step {
                "spec" => json!({"spec": {"properties": schema}}),
                step => json!({step: items}),
            };
        }
        let object = json!({"spec": {"names": {"kind": kind}, "versions": [
            {"name": "v1alpha1", "served": true},
            {"name": version, "served": served,
                "schema": {"openAPIV3Schema": {"properties": schema}}}]}});
        Crd::read(&to_raw_value(&object).unwrap())
    }

    #[test]
    fn a_schema_without_percent_is_warned_of() {
        let whole = json!({"backendRef": {}, "percent": {}, "fraction": {}});
        assert_eq!(
            crd("HTTPRoute", "v1", true, &whole).warning(Watched::Route(RouteKind::Http)),
            None
        );
        let old = crd("HTTPRoute", "v1", true, &json!({"backendRef": {}}));
        let warning = old.warning(Watched::Route(RouteKind::Http)).unwrap();
        assert!(warning.contains("lacks percent and fraction"), "{warning}");
        let unserved =
            crd("HTTPRoute", "v1", false, &whole).warning(Watched::Route(RouteKind::Http)).unwrap();
        assert!(unserved.contains("gateway.networking.k8s.io/v1 is not served"), "{unserved}");
        let grant = crd("ReferenceGrant", "v1beta1", true, &json!({}));
        assert_eq!(grant.warning(Watched::Grant), None);
    }

    #[test]
    fn anything_else_is_no_panic() {
        for odd in [json!(7), json!({"spec": []}), json!({"spec": {"versions": [1, {"name": 2}]}})]
        {
            assert!(!Crd::read(&to_raw_value(&odd).unwrap()).served);
        }
    }
}
