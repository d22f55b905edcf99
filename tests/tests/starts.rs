//! Starts that must not succeed: each says what is wrong and what to do, exits with an error, and
//! does not panic.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{fs, time::Duration};

use mirror_tests::{Agent, Node, manifest::Route, manifest::Rule, mirror_binary};

const SHORT: Duration = Duration::from_secs(20);

/// Runs `mirror agent` with these flags until it ends; checks that it failed in words with all of
/// `said` in them.
fn fails(node: &Node, before: &[&str], flags: &[&str], said: &[&str]) {
    let binary = mirror_binary().unwrap();
    // Where other users may execute it.
    let copy = node.folder().join("mirror");
    if !copy.exists() {
        fs::copy(binary, &copy).unwrap();
    }
    let copy = copy.to_string_lossy();
    let mut argv = before.to_vec();
    argv.extend([&*copy, "agent"]);
    argv.extend(flags);
    let output = node.run(&argv, SHORT).unwrap();
    let text = format!("{}{}", output.stdout, output.stderr);
    println!("{flags:?}: {}\n{text}", output.status);
    let code = output.status.code();
    assert!(code.is_some_and(|code| code != 0 && code != 101), "{}: {text}", output.status);
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
    // Nobody's connections are taken by an agent that ends at once.
    assert!(!text.contains("captured"), "{text}");
    for words in said {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
}

#[test]
fn bad_starts_say_what_is_wrong() {
    let node = Node::create("starts").unwrap();
    let pod = node.pod("app").unwrap();
    let routes = node.routes().path().to_string_lossy().into_owned();
    let capture = format!("app={}", pod.cgroup().display());
    let file = node.folder().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_string_lossy();
    let good = ["--routes", &*routes, "--capture", &*capture];
    let with = |flags: &[&'static str]| [&good[..], flags].concat();

    fails(&node, &[], &["--capture", &capture], &["--routes"]);
    fails(&node, &[], &["--routes", "/no/such", "--capture", &capture], &["/no/such"]);
    fails(&node, &[], &["--routes", &file, "--capture", &capture], &[&file]);
    fails(&node, &[], &["--routes", &routes, "--capture", "app"], &["--capture", "NAME"]);
    fails(&node, &[], &["--routes", &routes, "--capture", "app=relative"], &["--capture"]);
    fails(&node, &[], &["--routes", &routes, "--capture", "App=/x"], &["Kubernetes name"]);
    fails(&node, &[], &with(&["--workers", "0"]), &["--workers"]);
    fails(&node, &[], &with(&["--admin", "nonsense"]), &["--admin"]);
    fails(&node, &[], &with(&["--admin", "0.0.0.0:15920"]), &["--admin-remote"]);
    fails(&node, &[], &with(&["--admin", "192.0.2.1:15920"]), &["192.0.2.1:15920"]);
    fails(&node, &[], &with(&["--budget-request", "1B"]), &["--budget-request"]);
    fails(&node, &[], &with(&["--budget-request", "65MiB"]), &["--budget-agent"]);
    fails(&node, &[], &with(&["--budget-agent", "64KiB"]), &["--budget-agent", "256KiB"]);
    fails(&node, &[], &with(&["--grace", "soon"]), &["--grace"]);
    fails(&node, &[], &with(&["--log", "mirror=loud"]), &["--log"]);
    fails(&node, &[], &with(&["--no-such-flag"]), &["--no-such-flag"]);
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    fails(&node, &nobody, &good, &["CAP_"]);
}

/// A broken file does not keep an agent from starting: the others are in force, and it is named.
#[test]
fn a_broken_file_is_named_and_the_others_hold() {
    let node = Node::create("broken").unwrap();
    let (app, primary) = (node.pod("app").unwrap(), node.pod("primary").unwrap());
    let _echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let service = node.service("service", 80, 80, &[&primary]).unwrap();
    let route = Route::new("route", &service).rule(Rule::to("service", 80));
    let good = service.manifest() + "---\n" + &route.manifest();
    node.routes().write("good.yaml", &good).unwrap();
    node.routes().write("broken.yaml", "kind: HTTPRoute\nspec: [").unwrap();
    let agent = Agent::start(&node, &[&app], &[]).unwrap();
    assert!(agent.log().contains("broken.yaml"), "{}", agent.log());
    let (_, config) = agent.get("/config").unwrap();
    assert!(config.contains("broken.yaml"), "{config}");
    app.run(&["curl", "-sS", "-m", "5", "http://service/get"], SHORT).unwrap().ok().unwrap();
    assert_eq!(agent.metric("mirror_requests_total", &[("code", "2xx")]).unwrap(), 1.0);
}
