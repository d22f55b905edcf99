//! What receives a flood: a server that throws away what it reads, or one that is hostile itself.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
};

use anyhow::{Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::raise_descriptors;

/// What it does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads and throws away.
    Discard,
    /// Accepts, and never reads.
    Stall,
    /// Responds with 200 to each end of a head that it reads, whatever is between.
    Respond,
    /// Sends 103 without an end once it has read anything.
    Interim,
}

impl std::str::FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "discard" => Self::Discard,
            "stall" => Self::Stall,
            "respond" => Self::Respond,
            "interim" => Self::Interim,
            other => bail!("discard, stall, respond or interim, not {other}"),
        })
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const HINT: &[u8] =
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n";

struct Connection {
    stream: TcpStream,
    /// How much of a head's end was read last.
    matched: usize,
    /// What is still to be written.
    out: Vec<u8>,
    begun: bool,
}

/// Serves until it is killed.
///
/// # Errors
/// The address cannot be listened on, or what epoll says.
pub fn run(mode: Mode, address: SocketAddr) -> Result<()> {
    const LISTENER: u64 = u64::MAX;
    raise_descriptors()?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut scratch = vec![0; 256 << 10];
    let mut events = vec![EpollEvent::empty(); 256];
    println!("listening");
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            if event.data() != LISTENER {
                let at = usize::try_from(event.data()).expect("a connection's number");
                let ended = connections[at].as_mut().is_some_and(|c| !c.turn(mode, &mut scratch));
                if ended {
                    connections[at] = None;
                    free.push(at);
                }
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                let at = free.pop().unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                stream.set_nonblocking(true)?;
                let flags = match mode {
                    Mode::Discard => EpollFlags::EPOLLIN,
                    // Only its end.
                    Mode::Stall => EpollFlags::empty(),
                    Mode::Respond | Mode::Interim => {
                        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET
                    }
                };
                epoll.add(stream.as_fd(), EpollEvent::new(flags, at as u64))?;
                let (matched, out, begun) = (0, Vec::new(), false);
                connections[at] = Some(Connection { stream, matched, out, begun });
            }
        }
    }
}

impl Connection {
    /// False once it is over.
    fn turn(&mut self, mode: Mode, scratch: &mut [u8]) -> bool {
        if mode == Mode::Stall {
            // It is notified of nothing but an end.
            return false;
        }
        loop {
            let read = self.stream.read(scratch);
            match read {
                Ok(0) => return false,
                Ok(count) => {
                    self.begun = true;
                    if mode == Mode::Respond {
                        self.respond(&scratch[..count]);
                    }
                    if mode == Mode::Discard {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
            if !self.write(mode) {
                return false;
            }
        }
        self.write(mode)
    }

    fn respond(&mut self, bytes: &[u8]) {
        const END: &[u8; 4] = b"\r\n\r\n";
        for byte in bytes {
            self.matched = match self.matched {
                at if *byte == END[at] => at + 1,
                _ => usize::from(*byte == b'\r'),
            };
            if self.matched == END.len() {
                self.matched = 0;
                self.out.extend_from_slice(OK);
            }
        }
    }

    fn write(&mut self, mode: Mode) -> bool {
        loop {
            if mode == Mode::Interim && self.begun && self.out.is_empty() {
                self.out.extend(HINT.repeat(500));
            }
            if self.out.is_empty() {
                return true;
            }
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }
}
