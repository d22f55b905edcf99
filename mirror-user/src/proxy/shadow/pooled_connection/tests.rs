//! When a copy may be sent behind others on a connection.

use tokio::net::TcpStream;

use super::*;
use crate::proxy::{
    read_limit::{ConnectionMode, UpstreamStream},
    shadow::tests::{Shadow, Worker, local},
};

/// A connection that has given so many responses.
async fn proven(worker: &Worker, shadow: &Shadow, responses: u32) -> Rc<PooledConnection> {
    let stream = TcpStream::connect(shadow.address).await.unwrap();
    let limit = ReadLimit::new(&Worker::reads(), ConnectionMode::Serial);
    let connection = ShadowConnection::new(UpstreamStream::from(stream));
    let pooled = PooledConnection::new(connection, limit);
    for _ in 0..responses {
        pooled.begin(&worker.get(), worker.now);
        pooled.response_done(None);
    }
    pooled
}

#[tokio::test]
async fn two_responses_prove_that_a_connection_stays_open() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        for (responses, fit) in [(0, false), (1, false), (2, true), (3, true)] {
            let pooled = proven(&worker, &shadow, responses).await;
            assert!(pooled.is_idle());
            pooled.begin(&worker.get(), worker.now);
            assert_eq!((pooled.is_proven(), pooled.takes_more(worker.now)), (fit, fit));
            assert!(!pooled.is_idle());
        }
    })
    .await;
}

#[tokio::test]
async fn thirty_two_are_on_their_way_at_most() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pooled = proven(&worker, &shadow, 2).await;
        for sent in 0..32 {
            assert!(pooled.takes_more(worker.now), "{sent}");
            pooled.begin(&worker.get(), worker.now);
        }
        assert!(!pooled.takes_more(worker.now));
        pooled.response_done(Some(worker.now));
        assert!(pooled.takes_more(worker.now));
    })
    .await;
}

#[tokio::test]
async fn a_connection_with_pipelined_copies_carries_a_hundred() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pooled = proven(&worker, &shadow, 100).await;
        assert!(!pooled.takes_more(worker.now), "the hundred are carried");
        assert!(!pooled.is_last(100), "they were not pipelined");
        let pooled = proven(&worker, &shadow, 98).await;
        pooled.begin(&worker.get(), worker.now);
        assert!(pooled.takes_more(worker.now));
        pooled.begin(&worker.get(), worker.now);
        assert!(!pooled.takes_more(worker.now));
        assert_eq!((pooled.is_last(99), pooled.is_last(100)), (false, true));
    })
    .await;
}

#[tokio::test]
async fn none_is_added_behind_a_copy_that_has_waited_for_50_ms() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pooled = proven(&worker, &shadow, 2).await;
        pooled.begin(&worker.get(), worker.now);
        let later = worker.now + Duration::from_millis(50);
        assert!(pooled.takes_more(later - Duration::from_millis(1)));
        assert!(!pooled.takes_more(later));
        // The wait is that of the oldest, which is another one after its response.
        pooled.begin(&worker.get(), later);
        assert!(!pooled.takes_more(later));
        pooled.response_done(Some(later));
        assert_eq!(pooled.since(), later);
        assert!(pooled.takes_more(later + Duration::from_millis(49)));
    })
    .await;
}

#[tokio::test]
async fn one_that_must_not_be_pipelined_is_alone() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        for alone in [Worker::delete, Worker::post] {
            let pooled = proven(&worker, &shadow, 2).await;
            pooled.begin(&alone(&worker), worker.now);
            assert!(!pooled.takes_more(worker.now));
            pooled.response_done(None);
            pooled.begin(&worker.get(), worker.now);
            assert!(pooled.takes_more(worker.now));
        }
    })
    .await;
}

#[tokio::test]
async fn a_closed_connection_sends_what_it_was_handed_and_takes_no_more() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pooled = proven(&worker, &shadow, 2).await;
        let waker = Waker::noop();
        assert!(pooled.poll(waker).is_pending());
        pooled.enqueue(worker.get(), worker.now);
        pooled.close();
        assert!(!pooled.takes_more(worker.now));
        assert!(matches!(pooled.poll(waker), Poll::Ready(NextAction::Send(_))));
        assert!(matches!(pooled.poll(waker), Poll::Ready(NextAction::Close)));
    })
    .await;
}

#[tokio::test]
async fn a_response_or_a_client_that_is_waited_for_takes_the_lateness_back() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pooled = proven(&worker, &shadow, 2).await;
        pooled.begin(&worker.get(), worker.now);
        pooled.set_timed_out();
        assert!(pooled.is_timed_out());
        let since = worker.now + Duration::from_secs(1);
        pooled.waits_since(since);
        assert_eq!((pooled.is_timed_out(), pooled.since()), (false, since));
        pooled.set_timed_out();
        pooled.response_done(None);
        assert!(!pooled.is_timed_out());
    })
    .await;
}
