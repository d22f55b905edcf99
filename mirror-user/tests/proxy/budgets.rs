//! Budgets, and copies that are cut: what is held stays within the limits, comes back to nothing,
//! and a cut copy never looks complete.

use std::{sync::mpsc, time::Duration};

use mirror_user::outcome::{CopyOutcome::Dropped, DropReason};

use super::{
    harness::{Rig, Setup, backend_ref, ended, eventually, gate, mirror, rule, told},
    server::{OK, Server},
    wire::Wire,
};

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A shadow that accepts, and reads nothing until the sender is dropped; then everything.
fn stalled() -> (Server, mpsc::Sender<()>) {
    let (release, wait) = gate();
    let server = Server::start(move |mut visit| {
        visit.wire.narrow();
        wait();
        visit.wire.rest();
    });
    (server, release)
}

/// Nothing of a copy that was cut says that it is whole: neither the last chunk nor all bytes of
/// its length.
fn looks_cut(shadow: &Server) {
    eventually("the cut copy's connection ends", || shadow.ended(0).is_some());
    let bytes = shadow.bytes(0);
    assert!(shadow.requests().is_empty());
    assert!(!bytes.windows(7).any(|w| w == b"\r\n0\r\n\r\n"), "the last chunk");
}

fn upload(client: &mut Wire, length: usize) {
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(client.ask(vec![b'x'; length]).body, b"ok");
}

/// Copies of one upload of 20 MB under these budgets.
fn cut_by(budgets: (usize, usize, usize), reason: DropReason) {
    let primary = Server::ok();
    let (shadow, release) = stalled();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = budgets;
    let rig = setup.start();
    let mut client = rig.client();
    upload(&mut client, 20_000_000);
    let copies = rig.settled("shadow", 1);
    assert_eq!(ended(&copies, Dropped(reason)), 1, "{}", told(&copies));
    drop(release);
    looks_cut(&shadow);
    assert!(shadow.bytes(0).len() < 20_000_000);
    assert_eq!(primary.requests()[0].body.len(), 20_000_000);
}

#[test]
fn each_budget_cuts_by_its_own_name() {
    cut_by((1 << 20, 8 << 20, 64 << 20), DropReason::RequestBudget);
    cut_by((64 << 20, 1 << 20, 64 << 20), DropReason::BackendBudget);
    cut_by((64 << 20, 64 << 20, 1 << 20), DropReason::AgentBudget);
}

#[test]
fn the_head_counts_as_well() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = (10_000, 1 << 20, 1 << 20);
    let rig = setup.start();
    let large = "x".repeat(20_000);
    let answer = rig.client().ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n"));
    assert_eq!(answer.body, b"ok");
    rig.all_ended("shadow", 1, Dropped(DropReason::RequestBudget));
    assert_eq!(shadow.connections(), 0);
}

#[test]
fn one_byte_chunks_against_a_stalled_shadow_stay_within_the_budget() {
    const CHUNKS: usize = 100_000;
    let primary = Server::start(|mut visit| {
        visit.wire.until(b"\r\n0\r\n\r\n");
        visit.wire.send(OK);
        visit.wire.rest();
    });
    let (shadow, release) = stalled();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = (30_000, 1 << 20, 1 << 20);
    // Chunks leave many at a time, and the kernel would take them all.
    setup.send_buffer = Some(4096);
    // The budget ends it, not the time.
    setup.options.shadow.response_timeout = Duration::from_secs(600);
    let rig = setup.start();
    let mut client = rig.client();
    client.send(CHUNKED);
    let block = b"1\r\nx\r\n".repeat(CHUNKS / 100);
    let mut most = 0;
    for n in 1..=100 {
        client.send(&block);
        eventually("all so far at the primary", || primary.received(0) > n * block.len());
        most = most.max(rig.budgets.agent().used());
    }
    assert_eq!(client.ask("0\r\n\r\n").body, b"ok");
    let copies = rig.settled("shadow", 1);
    assert_eq!(ended(&copies, Dropped(DropReason::RequestBudget)), 1, "{}", told(&copies));
    assert!((256..=30_000).contains(&most), "{most}");
    drop(release);
    looks_cut(&shadow);
}

