//! Scenarios: the ways through a proxy that rows are measured on. Each proxy has all of them at once,
//! distinguished by the port (or, for mirror, the Service) that a client connects to.

use std::net::{Ipv4Addr, SocketAddrV4};

/// One way through a proxy.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// Names its Service, and what proxies call it in their configurations.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    /// The Service that clients connect to, captured or not.
    pub(super) service: SocketAddrV4,
    /// Where the requests go.
    pub(super) primary: Ipv4Addr,
    /// Where copies go.
    pub(super) mirror: Option<Mirror>,
}

/// What client, primary and shadow speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    /// With prior knowledge.
    Http2,
}

impl Protocol {
    /// Where backends serve it.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http1 => 80,
            Self::Http2 => 81,
        }
    }
}

/// Which requests are copied, and to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mirror {
    pub(super) percent: u32,
    pub(super) shadow: Ipv4Addr,
}

impl Scenario {
    /// The Service of its shadow.
    pub(super) fn shadow_name(&self) -> String {
        format!("shadow-{}", self.name)
    }
}
