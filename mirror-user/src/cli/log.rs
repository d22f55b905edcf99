//! The process's own log: level and format, on stderr. What peers can bring about is bounded by a
//! [`rate_limiter`] of lines, and what they say stands in [`lines`] that no terminal obeys.

mod lines;
mod rate_limiter;

use std::io;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use lines::LineWriters;
use rate_limiter::RateLimiter;
pub use rate_limiter::Suppressed;

/// Lines that may wait for a reader of stderr; more are dropped and counted.
const WAITING: usize = 4096;

/// kube logs each failed request as an error that names neither the kind nor the server, beside the error
/// that it returns: what sent the request logs that one, with its cause and once per outage.
const DUPLICATES: &str = "kube_client::client::builder=off";

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Flags of the log.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Level of the log (error, warn, info, debug, trace, off), or a comma-separated list of levels and
    /// TARGET=LEVEL, for example info,mirror_user::proxy=debug. Release builds contain no trace events.
    #[arg(long = "log", env = "MIRROR_LOG", value_name = "FILTER", default_value = "info",
          value_parser = filter)]
    pub filter: String,

    /// Format of the log on stderr.
    #[arg(long = "log-format", env = "MIRROR_LOG_FORMAT", value_enum, default_value = "text")]
    pub format: LogFormat,
}

impl LogArgs {
    /// Starts logging to stderr; once per process, a second call changes nothing.
    pub fn start(&self) {
        // For a process that serves no client; its dropped lines are not counted.
        let _ = self.start_with(io::stderr);
    }

    /// The same from a separate thread, so that a stderr without a reader (a pipe that is full)
    /// never keeps a worker from its connections.
    #[must_use = "dropping it ends the log"]
    pub fn start_apart(&self) -> Log {
        let builder = NonBlockingBuilder::default().buffered_lines_limit(WAITING).lossy(true);
        let (writer, guard) = builder.thread_name("log").finish(io::stderr());
        let dropped = writer.error_counter();
        let suppressed = self.start_with(writer);
        Log { dropped, suppressed, _guard: guard }
    }

    fn start_with(
        &self,
        writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    ) -> Suppressed {
        let budget = RateLimiter::new();
        let suppressed = budget.suppressed();
        let lines = fmt::layer().with_writer(LineWriters::new(writer, self.format));
        let filter = EnvFilter::new(format!("{DUPLICATES},{}", self.filter));
        // The filter is outside of the formatter, so that what is below its level costs nothing; the
        // budget is asked last, of what would be written.
        let log = tracing_subscriber::registry();
        // The only failure is that a log was started before, and then that one holds.
        let _ = match self.format {
            LogFormat::Text => {
                log.with(lines.with_ansi(false)).with(filter).with(budget).try_init()
            }
            LogFormat::Json => log.with(lines.json()).with(filter).with(budget).try_init(),
        };
        suppressed
    }

    /// The flags that give the same again, for a process that this one starts.
    pub(crate) fn to_flags(&self) -> [String; 2] {
        let format = match self.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        [format!("--log={}", self.filter), format!("--log-format={format}")]
    }
}

/// A log that a separate thread writes. Dropped, it waits up to a second for lines to be written.
#[derive(Debug)]
pub struct Log {
    dropped: ErrorCounter,
    suppressed: Suppressed,
    _guard: WorkerGuard,
}

impl Log {
    /// The count of lines that were left out, because there were too many of one kind.
    #[must_use]
    pub fn suppressed(&self) -> Suppressed {
        self.suppressed.clone()
    }

    /// The count of lines that were dropped because the reader fell behind.
    #[must_use]
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

/// Checks a filter. A bare word that is not a level would be taken for a target at trace level,
/// which is not what a misspelt level means.
fn filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        if !level && !directive.contains('=') {
            return Err(format!(
                "{directive:?} is neither a level ({}) nor TARGET=LEVEL",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
