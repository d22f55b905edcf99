//! Which frontends, rules and conditions follow from which objects.

use http::Request;

use super::*;

mod addresses;
mod kinds;
use crate::{
    control::{
        decode::{Defaults, decode, decode_within, expand},
        expressions::Allowance,
        objects::Kind,
    },
    model::{ObjectName, RouteKind},
    route::{Backend, Filter, Fraction, InvalidBackend},
};

const HTTP: Kind = Kind::Route(RouteKind::Http);

const SERVICES: &str = include_str!("../../../tests/fixtures/services.yaml");
const DEFAULT: &str = include_str!("../../../tests/fixtures/route-default.yaml");
const MIRROR: &str = include_str!("../../../tests/fixtures/route-mirror.yaml");

fn objects(texts: &[&str]) -> Objects {
    let mut objects = Objects::default();
    for text in texts {
        for document in serde_saphyr::from_multiple(text).unwrap() {
            for member in expand(document) {
                objects.insert(decode(member).unwrap());
            }
        }
    }
    objects
}

fn resolved(texts: &[&str]) -> Resolved {
    resolve(&AddressPolicy::default(), &objects(texts))
}

/// Namespace `default` lets routes have endpoints' addresses.
const CONSENT: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: \
                       {mirror.dev/endpoint-frontends: enabled}}}\n---\n";

/// A Service `ns/name` with one port 80 called http, and one ready endpoint.
fn service(namespace: &str, name: &str, address: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}}}, \
         spec: {{clusterIP: {address}, ports: [{{name: http, port: 80}}]}}}}\n---\n\
         {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: \
         {namespace}, name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}, \
         addressType: IPv4, ports: [{{name: http, port: 8080}}], \
         endpoints: [{{addresses: [10.244.0.9]}}]}}\n---\n"
    )
}

/// A route `ns/name` at the parent, with one rule.
fn route(namespace: &str, name: &str, parent: &str, rule: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: \
         {namespace}, name: {name}}}, spec: {{parentRefs: [{{group: '', kind: Service, \
         {parent}}}], rules: [{rule}]}}}}\n---\n"
    )
}

fn found<'t>(table: &'t RouteTable, uri: &str) -> Option<&'t Arc<crate::route::Rule>> {
    table.find(&Request::builder().uri(uri).body(()).unwrap().into_parts().0)
}

fn backend(table: &RouteTable, uri: &str) -> Result<Arc<Backend>, InvalidBackend> {
    found(table, uri).unwrap().backends.choose(0).unwrap().target.clone()
}

fn producer(resolved: &Resolved) -> &RouteTable {
    resolved.frontends[0].producer.as_ref().unwrap()
}

#[test]
fn the_walkthrough_without_a_route_has_no_frontend() {
    let resolved = resolved(&[SERVICES]);
    assert!(resolved.frontends.is_empty() && resolved.conditions.is_empty());
    assert_eq!(resolved.warnings, []);
}

#[test]
fn the_walkthroughs_default_route() {
    let resolved = resolved(&[SERVICES, DEFAULT]);
    assert_eq!(resolved.warnings, []);
    let [frontend] = &resolved.frontends[..] else { panic!("{:?}", resolved.frontends) };
    assert_eq!(frontend.address, "10.96.0.10:8000".parse().unwrap());
    assert_eq!(frontend.service.to_string(), "default/httpbin:8000");
    assert!(frontend.consumers.is_empty());
    let backend = backend(producer(&resolved), "/headers").unwrap();
    assert_eq!(backend.service.to_string(), "default/httpbin-v1:80");
    assert_eq!(backend.endpoints, ["10.244.1.11:80".parse().unwrap()]);
    let [status] = &resolved.conditions[..] else { panic!("{:?}", resolved.conditions) };
    assert_eq!((status.accepted.holds, status.accepted.reason), (true, "Accepted"));
    assert_eq!((status.resolved_refs.holds, status.resolved_refs.reason), (true, "ResolvedRefs"));
}

