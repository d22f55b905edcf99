//! How much work something is, for tests: CPU time of the own thread, the least of several runs, since
//! whatever else happens on a machine only ever adds to it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Runs of which the least counts.
const RUNS: u32 = 5;

/// CPU time that `work` takes.
pub(crate) fn cpu(mut work: impl FnMut()) -> Duration {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap();
    let runs = (0..RUNS).map(|_| {
        let before = now();
        work();
        now() - before
    });
    runs.min().unwrap_or_default()
}

/// How many times as long `work` takes for four times as much, of which `n` is a fourth: 4 where it is
/// linear, 16 where it is quadratic.
pub(crate) fn ratio(mut work: impl FnMut(usize), n: usize) -> f64 {
    let few = cpu(|| work(n));
    let many = cpu(|| work(4 * n));
    many.as_secs_f64() / few.as_secs_f64().max(1e-6)
}
