//! Watches a client's frames for a header block that does not come to its end (RFC 9113, sections
//! 4.1 and 4.3): the h2 crate bounds its size and the number of its frames, not the time. In: the
//! bytes as they are read. Out: since when a block is open. It changes nothing and holds no byte.

use std::time::Instant;

/// The client's preface goes before the first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// Length of a frame's header.
const HEADER: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where the reading stands.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Bytes still to come of what is passed over.
    skip: usize,
    header: [u8; HEADER],
    /// How much of `header` is there.
    have: usize,
    /// The frame whose payload is passed over ends a block.
    ends: bool,
    open: bool,
    since: Option<Instant>,
}

impl Default for Blocks {
    fn default() -> Self {
        let (header, have, since) = Default::default();
        Self { skip: PREFACE, header, have, ends: false, open: false, since }
    }
}

impl Blocks {
    /// Since when a block is open.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.since
    }

    /// The next bytes. The clock is asked only when they end within a block.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
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
        let mut blocks = Blocks::default();
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
    fn an_empty_block_ends_with_its_frame() {
        assert_eq!(fed(&[&frame(HEADERS, END_HEADERS, 0)]), [false]);
    }
}