#[test]
fn the_walkthroughs_mirror_leads_to_the_ready_endpoint_alone() {
    let resolved = resolved(&[SERVICES, MIRROR]);
    let rule = found(producer(&resolved), "/headers").unwrap();
    let [Filter::Mirror(mirror)] = &rule.filters[..] else { panic!("{:?}", rule.filters) };
    assert_eq!(mirror.share, Fraction::ALL);
    let shadow = mirror.target.as_ref().unwrap();
    assert_eq!(shadow.service.to_string(), "default/httpbin-v2:80");
    assert_eq!(shadow.endpoints, ["10.244.1.12:80".parse().unwrap()]);
}

#[test]
fn what_a_cluster_prints_resolves_with_its_warnings() {
    let resolved = resolved(&[include_str!("../../../tests/fixtures/from-cluster.yaml")]);
    assert_eq!(resolved.frontends[0].address, "10.96.0.20:8000".parse().unwrap());
    assert_eq!(resolved.conditions[0].resolved_refs.reason, "BackendNotFound");
    assert!(resolved.conditions[0].accepted.message.contains("hostnames have no effect"));
    assert!(resolved.warnings[0].message.contains("hostnames"), "{:?}", resolved.warnings);
}

#[test]
fn consumer_routes_replace_producer_routes_for_their_own_namespace() {
    let text = service("shop", "a", "10.0.0.1")
        + &service("client", "b", "10.0.0.2")
        + &route("shop", "p", "name: a", "{backendRefs: [{name: a, port: 80}]}")
        + &route("client", "c", "name: a, namespace: shop", "{backendRefs: [{name: b, port: 80}]}");
    let resolved = resolved(&[&text]);
    let frontend = &resolved.frontends[0];
    let consumer = &frontend.consumers["client"];
    assert_eq!(backend(consumer, "/").unwrap().service.to_string(), "client/b:80");
    assert_eq!(backend(producer(&resolved), "/").unwrap().service.to_string(), "shop/a:80");
    assert_eq!(resolved.frontends.len(), 1);
}

#[test]
fn routes_of_one_service_merge_by_precedence() {
    let text = service("default", "a", "10.0.0.1")
        + &route("default", "z", "name: a", "{matches: [{path: {value: /foo}}]}")
        + &route(
            "default",
            "x",
            "name: a",
            "{matches: [{path: {value: /foo}}, {path: {value: /}}]}",
        );
    let resolved = resolved(&[&text]);
    assert_eq!(
        found(producer(&resolved), "/foo/x").unwrap().route.object.name,
        "x",
        "alphabetical"
    );
    assert_eq!(found(producer(&resolved), "/").unwrap().route.object.name, "x");
    assert!(resolved.warnings.iter().all(|w| w.message.contains("no backendRefs")));
    assert_eq!(resolved.warnings.len(), 2);
}

#[test]
fn parents_choose_ports() {
    let services = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, \
         ports: [{name: one, port: 1}, {name: two, port: 2}, {name: udp, port: 3, protocol: UDP}]}}\n---\n";
    let ports = |parent: &str| {
        let rule = "{backendRefs: [{name: a, port: 1}]}";
        let resolved = resolved(&[services, &route("default", "r", parent, rule)]);
        let accepted = &resolved.conditions[0].accepted;
        let ports: Vec<_> = resolved.frontends.iter().map(|f| f.address.port()).collect();
        assert_eq!(accepted.holds, !ports.is_empty(), "{accepted:?}");
        (ports, accepted.message.clone())
    };
    assert_eq!(ports("name: a").0, [1, 2]);
    assert_eq!(ports("name: a, port: 2").0, [2]);
    assert_eq!(ports("name: a, sectionName: one").0, [1]);
    assert!(ports("name: a, port: 3").1.contains("no TCP port 3"));
    assert!(ports("name: a, port: 1, sectionName: two").1.contains("no TCP port 1 named two"));
    assert!(ports("name: nobody").1.contains("default/nobody does not exist"));
}

