//! The steps of the demo. Each prints what it does, and fails if it does not show what it claims.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use mirror_tests::{
    Output, eventually,
    manifest::{Route, Rule},
    mirror_binary, run,
};

use super::stage::{Stage, URL, check, prompt, settle, show, show_log, title};

/// 20 clients, each with a separate connection.
const TWENTY: &str =
    "for i in $(seq 20); do curl -sS -m 5 -o /dev/null http://httpbin:8000/headers || exit; done";

/// Step 1.
pub(super) fn no_route(stage: &mut Stage<'_>) -> Result<()> {
    title("1. No route: Kubernetes balances over both versions");
    let response = stage.in_curl(&format!("curl -sS {URL}"))?;
    check("httpbin responds", response.contains("\"Host\": \"httpbin:8000\""))?;
    stage.in_curl(TWENTY)?;
    let (v1, v2) = logs(stage, 0, 0);
    check(&format!("both got requests: {v1} and {v2} of 21"), v1 > 0 && v2 > 0 && v1 + v2 == 21)
}

/// Step 2.
pub(super) fn default_route(stage: &mut Stage<'_>) -> Result<()> {
    title("2. The default route: everything to v1");
    stage.start_agent()?;
    let rule = Rule::to("httpbin-v1", 80);
    stage.apply(&Route::new("httpbin", &stage.httpbin).rule(rule).manifest())?;
    let response = stage.in_curl(&format!("curl -sS {URL}"))?;
    check("httpbin responds", response.contains("\"Host\": \"httpbin:8000\""))?;
    stage.in_curl(TWENTY)?;
    settle();
    let (v1, v2) = logs(stage, 21, 0);
    check(&format!("all {v1} requests reached v1, and v2's log is empty"), (v1, v2) == (21, 0))
}

/// Step 3.
pub(super) fn mirror(stage: &mut Stage<'_>) -> Result<()> {
    title("3. The RequestMirror route: v1 responds, v2 gets a copy");
    let rule = Rule::to("httpbin-v1", 80).mirror("httpbin-v2", 80);
    stage.apply(&Route::new("httpbin", &stage.httpbin).rule(rule).manifest())?;
    let response = stage.in_curl(&format!("curl -sS {URL}"))?;
    check("v1's response arrived", response.contains("\"Host\": \"httpbin:8000\""))?;
    let counts = logs(stage, 1, 1);
    check("both logged the request", counts == (1, 1))?;
    for version in [&stage.v1, &stage.v2] {
        version.show_host()?;
    }
    check("v1's Host is httpbin:8000", stage.v1.hosts(1)? == ["httpbin:8000"])?;
    check("v2's Host is httpbin-shadow:8000", stage.v2.hosts(1)? == ["httpbin-shadow:8000"])
}

/// Step 4.
pub(super) fn percent(stage: &mut Stage<'_>) -> Result<()> {
    title("4. A copy of 25 percent");
    let rule = Rule::to("httpbin-v1", 80).mirror_percent("httpbin-v2", 80, 25);
    stage.apply(&Route::new("httpbin", &stage.httpbin).rule(rule).manifest())?;
    let responses = stage.requests(400)?;
    check("400 requests without an error", (responses.good, responses.bad) == (400, 0))?;
    settle();
    let (v1, v2) = logs(stage, 400, 0);
    check("v1 responded to all 400", v1 == 400)?;
    // 100 expected with a standard deviation of 8.7: outside of this once in 200,000 runs.
    check(&format!("v2 got {v2} copies, between 60 and 140"), (60..=140).contains(&v2))
}

/// Step 5.
pub(super) fn good_verdict(stage: &mut Stage<'_>) -> Result<()> {
    title("5. The verdict: v2 is as good as v1");
    let rule = Rule::to("httpbin-v1", 80).mirror("httpbin-v2", 80);
    stage.apply(&Route::new("httpbin", &stage.httpbin).rule(rule).manifest())?;
    unharmed(stage, "with a healthy shadow")?;
    stage.requests(200)?;
    settle();
    check("exit code 0: v2 passes", verdict(stage)? == 0)
}

