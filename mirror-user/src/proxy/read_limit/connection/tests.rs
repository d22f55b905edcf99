//! What a connection may read: its credit at once, then so much per tick, and no more than its worker
//! has left; and when it is over.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Wake,
};

use proptest::{collection::vec, prelude::*};

use super::{
    super::{MOST_PER_TICK, PER_TICK, WORKER_TICK, WorkerReads},
    *,
};

/// What is read of one response beyond the credit, in bytes.
const LONGEST: usize = 1 << 20;

/// So many connections beyond their credit leave each the least share.
const MANY: i64 = WORKER_TICK / PER_TICK;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Notes who was woken.
struct WakeOrder(Arc<Mutex<Vec<usize>>>, usize);

impl Wake for WakeOrder {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().push(self.1);
    }
}

struct Rig {
    worker: Rc<WorkerReads>,
    endpoint: Rc<EndpointReads>,
}

impl Rig {
    fn new() -> Self {
        let worker = WorkerReads::new(LONGEST);
        let endpoint = EndpointReads::new(&worker);
        Self { worker, endpoint }
    }

    /// With so many connections beyond their credit that each has the least share.
    fn crowded() -> (Self, Vec<Rc<ReadLimit>>) {
        let rig = Self::new();
        let others = (0..MANY).map(|_| rig.spent(ConnectionMode::Serial)).collect();
        rig.tick();
        (rig, others)
    }

    /// The next tick, with all who waited for it awake.
    fn tick(&self) {
        if self.worker.tick() {
            while self.worker.wake_some() {}
        }
    }

    /// A connection that has read all of its credit.
    fn spent(&self, mode: ConnectionMode) -> Rc<ReadLimit> {
        let limit = ReadLimit::new(&self.endpoint, mode);
        while allowance(&limit).is_some_and(|allowance| !allowance.paced) {
            limit.read(16 << 10);
            limit.turn.set(TURN);
        }
        assert!(limit.paced.get());
        limit
    }
}

/// What it may read now; None: not in this tick.
fn allowance(limit: &Rc<ReadLimit>) -> Option<ReadAllowance> {
    match limit.poll_allowance(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(allowance) => allowance.ok(),
        Poll::Pending => None,
    }
}

/// Reads as much as it may in this tick, in pieces.
fn drain(limit: &Rc<ReadLimit>, piece: usize) -> usize {
    let mut read = 0;
    while let Some(allowance) = allowance(limit) {
        limit.turn.set(TURN);
        let size = allowance.bytes.min(piece);
        limit.read(size);
        read += size;
    }
    read
}

#[test]
fn a_response_of_64_kib_in_small_reads_is_within_its_credit() {
    let rig = Rig::new();
    let limit = ReadLimit::new(&rig.endpoint, ConnectionMode::Serial);
    for _ in 0..100 {
        limit.begin();
        limit.found(Element::Head, 1);
        for _ in 0..16 {
            limit.turn.set(TURN);
            let allowance = allowance(&limit).expect("within its credit");
            assert!(!allowance.paced && allowance.bytes >= 4 << 10);
            limit.read(4 << 10);
        }
        limit.end();
    }
    assert_eq!(limit.exceeded(), None);
}

