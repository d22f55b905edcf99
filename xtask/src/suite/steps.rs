//! The steps of `cargo xtask test`.

use anyhow::{Context, Result};

use super::{TestSelection, e2e, tally::Tally};
use crate::{
    build_ebpf, cluster, imports,
    kernel::{self, Extent},
    tools, vendored, words,
};

/// A step: gets which tests to run, gives its counts; an error counts as one failure.
type Step = fn(&TestSelection) -> Result<Tally>;

/// All steps in order: the cheap ones first, what later ones need before them.
pub(super) const ALL: [(&str, Step); 15] = [
    ("tools", |_| done(install())),
    ("format", |_| done(format())),
    ("words", |_| done(words::check(&tools::root()))),
    ("imports", |_| done(imports::check(&tools::root()))),
    ("ebpf", |_| done(ebpf())),
    ("committed", |_| done(committed())),
    ("lint", |_| done(lint())),
    ("unit", unit),
    ("docs", |_| done(docs())),
    ("build", |_| done(tools::build_mirror())),
    ("cluster", |_| done(control_plane())),
    ("e2e", end_to_end),
    ("kernel", |selection| kernel::test(kernel::DEFAULT, Extent::Short, selection.filter())),
    ("licenses", |_| done(licenses())),
    ("advisories", |_| advisories()),
];

fn done(result: Result<()>) -> Result<Tally> {
    result.map(|()| Tally::PASSED)
}

/// The clients and servers of others that the end-to-end tests use.
fn install() -> Result<()> {
    tools::ensure(&[
        ("curl", "curl"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("wrk", "wrk"),
        ("nginx", "nginx-light"),
        ("h2load", "nghttp2-client"),
        ("python3", "python3"),
        ("node", "nodejs"),
        ("openssl", "openssl"),
        // A different kind of client, from source (tests/scripts/Requests.java).
        ("java", "default-jdk-headless"),
        // For crates that are built from C, cargo-deny's among them.
        ("cc", "gcc"),
        // For the agent's allocator, jemalloc.
        ("make", "make"),
    ])?;
    tools::venv().map(drop)
}

/// The components that the end-to-end tests with a cluster start, and the conformance suite: never
/// skipped, since without them nothing there would be shown.
fn control_plane() -> Result<()> {
    cluster::install()?;
    mirror_tests::cluster::Binaries::build()?;
    mirror_tests::cluster::Conformance::build().map(drop)
}

fn format() -> Result<()> {
    tools::run(&mut tools::cargo(&["fmt", "--all", "--check"]))?;
    tools::run(tools::cargo(&["fmt", "--check"]).current_dir(tools::root().join("mirror-ebpf")))
}

fn ebpf() -> Result<()> {
    let options = build_ebpf::Options { install: true, commit: false };
    build_ebpf::build(&tools::root(), options).map(drop)
}

fn committed() -> Result<()> {
    build_ebpf::check_committed(&tools::root())?;
    vendored::check(&tools::root())
}

fn lint() -> Result<()> {
    let all = ["clippy", "--workspace", "--all-targets"];
    tools::run(tools::cargo(&all).args(["--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    let mut command = tools::cargo(&["doc", "--workspace", "--no-deps"]);
    tools::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn unit(selection: &TestSelection) -> Result<Tally> {
    let mut args = vec!["test", "--workspace", "--exclude", "mirror-tests", "--no-fail-fast"];
    args.extend(["--"].into_iter().chain(selection.filter()));
    e2e::shown(&mut tools::cargo(&args))
}

fn end_to_end(selection: &TestSelection) -> Result<Tally> {
    tools::require_root()?;
    // Never an old binary: without a build the tests would be about other sources.
    tools::build_mirror()?;
    e2e::run(selection)
}

fn licenses() -> Result<()> {
    deny(&["check", "bans", "licenses", "sources"])
}

/// Skipped, and said so, when the database cannot be fetched (no network).
fn advisories() -> Result<Tally> {
    install_deny()?;
    let fetched = tools::cargo(&["deny", "fetch", "db"]).output().context("cargo deny")?;
    if !fetched.status.success() {
        let stderr = String::from_utf8_lossy(&fetched.stderr);
        println!("SKIPPED: the advisory database cannot be fetched, so known vulnerabilities");
        println!("were not checked. cargo deny says: {}", stderr.trim());
        return Ok(Tally::SKIPPED);
    }
    done(deny(&["check", "advisories"]))
}

fn deny(args: &[&str]) -> Result<()> {
    install_deny()?;
    tools::run(tools::cargo(&["deny"]).args(args))
}

fn install_deny() -> Result<()> {
    let there = tools::cargo(&["deny", "--version"]).output();
    if there.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    println!("installing cargo-deny, which takes some minutes");
    // Without optimization: it is compiled for longer than it runs.
    tools::run(&mut tools::cargo(&["install", "--locked", "--debug", "cargo-deny"]))
}
