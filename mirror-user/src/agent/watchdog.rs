//! The watchdog: a separate process that kills an agent whose worker went silent, so that the
//! connections caught by a hang are reset instead of waiting forever. A thread would not do, because a
//! stopped process stops all of its threads.
//!
//! In: one byte per beat of each worker, through a pipe. Out: SIGKILL to the parent, at most. It
//! outlives no agent: the pipe's end ends it.

mod monitor;
mod trial;

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{SigSet, Signal, kill},
    unistd::{Pid, getppid, setsid},
};

use self::monitor::HeartbeatMonitor;
use crate::cli::LogArgs;

pub use self::trial::{TrialArgs, run as run_trial};

/// Most workers that the pipe's bytes can name, and that a mask of 64 bits can.
pub const MAX_WORKERS: u32 = 64;

/// Set in a worker's byte: it ended on purpose, do not wait for it any more.
const RETIRED: u8 = 0x80;

/// Time is counted in ticks, not read from a clock: a suspended machine counts one tick, and
/// no agent is killed because the machine slept.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between looking for a parent that survived SIGKILL.
const AFTER_KILL: u32 = 10;

/// The agent's side: the process, and what is needed to start it again.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    /// Kept, so that a dead watchdog can be replaced without new pulses; never read here.
    reader: PipeReader,
    writer: PipeWriter,
    retired: Arc<AtomicU64>,
    workers: u32,
    stale: Duration,
    log: LogArgs,
}

/// A worker's pipe to the watchdog. Dropping it signals that the worker ended on purpose, unless it
/// is dropped by a panic.
#[derive(Debug)]
pub struct HeartbeatPipe {
    worker: u8,
    pipe: PipeWriter,
    retired: Arc<AtomicU64>,
}

