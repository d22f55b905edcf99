//! Frames of HTTP/2 by hand (RFC 9113, section 4.1), for what no library sends: a raw end of a
//! connection, and header blocks with each representation (RFC 7541, section 6).

use std::{net::SocketAddr, time::Duration};

use super::raw_connection::{End, RawConnection};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Also ACK.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PRIORITY: u8 = 0x20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A literal field that the dynamic table keeps.
pub(crate) fn kept(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], string(name.as_ref()), string(value.as_ref())].concat()
}

/// A literal field with the name of this entry; the table keeps it.
pub(crate) fn kept_again(entry: u8, value: &str) -> Vec<u8> {
    // 62 and above do not fit into a prefix of six bits.
    let index = if entry < 63 { vec![0x40 | entry] } else { vec![0x7f, entry - 63] };
    [index, string(value.as_bytes())].concat()
}

/// A field that the table has.
pub(crate) fn indexed(entry: u8) -> Vec<u8> {
    vec![0x80 | entry]
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 127, "one byte of length");
    [&[length], bytes].concat()
}

/// `:method GET`, `:scheme http`, `:path` and `:authority`, none of them kept.
pub(crate) fn request(path: &str) -> Vec<u8> {
    let path = [vec![0x04], string(path.as_bytes())].concat();
    [vec![0x82, 0x86], path, vec![0x01], string(b"front:8000")].concat()
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Self {
        Self { kind, flags, stream, payload: payload.as_ref().to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("short");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    fn wants_ack(&self) -> bool {
        self.kind == SETTINGS && self.flags & ACK == 0
    }
}

/// A raw end of a connection.
pub(crate) struct RawFrames(pub(crate) RawConnection);

impl RawFrames {
    /// A client that has said hello.
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::connect_as(to, &[])
    }

    /// The same, with these settings.
    pub(crate) fn connect_as(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self(RawConnection::connect(to));
        raw.0.send(PREFACE);
        raw.settings(settings);
        raw
    }

    /// A server that has said hello, with these settings.
    pub(crate) fn accepted(raw_connection: RawConnection, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self(raw_connection);
        assert_eq!(raw.0.exactly(PREFACE.len()), PREFACE);
        raw.settings(settings);
        raw
    }

    pub(crate) fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<_> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(SETTINGS, 0, 0, payload);
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) {
        self.0.send(Frame::new(kind, flags, stream, payload).bytes());
    }

    /// A whole header block.
    pub(crate) fn headers(&mut self, stream: u32, end: bool, block: impl AsRef<[u8]>) {
        self.send(HEADERS, END_HEADERS | u8::from(end), stream, block);
    }

    /// The next frame; settings are acknowledged and left out.
    pub(crate) fn try_next(&mut self) -> Result<Frame, End> {
        loop {
            let head = self.0.try_exactly(9)?;
            let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            let payload = self.0.try_exactly(number(&head[..3]) as usize)?;
            let frame = Frame::new(head[3], head[4], number(&head[5..9]), payload);
            if frame.wants_ack() {
                self.send(SETTINGS, ACK, 0, []);
            } else if frame.kind != SETTINGS {
                return Ok(frame);
            }
        }
    }

    /// The next frame of this kind; others are left out.
    pub(crate) fn next(&mut self, kind: u8) -> Frame {
        let mut others = Vec::new();
        loop {
            match self.try_next() {
                Ok(frame) if frame.kind == kind => return frame,
                Ok(frame) => others.push(frame),
                Err(end) => panic!("{end:?} instead of a frame of type {kind}: {others:?}"),
            }
        }
    }

    /// The code with which this stream is reset.
    pub(crate) fn reset(&mut self, stream: u32) -> u32 {
        let frame = self.next(RST_STREAM);
        assert_eq!(frame.stream, stream, "{frame:?}");
        frame.code()
    }

    /// Data of this stream.
    pub(crate) fn data(&mut self, stream: u32) -> Vec<u8> {
        let frame = self.next(DATA);
        assert_eq!(frame.stream, stream, "{frame:?}");
        frame.payload
    }

    pub(crate) fn ping(&mut self, payload: &[u8; 8]) {
        self.send(PING, 0, 0, payload);
    }

    /// Whether no acknowledgement comes for so long; other frames are left out.
    pub(crate) fn no_pong_for(&mut self, time: Duration) -> bool {
        while !self.0.is_silent_for(time) {
            if self.try_next().is_ok_and(|frame| frame.kind == PING) {
                return false;
            }
        }
        true
    }
}
