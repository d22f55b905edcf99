//! Retries that a rule asks for (HTTPRouteRule, `retry`), with primaries of HTTP/1: what is sent again, what
//! the client gets of it, and that a shadow gets one copy of each request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mirror_user::{
    model::{ObjectName, RouteKind},
    outcome::{CopyOutcome::Delivered, RouteRetryReason},
    route::{BackendRef, Filter, Retry, RuleEntry, Timeouts},
};
use serde_json::json;

use super::{
    access::logged,
    harness::{Rig, Setup, backend_ref, eventually, gate, mirror, rule},
    raw_connection::{End, Message},
    server::{OK, Server, full, refusing},
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// What a server does instead of a response.
const CLOSE: u16 = 0;
const RESET: u16 = 1;
const SILENCE: u16 = 2;

/// On 500 and 503, at once.
pub(crate) fn retry(attempts: u32) -> Retry {
    Retry { codes: [500, 503].into(), attempts, backoff: Duration::ZERO }
}

/// A rule that retries.
pub(crate) fn retried(
    filters: Vec<Filter>,
    refs: Vec<BackendRef>,
    retry: Retry,
    timeouts: Timeouts,
) -> RuleEntry {
    let mut entry = rule(filters, refs);
    let rule = Arc::get_mut(&mut entry.rule).expect("not shared yet");
    (rule.retry, rule.timeouts) = (Some(retry), timeouts);
    entry
}

/// To one primary, by a rule that retries.
pub(crate) fn setup(primary: SocketAddr, filters: Vec<Filter>, retry: Retry) -> Setup {
    limited(primary, filters, retry, Timeouts::default())
}

fn limited(primary: SocketAddr, filters: Vec<Filter>, retry: Retry, timeouts: Timeouts) -> Setup {
    let refs = vec![backend_ref("primary", &[primary])];
    Setup::rules(primary, vec![retried(filters, refs, retry, timeouts)])
}

/// Responds to the first requests as listed, and to others with 200. Each response says how many there
/// were.
fn failing(first: &'static [u16]) -> Server {
    let served = AtomicUsize::new(0);
    Server::start(move |mut visit| {
        while visit.request().is_some() {
            let number = served.fetch_add(1, SeqCst);
            let status = match first.get(number) {
                Some(&CLOSE) => return,
                Some(&RESET) => return visit.raw_connection.reset(),
                Some(&SILENCE) => return drop(visit.raw_connection.rest()),
                Some(status) => *status,
                None => 200,
            };
            let body = format!("response {}", number + 1);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n\r\n");
            visit.raw_connection.send(head + &body);
        }
    })
}

/// How often requests of the rule were sent again, by reason.
pub(crate) fn retries(rig: &Rig) -> Vec<(RouteRetryReason, u64)> {
    let object = ObjectName { namespace: "default".into(), name: "route".into() };
    let route = RouteKind::Http.named(object);
    let counts = rig.report().route_retries.get(&route).copied().unwrap_or_default();
    RouteRetryReason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

fn shown(message: &Message) -> (u16, &str) {
    (message.status(), std::str::from_utf8(&message.body).expect("text"))
}

#[test]
fn a_request_is_sent_again_on_the_codes_of_its_rule() {
    let (primary, shadow) = (failing(&[503, 500, 200, 502]), Server::ok());
    let filters = vec![mirror("shadow", shadow.address)];
    let rig = setup(primary.address, filters, retry(2)).start();
    let mut client = rig.client();
    assert_eq!(shown(&client.request(GET)), (200, "response 3"));
    assert_eq!(shown(&client.request(GET)), (502, "response 4"), "not one of its codes");
    assert_eq!(shown(&client.request(POST)), (200, "response 5"));
    let requests = primary.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests[..4].iter().all(|request| request.head == GET), "{requests:?}");
    // A connection for each attempt; the last one serves what follows.
    assert_eq!(primary.connections(), 3);
    assert_eq!(retries(&rig), [(RouteRetryReason::Code, 2)]);
    rig.all_ended("shadow", 3, Delivered);
    assert_eq!(shadow.wait_requests(3).len(), 3);
}

#[test]
fn the_last_response_passes_when_all_attempts_have_failed() {
    let primary = failing(&[503; 100]);
    let rig = setup(primary.address, Vec::new(), retry(2)).start();
    assert_eq!(shown(&rig.client().request(GET)), (503, "response 3"));
    // More than the bound of mirror is cut to it.
    let rig = setup(primary.address, Vec::new(), retry(1000)).start();
    let most = Retry::MAX_ATTEMPTS as usize + 1;
    assert_eq!(shown(&rig.client().request(GET)), (503, &*format!("response {}", 3 + most)));
    assert_eq!(primary.requests().len(), 3 + most);
}

#[test]
fn the_access_log_says_how_often_a_request_was_sent() {
    let primary = failing(&[503, 500]);
    let lines = logged(setup(primary.address, Vec::new(), retry(2)), |rig| {
        let mut client = rig.client();
        client.request(GET);
        client.request(GET);
        client.request("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    });
    let fields = ["status", "attempts"];
    let shown: Vec<_> = lines.iter().map(|line| fields.map(|field| line[field].clone())).collect();
    assert_eq!(shown, [[json!(200), json!(3)], [json!(200), json!(1)], [json!(400), json!(0)]]);
}

/// Some bytes, none like the next.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn a_body_is_sent_again_byte_for_byte_and_copied_once() {
    let (length, body) = (48 * 1024, bytes(48 * 1024));
    let counted = format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let counted = [counted.as_bytes(), &body].concat();
    let mut chunked = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(1000) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\nX-Sum: 7\r\n\r\n");
    for (request, trailers) in [(counted, ""), (chunked, "X-Sum: 7\r\n")] {
        let (primary, shadow) = (failing(&[503, 503]), Server::ok());
        let filters = vec![mirror("shadow", shadow.address)];
        let rig = setup(primary.address, filters, retry(3)).start();
        let mut client = rig.client();
        assert_eq!(shown(&client.request(&request)), (200, "response 3"));
        assert_eq!(shown(&client.request(GET)), (200, "response 4"), "the connection goes on");
        let (sent, copies) = (primary.requests(), shadow.wait_requests(2));
        // The copies came on separate connections, in any order.
        let posts = sent.iter().chain(&copies).filter(|got| got.head.starts_with("POST "));
        let posts: Vec<_> = posts.collect();
        assert_eq!(posts.len(), 3 + 1);
        for got in posts {
            assert!(got.body == body, "{} bytes of another body", got.body.len());
            assert_eq!(got.trailers.to_lowercase(), trailers.to_lowercase());
        }
        rig.all_ended("shadow", 2, Delivered);
        drop(client);
        eventually("nothing is held", || rig.memory.held() == 0);
    }
}

/// What a client gets whose body, of so many bytes, the first attempt takes.
fn first_fails(length: usize, memory: Option<usize>) -> (u16, usize) {
    let (primary, shadow) = (failing(&[503]), Server::ok());
    let mut setup = setup(primary.address, vec![mirror("shadow", shadow.address)], retry(3));
    setup.memory.connection = memory.unwrap_or(setup.memory.connection);
    let (rig, body) = (setup.start(), bytes(length));
    let mut client = rig.client();
    client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    client.send(&body);
    let status = client.message().status();
    rig.all_ended("shadow", 1, Delivered);
    assert!(shadow.wait_requests(1)[0].body == body);
    assert!(primary.requests().iter().all(|request| request.body == body));
    (status, primary.requests().len())
}

#[test]
fn a_body_beyond_the_bound_is_sent_once() {
    assert_eq!(first_fails(64 * 1024, None), (200, 2));
    assert_eq!(first_fails(64 * 1024 + 1, None), (503, 1));
    assert_eq!(first_fails(300 * 1024, None), (503, 1));
    // The pod's account has no room for it.
    assert_eq!(first_fails(40 * 1024, Some(40 * 1024)), (503, 1));
}

#[test]
fn a_body_that_is_not_finished_is_sent_again_as_far_as_it_has_come() {
    let (failed, wait) = gate();
    let served = AtomicUsize::new(0);
    let primary = Server::start(move |mut visit| {
        if served.fetch_add(1, SeqCst) == 0 {
            visit.raw_connection.until(b"first, ");
            visit.raw_connection.send("HTTP/1.1 503 Status\r\nContent-Length: 2\r\n\r\nno");
            return drop(visit.raw_connection.rest());
        }
        visit.raw_connection.until(b"first, ");
        failed.send(()).expect("the test waits");
        assert_eq!(visit.raw_connection.exactly(6), b"second");
        visit.raw_connection.send(OK);
        visit.raw_connection.rest();
    });
    let shadow = Server::ok();
    let rig = setup(primary.address, vec![mirror("shadow", shadow.address)], retry(1)).start();
    let mut client = rig.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\nfirst, ");
    wait();
    client.send("second");
    assert_eq!(client.message().body, b"ok");
    assert_eq!(primary.connections(), 2);
    rig.all_ended("shadow", 1, Delivered);
    assert_eq!(shadow.wait_requests(1)[0].body, b"first, second");
}

#[test]
fn a_connection_that_ends_before_a_response_is_retried_if_the_method_is_idempotent() {
    for (how, put) in [(&[CLOSE, RESET][..], false), (&[RESET, CLOSE], true)] {
        let (primary, shadow) = (failing(how), Server::ok());
        let filters = vec![mirror("shadow", shadow.address)];
        let rig = setup(primary.address, filters, Retry { codes: [].into(), ..retry(2) }).start();
        let request = if put { POST.replace("POST", "PUT") } else { GET.to_owned() };
        assert_eq!(shown(&rig.client().request(&request)), (200, "response 3"));
        assert_eq!(retries(&rig), [(RouteRetryReason::Lost, 2)]);
        rig.all_ended("shadow", 1, Delivered);
        assert!(primary.requests().iter().all(|got| got.body == primary.requests()[0].body));
    }
    // The primary may have done what it was asked for.
    for how in [&[CLOSE][..], &[RESET]] {
        let primary = failing(how);
        let rig = setup(primary.address, Vec::new(), retry(2)).start();
        let mut client = rig.client();
        client.send(POST);
        assert_eq!(client.rest(), (Vec::new(), End::Reset));
        assert_eq!((primary.requests().len(), retries(&rig)), (1, Vec::new()));
    }
}

#[test]
fn a_connection_that_cannot_be_made_is_retried_whatever_the_method() {
    let (socket, address) = refusing();
    let shadow = Server::ok();
    let backoff = Duration::from_millis(20);
    let retry = Retry { backoff, ..retry(Retry::MAX_ATTEMPTS) };
    let rig = setup(address, vec![mirror("shadow", shadow.address)], retry.clone()).start();
    let mut client = rig.client();
    client.send(POST);
    eventually("a retry", || !retries(&rig).is_empty());
    socket.listen(1).expect("a bound socket");
    let (stream, _) = socket.accept().expect("an attempt");
    let stream = std::net::TcpStream::from(stream);
    let mut primary = super::raw_connection::RawConnection::new(stream, Default::default());
    assert_eq!(primary.message().body, b"body");
    primary.send(OK);
    assert_eq!(client.message().body, b"ok");
    assert!(retries(&rig).iter().all(|(reason, _)| *reason == RouteRetryReason::Connect));
    rig.all_ended("shadow", 1, Delivered);
    // The end of all attempts is what it is without any.
    let (_socket, address) = refusing();
    let rig = setup(address, Vec::new(), Retry { backoff: Duration::ZERO, ..retry }).start();
    let response = rig.client().request(POST);
    assert_eq!(response.status(), 503);
    assert!(response.value("x-mirror-reason").is_some_and(|why| why.contains("refused")));
    assert_eq!(retries(&rig), [(RouteRetryReason::Connect, u64::from(Retry::MAX_ATTEMPTS))]);
}

#[test]
fn a_connection_that_takes_too_long_is_retried_whatever_the_method() {
    let (full, _held) = full();
    let (primary, shadow) = (Server::ok(), Server::ok());
    let refs = vec![backend_ref("primary", &[full, primary.address])];
    let timeouts = Timeouts { request: None, backend: Some(ATTEMPT) };
    let filters = vec![mirror("shadow", shadow.address)];
    let rule = retried(filters, refs, retry(1), timeouts);
    let rig = Setup::rules(primary.address, vec![rule]).start();
    let mut clients = 0;
    // Half of the clients get the other endpoint at once.
    while retries(&rig).is_empty() {
        assert!(clients < 64, "no client got the endpoint that accepts no connection");
        clients += 1;
        assert_eq!(rig.client().request(POST).body, b"ok");
    }
    assert_eq!(retries(&rig), [(RouteRetryReason::Timeout, 1)]);
    rig.all_ended("shadow", clients, Delivered);
    assert_eq!(primary.requests().len(), usize::try_from(clients).expect("few"));
}

#[test]
fn nothing_is_sent_again_once_the_client_has_got_anything() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let late = "HTTP/1.1 503 Status\r\nContent-Length: 2\r\n\r\nno";
    let primary = Server::responding([early, late].concat());
    let rig = setup(primary.address, Vec::new(), retry(2)).start();
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.exactly(early.len()), early.as_bytes());
    assert_eq!(client.message().status(), 503);
    assert_eq!(primary.requests().len(), 1);
    // In the middle of a response.
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
    });
    let rig = setup(primary.address, Vec::new(), retry(2)).start();
    let mut client = rig.client();
    client.send(GET);
    let (response, end) = client.rest();
    assert!(response.ends_with(b"\r\n\r\nha"), "{}", response.escape_ascii());
    assert_eq!((end, primary.connections()), (End::Fin, 1));
    assert_eq!(retries(&rig), []);
}

