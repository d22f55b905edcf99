//! Budgets, and copies that are cut: what is held stays within the limits, comes back to nothing,
//! and a cut copy never looks complete.

use std::{sync::mpsc, time::Duration};

use mirror_user::outcome::{
    CopyOutcome::{Delivered, Dropped},
    DropReason,
};

use super::{
    harness::{Rig, Setup, backend_ref, describe, ended, eventually, gate, mirror, rule},
    raw_connection::RawConnection,
    routes::at,
    server::{OK, Server},
};

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A shadow that accepts, and reads nothing until the sender is dropped; then everything.
pub(crate) fn stalled() -> (Server, mpsc::Sender<()>) {
    let (release, wait) = gate();
    let server = Server::start(move |mut visit| {
        visit.raw_connection.narrow();
        wait();
        visit.raw_connection.rest();
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

fn upload(client: &mut RawConnection, length: usize) {
    upload_to("/", client, length);
}

fn upload_to(path: &str, client: &mut RawConnection, length: usize) {
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(client.request(vec![b'x'; length]).body, b"ok");
}

/// Sends the start of an upload, and waits until the primary has it.
fn begin(rig: &Rig, primary: &Server, path: &str, length: usize) -> RawConnection {
    let at = primary.connections();
    let mut client = rig.client();
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {ENDLESS}\r\n\r\n"));
    client.send(vec![b'x'; length]);
    eventually("the primary has what was sent", || {
        primary.connections() > at && primary.received(at) > length
    });
    client
}

/// More than any upload here comes to.
const ENDLESS: usize = 1 << 30;

/// Copies of one upload of 40 MB under these bounds.
fn cut_for_itself(budgets: (usize, usize, usize)) {
    let primary = Server::ok();
    let (shadow, release) = stalled();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = budgets;
    let rig = setup.start();
    let mut client = rig.client();
    upload(&mut client, 40_000_000);
    let copies = rig.settled("shadow", 1);
    let reason = Dropped(DropReason::RequestBudget);
    assert_eq!(ended(&copies, reason), 1, "{}", describe(&copies));
    drop(release);
    looks_cut(&shadow);
    assert!(shadow.bytes(0).len() < 40_000_000);
    assert_eq!(primary.requests()[0].body.len(), 40_000_000);
}

#[test]
fn a_copy_beyond_its_share_is_cut() {
    cut_for_itself((1 << 20, 8 << 20, 64 << 20));
    cut_for_itself((64 << 20, 1 << 20, 64 << 20));
    cut_for_itself((64 << 20, 64 << 20, 1 << 20));
    // What the default budget of the agent leaves for one.
    cut_for_itself((64 << 20, 64 << 20, 64 << 20));
}

#[test]
fn an_upload_of_30_mb_waits_whole_for_a_shadow_that_reads_later() {
    let primary = Server::ok();
    let (release, wait) = gate();
    let shadow = Server::start(move |mut visit| {
        wait();
        visit.request();
        visit.raw_connection.send(OK);
    });
    let mut setup = Setup::mirrored(&primary, shadow.address);
    // The kernel is not to hold much of it for the agent.
    setup.send_buffer = Some(64 << 10);
    let rig = setup.start();
    upload(&mut rig.client(), 30_000_000);
    assert!(rig.budgets.agent().used() > 20_000_000, "the kernel has it, or it was cut");
    drop(release);
    rig.all_ended("shadow", 1, Delivered);
    assert!(shadow.requests()[0].body == vec![b'x'; 30_000_000]);
}

#[test]
fn a_copy_without_room_beside_others_is_cut_by_the_name_of_those() {
    let primary = Server::ok();
    let ((shadow, release), (other, release_other)) = (stalled(), stalled());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = (64 << 20, 1 << 20, 64 << 20);
    setup.send_buffer = Some(4096);
    let rig = setup.start();
    // Less than half of what the backend may hold: what the second holds is then less as well.
    let first = begin(&rig, &primary, "/", 450_000);
    assert!(rig.budgets.agent().used() > 300_000);
    upload(&mut rig.client(), 20_000_000);
    let cut = || ended(&rig.copies("shadow"), Dropped(DropReason::BackendBudget));
    eventually("the second is cut", || cut() == 1);
    first.reset();
    rig.settled("shadow", 2);

    let filters = vec![mirror("one", shadow.address), mirror("other", other.address)];
    let mut setup = Setup::with(&primary, filters);
    setup.budgets = (1 << 20, 1 << 20, 1 << 20);
    setup.send_buffer = Some(4096);
    let rig = setup.start();
    upload(&mut rig.client(), 20_000_000);
    // A third each; and when one is cut, half for the other.
    let [one, other] = ["one", "other"].map(|shadow| rig.settled(shadow, 1));
    for reason in [DropReason::NamespaceBudget, DropReason::RequestBudget] {
        let cut = ended(&one, Dropped(reason)) + ended(&other, Dropped(reason));
        assert_eq!(cut, 1, "{}, {}", describe(&one), describe(&other));
    }
    drop((release, release_other));
}

#[test]
fn a_flood_of_stalled_copies_stays_within_the_bound_and_leaves_room_for_another_shadow() {
    const AGENT: usize = 4 << 20;
    let primary = Server::ok();
    let ((flooded, release), (calm, release_calm)) = (stalled(), stalled());
    let to = |path, shadow, address| {
        let refs = vec![backend_ref("primary", &[primary.address])];
        at(path, rule(vec![mirror(shadow, address)], refs))
    };
    let rules = vec![to("/flood", "flooded", flooded.address), to("/calm", "calm", calm.address)];
    let mut setup = Setup::rules(primary.address, rules);
    setup.budgets = (AGENT, AGENT, AGENT);
    setup.send_buffer = Some(4096);
    let rig = setup.start();
    let mut most = 0;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(begin(&rig, &primary, "/flood", 300_000));
        most = most.max(rig.budgets.agent().used());
    }
    assert!((AGENT / 2..=AGENT * 2 / 3).contains(&most), "{most}");
    // Some were cut for others of their own shadow, and none for itself.
    let cut = |reason| ended(&rig.copies("flooded"), Dropped(reason));
    assert!(cut(DropReason::BackendBudget) > 0);
    assert_eq!(cut(DropReason::RequestBudget) + cut(DropReason::AgentBudget), 0);

    let mut client = rig.client();
    upload_to("/calm", &mut client, 600_000);
    let used = rig.budgets.agent().used();
    assert!((AGENT * 2 / 3..=AGENT).contains(&used), "{used}");
    drop(release_calm);
    arrives_whole(&rig, "calm", &calm, 600_000);
    clients.into_iter().for_each(RawConnection::reset);
    rig.settled("flooded", 30);
    drop(release);
}

/// The shadow, which answers nothing, gets all of its copy.
fn arrives_whole(rig: &Rig, name: &str, shadow: &Server, length: usize) {
    eventually("all is with the shadow", || shadow.received(0) > length);
    assert_eq!(rig.copies(name).in_flight(), 1);
}

#[test]
fn the_head_counts_as_well() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.budgets = (10_000, 1 << 20, 1 << 20);
    let rig = setup.start();
    let large = "x".repeat(20_000);
    let response = rig.client().request(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n"));
    assert_eq!(response.body, b"ok");
    rig.all_ended("shadow", 1, Dropped(DropReason::RequestBudget));
    assert_eq!(shadow.connections(), 0);
}

#[test]
fn one_byte_chunks_against_a_stalled_shadow_stay_within_the_budget() {
    const CHUNKS: usize = 100_000;
    let primary = Server::start(|mut visit| {
        visit.raw_connection.until(b"\r\n0\r\n\r\n");
        visit.raw_connection.send(OK);
        visit.raw_connection.rest();
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
    assert_eq!(client.request("0\r\n\r\n").body, b"ok");
    let copies = rig.settled("shadow", 1);
    assert_eq!(ended(&copies, Dropped(DropReason::RequestBudget)), 1, "{}", describe(&copies));
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
fn halfway(begun: &str, primary: Server) -> (Rig, RawConnection, Server, Server) {
    let shadow = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.rest();
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
        while visit.raw_connection.try_exactly(1).is_ok_and(|byte| byte != b"t") {}
        wait();
        visit
            .raw_connection
            .send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        visit.raw_connection.finish();
        visit.raw_connection.rest();
    });
    let begun = format!("{CHUNKED}4\r\npart\r\n");
    let (rig, mut client, _primary, shadow) = halfway(&begun, primary);
    drop(go);
    assert_eq!(client.message().status(), 413);
    // The client is there all the time.
    rig.all_ended("shadow", 1, Dropped(DropReason::PrimaryEnded));
    drop(client);
    looks_cut(&shadow);
}

#[test]
fn a_primary_that_resets_cuts_the_copy() {
    let (go, wait) = gate();
    let primary = Server::start(move |mut visit| {
        while visit.raw_connection.try_exactly(1).is_ok_and(|byte| byte != b"t") {}
        wait();
        visit.raw_connection.reset();
    });
    let begun = format!("{CHUNKED}4\r\npart\r\n");
    let (rig, mut client, _primary, shadow) = halfway(&begun, primary);
    drop(go);
    assert_eq!(client.rest().1, super::raw_connection::End::Reset);
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
