//! What routes say, end to end: weights, precedence of matches, responses' headers, several
//! frontends.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{net::SocketAddrV4, time::Duration};

use mirror_tests::{
    Copies, Echo, Pair,
    manifest::{Route, Rule},
    pair::{config, to_primary},
};

fn set(kind: &str, field: &str, name: &str, value: &str) -> String {
    format!("type: {kind}\n{field}:\n  set:\n  - name: {name}\n    value: {value}")
}

fn set_request(name: &str, value: &str) -> String {
    set("RequestHeaderModifier", "requestHeaderModifier", name, value)
}

#[test]
fn nine_of_ten_by_weight() {
    let pair = Pair::create("weights").unwrap();
    let [primary, other] = pair.echoes().unwrap();
    let rule = Rule::default().backend("primary", 80, 9).backend("shadow", 80, 1);
    let rule = rule.backend("nowhere", 80, 0);
    pair.write(&[rule]).unwrap();
    let agent = pair.agent(&[]).unwrap();
    pair.load("weights", 4000, 0, 20).unwrap();
    let seen = [primary.seen().len(), other.seen().len()];
    println!("weights 9:1 of 4,000: {seen:?}");
    assert_eq!(seen[0] + seen[1], 4000, "{}", agent.log());
    // 400 expected, standard deviation 19: five of them.
    assert!((305..=495).contains(&seen[1]), "{seen:?}");
    assert_eq!(Copies::settled(&agent).unwrap(), Copies::default());
}

#[test]
fn the_more_specific_match_comes_first() {
    let pair = Pair::create("precedence").unwrap();
    let _echoes = pair.echoes().unwrap();
    let rule = |name: &str, matching: &str| {
        to_primary().matching(matching).filter(&set_request("X-Rule", name))
    };
    let path = |kind: &str, value: &str| format!("path:\n  type: {kind}\n  value: {value}");
    let header = "headers:\n- name: X-Team\n  value: blue";
    // The least specific first, so that the order in the list decides nothing but the last tie.
    let rules = [
        rule("root", &path("PathPrefix", "/")),
        rule("root-again", &path("PathPrefix", "/")),
        rule("prefix", &path("PathPrefix", "/anything")),
        rule(
            "query",
            &format!("{}\nqueryParams:\n- name: q\n  value: '1'", path("PathPrefix", "/anything")),
        ),
        rule("header", &format!("{}\n{header}", path("PathPrefix", "/anything"))),
        rule(
            "two",
            &format!(
                "{}\n{header}\n- name: X-Size\n  type: RegularExpression\n  value: '[0-9]+'",
                path("PathPrefix", "/anything")
            ),
        ),
        rule("method", &format!("{}\nmethod: DELETE", path("PathPrefix", "/anything"))),
        rule("longer", &path("PathPrefix", "/anything/long")),
        rule("regex", &path("RegularExpression", "/head.*s")),
        rule("exact", &path("Exact", "/anything/long/exact")),
    ];
    pair.write(&rules).unwrap();
    let agent = pair.agent(&[]).unwrap();
    let cases: [(&str, &[&str], &str); 15] = [
        ("/get", &[], "root"),
        ("/anything", &[], "prefix"),
        ("/anything/", &[], "prefix"),
        ("/anything/other", &[], "prefix"),
        ("/anything?q=1", &[], "query"),
        ("/anything?q=2", &[], "prefix"),
        ("/anything?q=1", &["-H", "X-Team: blue"], "header"),
        ("/anything?q=1", &["-H", "x-team: blue", "-H", "X-Size: 12"], "two"),
        ("/anything", &["-H", "X-Team: blue", "-H", "X-Size: 12x"], "header"),
        ("/anything", &["-H", "X-Team: blue", "-X", "DELETE"], "method"),
        ("/anything/long", &["-H", "X-Team: blue"], "longer"),
        ("/anything/longer", &[], "prefix"),
        ("/anything/long/exact", &["-X", "DELETE"], "exact"),
        ("/anything/long/exact/", &[], "longer"),
        ("/headers", &[], "regex"),
    ];
    for (target, flags, expected) in cases {
        let url = format!("http://web:8000{target}");
        let argv = ["curl", "-sS", "-m", "5", &url];
        let response = pair.run(&[&argv[..], flags].concat()).unwrap();
        let says = format!("\"X-Rule\": \"{expected}\"");
        assert!(
            response.contains(&says),
            "{target} {flags:?}: not {expected}: {response}\n{}",
            agent.log()
        );
    }
}

