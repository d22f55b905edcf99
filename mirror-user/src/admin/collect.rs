//! Collecting: requests a report of every worker, and adds up those that arrive in time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    dump::RunDump,
    outcome::{Report, Reports},
};

/// How long a scrape waits for the workers.
const PATIENCE: Duration = Duration::from_millis(200);

/// A request to a worker, which sends `Recorder::report()` back. If the receiver no longer waits for the
/// report, that is not an error of the worker.
pub type ReportRequest = oneshot::Sender<Report>;

/// The lines to the workers, what each said last, and since when they count.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<mpsc::Sender<ReportRequest>>,
    last: Mutex<Reports>,
    run: String,
    started: Instant,
}

impl Workers {
    /// Takes one line per worker, in their order; a capacity of a few questions is enough.
    #[must_use]
    pub fn new(workers: Vec<mpsc::Sender<ReportRequest>>) -> Self {
        let last = Mutex::new(Reports::new(workers.len()));
        let run = format!("{:032x}", rand::random::<u128>());
        Self { workers, last, run, started: Instant::now() }
    }

    /// Which run of the agent this is; it begins with these lines, before anything is captured.
    pub(super) fn run(&self) -> RunDump {
        RunDump { id: self.run.clone(), uptime_seconds: self.started.elapsed().as_secs_f64() }
    }

    /// The sum over all workers within 200 ms; a worker that does not respond counts with its last
    /// report.
    pub async fn report(&self) -> Report {
        let deadline = Instant::now() + PATIENCE;
        let request = |line: &mpsc::Sender<ReportRequest>| {
            let (request, response) = oneshot::channel();
            // A worker that is blocked has a full line: asking it again would not help.
            line.try_send(request).is_ok().then_some(response)
        };
        let responses: Vec<_> = self.workers.iter().map(request).collect();
        for (worker, response) in responses.into_iter().enumerate() {
            let Some(response) = response else { continue };
            if let Ok(Ok(report)) = timeout_at(deadline, response).await {
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
