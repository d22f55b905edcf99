//! Each copy has one outcome, whatever becomes of it.

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::*;
use crate::{
    outcome::UnknownReason,
    proxy::{
        shadow::tests::Worker,
        tee::{Budgets, CopyBody},
    },
};

#[test]
fn an_outcome_counts_once() {
    let worker = Worker::new();
    let guard = worker.guard();
    assert_eq!((worker.selected(), guard.started()), (1, worker.now));
    guard.settle(CopyOutcome::Delivered, 3);
    let all = || CopyOutcome::all().map(|outcome| worker.ended(outcome)).sum::<u64>();
    assert_eq!((all(), worker.ended(CopyOutcome::Delivered)), (1, 1));
    worker.guard().settle(CopyOutcome::Unknown(UnknownReason::Closed), 0);
    assert_eq!((all(), worker.ended(CopyOutcome::Unknown(UnknownReason::Closed))), (2, 1));
}

#[test]
fn a_copy_that_nobody_settles_is_dropped_for_the_shutdown() {
    let worker = Worker::new();
    drop(worker.guard());
    assert_eq!(worker.ended(CopyOutcome::Dropped(DropReason::Shutdown)), 1);
}

#[test]
fn a_response_before_the_end_of_the_copy_does_not_settle_it() {
    let worker = Worker::new();
    let budgets = Budgets::new(1 << 20, 1 << 20, 1 << 20);
    let service = ServicePort { namespace: "default".into(), name: "shadow".into(), port: 80 };
    let (mut body, writer) = CopyBody::stream(budgets.copy_budget(budgets.backend(&service)));
    let (writer, status) = (writer.unwrap(), body.status());
    writer.frame(&Frame::data(Bytes::from_static(b"half")));
    let guard = worker.guard().settle_if_whole(&status).expect("it goes on");
    assert_eq!(worker.ended(CopyOutcome::Delivered), 0);
    writer.finish();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut next = || std::pin::Pin::new(&mut body).poll_frame(&mut cx);
    while matches!(next(), std::task::Poll::Ready(Some(_))) {}
    assert!(guard.settle_if_whole(&status).is_none());
    assert_eq!(worker.ended(CopyOutcome::Delivered), 1);
}
