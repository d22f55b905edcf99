//! Which HTTP an endpoint is spoken to in: what its Service port's `appProtocol` says, else the
//! client's own, unless the endpoint has responded to the HTTP/2 preface with HTTP/1.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::Version;

use crate::route::AppProtocol;

/// How long an endpoint is taken for one of HTTP/1 before it is asked again.
const MEMORY: Duration = Duration::from_secs(60);

/// What is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum HttpVersion {
    Http1,
    Http2,
}

/// What to speak to an endpoint for a client that speaks `client`; `known_http1`: it responded to the
/// HTTP/2 preface with HTTP/1.
pub(in crate::proxy) fn version(
    stated: AppProtocol,
    client: Version,
    known_http1: impl FnOnce() -> bool,
) -> HttpVersion {
    match stated {
        AppProtocol::H2c => HttpVersion::Http2,
        AppProtocol::WebSocket => HttpVersion::Http1,
        AppProtocol::Unspecified if client != Version::HTTP_2 || known_http1() => {
            HttpVersion::Http1
        }
        AppProtocol::Unspecified => HttpVersion::Http2,
    }
}

/// Endpoints of shadows that responded to the HTTP/2 preface with HTTP/1, in this worker.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Protocols {
    http1: RefCell<HashMap<SocketAddr, Instant>>,
    /// Of the routes at the last sweep: with new ones an address may be another server's.
    generation: Cell<Option<u64>>,
}

impl Protocols {
    /// What to speak to this endpoint for a client that speaks `client`.
    pub(in crate::proxy) fn of(
        &self,
        stated: AppProtocol,
        client: Version,
        endpoint: SocketAddr,
    ) -> HttpVersion {
        version(stated, client, || {
            let http1 = self.http1.borrow();
            http1.get(&endpoint).is_some_and(|since| since.elapsed() < MEMORY)
        })
    }

    /// The endpoint answered the preface with HTTP/1.
    pub(in crate::proxy) fn is_http1(&self, endpoint: SocketAddr) {
        self.http1.borrow_mut().insert(endpoint, Instant::now());
    }

    /// Forgets what is old, and everything once the routes are others.
    pub(in crate::proxy) fn sweep(&self, generation: u64) {
        let mut http1 = self.http1.borrow_mut();
        match self.generation.replace(Some(generation)) {
            Some(last) if last != generation => http1.clear(),
            _ => http1.retain(|_, since| since.elapsed() < MEMORY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_decides_and_else_the_client() {
        let protocols = Protocols::default();
        let endpoint = SocketAddr::from(([10, 0, 0, 1], 80));
        for (stated, client, http_version) in [
            (AppProtocol::H2c, Version::HTTP_11, HttpVersion::Http2),
            (AppProtocol::WebSocket, Version::HTTP_2, HttpVersion::Http1),
            (AppProtocol::Unspecified, Version::HTTP_10, HttpVersion::Http1),
            (AppProtocol::Unspecified, Version::HTTP_11, HttpVersion::Http1),
            (AppProtocol::Unspecified, Version::HTTP_2, HttpVersion::Http2),
        ] {
            assert_eq!(
                protocols.of(stated, client, endpoint),
                http_version,
                "{stated:?} {client:?}"
            );
        }
    }

    #[test]
    fn an_endpoint_of_http1_is_remembered_until_the_routes_change() {
        let protocols = Protocols::default();
        let [one, other] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 80)));
        let of = |endpoint| protocols.of(AppProtocol::Unspecified, Version::HTTP_2, endpoint);
        protocols.is_http1(one);
        protocols.sweep(1);
        assert_eq!((of(one), of(other)), (HttpVersion::Http1, HttpVersion::Http2));
        protocols.sweep(1);
        assert_eq!(of(one), HttpVersion::Http1);
        assert_eq!(protocols.of(AppProtocol::H2c, Version::HTTP_2, one), HttpVersion::Http2);
        protocols.sweep(2);
        assert_eq!(of(one), HttpVersion::Http2);
    }
}
