//! A small HTTP client for a process's admin endpoint, which listens inside a namespace only.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::namespace::Netns;

/// GETs `path` from `address` as seen inside the namespace: status and body.
///
/// # Errors
/// No connection, no response within 5 s, or one that is not HTTP.
pub fn get(netns: &Netns, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let response = netns.enter(|| exchange(address, path))?;
    let response = response.with_context(|| format!("GET http://{address}{path}"))?;
    parse(&response).with_context(|| format!("not an HTTP answer: {response:?}"))
}

fn exchange(address: SocketAddr, path: &str) -> Result<String> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the response is not chunked and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

fn parse(response: &str) -> Option<(u16, String)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_parsed() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\nx\n"), Some((200, "x\n".into())));
        assert_eq!(parse("HTTP/1.1 503 \r\n\r\n"), Some((503, String::new())));
        assert_eq!(parse("nonsense"), None);
    }
}
