//! CORS: mirror responds to preflight requests; the primary's responses get the fields of the route.

use std::sync::Arc;

use http::{HeaderValue, Request};
use mirror_user::{
    outcome::{CopyOutcome::Delivered, Ending, ResponseSource},
    route::{AllowedNames, AllowedOrigins, Cors, Filter, Origin},
};

use super::{
    harness::{Setup, backend_ref, mirror, rule},
    redirect::{elsewhere, redirect},
    server::{Server, refusing},
    streams::{Client, ReceivedResponse, run},
};

const PREFLIGHT: &str = "OPTIONS /a HTTP/1.1\r\nHost: front\r\nOrigin: https://www.foo.com\r\n\
                         Access-Control-Request-Method: PUT\r\n\
                         Access-Control-Request-Headers: x-1\r\n\r\n";

fn these(names: &'static str) -> Option<AllowedNames> {
    Some(AllowedNames::These(HeaderValue::from_static(names)))
}

fn cors() -> Filter {
    let origin = |text: &str| Origin::parse(text).expect("an origin");
    Filter::Cors(Arc::new(Cors {
        origins: AllowedOrigins::These(vec![
            origin("https://www.foo.com"),
            origin("https://*.bar.com"),
        ]),
        credentials: true,
        methods: these("GET, PUT"),
        headers: these("x-1, x-2"),
        expose: these("x-3"),
        max_age: 3600,
    }))
}

#[test]
fn mirror_responds_to_preflight_requests() {
    let (primary, before, behind) = (Server::ok(), Server::ok(), Server::ok());
    let filters = vec![mirror("before", before.address), cors(), mirror("behind", behind.address)];
    let rig = Setup::with(&primary, filters).start();
    let mut client = rig.client();
    client.send(PREFLIGHT);
    assert_eq!(
        client.head().head,
        "HTTP/1.1 204 No Content\r\nvary: origin\r\n\
         access-control-allow-origin: https://www.foo.com\r\n\
         access-control-allow-credentials: true\r\n\
         access-control-expose-headers: x-3\r\n\
         access-control-allow-methods: GET, PUT\r\n\
         access-control-allow-headers: x-1, x-2\r\n\
         access-control-max-age: 3600\r\n\r\n"
    );
    client.send(PREFLIGHT.replace("www.foo.com", "evil.example"));
    assert_eq!(client.head().head, "HTTP/1.1 204 No Content\r\nvary: origin\r\n\r\n");
    rig.all_ended("before", 2, Delivered);
    assert_eq!(rig.copies("behind").selected, 0);
    assert_eq!(primary.connections(), 0);
    // OPTIONS that is no preflight request is the primary's.
    let options = PREFLIGHT.replace("Access-Control-Request-Method: PUT\r\n", "");
    assert_eq!(client.request(options).body, b"ok");
    let report = rig.report();
    let by = |source: ResponseSource| {
        let counts = report.exchanges.values();
        counts.map(|e| e.requests[2][source as usize][Ending::Complete as usize]).sum::<u64>()
    };
    assert_eq!((by(ResponseSource::Preflight), by(ResponseSource::Primary)), (2, 1));
    assert_eq!(report.refused.iter().sum::<u64>(), 0);
}

#[test]
fn other_responses_get_the_fields_of_their_origin() {
    let primary = Server::responding(
        "HTTP/1.1 200 OK\r\nA: 1\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = Setup::with(&primary, vec![cors()]).start();
    let mut client = rig.client();
    let allowed = "GET / HTTP/1.1\r\nHost: front\r\nOrigin: https://x.y.bar.com\r\n\r\n";
    assert_eq!(
        client.request(allowed).head,
        "HTTP/1.1 200 OK\r\nA: 1\r\nAccess-Control-Allow-Origin: https://x.y.bar.com\r\n\
         Content-Length: 2\r\nvary: origin\r\naccess-control-allow-credentials: true\r\n\
         access-control-expose-headers: x-3\r\n\r\n"
    );
    let as_it_came = "HTTP/1.1 200 OK\r\nA: 1\r\nAccess-Control-Allow-Origin: *\r\n\
                      Content-Length: 2\r\nvary: origin\r\n\r\n";
    for origin in ["Origin: https://bar.com\r\n", ""] {
        let request = format!("GET / HTTP/1.1\r\nHost: front\r\n{origin}\r\n");
        assert_eq!(client.request(request).head, as_it_came);
    }
    assert_eq!(primary.requests().len(), 3);
}

#[test]
fn streams_of_http2_have_the_same() {
    let primary = Server::ok();
    let rig = Setup::with(&primary, vec![cors()]).start();
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let preflight = Request::options("http://front/a")
            .header("origin", "https://www.foo.com")
            .header("access-control-request-method", "PUT")
            .body(())
            .unwrap();
        let (response, _) = client.send(preflight, true).await;
        let response = ReceivedResponse::of(response).await.unwrap();
        assert_eq!(response.status(), 204);
        let fields = response.head.headers();
        assert_eq!(fields["access-control-allow-origin"], "https://www.foo.com");
        assert_eq!(fields["access-control-allow-methods"], "GET, PUT");
        assert_eq!(fields["access-control-max-age"], "3600");
    });
    assert_eq!(primary.connections(), 0);
}

#[test]
fn a_redirect_before_it_gets_the_fields_of_its_origin() {
    let primary = Server::ok();
    let rig = Setup::with(&primary, vec![redirect(elsewhere()), cors()]).start();
    let get = "GET / HTTP/1.1\r\nHost: front\r\nOrigin: https://www.foo.com\r\n\r\n";
    let fields = ["location", "access-control-allow-origin", "vary"];
    let response = rig.client().request(get);
    let shown = fields.map(|field| response.value(field));
    assert_eq!(shown, [Some("https://one.example/"), Some("https://www.foo.com"), Some("origin")]);
    let other = rig.client().request(get.replace("foo", "other"));
    let shown = fields.map(|field| other.value(field));
    assert_eq!(shown, [Some("https://one.example/"), None, Some("origin")]);
    assert_eq!(primary.connections(), 0);
}

#[test]
fn refusals_of_mirror_itself_get_the_fields_of_their_origin() {
    let (_socket, refusing) = refusing();
    let get = "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://www.foo.com\r\n\r\n";
    let fields = ["access-control-allow-origin", "access-control-expose-headers", "vary"];
    for (endpoints, status) in [(vec![refusing], 503), (Vec::new(), 503)] {
        let refs = vec![backend_ref("primary", &endpoints)];
        let rig = Setup::rules(refusing, vec![rule(vec![cors()], refs)]).start();
        let response = rig.client().request(get);
        assert_eq!(response.status(), status);
        assert!(response.value("x-mirror-reason").is_some());
        let shown = fields.map(|field| response.value(field));
        assert_eq!(shown, [Some("https://www.foo.com"), Some("x-3"), Some("origin")]);
        let other = rig.client().request(get.replace("foo", "other"));
        assert_eq!(fields.map(|field| other.value(field)), [None, None, Some("origin")]);
    }
    // A rule without such a filter adds no fields.
    let refs = vec![backend_ref("primary", &[refusing])];
    let rig = Setup::rules(refusing, vec![rule(Vec::new(), refs)]).start();
    assert_eq!(fields.map(|field| rig.client().request(get).value(field).is_some()), [false; 3]);
}
