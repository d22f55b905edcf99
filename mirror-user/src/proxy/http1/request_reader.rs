//! Requests from the bytes that a client sends, whoever they are sent to. In: bytes, and how many are
//! missing between them. Out: heads and frames, by the parser and the framing of the server's end; or why
//! the rest cannot be read. It reads no socket, and nothing is guessed: what could be read in two ways is
//! not read.

use bytes::{Bytes, BytesMut};
use http::request;
use hyper::body::Frame;

use super::{
    Error, HeadError, READ,
    decode::{BodyDecoder, ChunkStep},
    parse,
};

/// What comes next of a client's requests.
#[derive(Debug)]
pub(in crate::proxy) enum ReadStep {
    /// A request begins; `whole`: it has no content.
    Head(Box<request::Parts>, Whole),
    /// Content of it, or its trailers.
    Frame(Frame<Bytes>),
    /// It is complete.
    End,
    /// More bytes are needed.
    More,
}

/// Whether a request consists of its head alone.
pub(in crate::proxy) type Whole = bool;

/// Why no more requests can be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Unreadable {
    /// Bytes are missing where a head stands, or content whose end they hide.
    #[error("bytes are missing, and with them where the next request begins")]
    Lost,
    /// It is no request of HTTP/1.
    #[error(transparent)]
    Malformed(#[from] Error),
}

impl From<HeadError> for Unreadable {
    fn from(error: HeadError) -> Self {
        Self::Malformed(error.into())
    }
}

/// Reads the requests of one connection.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RequestReader {
    input: BytesMut,
    /// How much of a head was looked at in vain.
    seen: usize,
    state: State,
    /// The content of the request in progress is of no use.
    unwanted: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Between two requests, or within a head.
    #[default]
    Head,
    Content {
        decoder: BodyDecoder,
        persists: bool,
    },
    /// The client has said that nothing more comes.
    Over,
}

impl RequestReader {
    /// Takes the next bytes. To be called once [`RequestReader::step`] needs more.
    pub(in crate::proxy) fn feed(&mut self, mut bytes: &[u8]) {
        match &mut self.state {
            State::Over => return,
            State::Content { decoder, .. } if self.unwanted && self.input.is_empty() => {
                if let BodyDecoder::Length(left) = decoder {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= skipped as u64;
                    bytes = &bytes[skipped..];
                }
            }
            State::Head | State::Content { .. } => {}
        }
        // Content that a copy holds pins the whole of its buffer: one that is as long as what came.
        if self.input.is_empty() && !self.input.try_reclaim(bytes.len()) {
            self.input = BytesMut::with_capacity(bytes.len());
        }
        self.input.extend_from_slice(bytes);
    }

    /// So many bytes are missing here. To be called once [`RequestReader::step`] needs more.
    ///
    /// # Errors
    /// [`Unreadable::Lost`]; otherwise only content of the request in progress is missing.
    pub(in crate::proxy) fn lose(&mut self, bytes: u64) -> Result<(), Unreadable> {
        let content_only = match &mut self.state {
            State::Over => true,
            State::Content { decoder, .. } => self.input.is_empty() && decoder.skip(bytes),
            State::Head => false,
        };
        if content_only { Ok(()) } else { Err(Unreadable::Lost) }
    }

    /// The content of the request in progress is of no use.
    pub(in crate::proxy) fn skip_content(&mut self) {
        self.unwanted = true;
    }