/// Step 6.
pub(super) fn bad_shadow(stage: &mut Stage<'_>) -> Result<()> {
    title("6. The shadow is killed, then stalled: the client sees nothing, and v2 fails");
    stage.v2.kill()?;
    unharmed(stage, "with a dead shadow")?;
    stage.v2.restart()?;
    copied_again(stage)?;
    stage.v2.stall()?;
    unharmed(stage, "with a stalled shadow")?;
    stage.v2.resume()?;
    settle();
    check("exit code 1: v2 fails", verdict(stage)? == 1)?;
    // The responses above have shown it; the next step looks at its own requests only.
    stage.v1.log(0);
    stage.v2.log(0);
    Ok(())
}

fn unharmed(stage: &mut Stage<'_>, when: &str) -> Result<()> {
    let responses = stage.requests(300)?;
    check(
        &format!("300 requests without an error {when}"),
        (responses.good, responses.bad) == (300, 0),
    )?;
    let slowest = responses.at(1.0);
    check(&format!("none took a second {when}"), slowest < Duration::from_secs(1))
}

/// An endpoint that fails is left alone for up to 5 s; only then does a stalled one get copies.
fn copied_again(stage: &mut Stage<'_>) -> Result<()> {
    let command = format!("curl -sS -m 5 -o /dev/null {URL}");
    prompt("curl", &format!("{command}   # until httpbin-v2 gets a copy"));
    let mut sent = Ok(());
    let copied = eventually("v2 gets a copy", Duration::from_secs(15), || {
        let output = stage.curl.run(&["sh", "-c", &command], Duration::from_secs(10));
        sent = output.and_then(Output::ok).map(drop);
        settle();
        sent.is_err() || !stage.v2.log(0).is_empty()
    });
    sent?;
    check("v2 gets copies again", copied.is_ok())
}

/// Has v2 judged by all that the agent has counted; the exit code.
fn verdict(stage: &Stage<'_>) -> Result<i32> {
    // Some hundred requests do not show a share below 1 %, nor a small ratio of short times.
    let flags = "verdict httpbin --for 0s --max-different 1% --max-slower 5";
    prompt("node", &format!("mirror {flags}; echo $?"));
    let binary = mirror_binary()?;
    let binary = binary.to_string_lossy();
    let argv: Vec<_> = std::iter::once(&*binary).chain(flags.split(' ')).collect();
    let output = stage.node.run(&argv, Duration::from_secs(30))?;
    show(&output.stdout);
    show(&output.stderr);
    let code = output.status.code().context("a signal ended it")?;
    show(&code.to_string());
    Ok(code)
}

/// Step 7.
pub(super) fn dead_agent(stage: &mut Stage<'_>) -> Result<()> {
    title("7. The agent is killed: the client still gets responses");
    let mut agent = stage.agent.take().context("step 2 started it")?;
    prompt("node", &format!("kill -KILL {}   # mirror agent", agent.pid()));
    agent.kill()?;
    stage.in_curl(TWENTY)?;
    settle();
    let (v1, v2) = logs(stage, 1, 1);
    // v2's log may hold copies that waited while it was stalled; their Host distinguishes them.
    let hosts = stage.v2.hosts(v2)?;
    let direct = hosts.iter().filter(|host| *host == "httpbin:8000").count();
    let claim = format!("20 requests without an error, balanced again: {v1} to v1, {direct} to v2");
    check(&claim, v1 > 0 && direct > 0 && v1 + direct == 20)
}

/// Step 8.
pub(super) fn cleaned_up(names: &str) -> Result<()> {
    title("8. Cleaning up");
    prompt("host", &format!("ip netns list | grep {names}"));
    let namespaces = run(&["ip", "netns", "list"], "")?;
    let left: Vec<_> = namespaces.lines().filter(|line| line.starts_with(names)).collect();
    show(&left.join("\n"));
    check("no namespace is left", left.is_empty())?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    check("no mount is left", !mounts.contains(names))?;
    let folder = std::env::temp_dir().join(names);
    let cgroups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let cgroup = cgroups.iter().any(|mount| Path::new(mount).join(names).exists());
    check("no cgroup and no file is left", !cgroup && !folder.exists())
}

/// Shows both logs since the last time; how many lines each has.
fn logs(stage: &mut Stage<'_>, v1: usize, v2: usize) -> (usize, usize) {
    let (v1, v2) = (stage.v1.log(v1), stage.v2.log(v2));
    show_log("httpbin-v1", &v1);
    show_log("httpbin-v2", &v2);
    (v1.len(), v2.len())
}
