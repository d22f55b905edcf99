//! Verdicts over texts: what is found, where, and how severe it is.

use super::{report::Severity, *};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: shop, port: 80}]
  rules:
  - backendRefs: [{name: shop, port: 80}]
";

/// As a user writes it: the cluster assigns the address.
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80}]}
";

fn report(texts: &[&str], assume: bool) -> CheckReport {
    let mut input = Input::default();
    for (number, text) in (1..).zip(texts) {
        input.add(format!("{number}.yaml"), false, Ok((*text).to_owned()));
    }
    examine(input, SourceKind::Files, assume)
}

fn found(texts: &[&str]) -> Vec<String> {
    report(texts, false).findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_route_and_a_service_as_users_write_them_are_no_problem() {
    let report = report(&[ROUTE, SERVICE], false);
    assert_eq!(report.to_string(), "2 files, 1 route, 0 errors, 0 warnings\n");
    assert!(report.passes(true));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["routes"][0]["conditions"][0]["type"], "Accepted");
    assert_eq!(json["routes"][0]["conditions"][0]["status"], true);
    assert_eq!(json["routes"][0]["parent"], "default/shop:80");
}

#[test]
fn every_refused_object_is_reported_with_its_place_and_not_the_first_alone() {
    let typo = ROUTE.replace("backendRefs", "backends");
    let filter = ROUTE
        .replace("name: r", "name: q")
        .replace("  - backendRefs", "  - filters: [{type: ExtensionRef, extensionRef: {group: g, kind: k, name: n}}]\n    backendRefs");
    let text = format!("{SERVICE}---\n{typo}---\n{filter}");
    assert_eq!(
        found(&[&text]),
        [
            "1.yaml:6: error: HTTPRoute default/r: spec.rules[0].backends: unknown field \
             [Accepted=False, UnsupportedValue]",
            "1.yaml:14: error: HTTPRoute default/q: spec.rules[0].filters[0].type: the filter \
             ExtensionRef is not supported; remove it (a part of a route is never ignored) \
             [Accepted=False, UnsupportedValue]",
        ]
    );
}

#[test]
fn each_condition_that_the_controller_would_write_is_an_error() {
    let orphan = ROUTE
        .replace("name: r", "name: o")
        .replace("name: shop, port: 80}]\n  r", "name: none}]\n  r");
    let lost = ROUTE.replace("backendRefs: [{name: shop", "backendRefs: [{name: gone");
    let redirect = ROUTE.replace("name: r", "name: x").replace(
        "  - backendRefs",
        "  - filters: [{type: RequestRedirect}, {type: URLRewrite}]\n    backendRefs",
    );
    let found = found(&[SERVICE, &lost, &orphan, &redirect]);
    let [lost, orphan, redirect] = &found[..] else { panic!("{found:#?}") };
    assert_eq!(
        lost,
        "2.yaml:1: error: HTTPRoute default/r: Service default/gone does not exist \
         [ResolvedRefs=False, BackendNotFound]"
    );
    assert_eq!(
        orphan,
        "3.yaml:1: error: HTTPRoute default/o: at default/none: Service default/none does not \
         exist [Accepted=False, NoMatchingParent]"
    );
    assert!(
        redirect.ends_with("within a rule [Accepted=False, IncompatibleFilters]"),
        "{redirect}"
    );
}

#[test]
fn a_mirror_that_leaves_nobody_to_respond_is_refused() {
    let mirror = "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shade, \
                  port: 80}}}]\n";
    let shade = SERVICE.replace("shop", "shade");
    for refs in ["", "    backendRefs: []\n"] {
        let alone = ROUTE.replace("  - backendRefs: [{name: shop, port: 80}]\n", mirror) + refs;
        let [found] = &found(&[SERVICE, &alone, &shade])[..] else { panic!("one finding") };
        assert!(found.starts_with("2.yaml:1: error: HTTPRoute default/r: spec.rules[0].backendRefs: is missing or empty"), "{found}");
        assert!(found.ends_with("[Accepted=False, UnsupportedValue]"), "{found}");
    }
    let whole =
        ROUTE.replace("  - backendRefs", &mirror.replace("}}}]\n", "}}}]\n    backendRefs"));
    assert!(report(&[SERVICE, &whole, &shade], false).passes(true));
}

