//! What the tap's programs and the agent share: the mark of a tapped socket, the records of what it
//! sends, and the decisions about a segment that can be pure functions.

/// Entries of the map by which the agent asks for no more of a connection.
pub const STOP_ENTRIES: u32 = 16_384;
/// How many of a connection's first bytes are looked at.
pub const FIRST_BYTES: usize = 4;

/// The note on a tapped socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TapMark {
    /// Of the socket.
    pub cookie: u64,
    /// Of the network namespace: which pod it is.
    pub netns: u64,
    /// Place in the stream of the next byte that was not sent before.
    pub next: u64,
    /// Id of the frontend.
    pub frontend: u32,
    /// How often the socket has connected to a tapped frontend: it may be used again.
    pub generation: u32,
    /// Sequence number of the stream's first byte.
    pub first: u32,
    /// See [`TapState`].
    pub state: u32,
}

/// What [`TapMark::state`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TapState {
    /// No SYN was sent yet.
    New = 0,
    /// What it sends is copied.
    Copied = 1,
    /// Nothing more of it is copied.
    Over = 2,
}

/// What stands before the bytes of each record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TapRecord {
    /// As in [`TapMark`].
    pub cookie: u64,
    /// As in [`TapMark`].
    pub netns: u64,
    /// Place in the stream of the first byte; of an end, of what would come next.
    pub place: u64,
    /// As in [`TapMark`].
    pub frontend: u32,
    /// As in [`TapMark`].
    pub generation: u32,
    /// How many bytes follow. The record may be longer.
    pub len: u32,
    /// A [`TapKind`].
    pub kind: u32,
}

/// What a record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TapKind {
    /// A connection begins.
    Start = 1,
    /// Bytes of it.
    Data = 2,
    /// The client has closed its side.
    End = 3,
    /// The client has reset it.
    Reset = 4,
    /// The program copies nothing more of it; [`TapCount`] says why.
    Stopped = 5,
}

impl TapKind {
    /// Of a record's number.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Start,
            2 => Self::Data,
            3 => Self::End,
            4 => Self::Reset,
            5 => Self::Stopped,
            _ => return None,
        })
    }
}

/// The connection of which the agent wants nothing more; all 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TapStop {
    /// Of its socket.
    pub cookie: u64,
    /// As in [`TapMark`].
    pub generation: u32,
    /// Always 0.
    pub zero: u32,
}

/// Where a socket's [`TapStop`] stands. Two may have the same place: the later one counts, and the
/// other is copied on until it is asked for again.
#[inline(always)]
#[must_use]
pub const fn stop_index(cookie: u64) -> u32 {
    cookie as u32 & (STOP_ENTRIES - 1)
}

/// The worker, of so many, whose ring a socket's records go to.
#[inline(always)]
#[must_use]
pub const fn shard(cookie: u64, workers: u32) -> u32 {
    // Cookies count upward on each CPU: multiplied, their high bits are spread, and multiply-shift
    // needs no division, which rustc would guard with a panic.
    let spread = (cookie as u32).wrapping_mul(0x9e37_79b1);
    ((spread as u64 * workers as u64) >> 32) as u32
}

/// What the programs count; an index of the per-CPU counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum TapCount {
    /// Connections that began.
    Connections = 0,
    /// Records with bytes.
    Records = 1,
    /// Bytes in them.
    Bytes = 2,
    /// Records that found no room in the ring.
    LostRecords = 3,
    /// Bytes in them.
    LostBytes = 4,
    /// Connections of which nothing more is copied: they speak TLS.
    Tls = 5,
    /// They speak HTTP/2.
    Http2 = 6,
    /// Their first bytes are no request.
    NotHttp = 7,
    /// They send urgent data, which is not in the stream that the server reads.
    Urgent = 8,
    /// A segment could not be read.
    Unreadable = 9,
    /// Bytes before a segment were not seen.
    Gap = 10,
    /// There was no room for the record of their start.
    NoRoom = 11,
}

impl TapCount {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::Records,
        Self::Bytes,
        Self::LostRecords,
        Self::LostBytes,
        Self::Tls,
        Self::Http2,
        Self::NotHttp,
        Self::Urgent,
        Self::Unreadable,
        Self::Gap,
        Self::NoRoom,
    ];

    /// Entries of the counters' map.
    #[allow(clippy::cast_possible_truncation, reason = "twelve")]
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The index in the counters' map.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Why nothing more of a connection is copied, as metrics call it; None of what is no reason.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::NotHttp => "not_http",
            Self::Urgent => "urgent",
            Self::Unreadable => "unreadable",
            Self::Gap => "gap",
            Self::NoRoom => "no_room",
            Self::Connections
            | Self::Records
            | Self::Bytes
            | Self::LostRecords
            | Self::LostBytes => return None,
        })
    }
}

