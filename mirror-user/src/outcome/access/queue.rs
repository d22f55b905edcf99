//! The queue between the workers and the thread that writes. In: lines. Out: the same in their order,
//! or a count of those for which there was no room. It is bounded in lines and in bytes: a client
//! chooses how long its lines are.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    mpsc,
};

/// Lines that may wait, for all workers together.
pub(super) const LINES: usize = 8192;
/// What they may hold. Lines of everyday requests have some 250 bytes.
pub(super) const BYTES: usize = 8 << 20;

/// The workers' end; clones share one count.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    lines: mpsc::SyncSender<QueuedLine>,
    held: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// The writing thread's end.
#[derive(Debug)]
pub(super) struct Receiver {
    lines: mpsc::Receiver<QueuedLine>,
}

/// A line, which counts until it is dropped.
#[derive(Debug)]
pub(super) struct QueuedLine {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

pub(super) fn new() -> (Sender, Receiver) {
    let (sender, lines) = mpsc::sync_channel(LINES);
    let sender = Sender { lines: sender, held: Arc::default(), dropped: Arc::default() };
    (sender, Receiver { lines })
}

impl Sender {
    /// Takes the line, or counts it as dropped; never waits.
    pub(super) fn offer(&self, bytes: Vec<u8>) {
        // A formatted line's buffer may be twice as large.
        let line = QueuedLine { held: Arc::clone(&self.held), bytes };
        let before = self.held.fetch_add(line.size(), Relaxed);
        // One that is not sent is dropped here, and counts no more.
        if before + line.size() > BYTES || self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Receiver {
    /// Waits for a line; None once every sender is gone.
    pub(super) fn next(&self) -> Option<QueuedLine> {
        self.lines.recv().ok()
    }

    /// Those that wait.
    pub(super) fn ready(&self) -> impl Iterator<Item = QueuedLine> {
        self.lines.try_iter()
    }
}

impl QueuedLine {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn size(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Drop for QueuedLine {
    fn drop(&mut self) {
        self.held.fetch_sub(self.size(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_bytes_whatever_the_lines() {
        for size in [100, 10_000, BYTES / 2, BYTES + 1] {
            let (sender, receiver) = new();
            let sent = 3 * BYTES / size + 2;
            for _ in 0..sent {
                sender.offer(vec![0; size]);
            }
            assert!(sender.held.load(Relaxed) <= BYTES, "{size}");
            let waiting: Vec<_> = receiver.ready().collect();
            assert_eq!(waiting.len(), (BYTES / size).min(LINES), "{size}");
            assert_eq!(sender.dropped(), (sent - waiting.len()) as u64);
            drop(waiting);
            assert_eq!(sender.held.load(Relaxed), 0);
            sender.offer(vec![0; 100]);
            assert_eq!(receiver.next().unwrap().bytes().len(), 100, "there is room again");
        }
    }

    #[test]
    fn lines_that_nobody_will_read_hold_nothing() {
        let (sender, receiver) = new();
        sender.offer(vec![0; 1000]);
        drop(receiver);
        sender.offer(vec![0; 1000]);
        assert_eq!((sender.held.load(Relaxed), sender.dropped()), (0, 1));
    }
}
