//! What one connection does between two copies, on a paused clock.

use tokio::time::advance;

use super::*;
use crate::{
    outcome::CopyOutcome::{Delivered, Unknown},
    proxy::shadow::tests::{CLOSE, OK, Shadow, Worker, local, settle, until},
};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_waiting_copy_is_taken_up_5_ms_after_the_first_response() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        (0..3).for_each(|_| pool.dispatch_http1(worker.post()));
        let mut connection = shadow.accept().await;
        connection.has(1).await;
        connection.respond(OK);
        worker.all_ended(Delivered, 1).await;
        settle().await;
        advance(4 * MILLISECOND).await;
        connection.has(1).await;
        assert_eq!(pool.busy(), 3);
        advance(2 * MILLISECOND).await;
        connection.has(2).await;
        // The second response proves that it stays open.
        connection.respond(OK);
        connection.has(3).await;
        assert!(pool.http1.is_known_to_keep_open());
        connection.respond(OK);
        worker.all_ended(Delivered, 3).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_is_known_to_keep_connections_open_is_not_waited_for() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        pool.http1.keeps_open(true);
        (0..2).for_each(|_| pool.dispatch_http1(worker.post()));
        let mut connection = shadow.accept().await;
        connection.has(1).await;
        connection.respond(OK);
        connection.has(2).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_closes_after_its_response_loses_no_copy_that_waits() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 1);
        (0..3).for_each(|_| pool.dispatch_http1(worker.post()));
        for n in 1..=3 {
            let mut connection = shadow.accept().await;
            connection.has(1).await;
            connection.respond(OK);
            worker.all_ended(Delivered, n).await;
            drop(connection);
            settle().await;
            advance(6 * MILLISECOND).await;
        }
        assert!(!pool.http1.is_known_to_keep_open());
        until("all is over", || pool.connections() == 0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_response_of_a_connection_ends_it() {
    local(async {
        for copy in [Worker::get as fn(&Worker) -> _, Worker::post, Worker::delete] {
            let (worker, shadow) = (Worker::new(), Shadow::new());
            let pool = worker.pool(shadow.address, 64);
            pool.dispatch_http1(copy(&worker));
            let mut connection = shadow.accept().await;
            connection.has(1).await;
            connection.respond(CLOSE);
            connection.is_closed().await;
            worker.all_ended(Delivered, 1).await;
            assert_eq!((pool.connections(), pool.health.is_resting()), (0, false));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_with_content_that_was_taken_whole_is_unknown_without_a_response() {
    local(async {
        let (worker, shadow) = (Worker::new(), Shadow::new());
        let pool = worker.pool(shadow.address, 64);
        pool.dispatch_http1(worker.post());
        let mut connection = shadow.accept().await;
        connection.has(1).await;
        until("its content is there", || {
            connection.heads();
            connection.text().ends_with("body")
        })
        .await;
        drop(connection);
        worker.all_ended(Unknown(UnknownReason::Closed), 1).await;
        until("it is gone", || pool.connections() == 0).await;
        assert!(shadow.try_accept().is_none(), "it is not sent again");
    })
    .await;
}
