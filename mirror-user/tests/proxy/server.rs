//! A scripted server: raw sockets on 127.0.0.1, one thread per connection, every byte recorded.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use socket2::{Domain, Socket, Type};

use super::{
    harness::eventually,
    raw_connection::{End, Message, RawConnection, Tap},
};

/// What [`Server::ok`] answers.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    taps: Arc<Mutex<Vec<Tap>>>,
    requests: Arc<Mutex<Vec<Message>>>,
    over: Arc<AtomicBool>,
}

/// A script's view of its connection.
pub(crate) struct Visit {
    pub(crate) raw_connection: RawConnection,
    /// Counts connections from 0.
    pub(crate) index: usize,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl Visit {
    /// The next request, recorded; None when the peer ended, even in the middle of it.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let message = self.raw_connection.try_message().ok()?;
        self.requests.lock().expect("no panic").push(message.clone());
        Some(message)
    }
}

impl Server {
    /// Each connection is given to `script`, and closed when that returns.
    pub(crate) fn start(script: impl Fn(Visit) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("bound"),
            taps: Arc::default(),
            requests: Arc::default(),
            over: Arc::default(),
        };
        let (taps, requests) = (Arc::clone(&server.taps), Arc::clone(&server.requests));
        let (over, script) = (Arc::clone(&server.over), Arc::new(script));
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                if over.load(SeqCst) {
                    return;
                }
                let tap = Tap::default();
                taps.lock().expect("no panic").push(tap.clone());
                let raw_connection = RawConnection::new(stream.expect("a connection"), tap);
                let visit = Visit { raw_connection, index, requests: Arc::clone(&requests) };
                let script = Arc::clone(&script);
                thread::spawn(move || script(visit));
            }
        });
        server
    }

    /// Answers every request with 200, for as long as the peer likes.
    pub(crate) fn ok() -> Self {
        Self::responding(OK)
    }

    /// Answers every request with these bytes.
    pub(crate) fn responding(response: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |mut visit| {
            while visit.request().is_some() {
                visit.raw_connection.send(&response);
            }
        })
    }

    /// Reads everything and says nothing.
    pub(crate) fn silent() -> Self {
        Self::start(|mut visit| drop(visit.raw_connection.rest()))
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.taps.lock().expect("no panic").len()
    }

    /// All bytes of a connection so far.
    pub(crate) fn bytes(&self, connection: usize) -> Vec<u8> {
        let taps = self.taps.lock().expect("no panic");
        taps.get(connection).map(|t| t.bytes.lock().expect("no panic").clone()).unwrap_or_default()
    }

    /// How many bytes of a connection so far.
    pub(crate) fn received(&self, connection: usize) -> usize {
        let taps = self.taps.lock().expect("no panic");
        taps.get(connection).map_or(0, |t| t.bytes.lock().expect("no panic").len())
    }

    /// How a connection was ended by its peer; None while it has not.
    pub(crate) fn ended(&self, connection: usize) -> Option<End> {
        let taps = self.taps.lock().expect("no panic");
        taps.get(connection).and_then(|t| *t.ended.lock().expect("no panic"))
    }

    /// Requests read whole, in the order of their ends.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.requests.lock().expect("no panic").clone()
    }

    /// Waits for so many, and no more.
    pub(crate) fn wait_requests(&self, n: usize) -> Vec<Message> {
        eventually("requests at the server", || self.requests().len() >= n);
        let requests = self.requests();
        assert_eq!(requests.len(), n, "{requests:?}");
        requests
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // Wakes the accepting thread; it may have ended.
        let _ = TcpStream::connect(self.address);
    }
}

/// An address that refuses connections, for as long as the socket is held.
pub(crate) fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket().expect("IPv4");
    (socket, address)
}

/// An address whose accept queue is full, so that the kernel drops SYNs, for as long as both are
/// held. (A queue of length 0 takes one connection.)
pub(crate) fn full() -> (SocketAddr, (Socket, TcpStream)) {
    let (socket, address) = refusing();
    socket.listen(0).expect("a bound socket");
    let filler = TcpStream::connect(address).expect("the first is taken");
    (address, (socket, filler))
}
