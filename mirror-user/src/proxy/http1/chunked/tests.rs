//! Tests of the decoding of chunks.

use proptest::prelude::*;

use super::*;

/// Data and trailers of a message, and what is left behind it.
type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// A message fed in pieces of `piece` bytes; an error for one that is malformed or not whole.
fn decode(bytes: &[u8], piece: usize) -> Result<Decoded, String> {
    decode_by(Chunked::new(), bytes, piece)
}

fn decode_by(mut chunked: Chunked, bytes: &[u8], piece: usize) -> Result<Decoded, String> {
    let mut input = BytesMut::new();
    let (mut data, mut trailers) = (Vec::new(), None);
    let mut pieces = bytes.chunks(piece);
    loop {
        match chunked.decode(&mut input).map_err(|error| error.to_string())? {
            ChunkStep::Data(more) => {
                assert!(!more.is_empty());
                data.extend_from_slice(&more);
            }
            ChunkStep::Trailers(fields) => trailers = Some(fields),
            ChunkStep::End => {
                assert!(chunked.is_done());
                let left = pieces.flatten().copied();
                return Ok((data, trailers, input.iter().copied().chain(left).collect()));
            }
            ChunkStep::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return Err("not whole".to_owned()),
            },
        }
    }
}

/// What is left behind a message that was passed over, fed in pieces of `piece` bytes.
fn discarded(bytes: &[u8], piece: usize) -> Result<Vec<u8>, String> {
    let (mut chunked, mut input) = (Chunked::of_response(), BytesMut::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match chunked.discard(&mut input).map_err(|error| error.to_string())? {
            Some(ChunkStep::End) => {
                let left = pieces.flatten().copied();
                return Ok(input.iter().copied().chain(left).collect());
            }
            Some(ChunkStep::More) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return Err("not whole".to_owned()),
            },
            None | Some(ChunkStep::Data(_) | ChunkStep::Trailers(_)) => {}
        }
    }
}

#[test]
fn chunks_are_joined_and_what_follows_is_left() {
    let message = b"3\r\nabc\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET";
    for piece in 1..message.len() {
        let (data, trailers, left) = decode(message, piece).unwrap();
        assert_eq!((data.as_slice(), trailers), (b"abc0123456789".as_slice(), None));
        assert_eq!(left, b"GET");
    }
}

#[test]
fn trailers_come_behind_the_data() {
    let message = b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\nrest";
    for piece in 1..message.len() {
        let (data, trailers, left) = decode(message, piece).unwrap();
        let trailers = trailers.unwrap();
        let sums: Vec<_> = trailers.get_all("x-sum").iter().collect();
        assert_eq!((data.as_slice(), left.as_slice()), (b"a".as_slice(), b"rest".as_slice()));
        assert_eq!(sums, ["1", "2"]);
    }
}

#[test]
fn of_a_response_what_clients_take_is_taken() {
    for (message, sums) in [
        (&b"2\nok\r\n0\r\n\r\nrest"[..], None),
        (b"2;x\nok\r\n0\n\r\nrest", None),
        (b"2\r\nok\r\n0\r\nX-Sum : 1\r\n\r\nrest", Some("1")),
        (b"2\r\nok\r\n0\r\nX(a): y\r\nX-Sum: 1\r\nfoo\r\n\r\nrest", Some("1")),
        (b"2\r\nok\r\n0\r\nA: \x01\r\nX-Sum: 1\r\n\r\nrest", Some("1")),
        (b"2\r\nok\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\nrest", Some("1 2")),
        (b"2\r\nok\r\n0\r\nfoo\r\n\r\nrest", None),
    ] {
        for piece in 1..message.len() {
            let (data, trailers, left) = decode_by(Chunked::of_response(), message, piece).unwrap();
            assert_eq!((&data[..], &left[..]), (&b"ok"[..], &b"rest"[..]));
            let trailers = trailers.as_ref().map(|trailers| trailers["x-sum"].to_str().unwrap());
            assert_eq!(trailers, sums, "{}", message.escape_ascii());
            assert!(
                decode(message, piece).is_err(),
                "a request must not: {}",
                message.escape_ascii()
            );
        }
    }
    for none in [&b"2\r\nok\n0\r\n\r\n"[..], b"0x2\r\nok\r\n0\r\n\r\n"] {
        assert!(decode_by(Chunked::of_response(), none, 3).is_err(), "{}", none.escape_ascii());
    }
}

