//! Explanations of a folder that has each case, as snapshots; and the command line's parsing.

use std::path::Path;

use clap::Parser;

use super::{args::TargetError, reply::Reply, *};
use crate::route::Verbatim;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    explain: ExplainArgs,
}

fn parse(line: &[&str]) -> Result<ExplainArgs, String> {
    parse_hidden(line).map(|args| ExplainArgs { show_values: true, ..args })
}

fn parse_hidden(line: &[&str]) -> Result<ExplainArgs, String> {
    let line = ["explain", "--routes", "tests/fixtures/explain"].iter().chain(line);
    Command::try_parse_from(line).map(|command| command.explain).map_err(|e| e.to_string())
}

fn explained(line: &[&str]) -> Explanation {
    explained_by(&parse(line).unwrap())
}

fn explained_by(args: &ExplainArgs) -> Explanation {
    // Relative, so that the snapshots name no folder of this machine.
    assert!(Path::new("tests/fixtures/explain").is_dir(), "cargo test runs in the crate's folder");
    let state = files::read(&args.routes).unwrap();
    inspect(args, &state, &resolve::resolve(&AddressPolicy::default(), &state.objects))
}

#[test]
fn values_that_matches_want_are_hidden_unless_requested() {
    for (flags, shown) in [(&[][..], false), (&["--show-values"], true)] {
        let line = [&["GET", "cart.shop/api"], flags].concat();
        let explanation = explained_by(&parse_hidden(&line).unwrap());
        let json = serde_json::to_string(&explanation).unwrap();
        for text in [explanation.to_string(), json] {
            assert!(text.contains("header x-env"), "{text}");
            assert_eq!((text.contains("= canary"), text.contains("= (hidden)")), (shown, !shown));
        }
    }
}

/// The text behind the exit code that goes with it.
fn text(line: &[&str]) -> String {
    let explanation = explained(line);
    format!("exit code {}\n\n{explanation}", explanation.verdict.exit_code())
}

#[test]
fn a_rule_with_everything() {
    let line = ["GET", "http://cart.shop/api/beta?q=1", "-H", "X-Env: canary"];
    let more = ["-H", "authorization: secret", "-H", "Connection: x-hop", "-H", "X-Hop: 1"];
    let line: Vec<_> = line.into_iter().chain(more).collect();
    insta::assert_snapshot!(text(&line));
}

#[test]
fn the_same_as_json() {
    let line = ["GET", "cart.shop.svc/api/beta", "--json"];
    insta::assert_snapshot!(serde_json::to_string_pretty(&explained(&line)).unwrap());
}

#[test]
fn the_cluster_chooses_the_endpoint() {
    let line = ["GET", "http://cart.shop/api/beta?q=1", "--endpoints", "service"];
    insta::assert_snapshot!(text(&line));
    insta::assert_snapshot!(text(&["GET", "nodes.shop:8080/", "--endpoints", "service"]));
}

#[test]
fn an_older_route_and_a_rule_without_backends() {
    insta::assert_snapshot!(text(&["PUT", "http://10.96.1.1/api/x?v=a%20b"]));
}

#[test]
fn no_match_is_404() {
    insta::assert_snapshot!(text(&["GET", "cart/", "--client-namespace", "shop"]));
}

#[test]
fn a_consumer_route_replaces_the_producers() {
    let line = ["GET", "cart.shop.svc.cluster.local./api", "--client-namespace", "team-a"];
    insta::assert_snapshot!(text(&line));
}

#[test]
fn a_headless_service_and_another_suffix() {
    insta::assert_snapshot!(text(&["GET", "nodes.shop:8080/", "--host-suffix", "-copy"]));
}

#[test]
fn a_tunnel_is_not_copied() {
    let upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    let line: Vec<_> = ["GET", "nodes.shop:8080/"].into_iter().chain(upgrade).collect();
    insta::assert_snapshot!(text(&line));
}

