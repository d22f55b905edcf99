//! Copies of large uploads with the default budgets: whole where the shadow is healthy, and where it is
//! not, no more is held than the agent may hold, with room left for other shadows.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

#[path = "large_copies/nginx.rs"]
mod nginx;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Copies, Echo, Pair, Service, Shape, Wrk, eventually,
    manifest::{Route, Rule},
    usage,
};
use nginx::Nginx;

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

/// The default of `--budget-agent`.
const BOUND: u64 = 64 * MIB;

/// Uploads of each size.
const EACH: usize = 5;

/// A file of so many bytes, no two blocks alike.
fn file(pair: &Pair, bytes: u64) -> String {
    let path = pair.node.folder().join(format!("upload-{bytes}"));
    let blocks = (0..bytes / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    fs::write(&path, blocks.collect::<Vec<_>>()).unwrap();
    path.to_string_lossy().into_owned()
}

fn upload(pair: &Pair, flags: &[&str], file: &str, url: &str) {
    let fixed = ["curl", "-sS", "-m", "60", "-H", "Expect:", "-o", "/dev/null"];
    let rest = ["-w", "%{http_code}", "-T", file, url];
    let argv = [&fixed[..], flags, &rest].concat();
    assert_eq!(pair.run(&argv).unwrap(), "200");
}

/// All copies so far were delivered.
fn all_delivered(agent: &Agent<'_>, count: usize) {
    let copies = Copies::settled(agent).unwrap();
    let losses = Copies::losses(agent).unwrap();
    assert_eq!((copies.selected, copies.delivered), (count as u64, count as u64), "{losses}");
}

#[test]
fn uploads_are_copied_whole() {
    let pair = Pair::create("large-echo").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let mut sent = 0;
    for (size, flags) in [
        (MB, &[][..]),
        (10 * MB, &[]),
        (30 * MB, &[]),
        // Chunked, as curl sends what it has no length of.
        (10 * MB, &["-H", "Transfer-Encoding: chunked"]),
    ] {
        let file = file(&pair, size);
        for _ in 0..EACH {
            let url = format!("http://web:8000/anything?id=upload-{sent}-");
            upload(&pair, flags, &file, &url);
            sent += 1;
            all_delivered(&agent, sent);
        }
    }
    let [primary, shadow] = [&primary, &shadow].map(|echo| echo.wait("id=upload-", sent).unwrap());
    for (primary, shadow) in primary.iter().zip(&shadow) {
        for field in ["target", "body_length", "body_sha256", "complete"] {
            assert_eq!(primary[field], shadow[field]);
        }
    }
}

#[test]
fn nginx_gets_uploads_whole() {
    let pair = Pair::create("large-nginx").unwrap();
    let [_primary, shadow] =
        [&pair.primary, &pair.shadow].map(|pod| Nginx::start(&pair.node, pod).unwrap());
    let agent = pair.mirroring(&[]).unwrap();
    let mut sent = 0;
    for size in [MB, 10 * MB, 30 * MB] {
        let file = file(&pair, size);
        for n in 1..=EACH {
            upload(&pair, &[], &file, "http://web:8000/up");
            sent += 1;
            all_delivered(&agent, sent);
            assert_eq!(shadow.count(size), n);
        }
    }
}

/// Of the copies of a flood of POSTs that nginx may lose: none, and on a machine that has no time for it
/// (3 percent was seen where two cores were wanted by ten others; it was 32 before it was repaired).
const LOST: f64 = 0.0;
const LOST_BOUND: f64 = 0.1;

/// nginx closes a connection after 1,000 requests, and says so.
#[test]
fn nginx_gets_the_copies_of_a_flood_of_posts() {
    let pair = Pair::create("large-posts").unwrap();
    let [_primary, shadow] =
        [&pair.primary, &pair.shadow].map(|pod| Nginx::start(&pair.node, pod).unwrap());
    let agent = pair.mirroring(&[]).unwrap();
    let wrk = Wrk::new(&pair.node);
    let (shape, time) = (Shape::Post(16 << 10), Duration::from_secs(6));
    let load = wrk.run(&pair.client, "http://web:8000/small", shape, 64, time).unwrap();
    let copies = Copies::settled(&agent).unwrap();
    let lost = (copies.selected - copies.delivered) as f64 / copies.selected as f64;
    let goal = if lost > LOST { "missed" } else { "met" };
    println!("{:.0} requests per second; {copies}: lost {lost:.4} (goal: {goal})", load.rate);
    assert_eq!(load.errors, 0);
    assert!(lost <= LOST_BOUND, "{}", Copies::losses(&agent).unwrap());
    assert_eq!(shadow.count(16 << 10) as u64, copies.delivered);
}

/// What is held, by `/metrics`: for this shadow, or for all.
fn held(agent: &Agent<'_>, shadow: Option<&str>) -> u64 {
    let labels = shadow.map(|name| ("shadow", name));
    agent.metric("mirror_shadow_held_bytes", labels.as_slice()).unwrap() as u64
}

#[test]
fn a_flood_for_a_stalled_shadow_stays_within_the_bound_and_leaves_room_for_others() {
    const FLOOD: usize = 20;
    let pair = Pair::create("large-flood").unwrap();
    let _primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let stalled = pair.node.pod("stalled").unwrap();
    let fault = ["--listen", "0.0.0.0:80", "--quiet", "--fault", "accept-never-read"];
    let _deaf = stalled.echo(&fault).unwrap();
    let flood = pair.node.service("flood", 8000, 80, &[&pair.primary]).unwrap();
    let deaf = pair.node.service("stalled", 80, 80, &[&stalled]).unwrap();
    let route = Route::new("flood", &flood).rule(Rule::to("primary", 80).mirror("stalled", 80));
    let manifests = [&flood, &deaf].map(Service::manifest).join("---\n");
    pair.node
        .routes()
        .write("flood.yaml", &format!("{manifests}---\n{}", route.manifest()))
        .unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let (large, small) = (file(&pair, 30 * MB), file(&pair, 8 * MB));
    let before = usage::rss(agent.pid()).unwrap();
    usage::reset_peak(agent.pid()).unwrap();

    // What the copies hold stays, since nothing takes it, until their time is over.
    let mut most = 0;
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..FLOOD)
            .map(|_| {
                let flags = &["--limit-rate", "8M"];
                scope.spawn(|| upload(&pair, flags, &small, "http://flood:8000/anything"))
            })
            .collect();
        while uploads.iter().any(|upload| !upload.is_finished()) {
            most = most.max(held(&agent, None));
            thread::sleep(Duration::from_millis(20));
        }
    });
    let flooded = held(&agent, Some("default/stalled:80"));
    println!("held: {most} at most, {flooded} after the uploads");
    assert!(flooded > BOUND / 3, "{flooded}");
    assert!(most.max(flooded) <= BOUND * 2 / 3, "{most} {flooded}");

    let begun = Instant::now();
    upload(&pair, &[], &large, "http://web:8000/anything?id=calm-");
    let other = Some("default/shadow:80");
    eventually("the other copy ends", Duration::from_secs(5), || {
        Copies::of(&agent.metrics().unwrap(), other).in_flight == 0
    })
    .unwrap();
    let copies = Copies::of(&agent.metrics().unwrap(), other);
    assert!(held(&agent, Some("default/stalled:80")) > BOUND / 3, "{:?}", begun.elapsed());
    assert_eq!((copies.selected, copies.delivered), (1, 1), "{}", Copies::losses(&agent).unwrap());
    assert_eq!(shadow.wait("id=calm-", 1).unwrap()[0]["body_length"], 30 * MB);

    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies.selected as usize, FLOOD + 1);
    assert_eq!(held(&agent, None), 0);
    let grown = usage::peak_rss(agent.pid()).unwrap().saturating_sub(before);
    println!("the agent grew by {} MiB; {copies}", grown / MIB);
    assert!(grown <= BOUND + 16 * MIB, "{grown}");
    // What they held is given back to the kernel.
    let resident = || usage::rss(agent.pid()).unwrap().saturating_sub(before);
    eventually("memory is given back", Duration::from_secs(5), || resident() < 16 * MIB).unwrap();
}
