//! Writing to a scripted API server.

use std::{collections::VecDeque, convert::Infallible, sync::Mutex};

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::{control::resolve::Condition, controller::status::ParentStatus, model::ObjectName};

/// A request: method, path and body.
type ReceivedRequest = (Method, String, Value);

/// Responses in their order; after the last one, silence.
#[derive(Clone, Default)]
struct Server {
    responses: Arc<Mutex<VecDeque<(u16, Value)>>>,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl Server {
    async fn start(responses: impl IntoIterator<Item = (u16, Value)>) -> (Self, Client) {
        let server = Self::default();
        server.responses.lock().unwrap().extend(responses);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = accepting.clone();
                let service = service_fn(move |request| server.clone().response(request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        (server, Client::try_from(config).unwrap())
    }

    async fn response(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let received = (head.method, head.uri.path().to_owned(), body);
        self.received.lock().unwrap().push(received);
        let response = self.responses.lock().unwrap().pop_front();
        let Some((status, response)) = response else { return std::future::pending().await };
        let body = Full::from(response.to_string());
        Ok(Response::builder().status(status).body(body).unwrap())
    }

    fn received(&self) -> Vec<ReceivedRequest> {
        self.received.lock().unwrap().clone()
    }
}

fn refusal(code: u16) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "no", "reason": "Because", "code": code});
    (code, status)
}

fn foreign() -> Value {
    json!({"controllerName": "example.net/other", "parentRef": {"name": "gateway"}})
}

fn route(generation: i64, version: &str, parents: &[Value]) -> Value {
    json!({"apiVersion": VERSION, "kind": "HTTPRoute",
           "metadata": {"namespace": "shop", "name": "cart", "uid": "u", "generation": generation,
                        "resourceVersion": version},
           "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}]},
           "status": {"parents": parents}})
}

fn name(name: &str) -> RouteName {
    RouteKind::Http.named(ObjectName { namespace: "shop".into(), name: name.into() })
}

/// A writer whose plan accepts the routes, and which leads for so long.
fn writer(client: &Client, routes: &[&str], leads: Duration) -> Writer {
    let (row, _) =
        RouteRow::read(&route(1, "5", &[]), &Defaults::default(), &mut Allowance::default())
            .unwrap();
    let accepted = Condition { holds: true, reason: "Accepted", message: "yes".into() };
    let wanted = vec![ParentStatus {
        parent_ref: row.parent_refs[0].clone(),
        conditions: vec![("Accepted", accepted)],
    }];
    let plan = RoutePlan { row, wanted };
    let plan: StatusPlan = routes.iter().map(|route| (name(route), plan.clone())).collect();
    let metrics = Arc::new(Metrics::default());
    Writer {
        routes: RouteApi::new(client.clone()),
        leadership: Leadership::lasting(leads),
        plans: watch::channel(Arc::new(plan)).1,
        reporter: Reporter::new(client.clone(), "test".into(), Arc::clone(&metrics)),
        metrics,
    }
}

const LONG: Duration = Duration::from_secs(60);

async fn outcome(server: &Client, leads: Duration) -> Outcome {
    let mut writer = writer(server, &["cart"], leads);
    let plan = writer.plans.borrow()[&name("cart")].clone();
    writer.within(leads, &name("cart"), &plan).await
}

#[tokio::test]
async fn the_whole_list_is_patched_under_the_version_that_was_read() {
    let (server, client) = Server::start([(200, route(1, "6", &[]))]).await;
    assert_eq!(outcome(&client, LONG).await, Outcome::Written);
    let [(method, path, body)] = &server.received()[..] else { panic!("{:?}", server.received()) };
    assert_eq!(method, Method::PATCH);
    assert_eq!(path, "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart/status");
    assert_eq!(body["metadata"], json!({"resourceVersion": "5"}));
    assert_eq!(body["status"]["parents"][0]["controllerName"], status::CONTROLLER);
}

