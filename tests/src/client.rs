//! Clients of the bench, as the program `bench-client` runs them inside a pod: requests at a fixed
//! rate, connects, connections that are held. In: an address and numbers. Out: a report, as JSON.
//!
//! They are small and predictable: one thread, no runtime, nothing allocated while time is taken.

pub mod connects;
pub mod hold;
pub mod paced;

use std::{
    io::{self, Read},
    net::TcpStream,
};

/// The share `share` of sorted values: the value that so many of them do not exceed; 0 of none.
#[must_use]
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to len")]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or_default()
}

/// A response of HTTP/1.1 with a Content-Length, as it arrives.
#[derive(Debug, Default)]
struct ResponseReader {
    read: Vec<u8>,
}

impl ResponseReader {
    /// Reads what there is: the status once the response is whole, None while it is not.
    fn read(&mut self, stream: &mut TcpStream) -> io::Result<Option<u16>> {
        let mut buffer = [0; 16 << 10];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some((status, length)) = whole(&self.read) else { return Ok(None) };
        if self.read.len() < length {
            return Ok(None);
        }
        self.read.clear();
        Ok(Some(status))
    }
}

/// The status of a response whose head is there, and its length with head and body.
fn whole(read: &[u8]) -> Option<(u16, usize)> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&read[..head]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((status, head + 4 + body.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u64> = (1..=1000).collect();
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|at| percentile(&values, at)),
            [500, 990, 999, 1000]
        );
        assert_eq!((percentile(&[7], 0.5), percentile(&[], 0.5)), (7, 0));
    }

    #[test]
    fn a_response_is_whole_with_its_body() {
        let text = b"HTTP/1.1 200 OK\r\nServer: a\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(whole(text), Some((200, text.len())));
        assert_eq!(whole(&text[..40]), None);
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, 27)));
    }
}