#[test]
fn no_match_and_an_invalid_backend_say_so() {
    let pair = Pair::create("refused").unwrap();
    let _echoes = pair.echoes().unwrap();
    let exact = |path: &str| format!("path:\n  type: Exact\n  value: {path}");
    let rules = [
        to_primary().matching(&exact("/get")),
        Rule::to("missing", 80).matching(&exact("/missing")),
    ];
    pair.write(&rules).unwrap();
    let _agent = pair.agent(&[]).unwrap();
    let cases = [
        ("/get", "200", ""),
        (
            "/other",
            "404",
            "mirror: no rule of the routes attached to this Service matches the request",
        ),
        ("/missing", "500", "mirror: Service default/missing does not exist"),
    ];
    for (path, code, reason) in cases {
        let url = format!("http://web:8000{path}");
        let wanted = "%{http_code} %header{x-mirror-reason}";
        let argv = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", wanted, &url];
        assert_eq!(pair.run(&argv).unwrap(), format!("{code} {reason}"), "{path}");
    }
}

#[test]
fn a_responses_headers_are_modified() {
    let pair = Pair::create("answers").unwrap();
    let [primary, _shadow] = pair.echoes().unwrap();
    let modifier = "type: ResponseHeaderModifier\nresponseHeaderModifier:\n  set:\n  \
                    - name: X-Set\n    value: one\n  add:\n  - name: Server\n    value: second\n  \
                    remove: [Date]";
    pair.write(&[to_primary().filter(modifier).mirror("shadow", 80)]).unwrap();
    let agent = pair.agent(&[]).unwrap();
    let argv = ["curl", "-sSi", "-m", "5", "http://web:8000/get?id=answers-0"];
    let response = pair.run(&argv).unwrap().to_lowercase();
    let (head, _) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    assert!(head.contains("x-set: one"), "{head}\n{}", agent.log());
    assert!(head.contains("server: mirror-echo") && head.contains("server: second"), "{head}");
    assert!(!head.contains("date:"), "{head}");
    let seen = primary.wait("id=answers-", 1).unwrap();
    assert!(!seen[0]["headers"].to_string().contains("x-set"), "{seen:?}");
}

/// What a request to the path gets, as `STATUS REASON`; `Some` header goes with it.
fn response(pair: &Pair, path: &str, header: &str) -> String {
    let url = format!("http://web:8000{path}");
    let wanted = "%{http_code} %header{x-mirror-reason}";
    let argv = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-H", header, "-w", wanted, &url];
    pair.run(&argv).unwrap()
}

