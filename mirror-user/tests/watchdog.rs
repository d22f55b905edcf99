//! The watchdog with real processes: `mirror watchdog-trial` plays the agent, whose workers beat
//! until they are told not to.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

struct Agent {
    process: Child,
    out: BufReader<ChildStdout>,
    watchdog: Pid,
}

impl Agent {
    fn start(flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mirror"))
            .arg("watchdog-trial")
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test starts");
        let out = BufReader::new(process.stdout.take().expect("piped"));
        let mut agent = Self { process, out, watchdog: Pid::from_raw(0) };
        agent.watchdog = agent.next_watchdog();
        agent
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("the agent's stdout is text");
        line.trim_end().to_owned()
    }

    fn next_watchdog(&mut self) -> Pid {
        let line = self.line();
        let id = line.strip_prefix("watchdog ").and_then(|id| id.parse().ok());
        Pid::from_raw(id.unwrap_or_else(|| panic!("{line:?} does not name the watchdog")))
    }

    fn signal(&self, signal: Signal) {
        let agent = Pid::from_raw(self.process.id().try_into().expect("a pid"));
        kill(agent, signal).expect("the agent lives");
    }

    /// The status, if the agent ends within the limit.
    fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            let status = self.process.try_wait().expect("our child");
            if status.is_some() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// What it and its watchdog logged, after both ended.
    fn log(&mut self) -> String {
        let pipe = self.process.stderr.take().expect("piped");
        std::io::read_to_string(pipe).expect("the log is text")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the process is there and runs; an orphan may stay a zombie where nobody reaps.
fn runs(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.starts_with(" Z")))
}

/// Waits until the watchdog has named itself, which it does once it ignores signals.
fn await_name(process: Pid) {
    let begun = Instant::now();
    while fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default()
        != "mirror-watchdog\n"
    {
        assert!(begun.elapsed() < Duration::from_secs(5), "the watchdog never named itself");
        thread::sleep(Duration::from_millis(5));
    }
}

fn gone_within(process: Pid, limit: Duration) -> bool {
    let begun = Instant::now();
    while runs(process) {
        if begun.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn a_silent_worker_costs_the_agent_its_life_after_three_seconds() {
    let mut agent = Agent::start(&["--silent-after=500ms"]);
    assert_eq!(agent.line(), "silent");
    let silent = Instant::now();
    let status = agent.ended_within(Duration::from_secs(10)).expect("the watchdog kills it");
    let took = silent.elapsed();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    // The last beat came up to one tick before the line.
    assert!(took >= Duration::from_millis(2800), "{took:?}");
    assert!(took <= Duration::from_millis(3600), "{took:?}");
    assert!(gone_within(agent.watchdog, Duration::from_secs(2)));
    let log = agent.log();
    assert!(log.contains("worker 1 has been silent for 3s: killing the agent"), "{log}");
}

#[test]
fn a_stopped_agent_is_killed() {
    let mut agent = Agent::start(&[]);
    thread::sleep(Duration::from_millis(500));
    agent.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let status = agent.ended_within(Duration::from_secs(10)).expect("the watchdog kills it");
    let took = stopped.elapsed();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    assert!(took >= Duration::from_millis(2800), "{took:?}");
    assert!(took <= Duration::from_millis(3600), "{took:?}");
}

#[test]
fn a_healthy_agent_lives_and_takes_its_watchdog_along() {
    let mut agent = Agent::start(&["--stale=500ms", "--workers=64"]);
    await_name(agent.watchdog);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        kill(agent.watchdog, signal).expect("the watchdog lives");
    }
    assert_eq!(agent.ended_within(Duration::from_secs(3)), None);
    assert!(runs(agent.watchdog), "the signals of a shutdown end no watchdog");
    agent.signal(Signal::SIGKILL);
    assert!(agent.ended_within(Duration::from_secs(2)).is_some());
    assert!(gone_within(agent.watchdog, Duration::from_secs(1)), "the pipe's end ends it");
    assert_eq!(agent.log(), "");
}

#[test]
fn a_worker_that_ended_on_purpose_is_not_missed() {
    let mut agent = Agent::start(&["--stale=500ms", "--retire-after=200ms"]);
    assert_eq!(agent.line(), "retired");
    assert_eq!(agent.ended_within(Duration::from_secs(2)), None);
}

#[test]
fn a_dead_watchdog_is_replaced_by_one_that_watches() {
    let mut agent = Agent::start(&["--stale=1s"]);
    let first = agent.watchdog;
    kill(first, Signal::SIGKILL).expect("the watchdog lives");
    let second = agent.next_watchdog();
    assert_ne!(first, second);
    thread::sleep(Duration::from_millis(500));
    agent.signal(Signal::SIGSTOP);
    let status = agent.ended_within(Duration::from_secs(5)).expect("the second one kills it");
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    assert!(gone_within(second, Duration::from_secs(2)));
    let log = agent.log();
    assert!(log.contains("the watchdog died; starting another"), "{log}");
}
