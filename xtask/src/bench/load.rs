//! One run of a load generator: a URL and a kind of traffic go in, requests and errors come out.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::Result;
use mirror_tests::{H2Shape, H2load, Node, Pod, Shape, Wrk};

use super::{pinning::Processors, rows::Traffic};

/// Requests in progress at a time.
const CONCURRENCY: u32 = 64;
/// The same for HTTP/2: connections, and streams on each.
const STREAMS: (u32, u32) = (2, 32);

/// The load generators, on the processor of clients.
pub(super) struct Generators {
    wrk: Wrk,
    h2load: H2load,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) rate: f64,
    /// Half of the requests took at most this long, and 99 of 100, in seconds, with all of them in
    /// progress; None for h2load, which does not report it.
    pub(super) latency: Option<(f64, f64)>,
}

impl Generators {
    pub(super) fn new(node: &Node, processors: Processors) -> Self {
        Self {
            wrk: Wrk::new(node).pinned(processors.others),
            h2load: H2load::new(node).pinned(processors.others),
        }
    }

    /// Sends this traffic from the pod for `duration`.
    ///
    /// # Errors
    /// The load generator fails.
    pub(super) fn run(
        &self,
        pod: &Pod,
        address: SocketAddrV4,
        traffic: Traffic,
        duration: Duration,
    ) -> Result<Run> {
        let url = format!("http://{address}{}", traffic.path());
        match traffic {
            Traffic::Get => self.http1(pod, &url, Shape::Get, duration),
            Traffic::Post => self.http1(pod, &url, Shape::Post(16 << 10), duration),
            Traffic::NewConnections => self.http1(pod, &url, Shape::Closing, duration),
            Traffic::Http2 => self.http2(pod, &url, H2Shape::Get, duration),
            Traffic::Grpc => self.http2(pod, &url, H2Shape::Grpc(64), duration),
        }
    }

    fn http1(&self, pod: &Pod, url: &str, shape: Shape, duration: Duration) -> Result<Run> {
        self.wrk(pod, url, shape, CONCURRENCY, duration)
    }

    /// Requests of HTTP/1 on another number of connections.
    ///
    /// # Errors
    /// wrk fails.
    pub(super) fn wrk(
        &self,
        pod: &Pod,
        url: &str,
        shape: Shape,
        connections: u32,
        duration: Duration,
    ) -> Result<Run> {
        let load = self.wrk.run(pod, url, shape, connections, duration)?;
        let latency = Some((load.p50.as_secs_f64(), load.p99.as_secs_f64()));
        Ok(Run { requests: load.requests, errors: load.errors, rate: load.rate, latency })
    }

    fn http2(&self, pod: &Pod, url: &str, shape: H2Shape, duration: Duration) -> Result<Run> {
        let load = self.h2load.run(pod, url, shape, STREAMS, duration)?;
        Ok(Run { requests: load.requests, errors: load.errors, rate: load.rate, latency: None })
    }
}