#[test]
fn a_redirect_ends_the_filters() {
    insta::assert_snapshot!(text(&["GET", "moved.shop:8000/old/a?b=c"]));
}

#[test]
fn rewrites_and_the_filters_of_backends_are_shown() {
    insta::assert_snapshot!(text(&["GET", "moved.shop:8000/api/a?b=c"]));
}

#[test]
fn a_preflight_request_gets_its_response_from_a_filter() {
    let origin = ["-H", "Origin: https://shop.example"];
    let method = ["-H", "Access-Control-Request-Method: PUT"];
    let line: Vec<_> =
        ["OPTIONS", "moved.shop:8000/api/a"].into_iter().chain(origin).chain(method).collect();
    insta::assert_snapshot!(text(&line));
}

#[test]
fn what_is_not_captured_says_why() {
    let message = |line: &[&str]| match explained(line).verdict {
        report::Verdict::NotCaptured { why } | report::Verdict::PassesThrough { why, .. } => why,
        other => panic!("{line:?}: {other:?}"),
    };
    let cases: [(&[&str], &str); 8] = [
        (&["GET", "cart/"], "Service default/cart does not exist"),
        (&["GET", "cart.shop:81/"], "Service shop/cart has no TCP port 81"),
        (&["GET", "cart.shop:9090/"], "no route is attached to port 9090 of Service shop/cart"),
        (&["GET", "10.96.1.2/"], "no route is attached to port 80 of Service shop/cart-v1"),
        (&["GET", "10.0.0.1/"], "no Service of the folder has the address 10.0.0.1"),
        (&["GET", "[fd00::1]/"], "no Service of the folder has the address fd00::1"),
        (&["GET", "stock.shop/"], "routes apply only to clients of team-a"),
        (&["GET", "www.example.com/"], "www.example.com is not the name of a Service"),
    ];
    for (line, expected) in cases {
        let why = message(line);
        assert!(why.starts_with(expected), "{line:?}: {why}");
        assert_eq!(explained(line).verdict.exit_code(), 4, "{line:?}");
    }
}

#[test]
fn a_malformed_request_is_400() {
    let line = ["GET", "nodes.shop:8080/", "-H", "Host: a", "-H", "Host: b"];
    let explanation = explained(&line);
    assert!(matches!(
        explanation.verdict,
        report::Verdict::BadRequest { reply: Reply { status: 400, grpc: None }, .. }
    ));
    assert_eq!(explanation.verdict.exit_code(), 3);
}

/// Nothing matches, nothing can be chosen, and no head is malformed without a status of gRPC.
#[test]
fn a_call_of_grpc_gets_a_grpc_status() {
    let call = |line: &[&'static str]| {
        text(&[line, &["-H", "Content-Type: application/grpc+proto"]].concat())
    };
    let cases: [(&[&str], &str); 4] = [
        (
            &["POST", "cart.shop/a.B/C"],
            "No rule matches: mirror itself responds with 200, grpc-status 12, grpc-message \
             \"mirror: no rule of the routes attached to this Service matches the request\".",
        ),
        (
            &["POST", "cart.shop/empty"],
            "clients get 200, grpc-status 14, grpc-message \"mirror: the rule has no backend with a \
             weight above 0\"",
        ),
        (
            &["GET", "cart.shop/api/beta"],
            "mirror itself responds with 200, grpc-status 14, grpc-message \"mirror: Service \
             shop/cart-v3:80 has no ready endpoint\"",
        ),
        (
            &["POST", "nodes.shop:8080/", "-H", "Host: a", "-H", "Host: b"],
            "mirror itself responds with 200, grpc-status 13, grpc-message \"mirror: ",
        ),
    ];
    for (line, expected) in cases {
        let text = call(line);
        assert!(text.contains(expected), "{line:?}: {text}");
    }
    let line = ["POST", "cart.shop/a.B/C", "-H", "Content-Type: application/grpc"];
    let json = serde_json::to_value(explained(&line)).unwrap();
    assert_eq!((&json["status"], &json["grpc_status"]), (&200.into(), &"12".into()), "{json}");
    let line = ["POST", "cart.shop/a.B/C", "-H", "Content-Type: application/grpc-web"];
    assert!(text(&line).contains("mirror itself responds with 404"));
}