#[test]
fn what_is_no_chunk_is_refused_before_its_line_is_whole() {
    for malformed in [
        "zz",
        "-1\r\n",
        "\r\n",
        "1 x",
        "1\n",
        "1;a\rb\r\n",
        "00000000000000000",
        "1\r\nab",
        "1\r\na\n",
        "1\r\naX\r\n",
    ] {
        for piece in 1..=malformed.len() {
            let error = decode(malformed.as_bytes(), piece).unwrap_err();
            assert!(error.starts_with("malformed"), "{malformed:?} in {piece}: {error}");
        }
    }
    for cut in ["", "1", "1\r", "1\r\n", "1\r\na", "1\r\na\r\n0\r\n", "0\r\nX: y\r\n"] {
        assert_eq!(decode(cut.as_bytes(), 1).unwrap_err(), "not whole", "{cut:?}");
    }
}

#[test]
fn of_a_request_lines_end_with_cr_lf_and_extensions_are_text() {
    for malformed in [
        "1\r\na\r\n0\r\nX: y\n\r\n",
        "1\r\na\r\n0\r\nX: y\r\nZ: a\n\n",
        "1\r\na\r\n0\r\nX: y\r\n\n",
        "1\r\na\r\n0\r\n\n",
        "1;a\0b\r\na\r\n0\r\n\r\n",
        "1;\x1b[2J\r\na\r\n0\r\n\r\n",
        "1;a\x7f\r\na\r\n0\r\n\r\n",
    ] {
        for piece in 1..=malformed.len() {
            let error = decode(malformed.as_bytes(), piece).unwrap_err();
            assert!(error.starts_with("malformed"), "{malformed:?} in {piece}: {error}");
        }
    }
    let (data, _, left) = decode(b"1 ; a = \"b\tc\"\r\na\r\n0\r\n\r\n", 3).unwrap();
    assert_eq!((data.as_slice(), left.as_slice()), (b"a".as_slice(), b"".as_slice()));
}

#[test]
fn extensions_and_trailers_have_bounds() {
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(LINE_LIMIT));
    assert!(decode(long.as_bytes(), 1000).unwrap_err().contains("a long extension"));
    let many = format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20);
    assert!(decode(many.as_bytes(), 1000).unwrap_err().contains("many extensions"));
    let large = format!("0\r\nx: {}", "x".repeat(TRAILERS_LIMIT));
    assert!(decode(large.as_bytes(), 1000).unwrap_err().contains("a large trailer section"));
    let fields = format!("0\r\n{}\r\n", "x: y\r\n".repeat(TRAILER_FIELDS + 1));
    assert!(decode(fields.as_bytes(), 1000).unwrap_err().contains("many trailer fields"));
}

proptest! {
    #[test]
    fn any_data_in_any_chunks_comes_out_as_it_went_in(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..9),
        piece in 1_usize..400,
    ) {
        let mut message = Vec::new();
        for chunk in &chunks {
            message.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            message.extend_from_slice(chunk);
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(b"0\r\n\r\n");
        let (data, trailers, left) = decode(&message, piece).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!((trailers, left), (None, Vec::new()));
        prop_assert_eq!(discarded(&[&message[..], b"HTTP"].concat(), piece), Ok(b"HTTP".to_vec()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        let decoded = decode_by(Chunked::of_response(), &bytes, piece);
        prop_assert_eq!(discarded(&bytes, piece), decoded.map(|(.., left)| left));
    }
}
