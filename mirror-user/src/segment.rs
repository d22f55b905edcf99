//! Segments of tapped connections, as the capture reads them and the data path takes them.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use mirror_common::FrontendId;

/// Names a tapped connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TappedSocket {
    /// Of the socket: no other ever has it.
    pub cookie: u64,
    /// Which of its connections, if it connects more than once.
    pub generation: u32,
}

/// Something that a tapped connection sent.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Whose it is.
    pub socket: TappedSocket,
    /// Cookie of the network namespace that it is in.
    pub netns: u64,
    /// The frontend that it connected to.
    pub frontend: FrontendId,
    /// Place of the first byte in the stream, from 0.
    pub place: u64,
    /// What it is.
    pub kind: SegmentKind,
    /// Only of [`SegmentKind::Data`], and then at least one.
    pub bytes: &'a [u8],
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// The connection begins.
    Start,
    /// Bytes.
    Data,
    /// The client has closed its side.
    End,
    /// The client has reset it.
    Reset,
    /// Nothing more of it will come.
    Stopped,
}

/// Where segments come from. Of each connection they come in order, each byte at most once; bytes may be
/// missing.
pub trait SegmentSource: Send {
    /// Shows the next one. False: there is none now.
    fn read(&mut self, with: &mut dyn FnMut(Segment<'_>)) -> bool;

    /// Asks for nothing more of this connection. Some may come all the same.
    fn stop(&mut self, socket: TappedSocket);

    /// Asks for the descriptor to become readable with the next segment.
    fn fall_asleep(&mut self);

    /// See [`SegmentSource::fall_asleep`].
    fn fd(&self) -> BorrowedFd<'_>;
}