    /// What comes next.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(in crate::proxy) fn step(&mut self) -> Result<ReadStep, Unreadable> {
        match &mut self.state {
            State::Over => {
                self.input = BytesMut::new();
                Ok(ReadStep::More)
            }
            State::Head => self.head(),
            State::Content { decoder, persists } => {
                let persists = *persists;
                match decoder.decode(&mut self.input)? {
                    ChunkStep::Data(data) => Ok(ReadStep::Frame(Frame::data(data))),
                    ChunkStep::Trailers(trailers) => Ok(ReadStep::Frame(Frame::trailers(trailers))),
                    ChunkStep::More => Ok(self.more()),
                    ChunkStep::End => {
                        self.state = if persists { State::Head } else { State::Over };
                        Ok(ReadStep::End)
                    }
                }
            }
        }
    }

    /// Whether the client has said that nothing more comes.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether what could not be read begins as HTTP/2 does (RFC 9113, section 3.4).
    pub(in crate::proxy) fn is_http2(&self) -> bool {
        self.input.starts_with(b"PRI * HTTP/2.0")
    }

    /// Bytes that it holds.
    pub(in crate::proxy) fn held(&self) -> usize {
        self.input.len()
    }

    fn head(&mut self) -> Result<ReadStep, Unreadable> {
        let before = self.input.len();
        let Some(parsed) = parse::unambiguous_request(&mut self.input, &mut self.seen)? else {
            return Ok(self.more());
        };
        if before - self.input.len() > READ {
            // The content is not to pin a long head.
            self.input = BytesMut::from(&self.input[..]);
        }
        (self.seen, self.unwanted) = (0, false);
        let whole = parsed.content.is_done();
        self.state = State::Content { decoder: parsed.content, persists: parsed.persists };
        Ok(ReadStep::Head(parsed.head, whole))
    }

    /// A connection on which nothing is in progress holds no buffer.
    fn more(&mut self) -> ReadStep {
        if self.input.is_empty() {
            (self.input, self.seen) = (BytesMut::new(), 0);
        }
        ReadStep::More
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request as it is written, and what is to be read of it.
    #[derive(Clone, Debug)]
    struct Sample {
        target: String,
        content: Vec<u8>,
        /// None: with a length.
        chunks: Option<usize>,
    }

    impl Sample {
        fn write(&self) -> Vec<u8> {
            let Self { target, content, chunks } = self;
            let mut text = format!("POST /{target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
            match chunks {
                None => {
                    text.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
                    text.extend(content);
                }
                Some(size) => {
                    text.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in content.chunks(*size) {
                        text.extend(format!("{:x};x=y\r\n", chunk.len()).bytes());
                        text.extend(chunk);
                        text.extend(b"\r\n");
                    }
                    text.extend(b"0\r\nT: v\r\n\r\n");
                }
            }
            text
        }

        /// Its content begins here in what is written.
        fn content_at(&self) -> usize {
            self.write().windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4
        }
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let sample =
            ("[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), 1..40_usize)
                .prop_map(|(target, content, chunked, size)| Sample {
                    target,
                    content,
                    chunks: chunked.then_some(size),
                });
        prop::collection::vec(sample, 1..6)
    }

    /// What was read: of each request the target and content, and whether it ended.
    type Requests = Vec<(String, Vec<u8>, bool)>;

    fn drain(reader: &mut RequestReader, read: &mut Requests) -> Result<(), Unreadable> {
        loop {
            match reader.step()? {
                ReadStep::Head(head, _) => {
                    read.push((head.uri.path()[1..].to_owned(), Vec::new(), false));
                }
                ReadStep::Frame(frame) => {
                    if let Some(data) = frame.data_ref() {
                        read.last_mut().unwrap().1.extend(data);
                    } else {
                        assert_eq!(frame.trailers_ref().unwrap()["t"], "v");
                    }
                }
                ReadStep::End => read.last_mut().unwrap().2 = true,
                ReadStep::More => return Ok(()),
            }
        }
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_requests(
            samples in samples(),
            cuts in prop::collection::vec(1..97_usize, 1..200),
        ) {
            let bytes: Vec<u8> = samples.iter().flat_map(Sample::write).collect();
            let (mut reader, mut read) = (RequestReader::default(), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                reader.feed(piece);
                drain(&mut reader, &mut read).unwrap();
                rest = behind;
            }
            let expected: Requests =
                samples.into_iter().map(|s| (s.target, s.content, true)).collect();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(reader.held(), 0);
        }

        /// Whatever is missing, what is read is what was sent, or it is reported that something is missing.
        #[test]
        fn a_hole_never_makes_a_request_that_was_not_sent(
            samples in samples(),
            from in any::<prop::sample::Index>(),
            length in 1..400_usize,
        ) {
            let bytes: Vec<u8> = samples.iter().flat_map(Sample::write).collect();
            let from = from.index(bytes.len());
            let until = (from + length).min(bytes.len());
            let (mut reader, mut read) = (RequestReader::default(), Vec::new());
            reader.feed(&bytes[..from]);
            drain(&mut reader, &mut read).unwrap();
            let before = read.len();
            let lost = reader.lose((until - from) as u64);
            // Where it stands, by what was written.
            let (mut at, mut within) = (0, None);
            for sample in &samples {
                let (content, end) = (at + sample.content_at(), at + sample.write().len());
                if sample.chunks.is_none() && (content..end).contains(&from) && until <= end {
                    within = Some(());
                }
                at = end;
            }
            prop_assert_eq!(lost.is_ok(), within.is_some());
            if lost.is_ok() {
                reader.feed(&bytes[until..]);
                drain(&mut reader, &mut read).unwrap();
                prop_assert_eq!(read.len(), samples.len());
            }
            for (place, (target, content, ended)) in read.iter().enumerate() {
                prop_assert_eq!(target, &samples[place].target);
                if place + 1 != before || lost.is_err() {
                    prop_assert!(!ended || *content == samples[place].content);
                }
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            "POST / HTTP/1.1\r\nX: a\r\n Content-Length: 3\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\x16\x03\x01\x00",
        ] {
            let mut reader = RequestReader::default();
            reader.feed(head.as_bytes());
            assert!(matches!(reader.step(), Err(Unreadable::Malformed(_))), "{head:?}");
        }
    }

    #[test]
    fn nothing_is_read_behind_the_last_request() {
        for head in ["GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let mut reader = RequestReader::default();
            reader.feed(&[head.as_bytes(), b"GET /2 HTTP/1.1\r\n\r\n"].concat());
            let mut read = Vec::new();
            drain(&mut reader, &mut read).unwrap();
            assert_eq!((read.len(), reader.is_over(), reader.held()), (1, true, 0), "{head:?}");
            assert!(reader.lose(7).is_ok());
        }
    }

    #[test]
    fn content_pins_neither_a_long_head_nor_more_than_came_with_it() {
        let mut reader = RequestReader::default();
        let head =
            format!("POST / HTTP/1.1\r\nX: {}\r\nContent-Length: 9\r\n\r\n", "x".repeat(200_000));
        head.as_bytes().chunks(50_000).for_each(|piece| {
            reader.feed(piece);
            if reader.held() < head.len() {
                assert!(matches!(reader.step(), Ok(ReadStep::More)));
            }
        });
        reader.feed(b"1234");
        assert!(matches!(reader.step(), Ok(ReadStep::Head(..))));
        assert!(reader.input.capacity() < 100, "{}", reader.input.capacity());
        assert!(matches!(reader.step(), Ok(ReadStep::Frame(_))));
        reader.feed(b"5678");
        assert!(reader.input.capacity() < 100, "{}", reader.input.capacity());
    }

    #[test]
    fn content_that_nobody_wants_is_not_held() {
        let mut reader = RequestReader::default();
        reader.feed(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n");
        let mut read = Vec::new();
        drain(&mut reader, &mut read).unwrap();
        reader.skip_content();
        reader.feed(b"0123456");
        assert_eq!(reader.held(), 0);
        reader.feed(b"789POST /b HTTP/1.1\r\nContent-Length: 1\r\n\r\nx");
        drain(&mut reader, &mut read).unwrap();
        // Of the next request it is wanted again.
        assert_eq!(read, [(String::new(), vec![], true), ("b".into(), b"x".to_vec(), true)]);
    }
}
