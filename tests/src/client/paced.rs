//! Requests at a fixed rate, whatever the responses do (an open loop): a latency counts from the
//! time at which a request was meant to leave, so that one which waits for a free connection, or
//! for a stall to end, is as late as its user would find it.

use std::{
    collections::VecDeque,
    io::Write,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use serde::{Deserialize, Serialize};

use super::{ResponseReader, percentile};

/// After the last request was sent, responses are waited for so long.
const LAST: Duration = Duration::from_secs(2);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where to.
    pub address: SocketAddr,
    /// Requests per second.
    pub rate: u32,
    /// Kept connections; a request takes the first that is free.
    pub connections: usize,
    /// For how long; the first fifth is not measured.
    pub duration: Duration,
}

/// What came of it. Times in microseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Requests measured.
    pub requests: u64,
    /// Requests that failed, or did not get 200 in time.
    pub errors: u64,
    /// Half of the requests took at most this long.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// All of them.
    pub max: f64,
    /// Half of the requests left this long after they should have, for the client's own sake.
    pub late_p50: f64,
}

struct PacedConnection {
    stream: TcpStream,
    response: ResponseReader,
    /// When its request should have left; None while it is free.
    since: Option<Instant>,
}

struct Client {
    connections: Vec<PacedConnection>,
    /// Requests that wait for a free connection.
    waiting: VecDeque<Instant>,
    request: Vec<u8>,
    measured_from: Instant,
    latencies: Vec<u64>,
    lates: Vec<u64>,
    errors: u64,
}

/// Sends the requests.
///
/// # Errors
/// A connection cannot be made. One that breaks later is an error in the report.
pub fn run(plan: &Plan) -> Result<Report> {
    // Sleeps end when they should, not up to 50 us later.
    nix::sys::prctl::set_timerslack(1)?;
    let begin = Instant::now() + Duration::from_millis(20);
    let end = begin + plan.duration;
    let interval = Duration::from_secs(1) / plan.rate;
    let mut client = Client::connect(plan, begin + plan.duration / 5)?;
    let mut next = begin;
    loop {
        let now = Instant::now();
        while next <= now && next < end {
            client.due(next)?;
            next += interval;
        }
        let busy = client.connections.iter().any(|connection| connection.since.is_some());
        let over = next >= end && !busy && client.waiting.is_empty();
        if over || now > end + LAST {
            break;
        }
        let until = if next < end { next } else { end + LAST };
        client.wait(until)?;
    }
    Ok(client.report())
}

impl Client {
    fn connect(plan: &Plan, measured_from: Instant) -> Result<Self> {
        let connection = |_| {
            let stream = TcpStream::connect_timeout(&plan.address, Duration::from_secs(5))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(PacedConnection { stream, response: ResponseReader::default(), since: None })
        };
        let connections = (0..plan.connections).map(connection).collect::<std::io::Result<_>>();
        let request = format!("GET /get HTTP/1.1\r\nHost: {}\r\n\r\n", plan.address);
        let count = (plan.duration.as_secs_f64() * f64::from(plan.rate)) as usize;
        Ok(Self {
            connections: connections.with_context(|| format!("connecting to {}", plan.address))?,
            waiting: VecDeque::new(),
            request: request.into_bytes(),
            measured_from,
            latencies: Vec::with_capacity(count),
            lates: Vec::with_capacity(count),
            errors: 0,
        })
    }

    /// A request should leave now.
    fn due(&mut self, at: Instant) -> Result<()> {
        match self.connections.iter().position(|connection| connection.since.is_none()) {
            Some(connection) => {
                if at >= self.measured_from {
                    self.lates.push(at.elapsed().as_nanos() as u64);
                }
                self.send(connection, at)
            }
            None => {
                self.waiting.push_back(at);
                Ok(())
            }
        }
    }

    fn send(&mut self, connection: usize, at: Instant) -> Result<()> {
        let connection = &mut self.connections[connection];
        connection.since = Some(at);
        // Of a free connection the send buffer is empty: it takes a small request whole.
        connection.stream.write_all(&self.request).context("a connection broke")
    }

    /// Reads responses until `until`, or until there was one.
    fn wait(&mut self, until: Instant) -> Result<()> {
        let busy = self
            .connections
            .iter()
            .enumerate()
            .filter(|(_, connection)| connection.since.is_some());
        let busy: Vec<_> = busy.map(|(at, _)| at).collect();
        let mut polled: Vec<_> = busy
            .iter()
            .map(|at| PollFd::new(self.connections[*at].stream.as_fd(), PollFlags::POLLIN))
            .collect();
        let left = until.saturating_duration_since(Instant::now());
        ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None)?;
        let ready: Vec<_> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
        for (connection, _) in busy.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            self.responded(connection)?;
        }
        Ok(())
    }

    fn responded(&mut self, at: usize) -> Result<()> {
        let connection = &mut self.connections[at];
        let status =
            connection.response.read(&mut connection.stream).context("a connection broke")?;
        let (Some(status), Some(since)) = (status, connection.since) else { return Ok(()) };
        connection.since = None;
        if status != 200 {
            self.errors += 1;
        }
        if since >= self.measured_from {
            self.latencies.push(since.elapsed().as_nanos() as u64);
        }
        match self.waiting.pop_front() {
            Some(since) => self.send(at, since),
            None => Ok(()),
        }
    }

    fn report(mut self) -> Report {
        let pending =
            self.connections.iter().filter(|connection| connection.since.is_some()).count();
        self.latencies.sort_unstable();
        self.lates.sort_unstable();
        let at = |share| percentile(&self.latencies, share) as f64 / 1e3;
        Report {
            requests: self.latencies.len() as u64,
            errors: self.errors + (pending + self.waiting.len()) as u64,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            late_p50: percentile(&self.lates, 0.5) as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Responds to everything; to the request number `stall` only after 300 ms.
    fn serve(listener: &TcpListener, stall: usize) {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let heads = lines.map_while(Result::ok).filter(String::is_empty);
        for (at, _) in heads.enumerate() {
            if at == stall {
                thread::sleep(Duration::from_millis(300));
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }

    #[test]
    fn a_stall_counts_for_all_that_it_holds_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(&listener, 300));
        let duration = Duration::from_secs(1);
        let report = run(&Plan { address, rate: 500, connections: 1, duration }).unwrap();
        server.join().unwrap();
        assert_eq!((report.requests, report.errors), (400, 0));
        // 300 ms of 500 requests per second: 150 of them waited, 100 for 100 ms and longer.
        assert!(report.p50 < 100_000.0 && report.max > 300_000.0, "{report:?}");
        assert!(report.p99 > 200_000.0, "{report:?}");
    }
}
