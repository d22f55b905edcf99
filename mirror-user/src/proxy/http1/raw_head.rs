//! Responses whose head passes unread: written as it came, but for what concerns the primary's
//! connection. In: a head, and where its fields stand. Out: the same bytes, where nobody on the way
//! wants a field; else None, and the head is read field by field. Of what a GET takes in user space
//! reading and writing a response's fields was a fifth.

use std::ops::Range;

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use super::{
    HeadError,
    decode::BodyDecoder,
    encode::BodyEncoder,
    encode_head::StatedFraming,
    fields::Field,
    framing::{self, FramingHeaders, response_content},
    line::StatusLine,
};

/// What speaks of one connection, beside Connection itself: it is taken out where heads are read.
const OF_ONE_HOP: [&[u8]; 2] = [b"keep-alive", b"proxy-connection"];

/// A head that passes, in the extensions of a response without fields; fields that it is given go
/// behind it.
#[derive(Clone, Debug)]
pub(super) struct RawHead {
    raw: Bytes,
    /// A field that ends here; may be empty.
    without: (u32, u32),
    framing: StatedFraming,
}

/// What is known of a head that may pass.
pub(super) struct RawHeadCandidate {
    without: (u32, u32),
    framing: StatedFraming,
    pub(super) content: BodyDecoder,
    pub(super) persists: bool,
}

impl RawHeadCandidate {
    /// Of the head at the front of `input`. None: its fields are to be read, since it is not what a
    /// server of HTTP/1.1 usually sends, or not written as usual.
    pub(super) fn find(
        input: &[u8],
        line: &StatusLine,
        fields: &[Field],
        to: &Method,
    ) -> Result<Option<Self>, HeadError> {
        let status = line.status;
        let special = *to == Method::HEAD
            || *to == Method::CONNECT
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let Some(first) = fields.first().filter(|_| !special && line.version == Version::HTTP_11)
        else {
            return Ok(None);
        };
        let mut at = first.name.from as usize;
        if !input.starts_with(b"HTTP/1.1 ") || !input[..at].ends_with(b"\r\n") {
            return Ok(None);
        }
        let mut framing_headers = FramingHeaders::response();
        let mut without = None;
        for netns in fields {
            let (name, value) = (&input[netns.name.range()], &input[netns.value.range()]);
            let end = netns.value.to as usize;
            let usual = netns.name.from as usize == at
                && input[end..].starts_with(b"\r\n")
                && !OF_ONE_HOP.iter().any(|one| name.eq_ignore_ascii_case(one));
            let passes = framing_headers.field(name, value)?;
            let reads = passes && name.eq_ignore_ascii_case(b"connection");
            if !usual || reads || (!passes && without.is_some()) {
                return Ok(None);
            }
            if !passes {
                without = Some((netns.name.from, netns.value.to + 2));
            }
            at = end + 2;
        }
        framing_headers.settle();
        if framing_headers.both || framing_headers.listed {
            return Ok(None);
        }
        let framing = match framing_headers.framing(line.version)? {
            framing::Framing::Length(length) => StatedFraming::Length(length),
            framing::Framing::Chunked => StatedFraming::Chunked,
            framing::Framing::Neither | framing::Framing::Unchunked => return Ok(None),
        };
        if at + 2 != line.len {
            return Ok(None);
        }
        let (content, persists) = response_content(&framing_headers, status, line.version, to)?;
        let without = without.unwrap_or_default();
        Ok(Some(Self { without, framing, content, persists }))
    }

    /// `raw`: the whole head.
    pub(super) fn pass(&self, raw: Bytes) -> RawHead {
        RawHead { raw, without: self.without, framing: self.framing }
    }
}

impl RawHead {
    pub(super) fn encoder(&self) -> BodyEncoder {
        self.framing.into()
    }

    /// Writes all but the empty line at the end; the head as it came.
    pub(super) fn write(&self, to: &mut Vec<u8>) -> &[u8] {
        let (from, behind) = (self.without.0 as usize, self.without.1 as usize);
        let end = self.raw.len() - 2;
        let range: [Range<usize>; 2] = [0..from, behind..end];
        range.into_iter().for_each(|part| to.extend_from_slice(&self.raw[part]));
        &self.raw
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{super::parse, *};

    /// What leaves of a response to a GET; None: its fields were read.
    fn passed(head: &str) -> Option<String> {
        let mut input = BytesMut::from(format!("{head}rest").as_str());
        let answer = parse::response(&mut input, &mut 0, &Method::GET, true).unwrap().unwrap();
        assert_eq!(&input[..], b"rest");
        let raw_head = answer.head.extensions.get::<RawHead>()?;
        assert!(answer.head.headers.is_empty());
        let mut to = Vec::new();
        raw_head.write(&mut to);
        Some(String::from_utf8(to).unwrap())
    }

    #[test]
    fn a_usual_head_passes_as_it_came_without_what_concerns_its_connection() {
        let before = "HTTP/1.1 299 Why Not\r\nsErVer:x\r\nA:  two  words\r\n";
        for (framing, dropped) in [
            ("Content-Length: 5\r\n", ""),
            ("content-LENGTH: 5\r\n", "Connection: keep-alive\r\n"),
            ("Transfer-Encoding: gzip, chunked\r\n", "connection: close, Keep-Alive\r\n"),
            ("Content-Length: 5\r\n", "Content-Length: 5\r\n"),
        ] {
            for next in ["", "A: again\r\n"] {
                let head = format!("{before}{framing}{dropped}{next}\r\n");
                assert_eq!(passed(&head), Some(format!("{before}{framing}{next}")), "{head}");
            }
        }
    }

    #[test]
    fn any_other_head_is_read() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5 \r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x-own\r\nX-Own: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nProxy-Connection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \u{1}\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        ] {
            assert_eq!(passed(head), None, "{head}");
        }
    }

    #[test]
    fn a_head_that_is_malformed_is_refused_all_the_same() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ] {
            for unread in [false, true] {
                let input = &mut BytesMut::from(head);
                assert!(parse::response(input, &mut 0, &Method::GET, unread).is_err(), "{head}");
            }
        }
    }
}
