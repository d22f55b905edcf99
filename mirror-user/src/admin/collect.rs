//! Collecting: asks every worker for its report, and sums up what is known when time is over.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::outcome::{Report, Reports};

/// How long a scrape waits for the workers.
const PATIENCE: Duration = Duration::from_millis(200);

/// A question to a worker: it sends `Recorder::report()` back. That nobody waits for the answer
/// any more is no error of the worker's.
pub type Ask = oneshot::Sender<Report>;

/// The lines to the workers, and what each said last.
#[derive(Debug)]
pub struct Workers {
    lines: Vec<mpsc::Sender<Ask>>,
    last: Mutex<Reports>,
}

impl Workers {
    /// Takes one line per worker, in their order; a capacity of a few questions is enough.
    #[must_use]
    pub fn new(lines: Vec<mpsc::Sender<Ask>>) -> Self {
        let last = Mutex::new(Reports::new(lines.len()));
        Self { lines, last }
    }

    /// The sum over all workers within 200 ms; one that does not answer counts with its last
    /// report.
    pub async fn report(&self) -> Report {
        let deadline = Instant::now() + PATIENCE;
        let ask = |line: &mpsc::Sender<Ask>| {
            let (ask, answer) = oneshot::channel();
            // A worker that is blocked has a full line: asking it again would not help.
            line.try_send(ask).is_ok().then_some(answer)
        };
        let answers: Vec<_> = self.lines.iter().map(ask).collect();
        for (worker, answer) in answers.into_iter().enumerate() {
            let Some(answer) = answer else { continue };
            if let Ok(Ok(report)) = timeout_at(deadline, answer).await {
                self.last().update(worker, report);
            }
        }
        self.last().merged()
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Reports> {
        // A report is replaced whole, so that a panic elsewhere leaves nothing half done.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
