//! What waits to be written to a socket. In: heads, and bodies' frames. Out: as few buffers as can
//! be: small frames are copied behind the head that they follow, so that one send(2) takes both; a
//! large one is referred to.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Frames up to this size are copied: a write of two buffers costs as much as copying them.
const SMALL: usize = 4 * 1024;

/// More than this many bytes are not gathered before they are written.
const ROOM: usize = 16 * 1024;

/// A larger buffer is not kept for the next message.
const KEPT: usize = 32 * 1024;

/// Bytes of our own, then at most one frame that is referred to, then what ends its chunk.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    buffer: Vec<u8>,
    /// How much of `buffer` has left.
    at: usize,
    frame: Bytes,
    end: &'static [u8],
}

impl WriteBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.buffer.len() && self.frame.is_empty() && self.end.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.at + self.frame.len() + self.end.len()
    }

    /// Whether anything may be added before what is there has left.
    pub(super) fn has_room(&self) -> bool {
        self.frame.is_empty() && self.end.is_empty() && self.buffer.len() - self.at < ROOM
    }

    /// To be appended to while there is room.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.frame.is_empty() && self.end.is_empty());
        &mut self.buffer
    }

    /// A frame, and what follows it; while there is room.
    pub(super) fn push(&mut self, frame: Bytes, end: &'static [u8]) {
        if frame.len() <= SMALL {
            let buffer = self.buffer();
            buffer.extend_from_slice(&frame);
            buffer.extend_from_slice(end);
        } else {
            self.frame = frame;
            self.end = end;
        }
    }

    /// What is to be written next, where it is one buffer.
    pub(super) fn single(&self) -> Option<&[u8]> {
        (self.frame.is_empty() && self.end.is_empty()).then(|| &self.buffer[self.at..])
    }

    /// What is to be written next.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.buffer[self.at..]), IoSlice::new(&self.frame), IoSlice::new(self.end)]
    }

    /// This many bytes have left.
    pub(super) fn advance(&mut self, mut n: usize) {
        let own = n.min(self.buffer.len() - self.at);
        self.at += own;
        n -= own;
        let framed = n.min(self.frame.len());
        if framed == self.frame.len() {
            self.frame = Bytes::new();
        } else {
            self.frame.advance(framed);
        }
        self.end = &self.end[n - framed..];
        if self.at == self.buffer.len() {
            self.at = 0;
            if self.buffer.capacity() > KEPT {
                self.buffer = Vec::new();
            } else {
                self.buffer.clear();
            }
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is left to write.
    fn left(out: &WriteBuffer) -> Vec<u8> {
        out.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn what_leaves_in_pieces_of_any_size_is_what_was_put_in() {
        let large = Bytes::from(vec![b'x'; SMALL + 1]);
        let whole = [b"head".as_slice(), b"small\r\n", b"1001\r\n", &large, b"\r\n"].concat();
        for piece in [1, 2, 3, 7, 1000, SMALL, whole.len()] {
            let mut out = WriteBuffer::default();
            out.buffer().extend_from_slice(b"head");
            out.push(Bytes::from_static(b"small"), b"\r\n");
            out.buffer().extend_from_slice(b"1001\r\n");
            out.push(large.clone(), b"\r\n");
            assert!(!out.has_room());
            let mut gone = 0;
            while !out.is_empty() {
                assert_eq!(left(&out), whole[gone..]);
                let n = piece.min(whole.len() - gone);
                out.advance(n);
                gone += n;
            }
            assert_eq!(gone, whole.len());
            assert!(out.has_room());
        }
    }

    #[test]
    fn small_frames_join_the_head_and_large_ones_are_referred_to() {
        let mut out = WriteBuffer::default();
        out.buffer().extend_from_slice(b"head");
        out.push(Bytes::from_static(b"small"), b"");
        assert_eq!(out.single(), Some(b"headsmall".as_slice()));
        let large = Bytes::from(vec![0; SMALL + 1]);
        out.push(large.clone(), b"");
        assert_eq!(out.single(), None);
        assert_eq!(out.frame.as_ptr(), large.as_ptr());
    }
}