#[test]
fn a_rule_that_is_refused_takes_nothing_else_with_it() {
    const CANARY: &str = "X-Canary: yes";
    let pair = Pair::create("partial").unwrap();
    let [primary, other] = pair.echoes().unwrap();
    let canary = Rule::to("shadow", 80).matching("headers:\n- name: X-Canary\n  value: 'yes'");
    let extension =
        "type: ExtensionRef\nextensionRef:\n  group: example.net\n  kind: Filter\n  name: f";
    let new = to_primary().matching("path:\n  type: Exact\n  value: /new").filter(extension);
    pair.write(&[to_primary(), canary.clone()]).unwrap();
    let mut agent = pair.agent(&[]).unwrap();
    assert_eq!(response(&pair, "/get?id=before-0", CANARY), "200 ");
    other.wait("id=before-", 1).unwrap();
    // One edit makes a rule invalid that was valid, adds one that never was, and changes the third.
    let changed = to_primary().filter(&set_request("X-Edit", "second"));
    pair.apply(&agent, &[changed, canary.filter(extension), new]).unwrap();
    assert_eq!(response(&pair, "/get?id=pinned-0", CANARY), "200 ", "{}", agent.log());
    other.wait("id=pinned-", 1).unwrap();
    assert_eq!(response(&pair, "/get?id=plain-0", "X-Canary: no"), "200 ");
    primary.wait("id=plain-", 1).unwrap();
    let why = "500 mirror: the rule is not in force: spec.rules[2].filters[0].type";
    let new = response(&pair, "/new", "X-Canary: no");
    assert!(new.starts_with(why), "{new}");
    let problems = config(&agent).unwrap()["problems"].to_string();
    for part in ["spec.rules[1].filters[0].type", "last valid state stays in force", "get 500"] {
        assert!(problems.contains(part), "{problems}");
    }
    // An agent that starts has seen no valid state of it.
    agent.stop(Duration::from_secs(10)).unwrap();
    let agent = pair.agent(&[]).unwrap();
    let pinned = response(&pair, "/get?id=after-0", CANARY);
    assert!(pinned.starts_with("500 mirror: the rule is not in force: spec.rules[1]"), "{pinned}");
    assert_eq!(response(&pair, "/get?id=plain-1", "X-Canary: no"), "200 ", "{}", agent.log());
    primary.wait("id=plain-", 2).unwrap();
    assert_eq!(other.seen().len(), 2, "{:?}", other.seen());
}