#[test]
fn a_route_with_two_parents_that_mean_one_port_attaches_once() {
    let parents = "name: a}, {group: '', kind: Service, name: a, port: 80";
    let mut objects = objects(&[&service("default", "a", "10.0.0.1")]);
    let text = route("default", "r", parents, "{backendRefs: [{name: a, port: 80}]}");
    // The CRD of the experimental channel takes it.
    let route = serde_saphyr::from_multiple(&text).unwrap().remove(0);
    let route = decode_within(route, &Defaults::default(), &mut Allowance::default());
    objects.insert(route.unwrap());
    let resolved = resolve(&AddressPolicy::default(), &objects);
    assert_eq!(resolved.conditions.len(), 2);
    assert_eq!(producer(&resolved).entries().len(), 1);
}

#[test]
fn a_service_without_an_address_says_what_to_add() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let text = service("default", "a", "''") + &route("default", "r", "name: a", rule);
    let resolved = resolved(&[&text]);
    assert!(resolved.frontends.is_empty());
    assert!(resolved.conditions[0].accepted.message.contains("add spec.clusterIP"));
}

#[test]
fn a_headless_services_frontends_are_its_endpoints() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let text = service("default", "a", "None")
        + &service("default", "b", "None")
        + &route("default", "r", "name: a", rule)
        + &route("default", "s", "name: b", rule);
    let resolved = resolved(&[CONSENT, &text]);
    let [frontend] = &resolved.frontends[..] else { panic!("{:?}", resolved.frontends) };
    assert_eq!(frontend.address, "10.244.0.9:8080".parse().unwrap());
    assert_eq!(frontend.service.to_string(), "default/a:80");
    assert!(resolved.warnings[0].message.contains("already belongs to default/a:80"));
    let [r, s] = &resolved.conditions[..] else { panic!("{:?}", resolved.conditions) };
    assert_eq!((r.accepted.holds, r.accepted.reason), (true, "Accepted"));
    assert_eq!((s.accepted.holds, s.accepted.reason), (false, "Conflicted"));
    assert!(s.accepted.message.contains("default/a:80"), "{}", s.accepted.message);
}

#[test]
fn a_route_of_which_one_address_is_its_own_is_no_conflict() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let more = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: b2, labels: \
                {kubernetes.io/service-name: b}}, addressType: IPv4, ports: [{name: http, port: \
                8080}], endpoints: [{addresses: [10.244.0.10]}]}\n---\n";
    let text = service("default", "a", "None")
        + &service("default", "b", "None")
        + more
        + &route("default", "r", "name: a", rule)
        + &route("default", "s", "name: b", rule);
    let resolved = resolved(&[CONSENT, &text]);
    assert!(resolved.conditions.iter().all(|status| status.accepted.holds));
    assert_eq!(resolved.frontends.len(), 2);
}

#[test]
fn rules_with_and_without_references_that_lead_nowhere_are_partially_invalid() {
    let (good, bad) =
        ("{backendRefs: [{name: a, port: 80}]}", "{backendRefs: [{name: none, port: 80}]}");
    let partial = |rules: &str| {
        let text = service("default", "a", "10.0.0.1") + &route("default", "r", "name: a", rules);
        resolved(&[&text]).conditions[0].partially_invalid.clone()
    };
    assert_eq!(partial(good), None);
    assert_eq!(partial(bad), None, "all of it is, which ResolvedRefs says");
    let condition = partial(&format!("{good}, {bad}")).unwrap();
    assert_eq!((condition.holds, condition.reason), (true, "BackendNotFound"));
    assert!(condition.message.starts_with("Dropped Rule"), "{}", condition.message);
    assert!(condition.message.contains("spec.rules[1]:"), "{}", condition.message);
}

