//! Calls of gRPC: the rules of GRPCRoutes, and what mirror itself responds to a call.

use http::Request;
use mirror_user::route::{
    BackendRef, GrpcMethodMatch, InvalidBackend, Matcher, PathMatch, RuleEntry, ValueMatch,
};

use super::{
    harness::{Setup, backend_ref, mirror, rule},
    streams::{Client, ReceivedResponse, Upstream, run, until},
};

/// A rule for the calls of a service, or of one method of it.
fn of_calls(service: &str, method: Option<&str>, entry: RuleEntry) -> RuleEntry {
    let exact = |text: &str| Some(ValueMatch::Exact(text.to_owned()));
    let path = GrpcMethodMatch { service: exact(service), method: method.and_then(exact) };
    let matcher = Matcher { path: PathMatch::Grpc(path), ..Matcher::default() };
    RuleEntry { matches: vec![matcher], ..entry }
}

async fn call(client: &mut Client, path: &str) -> ReceivedResponse {
    let request = Request::post(format!("http://front{path}"));
    let request = request.header("content-type", "application/grpc+proto").header("te", "trailers");
    let (response, _) = client.send(request.body(()).expect("a request"), true).await;
    ReceivedResponse::of(response).await.expect("a response")
}

#[test]
fn the_rule_of_the_call_decides_and_its_mirror_gets_a_copy() {
    run(async {
        let (one, two, shadow) =
            (Upstream::echo().await, Upstream::echo().await, Upstream::echo().await);
        let filters = vec![mirror("shadow", shadow.address)];
        let rules = vec![
            of_calls("a.B", None, rule(Vec::new(), vec![backend_ref("one", &[one.address])])),
            of_calls("a.B", Some("C"), rule(filters, vec![backend_ref("two", &[two.address])])),
        ];
        let rig = Setup::rules(one.address, rules).start();
        let mut client = Client::connect(rig.address()).await;
        for path in ["/a.B/C", "/a.B/D", "/a.B/C"] {
            assert_eq!(call(&mut client, path).await.status(), 200);
        }
        assert_eq!((one.got().len(), two.got().len()), (1, 2));
        until("both copies arrived", || shadow.got().len() == 2).await;
        assert_eq!(shadow.got()[0].uri, "http://front-shadow/a.B/C");
    });
}

#[test]
fn what_mirror_responds_to_a_call_has_a_status_of_grpc() {
    run(async {
        let original = Upstream::echo().await;
        let gone = Err(InvalidBackend::NoService("default/gone".into()));
        let gone = vec![BackendRef { weight: 1, filters: Vec::new(), target: gone }];
        let rules = vec![
            of_calls("a.Gone", None, rule(Vec::new(), gone)),
            of_calls("a.Empty", None, rule(Vec::new(), vec![backend_ref("empty", &[])])),
        ];
        let rig = Setup::rules(original.address, rules).start();
        let mut client = Client::connect(rig.address()).await;
        for (path, status, reason) in [
            ("/a.Other/C", "12", "no rule"),
            ("/a.Gone/C", "14", "default/gone"),
            ("/a.Empty/C", "14", "default/empty:80 has no ready endpoint"),
        ] {
            let response = call(&mut client, path).await;
            let fields = response.head.headers();
            assert_eq!((response.status(), response.body.len()), (200, 0), "{path}");
            assert_eq!(fields["content-type"], "application/grpc");
            assert_eq!(fields["grpc-status"], status, "{path}");
            let message = fields["grpc-message"].to_str().unwrap();
            assert!(message.starts_with("mirror: ") && message.contains(reason), "{message}");
        }
        // Of what is no call the status is that of HTTP.
        assert_eq!(client.get("/a.Other/C").await.unwrap().status(), 404);
        assert_eq!(original.connections(), 0);
    });
}