#[test]
fn beyond_its_credit_it_reads_so_much_per_tick_until_it_is_closed() {
    let (rig, _others) = Rig::crowded();
    let limit = rig.spent(ConnectionMode::Serial);
    let (mut ticks, mut read) = (0, 0);
    while limit.exceeded().is_none() {
        let now = drain(&limit, 16 << 10);
        assert!(now <= PER_TICK as usize + (16 << 10), "{now}");
        assert!(allowance(&limit).is_none() || limit.exceeded().is_some());
        read += now;
        ticks += 1;
        rig.tick();
        assert!(ticks < 100, "{read}");
    }
    assert_eq!(limit.exceeded(), Some(ReadExceeded::LongResponse));
    assert!((LONGEST..LONGEST + (128 << 10)).contains(&read), "{read}");
    assert!((15..30).contains(&ticks), "{ticks}");
    assert!(limit.poll_allowance(&mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(rig.endpoint.take_closed(), (1, 0));
    assert_eq!(rig.endpoint.take_closed(), (0, 0));
}

#[test]
fn few_connections_share_what_a_worker_may_read() {
    for (count, least, most) in [(1, 800, 1024), (16, 190, 256), (64, 48, 64), (128, 24, 64)] {
        let rig = Rig::new();
        let limits: Vec<_> = (0..count).map(|_| rig.spent(ConnectionMode::Serial)).collect();
        rig.tick();
        let read: usize = limits.iter().map(|limit| drain(limit, 16 << 10)).sum();
        let each = read / count / 1024;
        assert!((least..=most).contains(&each), "{count} connections: {each} KiB each");
    }
    // The one that is left when the others have closed has more again.
    let (rig, others) = Rig::crowded();
    let limit = rig.spent(ConnectionMode::Serial);
    drop(others);
    rig.tick();
    rig.tick();
    assert!(drain(&limit, 16 << 10) > 800 << 10);
}

#[test]
fn a_stream_of_small_messages_is_no_flood_however_many_there_are() {
    let rig = Rig::new();
    let limit = rig.spent(ConnectionMode::Streams);
    limit.begin();
    let mut messages = 0;
    for _ in 0..50 {
        while allowance(&limit).is_some() {
            limit.turn.set(TURN);
            limit.read(117);
            limit.found(Element::Data, 1);
            messages += 1;
        }
        rig.tick();
    }
    assert!(messages >= 50 * (MOST_PER_TICK as usize) / (6 << 10), "{messages}");
    assert_eq!(limit.exceeded(), None);
}

#[test]
fn small_chunks_are_a_flood_and_a_trickle_is_none() {
    let (rig, _others) = Rig::crowded();
    let limit = rig.spent(ConnectionMode::Serial);
    for _ in 0..3 {
        limit.read(16 << 10);
        limit.found(Element::Chunk, (16 << 10) / 6);
    }
    // More than a tick has is owed by the next ones.
    assert!(allowance(&limit).is_none());
    rig.tick();
    assert!(allowance(&limit).is_none());
    limit.found(Element::Chunk, 10_000);
    assert_eq!(limit.exceeded(), Some(ReadExceeded::Flood));

    let trickle = rig.spent(ConnectionMode::Streams);
    for _ in 0..1000 {
        rig.tick();
        assert!(allowance(&trickle).is_some());
        trickle.read(17);
        trickle.found(Element::Control, 2);
    }
    assert_eq!(trickle.exceeded(), None);
}

#[test]
fn two_acknowledgements_of_each_frame_sent_are_no_flood_and_more_are() {
    let rig = Rig::new();
    for (acknowledgements, exceeded) in [(2, None), (4, Some(ReadExceeded::Flood))] {
        let limit = rig.spent(ConnectionMode::Streams);
        // All frames first, as a fast client sends them.
        (0..1000).for_each(|_| limit.wrote(30, 1));
        while limit.credit.get() > 0 {
            limit.read(1 << 10);
        }
        for _ in 0..1000 {
            limit.found(Element::Control, acknowledgements);
        }
        assert_eq!(limit.exceeded(), exceeded);
    }
}

#[test]
fn the_next_response_has_its_own_credit() {
    let rig = Rig::new();
    let limit = rig.spent(ConnectionMode::Serial);
    limit.begin();
    assert!(allowance(&limit).is_some_and(|allowance| !allowance.paced));
    // Of all that were owed nothing is left, but for one that nobody asked for.
    (0..100).for_each(|_| limit.begin());
    (0..101).for_each(|_| limit.end());
    assert_eq!(limit.credit.get(), CREDIT);
}

#[test]
fn those_who_found_nothing_left_come_first_in_the_next_tick() {
    let rig = Rig::new();
    let count = usize::try_from(3 * WORKER_TICK / PER_TICK).expect("some");
    let limits: Vec<_> = (0..count).map(|_| rig.spent(ConnectionMode::Streams)).collect();
    let order = Arc::<Mutex<Vec<usize>>>::default();
    let mut served = vec![0; count];
    order.lock().unwrap().extend(0..count);
    for _ in 0..9 {
        rig.tick();
        let mut read = 0;
        // As they were woken.
        for at in std::mem::take(&mut *order.lock().unwrap()) {
            let now = drain(&limits[at], 60 << 10);
            limits[at].content.set(0);
            served[at] += usize::from(now > 0);
            read += now;
            let waker = Waker::from(Arc::new(WakeOrder(Arc::clone(&order), at)));
            limits[at].reader.replace(Some(waker));
        }
        assert!(read <= WORKER_TICK as usize + (60 << 10), "{read}");
    }
    assert!(served.iter().all(|ticks| (2..=4).contains(ticks)), "{served:?}");
}

#[test]
fn who_waits_is_woken_once_per_tick_however_often_it_waits() {
    let rig = Rig::new();
    let limit = rig.spent(ConnectionMode::Serial);
    drain(&limit, 64 << 10);
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    for _ in 0..3 {
        assert!(limit.poll_allowance(&mut Context::from_waker(&waker)).is_pending());
    }
    rig.tick();
    assert_eq!(woken.0.load(SeqCst), 1);
    rig.tick();
    assert_eq!(woken.0.load(SeqCst), 1);
}

proptest! {
    // Whatever is read, in whatever pieces, a tick's reading is bounded; what one tick read beyond its
    // end is left out of the next.
    #[test]
    fn a_worker_reads_no_more_than_its_ticks_allow(
        steps in vec((0..20_usize, 1..40_000_usize, 0..500_usize), 1..600),
    ) {
        let (rig, _others) = Rig::crowded();
        let limits: Vec<_> = (0..20).map(|_| rig.spent(ConnectionMode::Streams)).collect();
        let (mut cost, mut ticks) = (0, 1_i64);
        for (at, piece, chunks) in steps {
            let limit = &limits[at];
            if let Some(allowance) = allowance(limit) {
                if !allowance.paced { limit.credit.set(0); limit.paced.set(true); continue }
                let size = allowance.bytes.min(piece);
                limit.read(size);
                limit.found(Element::Chunk, chunks);
                cost += size as i64 + READ + chunks as i64 * Element::Chunk.cost();
            } else {
                rig.tick();
                ticks += 1;
            }
            limit.turn.set(TURN);
            let largest = 40_000 + READ + 500 * Element::Chunk.cost();
            prop_assert!(cost <= ticks * WORKER_TICK + largest);
            prop_assert!(cost <= ticks * 20 * PER_TICK + 20 * largest);
        }
    }
}