#[test]
fn a_refused_rule_is_dropped_and_its_requests_get_no_broader_rule() {
    let rules = "{backendRefs: [{name: a, port: 80}]}, {matches: [{path: {value: /x}}], future: 1}, \
                 {matches: [{path: {value: why}}], future: 1}";
    let text = service("default", "a", "10.0.0.1") + &route("default", "r", "name: a", rules);
    let resolved = resolved(&[&text]);
    let status = &resolved.conditions[0];
    assert!(status.accepted.holds && status.resolved_refs.holds);
    let partial = status.partially_invalid.as_ref().unwrap();
    assert_eq!((partial.holds, partial.reason), (true, "UnsupportedValue"));
    let unread = "spec.rules[2].matches[0].path.value: \"why\" does not start with a slash";
    for part in ["spec.rules[1].future: unknown field", unread] {
        assert!(partial.message.contains(part), "{}", partial.message);
    }
    assert!(partial.message.starts_with("Dropped Rule"), "{}", partial.message);
    let table = resolved.frontends[0].producer.as_ref().unwrap();
    assert!(backend(table, "/").is_ok());
    let refused = backend(table, "/x/1").unwrap_err();
    assert!(matches!(refused, InvalidBackend::RefusedRule(_)), "{refused}");
    assert!(backend(table, "/why").is_ok(), "its matches cannot be read");
}

/// A slice of IPv6 endpoints for a Service of the namespace `default`.
fn slice_v6(service: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {service}-v6, \
         labels: {{kubernetes.io/service-name: {service}}}}}, addressType: IPv6, ports: \
         [{{name: http, port: 8080}}], endpoints: [{{addresses: ['fd00:244::9']}}]}}\n---\n"
    )
}

#[test]
fn a_dual_stack_service_has_a_frontend_of_each_family_with_the_same_routes() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let text = service("default", "a", "10.0.0.1").replace(
        "clusterIP: 10.0.0.1",
        "clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00:96::1']",
    ) + &slice_v6("a")
        + &route("default", "r", "name: a", rule);
    let resolved = resolved(&[&text]);
    let addresses: Vec<_> = resolved.frontends.iter().map(|f| f.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:80", "[fd00:96::1]:80"]);
    for frontend in &resolved.frontends {
        let backend = backend(frontend.producer.as_ref().unwrap(), "/").unwrap();
        let [v4, v6] = ["10.244.0.9:8080", "[fd00:244::9]:8080"].map(|a| a.parse().unwrap());
        assert_eq!(backend.endpoints, [v4, v6], "IPv4 first");
    }
    assert_eq!(resolved.warnings, []);
}

#[test]
fn a_headless_services_frontends_are_of_both_families() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let text =
        service("default", "a", "None") + &slice_v6("a") + &route("default", "r", "name: a", rule);
    let resolved = resolved(&[CONSENT, &text]);
    let addresses: Vec<_> = resolved.frontends.iter().map(|f| f.address.to_string()).collect();
    assert_eq!(addresses, ["10.244.0.9:8080", "[fd00:244::9]:8080"]);
}

#[test]
fn references_that_lead_nowhere_say_why() {
    let grant = "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, \
         metadata: {namespace: other, name: g}, spec: {from: [{group: gateway.networking.k8s.io, \
         kind: HTTPRoute, namespace: default}], to: [{group: '', kind: Service, name: granted}]}}\n---\n";
    let tls = "{apiVersion: v1, kind: Service, metadata: {name: tls}, spec: {clusterIP: 10.0.0.5, \
         ports: [{port: 443, appProtocol: https}]}}\n---\n";
    let services = service("default", "a", "10.0.0.1")
        + &service("other", "granted", "10.0.0.2")
        + &service("other", "secret", "10.0.0.3")
        + grant
        + tls
        + "{apiVersion: v1, kind: Service, metadata: {name: out}, spec: {type: ExternalName, \
           externalName: a.example, ports: [{port: 80}]}}\n---\n";
    for (reference, of_primary, of_shadow) in [
        ("name: a, port: 80", "ResolvedRefs", "ResolvedRefs"),
        ("name: a, port: 81", "BackendNotFound", "BackendNotFound"),
        ("name: nobody, port: 80", "BackendNotFound", "BackendNotFound"),
        ("name: granted, namespace: other, port: 80", "ResolvedRefs", "ResolvedRefs"),
        // A primary in another namespace needs no grant, because it is reached from the client's.
        ("name: secret, namespace: other, port: 80", "ResolvedRefs", "RefNotPermitted"),
        ("name: nobody, namespace: other, port: 80", "BackendNotFound", "RefNotPermitted"),
        ("name: a, kind: Bucket, group: x, port: 80", "InvalidKind", "InvalidKind"),
        ("name: tls, port: 443", "UnsupportedProtocol", "UnsupportedProtocol"),
        ("name: out, port: 80", "UnsupportedValue", "UnsupportedValue"),
    ] {
        let primary = format!("{{backendRefs: [{{{reference}}}]}}");
        let shadow = format!(
            "{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{{reference}}}}}}}], \
             backendRefs: [{{name: a, port: 80}}]}}"
        );
        for (rule, reason) in [(primary, of_primary), (shadow, of_shadow)] {
            let resolved = resolved(&[&services, &route("default", "r", "name: a", &rule)]);
            let refs = &resolved.conditions[0].resolved_refs;
            assert_eq!(refs.reason, reason, "{reference}: {}", refs.message);
            assert_eq!(refs.holds, reason == "ResolvedRefs");
            assert_eq!(resolved.frontends.len(), 1, "the route holds all the same");
        }
    }
}