#[test]
fn each_frontend_has_its_own_routes() {
    let pair = Pair::create("frontends").unwrap();
    let [primary, shadow] = pair.echoes().unwrap();
    let (second_pod, second) = pair.another("second").unwrap();
    let second_echo = Echo::start(&pair.node, &second_pod).unwrap();
    let (third_pod, _third) = pair.another("third").unwrap();
    let third_echo = Echo::start(&pair.node, &third_pod).unwrap();
    pair.write(&[to_primary().mirror("shadow", 80)]).unwrap();
    let route = Route::new("second", &second).rule(Rule::to("second", 80).mirror("primary", 80));
    pair.node.routes().write("second-route.yaml", &route.manifest()).unwrap();
    let agent = pair.agent(&[]).unwrap();
    for service in ["web:8000", "second", "third"] {
        let url = format!("http://{service}/get?id={}-[1-50]", service.replace(":8000", ""));
        pair.run(&["curl", "-sS", "-m", "5", "-o", "/dev/null", &url]).unwrap();
    }
    let hosts = |echo: &Echo, tag: &str, count| {
        let seen = echo.wait(&format!("id={tag}-"), count).unwrap();
        seen.iter().map(|line| line["host"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(hosts(&primary, "web", 50), ["web:8000"; 50], "{}", agent.log());
    assert_eq!(hosts(&shadow, "web", 50), ["web-shadow:8000"; 50]);
    assert_eq!(hosts(&second_echo, "second", 50), ["second"; 50]);
    assert_eq!(hosts(&primary, "second", 50), ["second-shadow"; 50]);
    assert_eq!(hosts(&third_echo, "third", 50), ["third"; 50]);
    assert_eq!(Copies::settled(&agent).unwrap().delivered, 100);
    let shown = config(&agent).unwrap();
    let frontends = shown["frontends"].as_object().unwrap();
    let expected = [pair.web.address().to_string(), second.address().to_string()];
    assert!(frontends.len() == 2 && expected.iter().all(|a| frontends.contains_key(a)), "{shown}");
}

#[test]
fn a_redirect_and_a_rewrite_are_what_the_route_says() {
    let pair = Pair::create("moved").unwrap();
    let [primary, shadow] = pair.echoes().unwrap();
    let prefix = |value: &str| format!("path:\n  type: PathPrefix\n  value: {value}");
    let to = |kind: &str, field: &str| {
        format!(
            "type: {kind}\n{field}:\n  hostname: one.example\n  path:\n    \
             type: ReplacePrefixMatch\n    replacePrefixMatch: /new"
        )
    };
    let moved = Rule::default()
        .matching(&prefix("/old"))
        .mirror("shadow", 80)
        .filter(&to("RequestRedirect", "requestRedirect"));
    let rewritten = to_primary()
        .matching(&prefix("/api"))
        .mirror("shadow", 80)
        .filter(&to("URLRewrite", "urlRewrite"));
    pair.write(&[moved, rewritten]).unwrap();
    let agent = pair.agent(&[]).unwrap();
    let shown = "%{http_code} %{redirect_url}";
    let requests: [&[&str]; 3] =
        [&["--http1.1"], &["--http1.1", "-d", "x=y"], &["--http2-prior-knowledge"]];
    for (at, request) in requests.into_iter().enumerate() {
        let url = format!("http://web:8000/old/a?id=old-{at}");
        let argv = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", shown, &url];
        let response = pair.run(&[&argv[..], request].concat()).unwrap();
        let location = format!("http://one.example:8000/new/a?id=old-{at}");
        assert_eq!(response, format!("302 {location}"), "{}", agent.log());
    }
    let argv = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "http://web:8000/api/get?id=moved-1"];
    pair.run(&argv).unwrap();
    let target = |echo: &Echo, id: &str| echo.wait(id, 1).unwrap()[0]["target"].clone();
    assert_eq!(target(&primary, "id=moved-1"), "/new/get?id=moved-1", "{}", agent.log());
    assert_eq!(target(&shadow, "id=moved-1"), "/api/get?id=moved-1");
    assert_eq!(target(&shadow, "id=old-0"), "/old/a?id=old-0");
    assert_eq!(primary.seen().len(), 1, "no primary gets what is redirected");
}

/// What a client may reach is decided where it is, by NetworkPolicies say, and by no ReferenceGrant: whoever
/// chooses the endpoint, the connection leaves from the client. Copies, which leave from the agent, need one.
#[test]
fn a_primary_of_another_namespace_is_reached_from_the_clients_pod() {
    for (endpoints, headless) in [("service", false), ("mirror", false), ("service", true)] {
        let pair = Pair::create("foreign").unwrap();
        let pod = pair.node.pod("far").unwrap();
        let far = Echo::start(&pair.node, &pod).unwrap();
        let at = SocketAddrV4::new(pod.ip(), 80);
        let service = pair.node.service_in("elsewhere", "far", 80, vec![at]).unwrap();
        let mut manifest = service.manifest();
        let cluster_ip = service.address().ip().to_string();
        if headless {
            manifest = manifest.replace(&format!("clusterIP: {cluster_ip}"), "clusterIP: None");
            assert!(manifest.contains("clusterIP: None"), "{manifest}");
        }
        pair.node.routes().write("far.yaml", &manifest).unwrap();
        let there = "namespace: elsewhere, name: far, port: 80";
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  rules:\n  - backendRefs: \
             [{{{there}}}]\n    filters: [{{type: RequestMirror, requestMirror: {{backendRef: \
             {{{there}}}}}}}]\n"
        );
        pair.node.routes().write("route.yaml", &route).unwrap();
        let agent = pair.agent(&["--endpoints", endpoints]).unwrap();
        let request = |tag: &str| {
            let url = format!("http://web:8000/get?id={tag}-0");
            pair.run(&["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", &url])
        };
        assert_eq!(request("open").unwrap(), "200", "{}", agent.log());
        let seen = far.wait("id=open-", 1).unwrap();
        let peer = seen[0]["peer"].as_str().unwrap();
        assert!(peer.starts_with(&format!("{}:", pair.client.ip())), "{endpoints}: {peer}");
        assert_eq!(Copies::settled(&agent).unwrap().delivered, 0, "nothing grants a copy");
        for closed in [cluster_ip, pod.ip().to_string()] {
            pair.run(&["ip", "route", "add", "unreachable", &closed]).unwrap();
        }
        assert_eq!(request("closed").unwrap(), "503", "{endpoints}: {}", agent.log());
        assert_eq!(far.seen().len(), 1, "{endpoints}");
    }
}
