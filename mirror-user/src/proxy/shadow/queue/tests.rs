//! What may wait, in what order it goes, and what becomes of the rest.

use super::*;
use crate::{
    outcome::{CopyOutcome::Dropped, DropReason},
    proxy::shadow::tests::Worker,
};

#[test]
fn the_oldest_goes_first() {
    let (worker, queue) = (Worker::new(), CopyQueue::new(1));
    assert!(queue.is_empty() && queue.pop().is_none());
    for copy in [worker.get(), worker.post(), worker.delete()] {
        queue.push(copy, worker.now);
    }
    assert_eq!((queue.len(), queue.is_empty()), (3, false));
    let order: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|copy| (copy.head.pipelined, copy.head.encoded.has_no_content()))
        .collect();
    assert_eq!(order, [(true, true), (false, false), (false, true)]);
}

#[test]
fn sixteen_with_content_and_sixteen_without_wait_for_each_connection() {
    let (worker, queue) = (Worker::new(), CopyQueue::new(2));
    for _ in 0..32 {
        assert!(queue.has_room(true));
        queue.push(worker.get(), worker.now);
    }
    assert!(!queue.has_room(true));
    for _ in 0..32 {
        assert!(queue.has_room(false));
        queue.push(worker.post(), worker.now);
    }
    assert_eq!((queue.has_room(true), queue.has_room(false)), (false, false));
    // The oldest is one without content.
    drop(queue.pop());
    assert_eq!((queue.has_room(true), queue.has_room(false)), (true, false));
    (0..32).for_each(|_| drop(queue.pop()));
    assert_eq!((queue.has_room(true), queue.has_room(false)), (true, true));
}

#[test]
fn none_overtakes_the_oldest_to_be_pipelined() {
    let (worker, queue) = (Worker::new(), CopyQueue::new(1));
    queue.push(worker.delete(), worker.now);
    queue.push(worker.get(), worker.now);
    assert!(queue.pop_pipelined().is_none());
    assert!(queue.pop().is_some());
    assert!(queue.pop_pipelined().is_some());
    assert!(queue.is_empty());
}

#[test]
fn a_copy_waits_for_a_second() {
    const SECOND: Duration = Duration::from_secs(1);
    let (worker, queue) = (Worker::new(), CopyQueue::new(1));
    let later = worker.now + Duration::from_millis(300);
    queue.push(worker.get(), worker.now);
    queue.push(worker.post(), later);
    assert!(queue.pop_expired(worker.now + SECOND).is_none());
    let past = worker.now + SECOND + Duration::from_millis(1);
    assert!(queue.pop_expired(past).is_some_and(|copy| copy.head.pipelined));
    assert!(queue.pop_expired(past).is_none(), "the next came later");
    assert!(queue.pop_expired(later + SECOND).is_none());
    assert!(queue.pop_expired(later + SECOND + Duration::from_millis(1)).is_some());
    assert_eq!((queue.len(), queue.has_room(false)), (0, true));
}

#[test]
fn what_waits_when_the_queue_goes_is_accounted_for() {
    let (worker, queue) = (Worker::new(), CopyQueue::new(1));
    queue.push(worker.get(), worker.now);
    queue.push(worker.post(), worker.now);
    drop(queue);
    assert_eq!((worker.selected(), worker.ended(Dropped(DropReason::Shutdown))), (2, 2));
}
