//! Counts the frames that a shadow sends, or is sent (RFC 9113, section 4.1). In: the bytes as they pass. Out:
//! how many carry content and how many do not. It holds no byte but a frame's header.

/// Length of a frame's header.
const HEADER: usize = 9;

const DATA: u8 = 0;

/// Where the reading stands.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes of a payload still to come.
    skip: usize,
    header: [u8; HEADER],
    /// How much of `header` is there.
    have: usize,
}

/// Frames that began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameCount {
    pub(super) data: usize,
    pub(super) control: usize,
}

impl Frames {
    /// Those that a client sends: they follow its preface of 24 bytes (RFC 9113, section 3.4).
    pub(super) fn of_client() -> Self {
        Self { skip: 24, ..Self::default() }
    }

    /// The frames that began within the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> FrameCount {
        let mut count = FrameCount::default();
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEADER {
                return count;
            }
            self.have = 0;
            let [a, b, c, kind, ..] = self.header;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            // One without content costs the same as any other and carries nothing.
            if kind == DATA && self.skip > 0 { count.data += 1 } else { count.control += 1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.extend(vec![0; length.into()]);
        frame
    }

    #[test]
    fn a_clients_preface_is_no_frame() {
        let mut frames = Frames::of_client();
        frames.feed(b"PRI * HTTP/2.0\r\n");
        let count = frames.feed(&[&b"\r\nSM\r\n\r\n"[..], &frame(4, 0), &frame(0, 5)].concat());
        assert_eq!(count, FrameCount { data: 1, control: 1 });
    }

    #[test]
    fn frames_are_counted_once_however_they_are_cut() {
        let all = [frame(4, 0), frame(0, 200), frame(0, 0), frame(6, 8), frame(0, 1)].concat();
        for cut in 0..=all.len() {
            let mut frames = Frames::default();
            let (first, second) = (frames.feed(&all[..cut]), frames.feed(&all[cut..]));
            assert_eq!((first.data + second.data, first.control + second.control), (2, 3), "{cut}");
        }
    }
}
