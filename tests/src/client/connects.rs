//! What connect() costs: to a destination that cannot be reached, where nothing but the hook and a
//! look at the routes happens, and to one that listens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{SockaddrIn, connect},
};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::percentile;

/// What a series of connects took, in nanoseconds each.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// How many were made.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// 99 of 100 took at most this long.
    pub p99: f64,
}

/// Calls connect() on one socket again and again: it must fail with EHOSTUNREACH, as a route of
/// the type `unreachable` has it. Each value is the mean of a hundred calls.
///
/// # Errors
/// Another outcome than EHOSTUNREACH.
pub fn unreachable(ip: Ipv4Addr, port: u16, count: usize) -> Result<Report> {
    const BATCH: usize = 100;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(ip, port));
    let mut times = Vec::with_capacity(count / BATCH);
    for _ in 0..count / BATCH {
        let begin = Instant::now();
        for _ in 0..BATCH {
            let result = connect(socket.as_raw_fd(), &to);
            ensure!(result == Err(Errno::EHOSTUNREACH), "connect to {ip}: {result:?}");
        }
        times.push(begin.elapsed().as_nanos() as u64 / BATCH as u64);
    }
    Ok(report(times))
}

/// Makes connections that are established when connect() returns, and resets each.
///
/// # Errors
/// One is refused, or takes more than 5 s.
pub fn established(address: SocketAddr, count: usize) -> Result<Report> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Reset instead of TIME-WAIT, which would use up the ports.
        socket.set_linger(Some(Duration::ZERO))?;
        let begin = Instant::now();
        socket.connect(&address.into()).with_context(|| format!("connect to {address}"))?;
        times.push(begin.elapsed().as_nanos() as u64);
        drop(socket);
        // The other side has time to take it out of its queue.
        sleep(Duration::from_micros(100));
    }
    Ok(report(times))
}

fn report(mut times: Vec<u64>) -> Report {
    times.sort_unstable();
    let at = |share| percentile(&times, share) as f64;
    Report { count: times.len() as u64, p50: at(0.5), p99: at(0.99) }
}
