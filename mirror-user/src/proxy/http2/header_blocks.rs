//! Watches a peer's frames for a header block that does not come to its end (RFC 9113, sections
//! 4.1 and 4.3): the h2 crate bounds its size and the number of its frames, not the time; and for work,
//! which the h2 crate does for all that was read in one go. In: the bytes as they are read. Out: since
//! when a block is open, and how much work they are. It changes nothing and holds no byte.

use std::time::Instant;

use super::{BLOCK_READ_LIMIT, FRAMES_READ_LIMIT, READ_LIMIT};

/// The client's preface goes before the first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// Length of a frame's header.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Frames that are a unit of work (see [`consume_budget`](super::consume_budget)).
const FRAMES: u32 = 64;

/// Bytes of header blocks that are: each may be a field.
const BLOCK: u32 = 128;

/// Where the reading stands.
#[derive(Debug)]
pub(super) struct HeaderBlockTracker {
    /// Bytes still to come of what is passed over.
    skip: usize,
    header: [u8; HEADER],
    /// How much of `header` is there.
    have: usize,
    /// The frame whose payload is passed over ends a block.
    ends: bool,
    open: bool,
    since: Option<Instant>,
    /// The type of the last frame.
    kind: u8,
    /// Frames, and bytes of header blocks, that are not yet counted as work.
    frames: u32,
    block: u32,
}

impl HeaderBlockTracker {
    /// Of a client.
    pub(super) fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::of_server() }
    }

    /// Of a server.
    pub(super) fn of_server() -> Self {
        let (skip, header, have, ends, open, since, frames, block) = Default::default();
        Self { skip, header, have, ends, open, since, kind: HEADERS, frames, block }
    }

    /// The work that was read since the last call, in units.
    pub(super) fn take_work(&mut self) -> u32 {
        let units = self.frames / FRAMES + self.block / BLOCK;
        self.frames %= FRAMES;
        self.block %= BLOCK;
        units
    }

    /// How much the next read is to take, at most.
    pub(super) fn read_limit(&self) -> u64 {
        match self.kind {
            DATA if self.skip > 0 => READ_LIMIT,
            HEADERS | CONTINUATION => BLOCK_READ_LIMIT,
            _ => FRAMES_READ_LIMIT,
        }
    }

    /// Since when a block is open.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.since
    }

    /// The next bytes. The clock is asked only when they end within a block.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            if self.open {
                self.block += passed as u32;
            }
            bytes = &bytes[passed..];
            if self.skip > 0 {
                break;
            }
            if std::mem::take(&mut self.ends) {
                self.open = false;
                self.since = None;
            }
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEADER {
                break;
            }
            self.have = 0;
            self.frame();
        }
        if self.open && self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.frames += 1;
        self.kind = kind;
        if kind == HEADERS || kind == CONTINUATION {
            self.open = true;
            self.ends = flags & END_HEADERS != 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let length = u8::try_from(length).unwrap();
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![1; length.into()]);
        frame
    }

    /// Whether a block is open after each piece.
    fn fed(pieces: &[&[u8]]) -> Vec<bool> {
        let mut blocks = HeaderBlockTracker::of_client();
        blocks.feed(&[0; PREFACE]);
        let open = pieces.iter().map(|piece| {
            blocks.feed(piece);
            blocks.open_since().is_some()
        });
        open.collect()
    }

    #[test]
    fn a_block_is_open_from_its_first_frame_to_the_end_of_its_last() {
        let (begin, go_on) = (frame(HEADERS, 0, 20), frame(CONTINUATION, 0, 200));
        let (end, whole) = (frame(CONTINUATION, END_HEADERS, 5), frame(HEADERS, END_HEADERS, 20));
        assert_eq!(fed(&[&begin, &go_on, &end, &whole]), [true, true, false, false]);
        assert_eq!(fed(&[&whole[..12], &whole[12..28], &whole[28..]]), [true, true, false]);
        assert_eq!(fed(&[&[begin, go_on, end, whole].concat()]), [false]);
    }

    #[test]
    fn other_frames_open_nothing_however_they_are_cut() {
        let others = [frame(0, 1, 255), frame(4, 0, 0), frame(6, 4, 8), frame(8, 4, 4)].concat();
        for cut in 1..others.len() {
            assert_eq!(fed(&[&others[..cut], &others[cut..]]), [false, false], "{cut}");
        }
    }

    #[test]
    fn work_is_frames_and_bytes_of_header_blocks_however_they_are_cut() {
        let work = |pieces: &[Vec<u8>]| {
            let mut blocks = HeaderBlockTracker::of_server();
            pieces
                .iter()
                .map(|piece| {
                    blocks.feed(piece);
                    blocks.take_work()
                })
                .sum::<u32>()
        };
        let pings = frame(6, 0, 8).repeat(640);
        let block = [frame(HEADERS, 0, 255), frame(CONTINUATION, END_HEADERS, 255)].concat();
        let data = [vec![0, 0x40, 0, 0, 0, 0, 0, 0, 1], vec![0; 0x4000]].concat();
        for (bytes, units) in [(pings, 10), (block, 3), (data, 0)] {
            for cut in [1, 7, 100, bytes.len()] {
                let pieces: Vec<_> = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
                assert_eq!(work(&pieces), units, "{cut}");
            }
        }
    }

    #[test]
    fn only_content_is_read_in_large_pieces() {
        let mut blocks = HeaderBlockTracker::of_server();
        assert_eq!(blocks.read_limit(), BLOCK_READ_LIMIT);
        blocks.feed(&[0, 0x40, 0, DATA, 0, 0, 0, 0, 1, 0]);
        assert_eq!(blocks.read_limit(), READ_LIMIT);
        blocks.feed(&vec![0; 0x3fff]);
        assert_eq!(blocks.read_limit(), FRAMES_READ_LIMIT);
        blocks.feed(&[0, 0x40, 0, HEADERS, 0, 0, 0, 0, 1, 0]);
        assert_eq!(blocks.read_limit(), BLOCK_READ_LIMIT);
    }

    #[test]
    fn an_empty_block_ends_with_its_frame() {
        assert_eq!(fed(&[&frame(HEADERS, END_HEADERS, 0)]), [false]);
    }
}