#[test]
fn an_external_name_is_no_parent() {
    let text = "{apiVersion: v1, kind: Service, metadata: {name: out}, spec: {type: ExternalName, \
                externalName: a.example, ports: [{port: 80}]}}\n---\n";
    let route = route("default", "r", "name: out", "{backendRefs: [{name: out, port: 80}]}");
    let resolved = resolved(&[text, &route]);
    let accepted = &resolved.conditions[0].accepted;
    assert_eq!((accepted.holds, accepted.reason), (false, "NoMatchingParent"));
    assert!(accepted.message.contains("ExternalName"), "{}", accepted.message);
    assert!(resolved.frontends.is_empty());
}

#[test]
fn weights_and_header_filters_reach_the_rule() {
    let rule = "{backendRefs: [{name: a, port: 80, weight: 0}, {name: a, port: 80, weight: 3, \
                filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '1'}]}}]}]}";
    let text = service("default", "a", "10.0.0.1") + &route("default", "r", "name: a", rule);
    let resolved = resolved(&[&text]);
    let rule = found(producer(&resolved), "/").unwrap();
    let chosen = rule.backends.choose(0).unwrap();
    assert_eq!(chosen.weight, 3);
    assert!(matches!(&chosen.filters[..], [Filter::RequestHeaders(m)] if m.set[0].0 == "x-a"));
}

#[test]
fn slices_without_a_label_and_backends_without_slices_are_reported() {
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: lost}, \
                 addressType: IPv4, ports: [], endpoints: []}\n---\n";
    let lonely = "{apiVersion: v1, kind: Service, metadata: {name: lonely}, spec: {clusterIP: 10.0.0.1, \
                  ports: [{port: 80}]}}\n---\n";
    let rule = "{backendRefs: [{name: lonely, port: 80}]}";
    let resolved = resolved(&[slice, lonely, &route("default", "r", "name: lonely", rule)]);
    let messages: Vec<_> = resolved.warnings.iter().map(|w| w.message.as_str()).collect();
    assert!(messages[0].contains("kubernetes.io/service-name"), "{messages:?}");
    assert!(messages[1].contains("no EndpointSlice"), "{messages:?}");
    assert!(messages[1].contains("503"), "{messages:?}");
}

#[test]
fn a_shadow_without_slices_costs_copies_and_no_request() {
    let lonely = "{apiVersion: v1, kind: Service, metadata: {name: lonely}, spec: {clusterIP: 10.0.0.1, \
                  ports: [{port: 80}]}}\n---\n";
    let rule = "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: lonely, port: 80}}}], \
                backendRefs: [{name: httpbin, port: 80}]}";
    let primary = service("default", "httpbin", "10.96.0.10");
    let resolved = resolved(&[&primary, lonely, &route("default", "r", "name: httpbin", rule)]);
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert_eq!(warning.object, "Service default/lonely");
    assert!(warning.message.contains("no EndpointSlice"), "{warning:?}");
    assert!(warning.message.contains("its copies are dropped"), "{warning:?}");
    assert!(!warning.message.contains("503"), "{warning:?}");
}

