//! What is held, what it costs, and how a copy ends.

use std::task::{Context, Poll};

use proptest::prelude::*;

use super::*;
use crate::{proxy::tee::budget::Budgets, route::ServicePort};

const MIB: usize = 1024 * 1024;

fn budgets() -> Budgets {
    Budgets::new(MIB, 8 * MIB, 64 * MIB)
}

fn stream(budgets: &Budgets) -> (CopyBody, CopyWriter) {
    let service = ServicePort { namespace: "default".into(), name: "shadow".into(), port: 80 };
    let (body, writer) = CopyBody::stream(budgets.copy_budget(budgets.backend(&service)));
    (body, writer.unwrap())
}

fn next(body: &mut CopyBody) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

fn read_all(body: &mut CopyBody) -> Vec<u8> {
    let mut all = Vec::new();
    while let Poll::Ready(Some(Ok(frame))) = next(body) {
        all.extend_from_slice(frame.data_ref().unwrap());
    }
    all
}

#[test]
fn one_byte_frames_are_held_within_a_small_multiple_of_their_size() {
    let budgets = budgets();
    let (mut body, writer) = stream(&budgets);
    let shared = Bytes::from(vec![7; 32 * 1024]);
    for at in 0..5_000 {
        writer.frame(&Frame::data(shared.slice(at..=at)));
    }
    assert!(budgets.agent().used() <= 16 * 1024, "{}", budgets.agent().used());
    drop(shared);
    writer.finish();
    assert_eq!(read_all(&mut body).len(), 5_000);
    assert_eq!(budgets.agent().used(), 0);
}

#[test]
fn a_large_frame_is_charged_with_the_buffer_that_it_pins() {
    let budgets = budgets();
    let (_body, writer) = stream(&budgets);
    writer.frame(&Frame::data(Bytes::from(vec![0; SMALL])));
    assert_eq!(budgets.agent().used(), READ_BUFFER);
}

#[test]
fn what_a_copy_is_behind_by_is_charged_at_its_size() {
    let budgets = budgets();
    let (mut body, writer) = stream(&budgets);
    for _ in 0..10 {
        writer.frame(&Frame::data(Bytes::from(vec![7; SMALL])));
    }
    assert_eq!(budgets.agent().used(), READ_BUFFER + 9 * SMALL);
    writer.frame(&Frame::data(Bytes::from(vec![7; READ_BUFFER])));
    assert_eq!(budgets.agent().used(), 2 * READ_BUFFER + 9 * SMALL);
    assert!(read_all(&mut body) == vec![7; 10 * SMALL + READ_BUFFER]);
}

#[test]
fn a_shadow_is_waited_for_only_while_it_has_not_what_the_client_sent() {
    let budgets = budgets();
    let (mut body, writer) = stream(&budgets);
    let status = body.status();
    let send = |body: &mut CopyBody, takes: bool| {
        writer.frame(&Frame::data(Bytes::from_static(b"some")));
        if takes {
            read_all(body);
        }
    };
    assert!(status.waits_since().is_none(), "nothing was taken");
    send(&mut body, true);
    assert!(status.waits_since().is_some(), "all was taken");
    assert!(status.waits_since().is_none(), "the client sent nothing since");
    send(&mut body, false);
    assert!(status.waits_since().is_none(), "it is not taken");
    assert!(next(&mut body).is_ready());
    send(&mut body, false);
    assert!(status.waits_since().is_none(), "not all is taken");
    read_all(&mut body);
    assert!(status.waits_since().is_some());
    let before = Instant::now();
    writer.finish();
    let since = status.waits_since();
    assert!(since.is_some_and(|since| since >= before), "it has the time for its answer");
    assert!(status.waits_since().is_none(), "once");
}

#[test]
fn a_charge_lasts_until_the_bytes_are_written() {
    let budgets = budgets();
    let (mut body, writer) = stream(&budgets);
    writer.frame(&Frame::data(Bytes::from_static(b"abc")));
    let Poll::Ready(Some(Ok(frame))) = next(&mut body) else { panic!("a frame was held") };
    assert_eq!(budgets.agent().used(), SLAB);
    drop(frame);
    assert_eq!(budgets.agent().used(), 0);
}

#[test]
fn a_copy_beyond_its_budget_is_cut_and_frees_what_it_held() {
    let budgets = budgets();
    let (mut body, writer) = stream(&budgets);
    let status = body.status();
    for _ in 0..=MIB / READ_BUFFER {
        writer.frame(&Frame::data(Bytes::from(vec![0; READ_BUFFER])));
    }
    assert_eq!(status.cut_reason(), Some(DropReason::RequestBudget));
    assert_eq!(budgets.agent().used(), 0);
    writer.finish();
    assert!(matches!(next(&mut body), Poll::Ready(Some(Err(Cut(DropReason::RequestBudget))))));
    assert!(!body.is_end_stream());
    assert!(!status.is_taken_whole());
}

#[test]
fn a_writer_that_goes_away_cuts() {
    let budgets = budgets();
    let (mut body, writer) = stream(&budgets);
    writer.frame(&Frame::data(Bytes::from_static(b"abc")));
    drop(writer);
    assert!(matches!(next(&mut body), Poll::Ready(Some(Err(Cut(DropReason::PrimaryEnded))))));
}

#[test]
fn nothing_is_kept_for_a_reader_that_went_away() {
    let budgets = budgets();
    let (body, writer) = stream(&budgets);
    drop(body);
    writer.frame(&Frame::data(Bytes::from(vec![0; 32 * 1024])));
    assert_eq!(budgets.agent().used(), 0);
}

proptest! {
    /// Whatever the frames and whenever they are read, the copy is the body byte for byte, and
    /// in the end nothing stays charged.
    #[test]
    fn a_copy_is_its_body(
        frames in prop::collection::vec((0_usize..40_000, any::<bool>()), 0..20),
    ) {
        let budgets = budgets();
        let (mut body, writer) = stream(&budgets);
        let status = body.status();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for (i, (size, read)) in frames.into_iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|at| (at + i) as u8).collect();
            sent.extend_from_slice(&data);
            writer.frame(&Frame::data(Bytes::from(data)));
            if read {
                got.extend(read_all(&mut body));
            }
        }
        let cut = status.cut_reason();
        writer.finish();
        got.extend(read_all(&mut body));
        if cut.is_none() {
            prop_assert_eq!(status.taken(), sent.len() as u64);
            prop_assert!(sent == got);
            prop_assert!(status.is_taken_whole());
        } else {
            prop_assert!(sent.starts_with(&got));
            prop_assert!(!status.is_taken_whole());
        }
        prop_assert_eq!(budgets.agent().used(), 0);
    }
}
