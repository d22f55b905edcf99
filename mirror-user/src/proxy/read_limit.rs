//! How much of what shadows send is read. In: what was read, what it was made of, and ticks of 100 ms.
//! Out: how much may be read now, or that a connection is to wait for the next tick, or to be closed.
//! Nothing here knows of primaries: their responses are read as fast as their clients take them.
//!
//! Everything that reading costs is one quantity, bytes: each read, head, chunk and frame counts for as
//! many as could be read in its time. A connection reads [`CREDIT`] for each response that it owes as
//! fast as it comes, which is enough for ordinary ones. Beyond that it reads an equal part per tick of
//! [`WORKER_TICK`], which all connections of a worker that are beyond their credit share, at most
//! [`MOST_PER_TICK`]. Once it has read that, and always if there are many, it leaves the reactor until the
//! next tick, so that nothing that arrives wakes the worker. It is closed
//! when one response is longer than `--shadow-response-limit`, or when [`FLOOD`] bytes carry no content.
//! All other connections of a worker read at most [`WORKER_CREDIT`] per tick.

mod connection;
mod endpoint;
mod frames;
mod socket;
mod worker;

pub(super) use self::{
    connection::{ConnectionMode, ReadLimit},
    endpoint::EndpointReads,
    socket::UpstreamStream,
    worker::WorkerReads,
};

/// What a connection reads for each response as it comes: 64 KiB in reads of 4 KiB.
const CREDIT: i64 = 128 << 10;

/// What a connection beyond its credit may read per tick however many there are; one of HTTP/2 for each
/// stream.
const PER_TICK: i64 = 64 << 10;

/// What it may read per tick if there are few: 10 MiB a second, so that a long response does not make its
/// shadow look slow.
const MOST_PER_TICK: i64 = 1 << 20;

/// What the kernel may hold of a shadow's that is not read, in bytes as `SO_RCVBUF` is given them; it takes
/// twice that (socket(7)), and without it 6 MiB (`net.ipv4.tcp_rmem`).
pub(super) const RECEIVE_BUFFER: u32 = 208 << 10;

/// What all connections of a worker that are beyond their credit read per tick.
const WORKER_TICK: i64 = 4 << 20;

/// What all others read per tick.
const WORKER_CREDIT: i64 = 64 << 20;

/// What a connection reads in a row before others have their turn.
const TURN: i64 = 128 << 10;

/// What is read beyond the credit of what carries no content. Then the connection is closed.
const FLOOD: i64 = 1 << 20;

/// What nobody asked for (interim responses, small chunks, frames without data) is no flood at this
/// pace, per tick: servers send PINGs, and events with seconds between them.
const TOLERATED: i64 = 8 << 10;

/// Cost of a read, besides its bytes: a system call and a wake-up.
const READ: i64 = 4 << 10;

/// What a connection's bytes are made of, and what each costs besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// The head of an HTTP/1 response, interim ones as well.
    Head,
    /// A chunk of HTTP/1 content.
    Chunk,
    /// A frame of HTTP/2 that carries no content.
    Control,
    /// A frame of HTTP/2 with content.
    Data,
}

impl Element {
    const fn cost(self) -> i64 {
        match self {
            Self::Head => 2 << 10,
            Self::Chunk => 64,
            Self::Control | Self::Data => 1 << 10,
        }
    }

    /// It carries something that the shadow was asked for, whose length is bounded by itself.
    const fn is_content(self) -> bool {
        matches!(self, Self::Data)
    }
}

/// Why a connection to a shadow is closed: it has sent more than is read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadExceeded {
    /// One response, by its length.
    #[error("a shadow's response is longer than --shadow-response-limit")]
    LongResponse,
    /// What nobody asked for.
    #[error("a shadow floods its connection with what carries no content")]
    Flood,
}
