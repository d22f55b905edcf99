//! Leaving: a worker that drains, and a workload that goes away with all its sockets.

use std::time::Duration;

use mirror_user::{proxy::ShadowNetns, workload::WorkerCommand};

use super::{
    harness::{FRONTEND, Setup, eventually, gate},
    raw_connection::{End, RawConnection},
    server::{OK, Server},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_draining_worker_closes_each_connection_after_its_response() {
    let (go, wait) = gate();
    let primary = Server::start(move |mut visit| {
        while let Some(request) = visit.request() {
            if request.head.starts_with("GET /slow") {
                wait();
            }
            visit.raw_connection.send(OK);
        }
    });
    let rig = Setup::to(&primary).start();
    let (mut idle, mut waiting) = (rig.client(), rig.client());
    assert_eq!(idle.request(GET).value("connection"), None);
    waiting.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    primary.wait_requests(2);
    rig.worker.send(WorkerCommand::Drain);
    rig.report();
    drop(go);
    for (mut client, request) in [(waiting, ""), (idle, GET), (rig.client(), GET)] {
        let response = client.request(request);
        assert_eq!(response.body, b"ok");
        assert_eq!(response.value("connection"), Some("close"));
        assert_eq!(client.rest(), (Vec::new(), End::Fin));
    }
    eventually("nothing is left", || rig.worker.left() == 0);
}

#[test]
fn a_response_of_our_own_says_close_as_well() {
    let original = Server::ok();
    let rig = Setup::rules(original.address, Vec::new()).start();
    rig.worker.send(WorkerCommand::Drain);
    rig.report();
    let mut client = rig.client();
    let response = client.request([GET, GET].concat());
    assert_eq!((response.status(), response.value("connection")), (404, Some("close")));
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
}

#[test]
fn what_is_left_to_drain_is_known() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut clients: Vec<_> = (0..5).map(|_| rig.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.request(GET).body, b"ok"));
    eventually("five are left", || rig.worker.left() == 5);
    clients.clear();
    eventually("none is left", || rig.worker.left() == 0);
}

#[test]
fn a_workload_that_leaves_takes_all_its_sockets_along() {
    // Answers /ok; anything else is left without a response, or in the middle of one.
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            match request.head.split(' ').nth(1) {
                Some("/ok") => visit.raw_connection.send(OK),
                Some("/half") => {
                    visit.raw_connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
                }
                _ => {}
            }
        }
    });
    let shadow = Server::silent();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.netns = ShadowNetns::Pod;
    // Longer than the test waits.
    setup.options.shadow.response_timeout = Duration::from_secs(600);
    let rig = setup.start();
    let (key, address) = rig.serve(FRONTEND);
    let mut stays = rig.client();
    let paths = ["/ok", "/half", "/never"];
    let mut clients = paths.map(|path| {
        let mut client = RawConnection::connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    });
    clients[0].message();
    clients[1].until(b"x");
    primary.wait_requests(3);
    eventually("the copies are out", || shadow.connections() == 3);
    let opaque = RawConnection::connect(address);
    rig.worker.send(WorkerCommand::Leave(key));
    for mut client in clients {
        client.rest();
    }
    drop(opaque);
    eventually("the primary's are closed", || (0..3).all(|n| primary.ended(n).is_some()));
    eventually("the shadow's are closed", || (0..3).all(|n| shadow.ended(n).is_some()));
    rig.settled("shadow", 3);
    // The listener is closed, the other workload's is not.
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(stays.request("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
}