#[test]
fn what_is_no_response_passes_unread() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("garbage\r\n\r\n");
    });
    let rig = setup(primary.address, Vec::new(), retry(2)).start();
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.rest().0, b"garbage\r\n\r\n");
    assert_eq!(primary.connections(), 1);
}

const ATTEMPT: Duration = Duration::from_millis(150);

#[test]
fn an_attempt_that_takes_too_long_is_repeated_if_the_method_is_idempotent() {
    let timeouts = Timeouts { request: None, backend: Some(ATTEMPT) };
    let (primary, shadow) = (failing(&[SILENCE, SILENCE]), Server::ok());
    let filters = vec![mirror("shadow", shadow.address)];
    let rig = limited(primary.address, filters, retry(2), timeouts).start();
    let begun = Instant::now();
    assert_eq!(shown(&rig.client().request(GET)), (200, "response 3"));
    assert!(begun.elapsed() >= ATTEMPT * 2, "{:?}", begun.elapsed());
    assert_eq!(retries(&rig), [(RouteRetryReason::Timeout, 2)]);
    rig.all_ended("shadow", 1, Delivered);
    let primary = failing(&[SILENCE]);
    let rig = limited(primary.address, Vec::new(), retry(2), timeouts).start();
    assert_eq!(rig.client().request(POST).status(), 504);
    assert_eq!(primary.requests().len(), 1);
}

