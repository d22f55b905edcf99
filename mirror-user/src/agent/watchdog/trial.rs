//! A trial of the watchdog on this machine: a process that beats like an agent's workers do and
//! stops on demand, so that one can see what the watchdog does.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use super::{HeartbeatPipe, TICK, Watchdog};
use crate::cli::LogArgs;

/// Flags of `mirror watchdog-trial`.
#[derive(Debug, clap::Args)]
pub struct TrialArgs {
    /// How many workers beat.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// How long a worker may be silent.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    stale: Duration,
    /// When the last worker falls silent; never when absent.
    #[arg(long, value_parser = humantime::parse_duration)]
    silent_after: Option<Duration>,
    /// When the last worker ends on purpose; never when absent.
    #[arg(long, value_parser = humantime::parse_duration)]
    retire_after: Option<Duration>,
    /// How it logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Beats until killed. Says on stdout which process the watchdog is (again when it was replaced),
/// and when the last worker falls silent.
///
/// # Errors
/// When the watchdog cannot be started or stdout cannot be written.
pub fn run(args: &TrialArgs) -> io::Result<()> {
    let (mut watchdog, mut pipes) = Watchdog::spawn(args.workers, args.stale, &args.log)?;
    say(&format!("watchdog {}", watchdog.id()))?;
    let begun = Instant::now();
    let after = |length: Option<Duration>| length.is_some_and(|length| begun.elapsed() >= length);
    let mut mute: Option<HeartbeatPipe> = None;
    loop {
        if mute.is_none() && after(args.silent_after) {
            mute = pipes.pop();
            say("silent")?;
        }
        if pipes.len() == args.workers as usize && after(args.retire_after) {
            pipes.pop();
            say("retired")?;
        }
        pipes.iter_mut().for_each(HeartbeatPipe::beat);
        if watchdog.revive()? {
            say(&format!("watchdog {}", watchdog.id()))?;
        }
        thread::sleep(TICK);
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}