#[test]
fn what_a_rule_hardly_means_is_a_warning() {
    let with = |percent: &str, to: &str, weight: &str| {
        ROUTE.replace(
            "  - backendRefs: [{name: shop, port: 80}]\n",
            &format!(
                "  - filters: [{{type: RequestMirror, requestMirror: {{{percent}backendRef: {{name: {to}, \
                 port: 80}}}}}}]\n    backendRefs: [{{name: shop, port: 80{weight}}}]\n"
            ),
        )
    };
    let shade = SERVICE.replace("shop", "shade");
    assert_eq!(found(&[SERVICE, &shade, &with("", "shade", "")]), Vec::<String>::new());
    for (route, told) in [
        (with("percent: 0, ", "shade", ""), "mirrors 0 of 100 requests: no copies"),
        (with("", "shop", ""), "leads to Service default/shop, which is a parent of the route"),
        (with("", "shade", ", weight: 0"), "each backendRef has weight 0"),
        (
            with("", "shade", "").replace("  - filters", "  - retry: {attempts: 11}\n    filters"),
            ".retry.attempts is 11",
        ),
    ] {
        let found = found(&[SERVICE, &shade, &route]);
        let [warning] = &found[..] else { panic!("{found:?}") };
        assert!(
            warning.starts_with("3.yaml:1: warning: HTTPRoute default/r: spec.rules[0]"),
            "{warning}"
        );
        assert!(warning.contains(told), "{warning}");
    }
}

#[test]
fn a_refused_rule_is_an_error_of_its_own() {
    let two = ROUTE.to_owned() + "  - matches: [{path: {value: /x}}]\n    future: 1\n";
    assert_eq!(
        found(&[SERVICE, &two]),
        ["2.yaml:1: error: HTTPRoute default/r: spec.rules[1].future: unknown field \
          [PartiallyInvalid=True, UnsupportedValue]"]
    );
    assert!(!report(&[SERVICE, &two], false).passes(false));
}

#[test]
fn a_redirect_needs_no_backend() {
    let to = "  - filters: [{type: RequestRedirect, requestRedirect: {hostname: a}}]\n";
    let redirect = ROUTE.replace("  - backendRefs: [{name: shop, port: 80}]\n", to);
    assert_eq!(found(&[SERVICE, &redirect]), Vec::<String>::new());
    let filters = "port: 80, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, \
                   port: 80}}}]}]";
    let shadow = ROUTE.replace(
        "backendRefs: [{name: shop, port: 80}]",
        &format!("backendRefs: [{{name: shop, {filters}"),
    );
    let [found] = &found(&[SERVICE, &shadow])[..] else { panic!("the shadow does not exist") };
    assert!(found.contains("Service default/v2 does not exist"), "{found}");
    assert!(report(&[SERVICE, &shadow], true).passes(true), "it is assumed as any other");
}

#[test]
fn services_of_elsewhere_can_be_assumed_but_not_permissions() {
    assert!(!report(&[ROUTE], false).passes(false));
    assert!(report(&[ROUTE], true).passes(true));
    let by_name = ROUTE.replace("port: 80}]\n  rules", "sectionName: http}]\n  rules");
    assert!(report(&[&by_name], true).passes(true), "{}", report(&[&by_name], true));
    // A Service that a file does define is taken as it is.
    let other_port = SERVICE.replace("port: 80", "port: 81");
    assert_eq!(report(&[ROUTE, &other_port], true).findings.len(), 2);
    // Of another namespace: a primary needs no permission, a shadow does.
    let foreign =
        ROUTE.replace("backendRefs: [{name: shop", "backendRefs: [{namespace: x, name: shop");
    assert!(report(&[&foreign], true).passes(true), "{}", report(&[&foreign], true));
    let mirror = "filters: [{type: RequestMirror, requestMirror: {backendRef: {namespace: x, name: shop, \
                  port: 80}}}]\n    backendRefs";
    let foreign = ROUTE.replace("backendRefs", mirror);
    assert_eq!(report(&[&foreign], true).findings[0].reason, Some("RefNotPermitted"));
}

