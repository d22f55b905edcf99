//! What the fields of a head say of the message and its connection (RFC 9112, sections 6 and 9). In:
//! fields, one by one. Out: how the content is framed, whether the connection outlives the message,
//! and which fields end here.

use http::{Method, StatusCode, Version};

use super::{HeadError, decode::Decoder};

/// What the fields say of the message and its connection.
#[derive(Default)]
pub(super) struct Told {
    length: Option<u64>,
    /// Transfer-Encoding is there, and whether it ends with `chunked`.
    encoded: Option<bool>,
    pub(super) both: bool,
    close: bool,
    keep_alive: bool,
}

pub(super) enum Framing {
    Chunked,
    Length(u64),
    /// Transfer-Encoding does not end with `chunked`.
    Unchunked,
    Neither,
}

impl Told {
    /// One more field; false where it goes no further: a length that is said again, and what
    /// concerns this connection alone.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<bool, HeadError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(HeadError::Length)?;
            match self.length.replace(length) {
                Some(other) if other != length => return Err(HeadError::Length),
                Some(_) => return Ok(false),
                None => {}
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = Some(ends_chunked(value));
        } else if name.eq_ignore_ascii_case(b"connection") {
            let mut others = false;
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let close = option.eq_ignore_ascii_case(b"close");
                let keep_alive = option.eq_ignore_ascii_case(b"keep-alive");
                self.close |= close;
                self.keep_alive |= keep_alive;
                others |= !close && !keep_alive;
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
            (Some(_), _) if version == Version::HTTP_10 => Err(HeadError::Encoding),
            (Some(true), _) => Ok(Framing::Chunked),
            (Some(false), _) => Ok(Framing::Unchunked),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::Neither),
        }
    }

    /// RFC 9112, sections 6.1 and 9.3.
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && !self.both && (version == Version::HTTP_11 || self.keep_alive)
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

/// RFC 9112, section 6.3: how an answer's content is framed, and whether the connection outlives it.
pub(super) fn answer_content(
    told: &Told,
    status: StatusCode,
    version: Version,
    to: &Method,
) -> Result<(Decoder, bool), HeadError> {
    if told.both {
        return Err(HeadError::Both);
    }
    let bodiless = *to == Method::HEAD
        || (*to == Method::CONNECT && status.is_success())
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let content = if bodiless {
        Decoder::length(0)
    } else {
        match told.framing(version)? {
            Framing::Chunked => Decoder::chunked(),
            Framing::Length(length) => Decoder::length(length),
            Framing::Neither | Framing::Unchunked => Decoder::until_close(),
        }
    };
    let persists = told.persists(version) && !content.is_until_close();
    Ok((content, persists))
}
