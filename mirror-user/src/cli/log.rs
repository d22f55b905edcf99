//! The process's own log: level and format, on stderr.

use std::io;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Lines that may wait for a reader of stderr; more are dropped and counted.
const WAITING: usize = 4096;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Flags of the log.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Level (error, warn, info, debug, trace, off), or a filter of comma-parted levels and
    /// TARGET=LEVEL, for example info,mirror_user::proxy=debug. Release builds have nothing below
    /// debug.
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
        self.start_with(io::stderr);
    }

    /// The same from a thread of its own, so that a stderr that nobody reads (a pipe that is full)
    /// never keeps a worker from its connections.
    #[must_use = "dropping it ends the log"]
    pub fn start_apart(&self) -> Log {
        let builder = NonBlockingBuilder::default().buffered_lines_limit(WAITING).lossy(true);
        let (writer, guard) = builder.thread_name("log").finish(io::stderr());
        let dropped = writer.error_counter();
        self.start_with(writer);
        Log { dropped, _guard: guard }
    }

    fn start_with(&self, writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) {
        let filter = EnvFilter::new(&self.filter);
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
        // The only failure is that a log was started before, and then that one holds.
        let _ = match self.format {
            LogFormat::Text => log.with_ansi(false).try_init(),
            LogFormat::Json => log.json().try_init(),
        };
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

/// A log that a thread of its own writes. Dropped, it waits up to a second for lines to be written.
#[derive(Debug)]
pub struct Log {
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

impl Log {
    /// The count of lines that nobody took.
    #[must_use]
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

/// Checks a filter. A bare word that is no level would be taken for a target at trace level,
/// which nobody means who misspells a level.
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