#[test]
fn syntax_errors_and_twins_have_a_place() {
    let found = found(&[&format!("{SERVICE}---\n{ROUTE}"), SERVICE, "a: [1\nb: 2\n"]);
    assert_eq!(found[0], "2.yaml:1: error: Service default/shop: is already defined at 1.yaml:1");
    assert!(found[1].starts_with("3.yaml:"), "{found:?}");
    assert!(found[1].contains("error: "), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn warnings_fail_only_when_requested() {
    let hostnames = ROUTE.replace("  rules", "  hostnames: [a.example]\n  rules");
    let report = report(&[SERVICE, &hostnames], false);
    assert!(report.passes(false) && !report.passes(true));
    assert_eq!(report.findings[0].severity, Severity::Warning);
    assert!(report.findings[0].message.contains("GEP-1426"));
}

#[test]
fn what_is_not_mirrors_is_noted_and_nothing_to_check_is_a_warning() {
    let gateway = ROUTE.replace("group: '', kind: Service, ", "");
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n";
    let report = report(&[&gateway, deployment], false);
    let severities: Vec<_> = report.findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Note, Severity::Note, Severity::Warning]);
    assert!(report.findings[2].message.contains("nothing was checked"));
    assert!(report.passes(false) && !report.passes(true));
}

#[test]
fn a_headless_parent_needs_its_namespaces_label() {
    let headless = SERVICE.replace("{selector", "{clusterIP: None, selector");
    let granted = found(&[ROUTE, &headless]);
    let [warning] = &granted[..] else { panic!("{granted:?}") };
    assert!(
        warning.starts_with("2.yaml:1: warning: Service default/shop: is headless"),
        "{warning}"
    );
    assert!(warning.contains("mirror.dev/endpoint-frontends=enabled"), "{warning}");
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: default}}";
    let refused = found(&[ROUTE, &headless, namespace]);
    assert!(refused[0].contains("[Accepted=False, NotPermitted]"), "{refused:?}");
    let labelled =
        namespace.replace("default", "default, labels: {mirror.dev/endpoint-frontends: enabled}");
    assert_eq!(found(&[ROUTE, &headless, &labelled]), Vec::<String>::new());
}

#[test]
fn by_the_rules_of_a_cluster_copies_go_to_pods() {
    let slice = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shade, labels: {kubernetes.io/service-name: shade}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [203.0.113.9]}]
";
    let mirrors = ROUTE.replace(
        "  - backendRefs",
        "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shade, port: 80}}}]\n    \
         backendRefs",
    );
    let told = |source| {
        let mut input = Input::default();
        for text in [&mirrors, SERVICE, &SERVICE.replace("shop", "shade"), slice] {
            input.add("a.yaml".into(), false, Ok(text.to_owned()));
        }
        let report = examine(input, source, false);
        report.findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(SourceKind::Files), Vec::<String>::new());
    let refused = told(SourceKind::Kube);
    assert!(refused[0].contains("[ResolvedRefs=False, RefNotPermitted]"), "{refused:?}");
    assert!(refused[0].contains("mirror.dev/external-shadows=enabled"), "{refused:?}");
}

#[test]
fn a_service_parent_without_its_group_is_an_error() {
    let text = "2.yaml:1: error: HTTPRoute default/r: spec.parentRefs[0] does not name a Service, because \
                its group is missing, which means \"gateway.networking.k8s.io\": write group: \"\" for kind: \
                Service";
    let alone = ROUTE.replace("group: '', ", "");
    let expected = [
        text,
        "warning: there is no HTTPRoute or GRPCRoute with a Service among its parents: nothing was checked",
    ];
    assert_eq!(found(&[SERVICE, &alone]), expected);
    assert!(!report(&[SERVICE, &alone], false).passes(false));
    let mixed =
        ROUTE.replace("parentRefs: [", "parentRefs: [{kind: Service, name: shop, port: 80}, ");
    assert_eq!(found(&[SERVICE, &mixed]), [text]);
}