impl Watchdog {
    /// Starts the process, before the workers start. Each worker must beat for the first time
    /// within 10 s, then at least once per `stale` (100 ms to 60 s). The pulses are in the order
    /// of the workers.
    ///
    /// # Errors
    /// When there are no workers or more than [`MAX_WORKERS`], or when the pipe or the process
    /// cannot be made.
    pub fn spawn(
        workers: u32,
        stale: Duration,
        log: &LogArgs,
    ) -> io::Result<(Self, Vec<HeartbeatPipe>)> {
        if workers == 0 || workers > MAX_WORKERS {
            let message = format!("a watchdog watches 1 to {MAX_WORKERS} workers, not {workers}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if std::process::id() == 1 {
            tracing::warn!(
                "the agent is process 1 of its pid namespace, where the kernel ignores a SIGKILL \
                 from inside: the watchdog cannot end a hang (set hostPID, or run an init)"
            );
        }
        let (reader, writer) = io::pipe()?;
        // The flag belongs to the open file, so that it holds for every duplicate of this end.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let retired = Arc::new(AtomicU64::new(0));
        let pipes = (0..workers)
            .map(|worker| {
                let worker = u8::try_from(worker).expect("at most 64 workers");
                let retired = Arc::clone(&retired);
                Ok(HeartbeatPipe { worker, pipe: writer.try_clone()?, retired })
            })
            .collect::<io::Result<_>>()?;
        let child = start(&reader, workers, stale, log)?;
        let log = log.clone();
        Ok((Self { child, reader, writer, retired, workers, stale, log }, pipes))
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts another watchdog when this one died; says whether it had. To be called every
    /// second or so: without a watchdog a hang stays silent.
    ///
    /// # Errors
    /// When its state cannot be read, or when no other can be started.
    pub fn revive(&mut self) -> io::Result<bool> {
        let Some(status) = self.child.try_wait()? else { return Ok(false) };
        tracing::error!(%status, "the watchdog died; starting another");
        self.child = start(&self.reader, self.workers, self.stale, &self.log)?;
        let retired = self.retired.load(Ordering::Relaxed);
        for worker in (0..self.workers).filter(|worker| retired & (1 << worker) != 0) {
            let worker = u8::try_from(worker).expect("at most 64 workers");
            self.writer.write_all(&[worker | RETIRED])?;
        }
        Ok(true)
    }
}

impl Drop for Watchdog {
    /// Ends the process: from here on a silent agent is not killed.
    fn drop(&mut self) {
        // It may be dead already, and is reaped either way; the id is ours until then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl HeartbeatPipe {
    /// Reports that the worker's loop is alive. Never blocks: if the pipe is full, the watchdog has
    /// enough to read. To be called every 100 ms.
    pub fn beat(&mut self) {
        // A failed write is a full pipe; a dead watchdog is noticed by `Watchdog::revive`.
        let _ = self.pipe.write(&[self.worker]);
    }
}

impl Drop for HeartbeatPipe {
    fn drop(&mut self) {
        if thread::panicking() {
            // A worker that is lost leaves connections in silence: let the watchdog end them.
            return;
        }
        self.retired.fetch_or(1 << self.worker, Ordering::Relaxed);
        let _ = self.pipe.write(&[self.worker | RETIRED]);
    }
}

fn start(reader: &PipeReader, workers: u32, stale: Duration, log: &LogArgs) -> io::Result<Child> {
    // This very executable, even when its file was replaced by an upgrade meanwhile.
    Command::new("/proc/self/exe")
        .arg0("mirror")
        .args(["watchdog", "--parent", &std::process::id().to_string()])
        .args(["--workers", &workers.to_string()])
        .args(["--stale", &humantime::format_duration(stale).to_string()])
        .args(log.to_flags())
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(reader.try_clone()?)))
        .stdout(Stdio::null())
        .spawn()
}

/// Flags of `mirror watchdog`, which only [`Watchdog::spawn`] writes.
#[derive(Debug, clap::Args)]
pub struct WatchdogArgs {
    /// Process to kill.
    #[arg(long)]
    parent: i32,
    /// How many workers beat.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WORKERS)))]
    workers: u32,
    /// How long a worker may be silent.
    #[arg(long, value_parser = humantime::parse_duration)]
    stale: Duration,
    /// How it logs, as the agent does.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Runs the watchdog on its standard input until the parent has gone.
///
/// # Errors
/// When it cannot leave the agent's session, or read its standard input.
pub fn run(args: &WatchdogArgs) -> io::Result<()> {
    // Out of reach of the terminal's and a supervisor's signals to the agent's group: it has to
    // outlive the agent's drain, and ends with it.
    setsid()?;
    let mut ignored = SigSet::empty();
    ignored.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    ignored.thread_block()?;
    // Only a name, for ps; 15 characters are what the kernel keeps.
    let _ = std::fs::write("/proc/self/comm", "mirror-watchdog");

    let parent = Pid::from_raw(args.parent);
    let mut input = io::stdin().lock();
    fcntl(io::stdin(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut monitor = HeartbeatMonitor::new(args.workers, args.stale, TICK);
    let mut bytes = [0; 4096];
    loop {
        thread::sleep(TICK);
        loop {
            match input.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => bytes[..read].iter().for_each(|byte| monitor.record(*byte)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(silent) = monitor.tick() {
            return end(parent, &silent.to_string());
        }
    }
}

/// Kills the parent and waits until it is gone.
fn end(parent: Pid, why: &str) -> io::Result<()> {
    for attempt in 0_u32.. {
        // As long as it is our parent, its id cannot have passed to another process.
        if getppid() != parent {
            break;
        }
        if attempt == 0 {
            tracing::error!(
                "mirror watchdog: {why}: killing the agent (process {parent}), so that its \
                 connections are reset and new ones go direct"
            );
        } else if attempt % AFTER_KILL == 0 {
            tracing::error!("mirror watchdog: the agent (process {parent}) survives SIGKILL");
        }
        if attempt % AFTER_KILL == 0 {
            kill(parent, Signal::SIGKILL)?;
        }
        thread::sleep(TICK);
    }
    Ok(())
}
