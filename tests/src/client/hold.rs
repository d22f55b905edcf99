//! Holds connections: each has carried one request and its response, and then is idle.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::ResponseReader;

/// Opens the connections, says `held` on stdout, holds them, and closes them.
///
/// # Errors
/// One of them cannot be made, or does not get 200 within 5 s.
pub fn run(address: SocketAddr, count: usize, duration: Duration) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let held = (0..count).map(|at| {
        connection(address).with_context(|| format!("connection {at} of {count} to {address}"))
    });
    let held: Vec<_> = held.collect::<Result<_>>()?;
    println!("held");
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(Duration::from_millis(100));
    }
    for (at, mut stream) in held.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        // An idle connection that the other side has closed was not held.
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            other => bail!("connection {at} was not held: {other:?}"),
        }
    }
    Ok(())
}

fn connection(address: SocketAddr) -> Result<TcpStream> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET /get HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut response = ResponseReader::default();
    let begin = Instant::now();
    while begin.elapsed() < limit {
        match response.read(&mut stream)? {
            Some(200) => return Ok(stream),
            Some(status) => bail!("answered with {status}"),
            None => {}
        }
    }
    bail!("not answered within {limit:?}")
}
