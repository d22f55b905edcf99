//! Tests of readings: statuses of agents in, counts or errors out.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::model::ObjectName;

/// The status of an agent in a run, with so many responses of `d/v2:80` for the route `d/r`.
fn status(run: &str, responses: u64) -> Value {
    let condition = json!({"status": true, "reason": "R", "message": ""});
    let route = |name: &str| json!({"route": name, "parent": "d/s", "accepted": condition, "resolved_refs": condition});
    let times =
        json!({"bounds_seconds": [1.0], "counts": [responses, 0], "sum_seconds": responses});
    let pairs = |route: &str, shadow: &str, n: u64| {
        json!({"route": route, "shadow": shadow, "responses": n,
        "differing": {}, "primary_seconds": null, "shadow_seconds": null,
        "classes": if n > 0 { json!({"2xx": {"2xx": n}}) } else { json!({}) },
        "primary_times": times, "shadow_times": times})
    };
    json!({
        "ready": true, "run": {"id": run, "uptime_seconds": 9.5}, "endpoints": "service",
        "workloads": [], "frontends": {}, "problems": [], "warnings": [], "uncopied": {}, "refused": {},
        "routes": [route("d/r"), route("d/idle"), route("grpcroute/d/calls")],
        "mirrors": [{"route": "d/r", "shadow": "d/v2:80", "tapped": false},
            {"route": "d/other", "shadow": "d/v2:80", "tapped": false},
            {"route": "d/r", "shadow": "d/new:80", "tapped": true}],
        "responses": [pairs("d/r", "d/v2:80", responses), pairs("d/r", "d/old:80", 4),
            pairs("d/past", "d/v2:80", 6)],
        "copies": [{"shadow": "d/v2:80", "selected": 99, "in_flight": 0, "delivered": 3 * responses,
            "dropped": {"connect": responses}, "unknown": {}}],
    })
}

fn reading(statuses: &[(&str, Value)]) -> Reading {
    let agent = |(address, status): &(&str, Value)| {
        let status: Status = serde_json::from_value(status.clone()).unwrap();
        let (address, run) = (address.parse().unwrap(), status.run.clone().unwrap());
        (run.id.clone(), AgentReading { address, run, unready: status.unready.clone(), status })
    };
    Reading { agents: statuses.iter().map(agent).collect() }
}

fn route(kind: RouteKind, name: &str) -> RouteName {
    kind.named(ObjectName { namespace: "d".into(), name: name.into() })
}

#[test]
fn what_counts_is_what_all_agents_counted_in_between() {
    let wanted = route(RouteKind::Http, "r");
    let first = reading(&[("10.0.0.1:1", status("a", 5)), ("10.0.0.2:1", status("b", 0))]);
    let last = reading(&[("10.0.0.1:1", status("a", 7)), ("10.0.0.2:1", status("b", 40))]);
    last.follows(&first).unwrap();
    let shadows = last.shadows(&wanted, None).unwrap();
    assert_eq!(shadows, ["d/new:80", "d/old:80", "d/v2:80"]);
    let counted = last.counted(Some(&first), &wanted, &shadows).unwrap();
    // Nothing was counted of the old one, and it is no mirror of the route any more.
    let [new, v2] = &counted[..] else { panic!("{counted:?}") };
    assert_eq!((&*new.shadow, new.tapped, new.counts.cells().count()), ("d/new:80", true, 0));
    assert_eq!(v2.counts.cells().collect::<Vec<_>>(), [("2xx", "2xx", 42)]);
    assert_eq!((v2.counts.delivered, v2.counts.dropped["connect"]), (126, 42));
    assert_eq!((v2.counts.shadow.count(), v2.counts.shadow.sum_seconds), (42, 42.0));
    assert_eq!((v2.other_routes.clone(), v2.tapped), (["d/other".to_owned()].into(), false));
    let all = last.counted(None, &wanted, &shadows).unwrap();
    assert_eq!(
        all.iter().map(|s| &*s.shadow).collect::<Vec<_>>(),
        ["d/new:80", "d/old:80", "d/v2:80"]
    );
    assert_eq!(all[2].counts.cells().collect::<Vec<_>>(), [("2xx", "2xx", 47)]);
    assert!(all[2].other_routes.contains("d/past"));
    assert_eq!(last.shadows(&wanted, Some("d/v2:80")).unwrap(), ["d/v2:80"]);
}