#[test]
fn a_headless_backend_is_said_in_the_status() {
    let headless = service("default", "b", "None");
    let rule = "{backendRefs: [{name: b, port: 80}]}";
    let resolved = resolved(&[
        &service("default", "a", "10.0.0.1"),
        &headless,
        &route("default", "r", "name: a", rule),
    ]);
    let refs = &resolved.conditions[0].resolved_refs;
    assert!(refs.holds, "{refs:?}");
    let expected = "Service default/b is headless: mirror itself chooses among its endpoints";
    assert!(refs.message.ends_with(expected), "{refs:?}");
}

#[test]
fn a_parent_without_its_group_is_a_warning_for_as_long_as_it_is_there() {
    let wrong =
        route("default", "r", "name: httpbin", "{backendRefs: [{name: httpbin, port: 80}]}")
            .replace("group: '', ", "");
    let mut objects = objects(&[&service("default", "httpbin", "10.96.0.10"), &wrong]);
    let mut resolver = Resolver::new(AddressPolicy::default());
    let mut warnings = |objects: &Objects, changes: &Changes| {
        drop(resolver.update(objects, changes));
        let warnings = resolver.warnings(objects);
        warnings.iter().map(|w| format!("{}: {}", w.object, w.message)).collect::<Vec<_>>()
    };
    let [warning] = &warnings(&objects, &Changes::all(&objects))[..] else { panic!("one") };
    assert!(warning.starts_with("HTTPRoute default/r: spec.parentRefs[0]"), "{warning}");
    assert!(warning.ends_with("write group: \"\" for kind: Service"), "{warning}");
    let name = ObjectName { namespace: "default".into(), name: "r".into() };
    let mut changes = Changes::default();
    // The same again changes nothing; a list in which it is absent removes it.
    objects.apply(
        decode(serde_saphyr::from_multiple(&wrong).unwrap().remove(0)).unwrap(),
        &mut changes,
    );
    assert!(changes.is_empty());
    assert!(objects.names(HTTP).eq([&name]));
    objects.remove(HTTP, &name, &mut changes);
    assert!(!changes.is_empty());
    assert!(warnings(&objects, &changes).is_empty());
}

/// The Service above with the label.
fn labelled(address: &str, value: &str) -> String {
    let label = format!("name: httpbin, labels: {{mirror.dev/capture: {value}}}}}, spec");
    service("default", "httpbin", address).replacen("name: httpbin}, spec", &label, 1)
}

#[test]
fn a_service_with_the_label_is_a_frontend_before_it_has_a_route() {
    let text = labelled("10.96.0.10", "enabled");
    let ahead = resolved(&[&text]);
    let [frontend] = &ahead.frontends[..] else { panic!("{:?}", ahead.frontends) };
    assert_eq!(frontend.address, "10.96.0.10:80".parse().unwrap());
    assert!(frontend.ahead && frontend.producer.is_none() && frontend.consumers.is_empty());
    let rule = "{backendRefs: [{name: httpbin, port: 80}]}";
    let routed = resolved(&[&text, &route("default", "r", "name: httpbin", rule)]);
    let [frontend] = &routed.frontends[..] else { panic!("{:?}", routed.frontends) };
    assert!(frontend.ahead && frontend.producer.is_some());
    assert_eq!(ahead.warnings, []);
}

#[test]
fn another_value_of_the_label_captures_nothing_and_is_reported_unless_it_is_disabled() {
    let wrong = resolved(&[&labelled("10.96.0.10", "'yes'")]);
    assert!(wrong.frontends.is_empty());
    let [warning] = &wrong.warnings[..] else { panic!("{:?}", wrong.warnings) };
    assert_eq!(warning.object, "Service default/httpbin");
    assert!(warning.message.contains("mirror.dev/capture=yes"), "{}", warning.message);
    let off = resolved(&[&labelled("10.96.0.10", "disabled")]);
    assert!(off.frontends.is_empty() && off.warnings.is_empty());
}