/// What a stream's first bytes, `len` of which are there (at most [`FIRST_BYTES`] count), say
/// against its being HTTP/1; None if nothing does.
#[inline(always)]
#[must_use]
pub const fn first_bytes(bytes: [u8; FIRST_BYTES], len: u32) -> Option<TapCount> {
    let [a, b, c, d] = bytes;
    if a == 0x16 && (len < 2 || b == 0x03) {
        return Some(TapCount::Tls);
    }
    if len >= 4 && a == b'P' && b == b'R' && c == b'I' && d == b' ' {
        return Some(TapCount::Http2);
    }
    // A method is a token (RFC 9110, section 5.6.2), before which there may be an empty line (RFC
    // 9112, section 2.2).
    let token = a.is_ascii_alphanumeric()
        || matches!(
            a,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
                | b'\r'
                | b'\n'
        );
    if token { None } else { Some(TapCount::NotHttp) }
}

/// A segment's place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// [`TapMark::first`].
    pub first: u32,
    /// [`TapMark::next`].
    pub next: u64,
}

/// What of a segment is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All but its first `skip` bytes, which were sent before; it may be empty.
    New {
        /// See above.
        skip: u32,
    },
    /// Bytes before it were not seen.
    Gap,
}

impl Stream {
    /// Of a segment of `len` bytes whose first has this sequence number. A segment that is sent again
    /// may have more behind it than before.
    #[inline(always)]
    #[must_use]
    pub const fn piece(self, sequence: u32, len: u32) -> Piece {
        // Sequence numbers wrap, and no window is larger than 1 GiB (RFC 7323, section 2.3).
        let ahead = sequence.wrapping_sub(self.first).wrapping_sub(self.next as u32) as i32;
        if ahead > 0 {
            return Piece::Gap;
        }
        let behind = ahead.unsigned_abs();
        Piece::New { skip: if behind < len { behind } else { len } }
    }
}

const _: () = assert!(size_of::<TapMark>() == 40 && align_of::<TapMark>() == 8);
const _: () = assert!(size_of::<TapRecord>() == 40 && align_of::<TapRecord>() == 8);
const _: () = assert!(size_of::<TapStop>() == 16 && align_of::<TapStop>() == 8);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_numbers_are_the_places_in_the_list() {
        assert!((0..).zip(TapCount::ALL).all(|(place, count)| count.index() == place));
        for kind in [TapKind::Start, TapKind::Data, TapKind::End, TapKind::Reset, TapKind::Stopped]
        {
            assert_eq!(TapKind::of(kind as u32), Some(kind));
        }
        assert_eq!(TapKind::of(0), None);
    }

    #[test]
    fn first_bytes_tell_what_is_no_http1() {
        let of = |text: &[u8]| {
            let mut bytes = [0; FIRST_BYTES];
            let len = text.len().min(FIRST_BYTES);
            bytes[..len].copy_from_slice(&text[..len]);
            first_bytes(bytes, u32::try_from(text.len()).unwrap())
        };
        for text in ["GET / HTTP/1.1", "P", "PR", "PRI", "PRIO", "\r\nGET", "get", "M-SEARCH"] {
            assert_eq!(of(text.as_bytes()), None, "{text}");
        }
        assert_eq!(of(b"\x16\x03\x01\x02"), Some(TapCount::Tls));
        assert_eq!(of(b"\x16"), Some(TapCount::Tls));
        assert_eq!(of(b"PRI * HTTP/2.0"), Some(TapCount::Http2));
        for text in [&b"\x16\x04"[..], b"\0\0\0\x10", b"\x80", b" GET", b"(", b"\x04\x01"] {
            assert_eq!(of(text), Some(TapCount::NotHttp), "{text:?}");
        }
    }

    #[test]
    fn each_worker_gets_its_share_of_connections() {
        for workers in [1, 2, 3, 64] {
            let mut counts = [0_u32; 64];
            for cookie in 0..64_000 {
                counts[usize::try_from(shard(cookie, workers)).unwrap()] += 1;
            }
            let used = &counts[..usize::try_from(workers).unwrap()];
            let fair = 64_000 / workers;
            assert!(used.iter().all(|n| (fair / 2..fair * 2).contains(n)), "{used:?}");
            assert_eq!(used.iter().sum::<u32>(), 64_000);
        }
    }

    proptest! {
        /// However often parts of a stream are sent, in segments of whatever size, each byte is new once.
        #[test]
        fn every_byte_is_new_once(
            first: u32,
            before in 0..u64::MAX / 2,
            segments in prop::collection::vec((0..3000_u32, 0..2000_u32), 1..50),
        ) {
            let mut stream = Stream { first, next: before };
            let mut sent = 0_u64;
            for (back, len) in segments {
                let back = u64::from(back).min(sent);
                let place = before + sent - back;
                let sequence = first.wrapping_add(place as u32);
                let Piece::New { skip } = stream.piece(sequence, len) else {
                    panic!("nothing is missing")
                };
                prop_assert_eq!(u64::from(skip), back.min(u64::from(len)));
                stream.next += u64::from(len - skip);
                sent = sent.max(sent - back + u64::from(len));
                prop_assert_eq!(stream.next, before + sent);
            }
            prop_assert_eq!(stream.piece(first.wrapping_add((before + sent) as u32).wrapping_add(1), 9), Piece::Gap);
        }
    }
}
