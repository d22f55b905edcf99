//! One direction of a connection. In: its bytes, each piece with its place. Out: what is new, and how much
//! is missing before it. Pure; it holds no bytes.
//!
//! The source gives the pieces of a connection in order: what is behind a gap shows that the gap will not
//! be filled. A piece that comes late, against that promise, adds nothing.

/// How far a stream has been read.
#[derive(Debug, Default)]
pub(super) struct Flow {
    next: u64,
}

/// What a piece adds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Added<'a> {
    /// So many bytes are missing before the others.
    pub(super) lost: u64,
    pub(super) bytes: &'a [u8],
}

impl Flow {
    /// The bytes at this place. A stream is shorter than 2^63 bytes.
    pub(super) fn add<'a>(&mut self, place: u64, bytes: &'a [u8]) -> Added<'a> {
        let lost = place.saturating_sub(self.next);
        let known = usize::try_from(self.next.saturating_sub(place)).unwrap_or(usize::MAX);
        let bytes = bytes.get(known..).unwrap_or(&[]);
        if bytes.is_empty() && lost == 0 {
            return Added { lost: 0, bytes };
        }
        self.next += lost + bytes.len() as u64;
        Added { lost, bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The byte at a place.
    fn at(place: u64) -> u8 {
        (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    fn piece(place: u64, len: u64) -> Vec<u8> {
        (place..place + len).map(at).collect()
    }

    proptest! {
        /// Any split, order, duplication, holes: each byte that comes out stands at its place, once.
        #[test]
        fn what_comes_out_is_what_was_sent(pieces in prop::collection::vec((0..900_u64, 0..200_u64), 0..60)) {
            let (mut flow, mut next) = (Flow::default(), 0_u64);
            for (place, len) in pieces {
                let bytes = piece(place, len);
                let Added { lost, bytes } = flow.add(place, &bytes);
                next += lost;
                prop_assert_eq!(bytes, piece(next, bytes.len() as u64));
                next += bytes.len() as u64;
                prop_assert_eq!(flow.next, next);
            }
        }

        #[test]
        fn nothing_is_lost_of_what_comes_in_order(
            lengths in prop::collection::vec(1..300_u64, 1..50),
            again in prop::collection::vec(0..300_u64, 1..50),
        ) {
            let (mut flow, mut end) = (Flow::default(), 0);
            let mut read = Vec::new();
            for (len, back) in lengths.into_iter().zip(again.into_iter().cycle()) {
                let place = end - u64::min(back, end);
                end += len;
                let bytes = piece(place, end - place);
                let added = flow.add(place, &bytes);
                prop_assert_eq!(added.lost, 0);
                read.extend_from_slice(added.bytes);
            }
            prop_assert_eq!(read, piece(0, end));
        }
    }

    #[test]
    fn a_gap_is_reported_once_with_its_length() {
        let mut flow = Flow::default();
        assert_eq!(flow.add(0, b"ab"), Added { lost: 0, bytes: b"ab" });
        assert_eq!(flow.add(5, b"cd"), Added { lost: 3, bytes: b"cd" });
        assert_eq!(flow.add(2, b"xyz"), Added { lost: 0, bytes: b"" });
        // An end without bytes.
        assert_eq!(flow.add(9, b""), Added { lost: 2, bytes: b"" });
        assert_eq!(flow.add(9, b"e"), Added { lost: 0, bytes: b"e" });
    }
}