#[tokio::test]
async fn after_a_conflict_the_route_is_read_again_and_nobodys_entry_is_lost() {
    let newer = (200, route(1, "9", &[foreign()]));
    let responses = [refusal(409), newer, (200, route(1, "10", &[]))];
    let (server, client) = Server::start(responses).await;
    assert_eq!(outcome(&client, LONG).await, Outcome::Written);
    let received = server.received();
    let methods: Vec<_> = received.iter().map(|(method, ..)| method.clone()).collect();
    assert_eq!(methods, [Method::PATCH, Method::GET, Method::PATCH]);
    let body = &received[2].2;
    assert_eq!(body["metadata"]["resourceVersion"], "9");
    assert_eq!(body["status"]["parents"][0], foreign());
    assert_eq!(body["status"]["parents"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_route_that_says_something_else_by_now_is_left_to_the_next_plan() {
    let (server, client) = Server::start([refusal(409), (200, route(2, "9", &[]))]).await;
    assert_eq!(outcome(&client, LONG).await, Outcome::Unchanged);
    assert_eq!(server.received().len(), 2);
    let (_, client) = Server::start([refusal(404)]).await;
    assert_eq!(outcome(&client, LONG).await, Outcome::Unchanged, "gone");
}

#[tokio::test]
async fn endless_conflicts_are_left_for_later() {
    let newer = |n: u32| (200, route(1, &n.to_string(), &[]));
    let responses = (0..ATTEMPTS).flat_map(|n| [refusal(409), newer(n)]);
    let (server, client) = Server::start(responses.collect::<Vec<_>>()).await;
    assert_eq!(outcome(&client, LONG).await, Outcome::Failed);
    assert_eq!(server.received().len(), 2 * ATTEMPTS as usize);
}

#[tokio::test]
async fn a_write_under_way_is_dropped_when_the_leadership_ends() {
    let (server, client) = Server::start([]).await;
    let start = std::time::Instant::now();
    assert_eq!(outcome(&client, Duration::from_millis(200)).await, Outcome::Dropped);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn without_leading_nothing_is_requested() {
    let (server, client) = Server::start([]).await;
    let mut writer = writer(&client, &["cart"], Duration::ZERO);
    assert!(writer.round().await, "unfinished");
    assert_eq!(server.received().len(), 0);
}

#[tokio::test]
async fn what_was_dropped_is_written_when_it_leads_again() {
    let (server, client) = Server::start([]).await;
    let mut writer = writer(&client, &["a", "b"], Duration::from_millis(100));
    let leads = writer.leadership.clone();
    assert!(writer.round().await, "the first is dropped, the second not begun");
    server.responses.lock().unwrap().extend([(200, route(1, "6", &[])), (200, route(1, "6", &[]))]);
    // The plan stays as it is: only the leadership comes back.
    let (until, back) = Leadership::renewable();
    writer.leadership = back;
    let metrics = Arc::clone(&writer.metrics);
    let (plans, receiver) = watch::channel(Arc::clone(&writer.plans.borrow()));
    writer.plans = receiver;
    let running = tokio::spawn(writer.run());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.received().len(), 1, "it does not lead");
    until.send_replace(Some(crate::controller::lease::boot_time() + LONG));
    let done = || metrics.encode(&leads).unwrap().contains("outcome=\"written\"} 2");
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if done() {
            break;
        }
    }
    assert!(done(), "{:?}", server.received());
    drop(plans);
    running.await.unwrap();
}

#[tokio::test]
async fn a_route_that_is_refused_delays_no_other() {
    let (server, client) = Server::start([refusal(422), (200, route(1, "6", &[]))]).await;
    let mut writer = writer(&client, &["a", "b"], LONG);
    assert!(writer.round().await, "one failed, and is tried again");
    let paths: Vec<_> = server.received().into_iter().map(|(_, path, _)| path).collect();
    assert!(paths[0].ends_with("/a/status") && paths[1].ends_with("/b/status"), "{paths:?}");
}
