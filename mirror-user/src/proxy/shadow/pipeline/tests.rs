//! What becomes of copies that are in flight together when their connection ends.

use std::time::Duration;

use super::*;
use crate::{
    outcome::{
        CopyOutcome::{Delivered, Dropped, Unknown},
        UnknownReason,
    },
    proxy::shadow::tests::{CLOSE, Connection, OK, Shadow, Worker, local, until},
};

/// A pool, and so many copies in flight on one connection, which has carried two before.
async fn on_their_way(
    worker: &Worker,
    shadow: &Shadow,
    copies: impl IntoIterator<Item = Copy<Http1Head>>,
) -> (Rc<EndpointPool>, Connection) {
    let pool = worker.pool(shadow.address, 64);
    pool.dispatch_http1(worker.get());
    let mut connection = shadow.accept().await;
    connection.has(1).await;
    connection.respond(OK);
    until("it is idle", || pool.busy() == 0).await;
    pool.dispatch_http1(worker.get());
    connection.has(2).await;
    connection.respond(OK);
    until("it is idle", || pool.busy() == 0).await;
    let mut sent = 2;
    for copy in copies {
        pool.dispatch_http1(copy);
        sent += 1;
    }
    connection.has(sent).await;
    assert_eq!(pool.connections(), 1);
    (pool, connection)
}

#[tokio::test(start_paused = true)]
async fn responses_are_those_of_the_oldest() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let copies = (0..3).map(|_| worker.get());
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        for n in 3..=5 {
            connection.respond(OK);
            worker.all_ended(Delivered, n).await;
        }
        until("it is idle", || pool.busy() == 0).await;
        assert_eq!(pool.connections(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn behind_a_response_with_close_they_go_again_each_by_itself() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let copies = (0..4).map(|_| worker.get());
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        connection.respond(OK);
        connection.respond(CLOSE);
        connection.is_closed().await;
        // Two that had their response, and a connection for each of the others.
        worker.all_ended(Delivered, 4).await;
        let mut again = [shadow.accept().await, shadow.accept().await];
        for connection in &mut again {
            connection.has(1).await;
        }
        assert_eq!(pool.busy(), 2);
        again.iter_mut().for_each(|connection| connection.respond(OK));
        worker.all_ended(Delivered, 6).await;
        // From then on nothing is sent behind another.
        until("they are idle", || pool.busy() == 0).await;
        (0..2).for_each(|_| pool.dispatch_http1(worker.get()));
        for connection in &mut again {
            connection.has(2).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_close_with_the_only_one_goes_on_pipelining() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let copies = [worker.get()];
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        connection.respond(CLOSE);
        connection.is_closed().await;
        worker.all_ended(Delivered, 3).await;
        let copies = (0..3).map(|_| worker.get());
        let (other, _connection) = on_their_way(&worker, &shadow, copies).await;
        assert_eq!((pool.connections(), other.busy()), (0, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_connection_had_whole_is_unknown() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let copies = (0..4).map(|_| worker.get());
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        connection.respond(OK);
        until("the first has its response", || worker.ended(Delivered) == 3).await;
        drop(connection);
        until("all end", || pool.busy() == 0).await;
        assert_eq!(worker.ended(Unknown(UnknownReason::Closed)), 3);
        assert_eq!(worker.ended(Delivered), 3);
        assert!(shadow.try_accept().is_none(), "none is sent again");
        assert!(!pool.health.is_resting(), "one that broke is tolerated");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_response_is_malformed_for_all_behind_it() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let copies = (0..3).map(|_| worker.get());
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        connection.respond(b"nonsense\r\n\r\n");
        until("all end", || pool.busy() == 0).await;
        assert_eq!(worker.ended(Unknown(UnknownReason::Malformed)), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_head_is_there_is_delivered() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let copies = (0..2).map(|_| worker.get());
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        connection.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        drop(connection);
        until("all end", || pool.busy() == 0).await;
        assert_eq!(worker.ended(Delivered), 3);
        assert_eq!(worker.ended(Unknown(UnknownReason::Closed)), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_goes_again_three_times_at_most() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let moved = |moves| Copy { moves, ..worker.get() };
        let copies = [worker.get(), moved(3), moved(2)];
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        connection.respond(CLOSE);
        let mut again = shadow.accept().await;
        again.has(1).await;
        assert_eq!(worker.ended(Dropped(DropReason::ShadowClosed)), 1);
        assert_eq!((worker.ended(Delivered), pool.busy()), (3, 1));
        again.respond(OK);
        until("the last one is delivered", || worker.ended(Delivered) == 4).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_are_given_up_when_the_oldest_is_late() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        // Selected long ago, as it seems to the next sweep.
        let mut worker = worker;
        let long = Duration::from_secs(16);
        worker.now = worker.now.checked_sub(long).expect("the machine runs for longer");
        let copies = (0..4).map(|_| worker.get());
        let (pool, mut connection) = on_their_way(&worker, &shadow, copies).await;
        pool.sweep(worker.now + long);
        until("all end", || pool.busy() == 0).await;
        assert_eq!(worker.ended(Unknown(UnknownReason::Timeout)), 4);
        connection.is_closed().await;
        assert!(shadow.try_accept().is_none());
    })
    .await;
}
