//! Limits of the connections to a shadow: how many, and how long connecting may take.

use std::time::Duration;

use mirror_user::outcome::{
    CopyOutcome::{Delivered, Dropped, Unknown},
    DropReason, UnknownReason,
};

use super::{
    faults::unharmed,
    harness::{Setup, ended, eventually, told},
    pipelining::GET,
    server::{OK, Server},
    wire::Wire,
};

#[test]
fn connections_to_a_shadow_are_limited() {
    let (primary, shadow) = (Server::ok(), Server::silent());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 4;
    setup.options.shadow.response_timeout = Duration::from_secs(3);
    let rig = setup.start();
    unharmed(&rig, 20, 10);
    // Four are carried, four wait in vain for a second.
    let copies = rig.settled("shadow", 20);
    assert_eq!(ended(&copies, Dropped(DropReason::Connections)), 16, "{}", told(&copies));
    assert_eq!(ended(&copies, Unknown(UnknownReason::Timeout)), 4, "{}", told(&copies));
    assert_eq!(shadow.connections(), 4);
}

#[test]
fn sixteen_without_content_wait_for_each_connection() {
    let (primary, shadow) = (Server::ok(), Server::silent());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 1;
    setup.options.shadow.response_timeout = Duration::from_secs(3);
    let rig = setup.start();
    let mut client = rig.client();
    for _ in 0..20 {
        assert_eq!(client.ask(GET).body, b"ok");
    }
    let dropped = || ended(&rig.copies("shadow"), Dropped(DropReason::Connections));
    eventually("some are dropped", || dropped() > 0);
    assert_eq!(dropped(), 3);
    let copies = rig.settled("shadow", 20);
    assert_eq!(ended(&copies, Dropped(DropReason::Connections)), 19, "{}", told(&copies));
}

#[test]
fn copies_wait_a_moment_for_a_connection() {
    let primary = Server::ok();
    // Slow, and closes after each answer without saying so.
    let shadow = Server::start(|mut visit| {
        visit.request();
        std::thread::sleep(Duration::from_millis(100));
        visit.wire.send(OK);
    });
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 3;
    let rig = setup.start();
    let mut client = rig.client();
    for _ in 0..6 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    }
    rig.all_ended("shadow", 6, Delivered);
    assert_eq!(shadow.connections(), 6);
}

#[test]
fn syns_that_nobody_answers_time_out() {
    let primary = Server::ok();
    // A queue of length 0 takes one connection; the next SYNs are dropped by the kernel.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _filler = Wire::connect(address);
    let mut setup = Setup::mirrored(&primary, address);
    setup.options.shadow.connect_timeout = Duration::from_millis(200);
    let rig = setup.start();
    unharmed(&rig, 10, 10);
    let copies = rig.settled("shadow", 10);
    assert_eq!(ended(&copies, Dropped(DropReason::ConnectTimeout)), 10, "{}", told(&copies));
}
