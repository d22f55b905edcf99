//! Limits of the connections to a shadow: how many, and how long connecting may take.

use std::time::Duration;

use mirror_user::outcome::{
    CopyOutcome::{Dropped, Unknown},
    DropReason, UnknownReason,
};

use super::{
    faults::unharmed,
    harness::{Setup, ended, told},
    server::Server,
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
    let copies = rig.settled("shadow", 20);
    assert_eq!(ended(&copies, Dropped(DropReason::Connections)), 16, "{}", told(&copies));
    assert_eq!(ended(&copies, Unknown(UnknownReason::Timeout)), 4, "{}", told(&copies));
    assert_eq!(shadow.connections(), 4);
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
