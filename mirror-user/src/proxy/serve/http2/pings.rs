//! A client's PINGs. In: those that the client's connection holds. Out: acknowledgements, at once or when
//! the primary has acknowledged one of ours, so that a client finds out that its primary is gone (its
//! node is off, a network is cut) when it would without us. Ours go in response to the client's
//! alone: a server counts them (gRPC: `too_many_pings`), and would count the client's.

use std::rc::Rc;

use bytes::Bytes;
use h2::server::Connection;

use crate::proxy::{
    http2::{FramedIo, MultiplexedConnection},
    primary::ClientPools,
};

/// PINGs that may wait at once. Common clients send one at a time, Node ten. One more takes the place
/// of the newest, so that a flood holds nothing.
const HELD: usize = 16;

/// The PING of ours that is on its way.
#[derive(Default)]
pub(super) struct Pings {
    /// To whom, and how many of the client's oldest it is for.
    sent: Option<(Rc<MultiplexedConnection>, usize)>,
}

/// From now on PINGs wait for [`Pings::pass`].
pub(super) fn hold_back(connection: &mut Connection<FramedIo, Bytes>) {
    connection.hold_pings(HELD);
}

impl Pings {
    /// Passes on what the client asks, where its requests have one connection to go by; else it is us
    /// whom they concern. True: an acknowledgement is to be sent.
    #[must_use]
    pub(super) fn pass(
        &mut self,
        connection: &mut Connection<FramedIo, Bytes>,
        pools: &ClientPools,
    ) -> bool {
        let mut acknowledged = false;
        loop {
            if let Some((primary, count)) = &self.sent {
                if !primary.is_probed() {
                    return acknowledged;
                }
                connection.acknowledge_pings(*count);
                acknowledged = true;
                self.sent = None;
            }
            let held = connection.held_pings();
            if held == 0 {
                return acknowledged;
            }
            if let Some(primary) = pools.only() {
                primary.probe();
                self.sent = Some((primary, held));
            } else {
                connection.acknowledge_pings(held);
                acknowledged = true;
            }
        }
    }
}
