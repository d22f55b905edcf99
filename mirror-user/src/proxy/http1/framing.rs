//! What the fields of a head say of the message and its connection (RFC 9112, sections 6 and 9). In:
//! fields, one by one. Out: how the content is framed, whether the connection outlives the message,
//! and which fields end here.

use http::{Method, StatusCode, Version};

use super::{FIELD_LIMIT, HeadError, decode::BodyDecoder};

/// What the fields say of the message and its connection.
#[derive(Default)]
pub(super) struct FramingHeaders {
    /// Of a response, whose framing is repaired where section 6.3 says how; a request is refused.
    response: bool,
    length: Option<u64>,
    /// Content-Length is a list of equal numbers.
    pub(super) listed: bool,
    /// Transfer-Encoding is there, and whether it ends with `chunked`.
    encoded: Option<bool>,
    pub(super) both: bool,
    close: bool,
    keep_alive: bool,
    /// What Connection says: most often one thing.
    options: usize,
}

pub(super) enum Framing {
    Chunked,
    Length(u64),
    /// Transfer-Encoding does not end with `chunked`.
    Unchunked,
    Neither,
}

impl FramingHeaders {
    /// Of a response; a request's is the default.
    pub(super) fn response() -> Self {
        Self { response: true, ..Self::default() }
    }

    /// One more field; false where it goes no further: a length that is said again, and what
    /// concerns this connection alone.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<bool, HeadError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = match decimal(value) {
                None if self.response => {
                    self.listed = true;
                    equal_decimals(value)
                }
                length => length,
            };
            let length = length.ok_or(HeadError::Length)?;
            match self.length.replace(length) {
                Some(other) if other != length => return Err(HeadError::Length),
                Some(_) => return Ok(false),
                None => {}
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // No coding at all (RFC 2616, section 3.6; RFC 7230 removed it).
            if self.response && value.eq_ignore_ascii_case(b"identity") {
                return Ok(false);
            }
            self.encoded = Some(ends_chunked(value));
        } else if name.eq_ignore_ascii_case(b"connection") {
            let mut others = false;
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let close = option.eq_ignore_ascii_case(b"close");
                let keep_alive = option.eq_ignore_ascii_case(b"keep-alive");
                self.close |= close;
                self.keep_alive |= keep_alive;
                others |= !close && !keep_alive;
                self.options += 1;
            }
            // Each names a field, or says something of the connection.
            if self.options > FIELD_LIMIT {
                return Err(HeadError::TooMany);
            }
            return Ok(others);
        }
        Ok(true)
    }

    /// RFC 9112, section 6.3: the encoding overrides the length, which must not be passed on.
    pub(super) fn settle(&mut self) {
        self.both = self.encoded.is_some() && self.length.take().is_some();
    }

    pub(super) fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        match (self.encoded, self.length) {
            (Some(_), _) if version == Version::HTTP_10 && !self.response => {
                Err(HeadError::Encoding)
            }
            (Some(true), _) => Ok(Framing::Chunked),
            (Some(false), _) => Ok(Framing::Unchunked),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::Neither),
        }
    }

    /// `Connection: close`.
    pub(super) fn closes(&self) -> bool {
        self.close
    }

    /// How long the content is.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// RFC 9112, sections 6.1 and 9.3.
    pub(super) fn persists(&self, version: Version) -> bool {
        let old = self.keep_alive && self.encoded.is_none();
        !self.close && !self.both && (version == Version::HTTP_11 || old)
    }
}

pub(super) fn ends_chunked(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next();
    last.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Digits alone: neither sign nor space nor list (RFC 9110, section 8.6).
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The one number of a list (RFC 9112, section 6.3): `2, 2`.
fn equal_decimals(list: &[u8]) -> Option<u64> {
    let mut numbers = list.split(|byte| *byte == b',').map(|number| decimal(number.trim_ascii()));
    let first = numbers.next()??;
    numbers.all(|other| other == Some(first)).then_some(first)
}

/// Whether the field of this name says how the message is framed, or when its connection ends.
pub(super) fn is_framing(name: &[u8]) -> bool {
    [&b"content-length"[..], b"transfer-encoding", b"connection"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
}

/// RFC 9112, section 6.3: how a response's content is framed, and whether the connection outlives it.
pub(super) fn response_content(
    framing_headers: &FramingHeaders,
    status: StatusCode,
    version: Version,
    to: &Method,
) -> Result<(BodyDecoder, bool), HeadError> {
    let bodiless = *to == Method::HEAD
        || (*to == Method::CONNECT && status.is_success())
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let content = if bodiless {
        BodyDecoder::length(0)
    } else {
        match framing_headers.framing(version)? {
            Framing::Chunked => BodyDecoder::chunked_response(),
            Framing::Length(length) => BodyDecoder::length(length),
            Framing::Neither | Framing::Unchunked => BodyDecoder::until_close(),
        }
    };
    // Whoever says 101 speaks something else from there on.
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let persists = framing_headers.persists(version) && !content.is_until_close() && !switches;
    Ok((content, persists))
}
