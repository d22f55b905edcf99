//! The machine: a kernel and an image in; what its tests said on stdout, and their counts, out. A
//! guest that dies, hangs or says less than it should is a failure.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::package::Kernel;
use crate::suite::Tally;

/// What lines of the guest's init begin with.
const MARK: &str = "mirror-kernel: ";

/// Lines of the console that are shown when something went wrong.
const TAIL: usize = 40;

/// Boots the image and follows it to its end, for at most `limit`.
///
/// # Errors
/// QEMU cannot be started. All else is counted.
pub(super) fn run(kernel: &Kernel, image: &Path, tests: usize, limit: Duration) -> Result<Tally> {
    let console = kernel.folder.join("console.log");
    let mut machine = Machine(qemu(kernel, image, &console).spawn().context("cannot start QEMU")?);
    let stdout = machine.0.stdout.take().context("a piped stdout is there")?;
    let begun = Instant::now();
    let mut seen = GuestOutput::default();
    let end = follow(stdout, begun + limit, &mut seen);
    drop(machine);
    println!("the guest ran for {:.1} s", begun.elapsed().as_secs_f64());
    let console = fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    let faults: Vec<_> = end.into_iter().chain(seen.faults(tests)).chain(told(&console)).collect();
    for fault in &faults {
        println!("Linux {}: {fault}", kernel.release);
        seen.tally += Tally::FAILED;
    }
    if !faults.is_empty() {
        let lines: Vec<_> = console.lines().collect();
        println!("its console ends so:");
        lines[lines.len().saturating_sub(TAIL)..].iter().for_each(|line| println!("  {line}"));
    }
    Ok(seen.tally)
}

/// No KVM (it may be there and hang), no disk, no network card. The console goes to a file, the
/// second serial port to our stdout. A panic ends the machine, which is not to start again; a
/// busy host is no reason for the lockup detector to complain.
fn qemu(kernel: &Kernel, image: &Path, console: &Path) -> Command {
    // However we end, it ends with us.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-display", "none", "-nic", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 loglevel=5 oops=panic panic=-1 nosoftlockup"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A running QEMU, which ends with this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has ended by itself when all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was heard of the guest.
#[derive(Debug, Default)]
struct GuestOutput {
    tally: Tally,
    booted: bool,
    over: bool,
    /// Binaries that ended.
    ended: usize,
    /// The one that runs, and whether it has said its result.
    running: Option<(String, bool)>,
    complaints: Vec<String>,
}

/// Shows and takes in the lines; what went wrong meanwhile.
fn follow(stdout: ChildStdout, deadline: Instant, seen: &mut GuestOutput) -> Option<String> {
    let (lines, heard) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(line) => {
                println!("{line}");
                seen.take(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => return Some("the time is over".into()),
        }
    }
}

impl GuestOutput {
    fn take(&mut self, line: &str) {
        if let Some(tally) = Tally::parse(line) {
            self.tally += tally;
            if let Some((_, told)) = &mut self.running {
                *told = true;
            }
            return;
        }
        let Some(said) = line.strip_prefix(MARK) else { return };
        let words: Vec<_> = said.split(' ').collect();
        match words.as_slice() {
            ["booted", _] => self.booted = true,
            ["over"] => self.over = true,
            ["begin", name] => self.running = Some(((*name).to_owned(), false)),
            ["end", name, status] => self.end(name, status),
            _ => self.complaints.push(format!("the guest says {said:?}")),
        }
    }

    /// A binary that fails says so in its counts; any other failure counts separately.
    fn end(&mut self, name: &str, status: &str) {
        self.ended += 1;
        match self.running.take() {
            Some((running, told)) if running == name => {
                if !told {
                    self.complaints.push(format!("{name} said no result (status {status})"));
                } else if status != "0" && self.tally.failed == 0 {
                    self.complaints.push(format!("{name} ended with status {status}"));
                }
            }
            _ => self.complaints.push(format!("{name} ended without having begun")),
        }
    }

    /// What is missing, or not as it should be.
    fn faults(&self, tests: usize) -> Vec<String> {
        let mut faults = self.complaints.clone();
        if !self.booted {
            faults.push("it did not boot".into());
        } else if !self.over {
            let during = self.running.as_ref().map_or("", |(name, _)| name);
            faults.push(format!("it died before its end (in {during:?})"));
        }
        if self.booted && self.ended != tests {
            faults.push(format!("{} of {tests} test binaries ended", self.ended));
        }
        faults
    }
}

/// What the kernel complained of.
fn told(console: &str) -> Option<String> {
    let signs = ["Kernel panic", "Oops", "BUG:", "WARNING: CPU"];
    let line = console.lines().find(|line| signs.iter().any(|sign| line.contains(sign)))?;
    Some(format!("its kernel complains: {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
    const BAD: &str = "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured";

    fn seen(lines: &[&str]) -> GuestOutput {
        let mut seen = GuestOutput::default();
        lines.iter().for_each(|line| seen.take(line));
        seen
    }

    #[test]
    fn a_whole_run_is_counted() {
        let whole = ["mirror-kernel: booted 6.1.0", "mirror-kernel: begin a", OK];
        let rest = ["mirror-kernel: end a 0", "mirror-kernel: over"];
        let seen = seen(&[&whole[..], &rest[..]].concat());
        assert!(seen.faults(1).is_empty(), "{:?}", seen.faults(1));
        assert_eq!(seen.tally, Tally { passed: 2, failed: 0, skipped: 0 });
        assert_eq!(seen.faults(2), ["1 of 2 test binaries ended"]);
    }

    #[test]
    fn whatever_is_missing_is_a_fault() {
        let booted = "mirror-kernel: booted 6.1.0";
        let begin = "mirror-kernel: begin a";
        let cases: [(&[&str], &str); 5] = [
            (&[], "it did not boot"),
            (&[booted, begin], "it died before its end (in \"a\")"),
            (&[booted, begin, "mirror-kernel: end a 101"], "a said no result (status 101)"),
            (&[booted, begin, OK, "mirror-kernel: end a 139"], "a ended with status 139"),
            (&[booted, "mirror-kernel: end b 0"], "b ended without having begun"),
        ];
        for (lines, fault) in cases {
            let faults = seen(lines).faults(1);
            assert!(faults.iter().any(|told| told == fault), "{lines:?}: {faults:?}");
        }
        let failed = seen(&[booted, begin, BAD, "mirror-kernel: end a 101", "mirror-kernel: over"]);
        assert!(failed.faults(1).is_empty(), "its counts say it: {:?}", failed.faults(1));
        assert_eq!(failed.tally.failed, 1);
    }

    #[test]
    fn the_kernels_own_complaints_are_seen() {
        assert_eq!(told("random: crng init done\n"), None);
        let line = "[    1.2] WARNING: CPU: 0 PID: 7 at net/core/filter.c:1 x+0x1\r";
        assert!(told(line).is_some_and(|fault| fault.contains("filter.c")));
        assert!(told("Kernel panic - not syncing: Attempted to kill init!").is_some());
    }
}
