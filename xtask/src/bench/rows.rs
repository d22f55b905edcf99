//! The rows of the throughput table: each a kind of traffic on a scenario, the same for every peer.

use super::{scenario::Protocol, stage};

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) traffic: Traffic,
    /// The share of requests that are copied; None without a mirror.
    pub(super) percent: Option<u32>,
}

/// What the client sends, as fast as responses arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Small GETs on 64 kept connections.
    Get,
    /// POSTs of 16 KiB on 64 kept connections.
    Post,
    /// GETs on 2 connections of HTTP/2, 32 streams on each.
    Http2,
    /// Unary calls of gRPC with 64 bytes each way, on connections as those.
    Grpc,
    /// Small GETs on a connection each, 64 at a time.
    NewConnections,
}

impl Traffic {
    const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Http2, Self::Grpc, Self::NewConnections];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post-16k",
            Self::Http2 => "h2",
            Self::Grpc => "grpc",
            Self::NewConnections => "new-connection",
        }
    }

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Get | Self::Post | Self::NewConnections => Protocol::Http1,
            Self::Http2 | Self::Grpc => Protocol::Http2,
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Get | Self::Http2 | Self::NewConnections => "/get",
            Self::Post => "/post",
            Self::Grpc => "/bench.Echo/Unary",
        }
    }

    /// Bytes of each request's body.
    pub(super) fn body(self) -> u64 {
        match self {
            Self::Post => 16 << 10,
            _ => 0,
        }
    }
}

impl Row {
    /// All rows; `quick`: those that the main goals are about.
    pub(super) fn all(quick: bool) -> Vec<Self> {
        let main = [Traffic::Get, Traffic::Post, Traffic::Http2];
        let traffics = Traffic::ALL.into_iter().filter(|traffic| !quick || main.contains(traffic));
        let percents = [None, Some(100), Some(10)].into_iter().filter(|p| !quick || *p != Some(10));
        let percents: Vec<_> = percents.collect();
        traffics
            .flat_map(|traffic| percents.iter().map(move |percent| Self::new(traffic, *percent)))
            .collect()
    }

    fn new(traffic: Traffic, percent: Option<u32>) -> Self {
        let name = match percent {
            None => traffic.name().to_owned(),
            Some(100) => format!("{} mirrored", traffic.name()),
            Some(percent) => format!("{} mirrored {percent}%", traffic.name()),
        };
        Self { name, traffic, percent }
    }

    /// The scenario that it is measured on.
    pub(super) fn scenario(&self) -> String {
        stage::name(self.traffic.protocol(), self.percent)
    }
}
