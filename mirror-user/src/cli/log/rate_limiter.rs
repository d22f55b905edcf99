//! A budget of log lines for each place in the code that writes some. In: events. Out: which of them
//! become lines, and how many did not. A peer that may send the same nonsense a million times (an
//! unasked PING of HTTP/2 is a warning of the h2 crate) would write a million lines otherwise, and
//! drown what others have to say. It never waits, and takes no lock.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

/// The target of mirror's modules.
const OWN: &str = "mirror_user";
/// The target of the lines that report what was left out; these have no budget.
const TARGET: &str = "mirror_user::log";
/// More places than agent and dependencies have at any level; those beyond share the last.
const CALL_SITES: usize = 1024;
/// Time between two such reports about one place, while more lines are left out.
const REPORT: Duration = Duration::from_secs(10);

/// How many lines a place may write: so many at once, and one more each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    burst: u64,
    interval: Duration,
}

/// Of dependencies: what a peer can bring about again and again.
const THEIRS: Rate = Rate { burst: 10, interval: Duration::from_millis(500) };
/// For mirror's modules: all pods of a node may be captured at once.
const OURS: Rate = Rate { burst: 200, interval: Duration::from_millis(100) };
/// For both, at levels that were requested in order to see much.
const DETAIL: Rate = Rate { burst: 1000, interval: Duration::from_millis(2) };

impl Rate {
    fn of(metadata: &Metadata<'_>) -> Self {
        let own = metadata.target().starts_with(OWN);
        match (*metadata.level() > Level::INFO, own) {
            (true, _) => DETAIL,
            (false, true) => OURS,
            (false, false) => THEIRS,
        }
    }
}

/// The budgets of a process.
#[derive(Debug)]
pub(super) struct RateLimiter {
    begun: Instant,
    call_sites: Box<[CallSite]>,
    left_out: Suppressed,
}

/// The count of lines that were left out.
#[derive(Clone, Debug, Default)]
pub struct Suppressed(Arc<AtomicU64>);

impl Suppressed {
    /// Since the start.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Of one place in the code.
#[derive(Debug, Default)]
struct CallSite {
    whose: OnceLock<Identifier>,
    /// Nanoseconds from the start to the moment at which the budget is whole again (the theoretical
    /// arrival time of the generic cell rate algorithm, ITU-T I.371).
    whole: AtomicU64,
    /// Left out since the last report.
    left_out: AtomicU64,
    /// Nanoseconds from the start to that line.
    last_report: AtomicU64,
}

impl CallSite {
    /// Whether one more line may be written `now`, in nanoseconds from the start.
    fn admits(&self, rate: Rate, now: u64) -> bool {
        let interval = nanos(rate.interval);
        let room = interval.saturating_mul(rate.burst);
        let step = |whole: u64| {
            let next = whole.max(now).saturating_add(interval);
            (next - now <= room).then_some(next)
        };
        self.whole.fetch_update(Relaxed, Relaxed, step).is_ok()
    }

    /// How many lines to report, if it is time to.
    fn due_report(&self, now: u64) -> Option<u64> {
        if self.left_out.load(Relaxed) == 0 {
            return None;
        }
        let due =
            |last_report: u64| (now.saturating_sub(last_report) >= nanos(REPORT)).then_some(now);
        self.last_report.fetch_update(Relaxed, Relaxed, due).ok()?;
        Some(self.left_out.swap(0, Relaxed)).filter(|count| *count > 0)
    }
}

impl RateLimiter {
    pub(super) fn new() -> Self {
        let call_sites = (0..CALL_SITES).map(|_| CallSite::default()).collect();
        Self { begun: Instant::now(), call_sites, left_out: Suppressed::default() }
    }

    pub(super) fn suppressed(&self) -> Suppressed {
        self.left_out.clone()
    }

    fn call_site(&self, metadata: &Metadata<'_>) -> &CallSite {
        let callsite = metadata.callsite();
        // The first places are filled in the order in which they are met; there are few.
        let mine =
            |call_site: &&CallSite| *call_site.whose.get_or_init(|| callsite.clone()) == callsite;
        self.call_sites.iter().find(mine).unwrap_or(&self.call_sites[CALL_SITES - 1])
    }

    fn admit(&self, metadata: &Metadata<'_>, now: u64) -> bool {
        if metadata.target() == TARGET {
            return true;
        }
        let call_site = self.call_site(metadata);
        let admitted = call_site.admits(Rate::of(metadata), now);
        if !admitted {
            call_site.left_out.fetch_add(1, Relaxed);
            self.left_out.0.fetch_add(1, Relaxed);
        }
        // The first line that is left out is reported at once, further ones every [`REPORT`].
        if let Some(lines) = call_site.due_report(now.saturating_add(nanos(REPORT))) {
            let (file, line) = (metadata.file().unwrap_or("?"), metadata.line());
            tracing::warn!(
                target: TARGET,
                lines,
                of = metadata.target(),
                at = %format_args!("{file}:{}", line.unwrap_or_default()),
                "lines of the log were left out because one place in the code logs too many"
            );
        }
        admitted
    }
}

impl<S: Subscriber> Layer<S> for RateLimiter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admit(event.metadata(), nanos(self.begun.elapsed()))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `requested` lines, evenly spread over `seconds`, become lines.
    fn written(rate: Rate, requested: u64, seconds: u64) -> usize {
        let call_site = CallSite::default();
        let at = |line| line * seconds * SECOND / requested;
        (0..requested).filter(|line| call_site.admits(rate, at(*line))).count()
    }

    #[test]
    fn a_flood_becomes_a_few_lines_and_what_is_rare_stays_whole() {
        // 10 MB of PING frames, of 17 bytes each, within a second.
        assert_eq!(written(THEIRS, 600_000, 1), 11);
        assert_eq!(written(THEIRS, 600_000, 60), 129);
        assert_eq!(written(OURS, 1_000_000, 10), 299);
        assert_eq!(written(THEIRS, 60, 60), 60);
        assert_eq!(written(OURS, 200, 0), 200);
    }

    #[test]
    fn what_is_left_out_is_reported_at_once_and_then_now_and_then() {
        let call_site = CallSite::default();
        let report_interval = nanos(REPORT);
        assert_eq!(call_site.due_report(report_interval), None, "nothing was");
        for (line, last_report) in [(0, Some(1)), (1, None), (2, None), (10, Some(3)), (11, None)] {
            call_site.left_out.fetch_add(1, Relaxed);
            assert_eq!(
                call_site.due_report(line * SECOND + report_interval),
                last_report,
                "after {line} s"
            );
        }
    }

    #[test]
    fn places_have_budgets_of_their_own_and_the_sum_is_counted() {
        let budget = RateLimiter::new();
        let suppressed = budget.suppressed();
        let log =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), budget);
        let written = Arc::new(AtomicU64::new(0));
        let log = tracing_subscriber::layer::SubscriberExt::with(log, Counting(written.clone()));
        tracing::subscriber::with_default(log, || {
            for line in 0..1000 {
                tracing::warn!(target: "h2::proto", line, "PING");
            }
            tracing::warn!(target: "h2::proto", "another");
            tracing::warn!(target: "mirror_user::worker", "our own");
        });
        // The flood's first ten, perhaps one for the time that it took, and the two others.
        let written = written.load(Relaxed);
        assert!((12..20).contains(&written), "{written}");
        assert_eq!(suppressed.lines(), 1002 - written);
    }

    struct Counting(Arc<AtomicU64>);

    impl<S: Subscriber> Layer<S> for Counting {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
}
