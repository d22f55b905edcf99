//! What the pool does with a copy: an idle connection, one that it may be pipelined on, a new one, the
//! queue, or nothing.

use socket2::{Domain, Socket, Type};
use tokio::time::advance;

use super::*;
use crate::{
    outcome::{
        CopyOutcome::{Delivered, Dropped, Unknown},
        UnknownReason,
    },
    proxy::shadow::tests::{CLOSE, Connection, OK, Shadow, Worker, local, settle, until},
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A pool of one connection, which is idle and has proven that it stays open.
async fn proven(worker: &Worker, shadow: &Shadow) -> (Rc<EndpointPool>, Connection) {
    let pool = worker.pool(shadow.address, 1);
    pool.dispatch_http1(worker.get());
    let mut connection = shadow.accept().await;
    for n in 1..=2 {
        connection.has(n).await;
        connection.respond(OK);
        until("it is idle", || pool.busy() == 0).await;
        if n == 1 {
            pool.dispatch_http1(worker.get());
        }
    }
    worker.all_ended(Delivered, 2).await;
    (pool, connection)
}

#[tokio::test(start_paused = true)]
async fn connections_are_opened_up_to_the_limit_and_then_copies_wait() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 2);
        (0..2).for_each(|_| pool.dispatch_http1(worker.post()));
        assert_eq!((pool.connections(), pool.has_waiting(), pool.busy()), (2, false, 2));
        pool.dispatch_http1(worker.post());
        assert_eq!((pool.connections(), pool.has_waiting(), pool.busy()), (2, true, 3));
        let (mut first, mut second) = (shadow.accept().await, shadow.accept().await);
        first.has(1).await;
        second.has(1).await;
        assert!(shadow.try_accept().is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_in_the_queue_is_dropped() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        pool.dispatch_http1(worker.post());
        for (copy, whole) in [(Worker::get as fn(&Worker) -> _, true), (Worker::post, false)] {
            for _ in 0..16 {
                assert!(!pool.is_full(HttpVersion::Http1, whole));
                pool.dispatch_http1(copy(&worker));
            }
            assert!(pool.is_full(HttpVersion::Http1, whole));
        }
        assert_eq!(worker.ended(Dropped(DropReason::Connections)), 0);
        pool.dispatch_http1(worker.get());
        pool.dispatch_http1(worker.post());
        worker.all_ended(Dropped(DropReason::Connections), 2).await;
        assert_eq!(pool.busy(), 33);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_has_waited_for_a_second_is_dropped() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        (0..3).for_each(|_| pool.dispatch_http1(worker.post()));
        assert!(pool.sweep(worker.now + Duration::from_secs(1)));
        assert_eq!(pool.queue.len(), 2);
        assert!(pool.sweep(worker.now + Duration::from_secs(1) + MILLISECOND));
        worker.all_ended(Dropped(DropReason::Connections), 2).await;
        assert_eq!((pool.queue.len(), pool.busy()), (0, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_carries_the_next_copy() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 64);
        pool.dispatch_http1(worker.post());
        let mut connection = shadow.accept().await;
        for n in 1..=5 {
            connection.has(n).await;
            assert_eq!(pool.busy(), 1);
            connection.respond(OK);
            worker.all_ended(Delivered, n as u64).await;
            until("it is idle", || pool.busy() == 0).await;
            pool.dispatch_http1(worker.post());
        }
        connection.has(6).await;
        assert_eq!(pool.connections(), 1);
        assert!(shadow.try_accept().is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_the_shadow_closed_carries_nothing() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let (pool, connection) = proven(&worker, &shadow).await;
        drop(connection);
        // Before the pool's task has seen it, and after.
        pool.dispatch_http1(worker.get());
        shadow.accept().await.respond_to_all(1, OK).await;
        worker.all_ended(Delivered, 3).await;
        until("the pool sees it", || pool.connections() == 0).await;
        pool.dispatch_http1(worker.get());
        shadow.accept().await.respond_to_all(1, OK).await;
        worker.all_ended(Delivered, 4).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pipelined_on_a_connection_that_has_given_one_response() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 64);
        pool.dispatch_http1(worker.get());
        let mut connection = shadow.accept().await;
        connection.has(1).await;
        connection.respond(OK);
        until("it is idle", || pool.busy() == 0).await;
        (0..2).for_each(|_| pool.dispatch_http1(worker.get()));
        assert_eq!(pool.connections(), 2);
        connection.has(2).await;
        shadow.accept().await.has(1).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn thirty_two_go_on_a_proven_connection_and_the_next_wait_for_a_response() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let (pool, mut connection) = proven(&worker, &shadow).await;
        (0..34).for_each(|_| pool.dispatch_http1(worker.get()));
        assert_eq!(pool.queue.len(), 2);
        connection.has(34).await;
        connection.respond(&OK.repeat(32));
        connection.has(36).await;
        connection.respond(&OK.repeat(2));
        worker.all_ended(Delivered, 36).await;
        assert_eq!(pool.connections(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_pipelined_waits_for_an_idle_connection() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let (pool, mut connection) = proven(&worker, &shadow).await;
        pool.dispatch_http1(worker.get());
        pool.dispatch_http1(worker.delete());
        // It does not overtake, although it could be pipelined.
        assert_eq!(pool.queue.len(), 1);
        connection.has(3).await;
        connection.respond(OK);
        connection.has(4).await;
        pool.dispatch_http1(worker.get());
        connection.has(4).await;
        connection.respond(OK);
        connection.has(5).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pipelined_for_a_minute_after_a_close_with_copies_on_their_way() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let (pool, mut connection) = proven(&worker, &shadow).await;
        pool.dispatch_http1(worker.get());
        let now = Instant::now();
        assert!(pool.http1.takes_more(worker.now));
        pool.http1.stop_pipelining();
        assert!(!pool.http1.takes_more(worker.now));
        pool.dispatch_http1(worker.get());
        connection.has(3).await;
        assert_eq!(pool.queue.len(), 1);
        assert!(!pool.http1.pipelines(now + Duration::from_secs(60) - MILLISECOND));
        assert!(pool.http1.pipelines(Instant::now() + Duration::from_secs(60)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_rests_and_what_waits_is_dropped() {
    local(async {
        let worker = Worker::new();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let refusing = socket.local_addr().unwrap().as_socket().unwrap();
        let pool = worker.pool(refusing, 1);
        (0..3).for_each(|_| pool.dispatch_http1(worker.get()));
        until("all end", || pool.busy() == 0).await;
        assert_eq!(worker.ended(Dropped(DropReason::Connect)), 1);
        assert_eq!(worker.ended(Dropped(DropReason::Backoff)), 2);
        assert_eq!(pool.connections(), 0);
        // One rest, which began with the failure.
        let backoff = pool.health.connects.get();
        assert!(backoff.has_failed() && !backoff.is_resting(Instant::now() + 100 * MILLISECOND));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connect_without_a_reply_ends_after_its_time() {
    local(async {
        let worker = Worker::new();
        // A queue of length 0 takes one connection; then SYNs are dropped.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let full = socket.local_addr().unwrap().as_socket().unwrap();
        let _filler = std::net::TcpStream::connect(full).unwrap();
        let pool = worker.pool(full, 1);
        pool.dispatch_http1(worker.get());
        settle().await;
        advance(Duration::from_secs(1) - MILLISECOND).await;
        settle().await;
        assert_eq!((pool.connections(), worker.ended(Dropped(DropReason::ConnectTimeout))), (1, 0));
        advance(2 * MILLISECOND).await;
        worker.all_ended(Dropped(DropReason::ConnectTimeout), 1).await;
        assert!(pool.health.is_resting());
        until("it is given up", || pool.connections() == 0).await;
    })
    .await;
}

#[test]
fn sixteen_broken_connections_in_a_row_are_tolerated_and_a_response_counts() {
    let worker = Worker::new();
    let pool = worker.pool(([127, 0, 0, 1], 1).into(), 1);
    for _ in 0..2 {
        (0..16).for_each(|_| pool.health.record_response(false));
        assert!(!pool.health.is_resting());
        pool.health.record_response(true);
    }
    (0..17).for_each(|_| pool.health.record_response(false));
    assert!(pool.health.is_resting());
    pool.health.record_response(true);
    assert!(!pool.health.is_resting());
    pool.health.record_connect(false);
    assert!(pool.health.is_resting(), "one connect that failed is enough");
    pool.health.record_connect(true);
    assert!(!pool.health.is_resting());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_idles_for_more_than_a_second_is_closed() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let (pool, mut connection) = proven(&worker, &shadow).await;
        let idles_for = |time| {
            let since = Instant::now().checked_sub(time).expect("the machine runs for longer");
            pool.http1.idle.borrow()[0].waits_since(since);
            pool.sweep(Instant::now());
        };
        idles_for(Duration::from_millis(500));
        settle().await;
        assert_eq!(pool.connections(), 1);
        idles_for(Duration::from_secs(1) + MILLISECOND);
        connection.is_closed().await;
        until("it is gone", || pool.connections() == 0).await;
        pool.used.set(Instant::now().checked_sub(Duration::from_secs(30)).unwrap());
        assert!(pool.sweep(Instant::now()), "what failed is remembered for a minute");
        pool.used.set(Instant::now().checked_sub(Duration::from_secs(60)).unwrap());
        assert!(!pool.sweep(Instant::now()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_response_in_time_is_closed() {
    local(async {
        // The time of one with content counts from the end of its content.
        for (copy, late) in [(Worker::get as fn(&Worker) -> _, 1), (Worker::post, 2)] {
            let (worker, shadow) = (Worker::new(), Shadow::new());
            let pool = worker.pool(shadow.address, 1);
            pool.dispatch_http1(copy(&worker));
            let mut connection = shadow.accept().await;
            connection.has(1).await;
            let waits_for = |time| {
                let since = Instant::now().checked_sub(time).expect("the machine runs for longer");
                pool.http1.open.borrow()[0].waits_since(since);
                pool.sweep(Instant::now());
            };
            waits_for(pool.options.response_timeout / 2);
            settle().await;
            assert_eq!(worker.ended(Unknown(UnknownReason::Timeout)), 0);
            for _ in 0..late {
                assert_eq!(worker.ended(Unknown(UnknownReason::Timeout)), 0);
                waits_for(pool.options.response_timeout + MILLISECOND);
                settle().await;
            }
            worker.all_ended(Unknown(UnknownReason::Timeout), 1).await;
            connection.is_closed().await;
            assert!(!pool.health.is_resting(), "a slow shadow is not a broken one");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_makes_room_for_what_waits() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        (0..3).for_each(|_| pool.dispatch_http1(worker.post()));
        for _ in 0..3 {
            shadow.accept().await.respond_to_all(1, CLOSE).await;
        }
        worker.all_ended(Delivered, 3).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_closed_accounts_for_all() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        (0..3).for_each(|_| pool.dispatch_http1(worker.post()));
        let mut connection = shadow.accept().await;
        connection.has(1).await;
        pool.close();
        worker.all_ended(Dropped(DropReason::Shutdown), 3).await;
        connection.is_closed().await;
    })
    .await;
}
