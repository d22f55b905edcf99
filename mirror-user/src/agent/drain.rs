//! Draining: how an agent goes away without a connection lost. The connect hooks go first; what
//! they captured is still accepted, since a connection may spend seconds between the hook and its
//! SYN (TCP_FASTOPEN_CONNECT), and closing a listener at once resets what waits in its queue.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{capture::Capture, heartbeat::BEAT, worker::Worker, workload::WorkerCommand};

/// How long connections are accepted after the last was captured.
const ACCEPT: Duration = Duration::from_secs(5);

/// Stops capturing, then waits until every connection has ended, at least [`ACCEPT`] and at most
/// `grace`.
pub(super) async fn drain(capture: &Capture, workers: &[Worker], grace: Duration) {
    let started = Instant::now();
    capture.stop_capturing();
    for worker in workers {
        worker.send(WorkerCommand::Drain);
    }
    tracing::info!(?grace, "draining: new connections go direct");
    loop {
        sleep(BEAT).await;
        let passed = started.elapsed();
        let left: usize = workers.iter().map(Worker::left).sum();
        if passed >= grace {
            if left > 0 {
                tracing::warn!(left, ?grace, "connections are still open and are closed now");
            }
            return;
        }
        if passed >= ACCEPT && left == 0 {
            tracing::info!(?passed, "drained");
            return;
        }
    }
}