#[test]
fn a_cut_copy_does_not_stop_the_next() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = (20_000, 1 << 20, 1 << 20);
    let rig = setup.start();
    let mut client = rig.client();
    // Larger than the budget in one piece.
    upload(&mut client, 1_000_000);
    eventually("the copy is cut", || {
        ended(&rig.copies("shadow"), Dropped(DropReason::RequestBudget)) == 1
    });
    upload(&mut client, 1_000);
    rig.settled("shadow", 2);
    assert_eq!(shadow.wait_requests(1)[0].body.len(), 1_000);
}

/// A rig whose primary and shadow have both received the start of a body.
fn halfway(begun: &str, primary: Server) -> (Rig, Wire, Server, Server) {
    let shadow = Server::start(|mut visit| {
        visit.request();
        visit.wire.rest();
    });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    client.send(begun);
    let has = |server: &Server| server.bytes(0).windows(4).any(|w| w == b"part");
    eventually("both have a part", || has(&primary) && has(&shadow));
    (rig, client, primary, shadow)
}

#[test]
fn a_client_gone_mid_body_cuts_the_copy() {
    for begun in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\npart".to_owned(),
        format!("{CHUNKED}a\r\npart"),
    ] {
        for reset in [false, true] {
            let (rig, client, _primary, shadow) = halfway(&begun, Server::silent());
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            rig.all_ended("shadow", 1, Dropped(DropReason::ClientGone));
            looks_cut(&shadow);
        }
    }
}

#[test]
fn a_primary_that_ends_early_cuts_the_copy() {
    let (go, wait) = gate();
    let primary = Server::start(move |mut visit| {
        while visit.wire.try_exactly(1).is_ok_and(|byte| byte != b"t") {}
        wait();
        visit.wire.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        visit.wire.finish();
        visit.wire.rest();
    });
    let begun = format!("{CHUNKED}4\r\npart\r\n");
    let (rig, mut client, _primary, shadow) = halfway(&begun, primary);
    drop(go);
    assert_eq!(client.message().status(), 413);
    drop(client);
    let copies = rig.settled("shadow", 1);
    let early = ended(&copies, Dropped(DropReason::PrimaryEnded));
    let gone = ended(&copies, Dropped(DropReason::ClientGone));
    assert_eq!(early + gone, 1, "{}", told(&copies));
    looks_cut(&shadow);
}

#[test]
fn a_primary_that_resets_cuts_the_copy() {
    let (go, wait) = gate();
    let primary = Server::start(move |mut visit| {
        while visit.wire.try_exactly(1).is_ok_and(|byte| byte != b"t") {}
        wait();
        visit.wire.reset();
    });
    let begun = format!("{CHUNKED}4\r\npart\r\n");
    let (rig, mut client, _primary, shadow) = halfway(&begun, primary);
    drop(go);
    assert_eq!(client.rest().1, super::wire::End::Reset);
    rig.all_ended("shadow", 1, Dropped(DropReason::PrimaryEnded));
    looks_cut(&shadow);
}

#[test]
fn a_body_never_read_by_a_primary_is_never_copied_as_whole() {
    let (original, shadow) = (Server::ok(), Server::silent());
    let rules = vec![rule(vec![mirror("shadow", shadow.address)], vec![backend_ref("none", &[])])];
    let rig = Setup::rules(original.address, rules).start();
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.message().status(), 503);
    rig.all_ended("shadow", 1, Dropped(DropReason::PrimaryEnded));
    assert!(shadow.bytes(0).len() < 100);
}

#[test]
fn a_copy_that_is_not_taken_in_time_is_cut() {
    let primary = Server::ok();
    let (shadow, release) = stalled();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = (64 << 20, 64 << 20, 64 << 20);
    setup.options.shadow.response_timeout = Duration::from_millis(500);
    let rig = setup.start();
    upload(&mut rig.client(), 20_000_000);
    rig.all_ended("shadow", 1, Dropped(DropReason::SendTimeout));
    drop(release);
    looks_cut(&shadow);
}