#[test]
fn another_run_of_an_agent_is_not_passed_over() {
    let first = reading(&[("10.0.0.1:1", status("a", 5)), ("10.0.0.2:1", status("b", 5))]);
    let error =
        |statuses: &[(&str, Value)]| reading(statuses).follows(&first).unwrap_err().to_string();
    let restarted = error(&[("10.0.0.1:1", status("a", 5)), ("10.0.0.2:1", status("c", 5))]);
    assert!(restarted.contains("10.0.0.2:1 was restarted"), "{restarted}");
    let gone = error(&[("10.0.0.1:1", status("a", 5))]);
    assert!(gone.contains("10.0.0.2:1 is gone"), "{gone}");
    let new = [
        ("10.0.0.1:1", status("a", 5)),
        ("10.0.0.2:1", status("b", 5)),
        ("10.0.0.3:1", status("c", 5)),
    ];
    assert!(error(&new).contains("started at 10.0.0.3:1"));
    let back = reading(&[("10.0.0.1:1", status("a", 4)), ("10.0.0.2:1", status("b", 5))]);
    let back = back.counted(Some(&first), &route(RouteKind::Http, "r"), &["d/v2:80".into()]);
    let back = back.unwrap_err().to_string();
    assert!(back.contains("10.0.0.1:1") && back.contains("went back"), "{back}");
}

#[test]
fn names_that_no_agent_knows_are_errors_that_say_which_they_know() {
    let reading = reading(&[("10.0.0.1:1", status("a", 5))]);
    let error =
        |kind, name, shadow| reading.shadows(&route(kind, name), shadow).unwrap_err().to_string();
    let unknown = error(RouteKind::Http, "typo", None);
    assert!(
        unknown.contains("HTTPRoute d/typo; they know d/idle, d/r, grpcroute/d/calls"),
        "{unknown}"
    );
    let kind = error(RouteKind::Http, "calls", None);
    assert!(kind.contains("give --kind GRPCRoute"), "{kind}");
    let none = error(RouteKind::Http, "idle", None);
    assert!(none.contains("HTTPRoute d/idle mirrors to no shadow"), "{none}");
    let shadow = error(RouteKind::Http, "r", Some("d/v3:80"));
    assert!(
        shadow.contains("does not mirror to d/v3:80; it mirrors to d/new:80, d/old:80, d/v2:80"),
        "{shadow}"
    );
}

/// An admin server that responds to each request with this status.
async fn serve(status: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = status.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "a whole request");
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    address.to_string()
}

#[tokio::test]
async fn every_agent_must_be_read_and_counts_once() {
    let (one, same) = (serve(status("a", 5)).await, serve(status("a", 5)).await);
    let two = serve(status("b", 5)).await;
    let all = Reading::take(&[one.clone(), same, two.clone(), one.clone()]).await.unwrap();
    assert_eq!(all.agents().map(|agent| &*agent.run.id).collect::<Vec<_>>(), ["a", "b"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nothing = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Reading::take(&[one.clone(), nothing.clone(), two]).await.unwrap_err().to_string();
    let why = format!(
        "1 of 3 agents cannot be read, so that their counts are missing:\ncannot connect to an agent at {nothing}"
    );
    assert!(error.starts_with(&why), "{error}");
    let mut older = status("a", 5);
    older.as_object_mut().unwrap().remove("run");
    let error = Reading::take(&[serve(older).await]).await.unwrap_err().to_string();
    assert!(error.contains("older version") && error.contains("upgrade"), "{error}");
    let error = Reading::take(&[serve(json!({})).await]).await.unwrap_err().to_string();
    assert!(error.contains("not the status of an agent"), "{error}");
    // A name that no resolver has to be asked about.
    let error = Reading::take(&["a\0:1".into()]).await.unwrap_err().to_string();
    assert!(error.contains("has no address") && error.contains("ADDRESS:PORT"), "{error}");
}