#[test]
fn the_request_timeout_is_that_of_all_attempts_and_of_the_waits_between_them() {
    let limit = ATTEMPT * 3;
    let timeouts = Timeouts { request: Some(limit), backend: Some(ATTEMPT) };
    let primary = failing(&[SILENCE; 20]);
    let rig = limited(primary.address, Vec::new(), retry(10), timeouts).start();
    let begun = Instant::now();
    assert_eq!(rig.client().request(GET).status(), 504);
    assert!((limit..limit * 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // Three whole ones at most, and what is left of the limit.
    assert!((1..=4).contains(&primary.requests().len()), "{}", primary.requests().len());
    // If the next attempt would come too late, the response passes at once.
    let primary = failing(&[503; 20]);
    let slow = Retry { backoff: Duration::from_secs(60), ..retry(10) };
    let timeouts = Timeouts { request: Some(Duration::from_secs(40)), backend: None };
    let rig = limited(primary.address, Vec::new(), slow, timeouts).start();
    assert_eq!(shown(&rig.client().request(GET)), (503, "response 1"));
}

#[test]
fn the_backoff_passes_before_each_retry() {
    let primary = failing(&[503, 503]);
    let slow = Retry { backoff: ATTEMPT, ..retry(2) };
    let rig = setup(primary.address, Vec::new(), slow).start();
    let begun = Instant::now();
    assert_eq!(shown(&rig.client().request(GET)), (200, "response 3"));
    assert!(begun.elapsed() >= ATTEMPT * 3, "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_goes_away_ends_the_retries() {
    let unfinished = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody";
    for (request, reads) in [(GET, true), (POST, true), (unfinished, false)] {
        let primary = Server::start(move |mut visit| {
            let raw = &mut visit.raw_connection;
            raw.until(if reads { b"\r\n\r\n" } else { b"body" });
            raw.send("HTTP/1.1 503 Status\r\nContent-Length: 2\r\n\r\nno");
            raw.rest();
        });
        // Longer than any test takes.
        let slow = Retry { backoff: Duration::from_secs(600), ..retry(10) };
        let rig = setup(primary.address, Vec::new(), slow).start();
        let mut client = rig.client();
        client.send(request);
        eventually("an attempt that has failed", || primary.ended(0).is_some());
        client.reset();
        eventually("the end of the exchange", || rig.report().exchanges.len() == 1);
        let ended = |report: &mirror_user::outcome::Report| {
            let requests = report.exchanges.values().next().expect("one").requests;
            requests.as_flattened().as_flattened().iter().sum::<u64>()
        };
        assert_eq!(ended(&rig.report()), 1);
        assert_eq!((primary.connections(), retries(&rig)), (1, Vec::new()));
    }
}

#[test]
fn a_client_that_waits_for_100_is_asked_by_the_primary_that_wants_its_body() {
    let served = AtomicUsize::new(0);
    let primary = Server::start(move |mut visit| {
        let raw = &mut visit.raw_connection;
        assert!(raw.head().head.contains("Expect: 100-continue\r\n"));
        if served.fetch_add(1, SeqCst) == 0 {
            raw.send("HTTP/1.1 503 Status\r\nContent-Length: 2\r\n\r\nno");
        } else {
            raw.send("HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(raw.exactly(4), b"body");
            raw.send(OK);
        }
        raw.rest();
    });
    let shadow = Server::ok();
    let rig = setup(primary.address, vec![mirror("shadow", shadow.address)], retry(1)).start();
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    let response = client.message();
    assert_eq!((&*response.body, response.value("connection")), (&b"ok"[..], None));
    assert_eq!(primary.connections(), 2);
    rig.all_ended("shadow", 1, Delivered);
    assert_eq!(shadow.wait_requests(1)[0].body, b"body");
}

#[test]
fn a_request_for_a_tunnel_is_sent_once() {
    let upgrade = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let offer = upgrade.replace("websocket", "TLS/1.2");
    let primary = failing(&[503, 503]);
    let rig = setup(primary.address, Vec::new(), retry(2)).start();
    assert_eq!(shown(&rig.client().request(upgrade)), (503, "response 1"));
    assert_eq!(shown(&rig.client().request(&offer)), (200, "response 3"), "it only offers one");
}

#[test]
fn the_backend_is_chosen_once_and_another_of_its_endpoints_comes_next() {
    let (first, second, other) = (failing(&[503; 40]), failing(&[503; 40]), failing(&[503; 40]));
    let refs = vec![
        backend_ref("one", &[first.address, second.address]),
        backend_ref("two", &[other.address]),
    ];
    let entry = retried(Vec::new(), refs, retry(3), Timeouts::default());
    let rig = Setup::rules(first.address, vec![entry]).start();
    for _ in 0..10 {
        let seen = || [&first, &second, &other].map(|server| server.requests().len());
        let before = seen();
        assert_eq!(rig.client().request(GET).status(), 503);
        let after = seen();
        let sent = [0, 1, 2].map(|at| after[at] - before[at]);
        assert!([[2, 2, 0], [0, 0, 4]].contains(&sent), "{sent:?}");
    }
}

#[test]
fn a_rule_without_retry_sends_once() {
    let primary = failing(&[503, CLOSE]);
    let rig = Setup::to(&primary).start();
    assert_eq!(shown(&rig.client().request(GET)), (503, "response 1"));
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
    assert_eq!((primary.requests().len(), retries(&rig)), (2, Vec::new()));
}