#[test]
fn urls_as_clients_write_them() {
    let parsed = |text: &str| {
        let args = parse(&["GET", text]).unwrap();
        let head = args.head();
        let host = head.headers["host"].to_str().unwrap().to_owned();
        let target = Verbatim::of(&head).map_or_else(
            || head.uri.to_string(),
            |verbatim| String::from_utf8_lossy(verbatim.as_bytes()).into_owned(),
        );
        (args.url.host, args.url.port, host, target)
    };
    let cases = [
        ("http://httpbin:8000/get?a=1#top", "httpbin", 8000, "httpbin:8000", "/get?a=1"),
        ("HTTP://httpbin", "httpbin", 80, "httpbin", "/"),
        ("httpbin:80?a=1", "httpbin", 80, "httpbin", "/?a=1"),
        ("httpbin:/x", "httpbin", 80, "httpbin", "/x"),
        ("httpbin/go?to=http://b/", "httpbin", 80, "httpbin", "/go?to=http://b/"),
        ("httpbin/caf\u{e9}<`?q=\"{}\"", "httpbin", 80, "httpbin", "/caf\u{e9}<`?q=\"{}\""),
        ("10.96.0.10:8000/", "10.96.0.10", 8000, "10.96.0.10:8000", "/"),
        ("http://[fd00::1]:8000/", "fd00::1", 8000, "[fd00::1]:8000", "/"),
    ];
    for (text, host, port, field, target) in cases {
        assert_eq!(parsed(text), (host.into(), port, field.into(), target.into()), "{text}");
    }
    let replaced = parse(&["GET", "httpbin/", "-H", "host: other"]).unwrap().head();
    assert_eq!(replaced.headers.get_all("host").iter().collect::<Vec<_>>(), ["other"]);
    assert_eq!(parse(&["CONNECT", "httpbin:8000"]).unwrap().head().uri, "httpbin:8000");
}

#[test]
fn each_malformed_argument_is_reported_by_its_own_words() {
    let url = |text: &str| text.parse::<UrlTarget>().unwrap_err();
    assert_eq!(url("https://httpbin/"), TargetError::Scheme);
    assert_eq!(url("http://me:secret@httpbin/"), TargetError::UserInfo);
    assert_eq!(url("/get"), TargetError::NoHost);
    assert_eq!(url(""), TargetError::NoHost);
    for port in ["0", "65536", "+80", "http"] {
        assert_eq!(url(&format!("httpbin:{port}/")), TargetError::Port(port.into()));
    }
    assert!(matches!(url("httpbin/a b"), TargetError::Malformed(..)));
    assert!(matches!(url("ht tp/"), TargetError::Malformed(..)));
    let refused: [(&[&str], &str); 6] = [
        (&["get", "httpbin/"], "write GET"),
        (&["G T", "httpbin/"], "not a token"),
        (&["GET", "httpbin/", "-H", "x-env"], "missing ':'"),
        (&["GET", "httpbin/", "-H", "x env: 1"], "not a header name"),
        (&["GET", "httpbin/", "-H", "x: a\nb"], "is not a valid header value"),
        (&["GET", "httpbin/", "--client-namespace", "A"], "not a Kubernetes name"),
    ];
    for (line, expected) in refused {
        let error = parse(line).unwrap_err();
        assert!(error.contains(expected), "{line:?}: {error}");
    }
}

#[test]
fn no_control_character_reaches_the_terminal() {
    let text = text(&["GET", "nodes.shop:8080/", "-H", "x: \u{9b}31m"]);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}
