//! Content that no primary gets. In: the body of a request that mirror is about to respond to itself, and
//! the copies that its filters have made. Out: nothing, once the body has ended or is not waited for any longer.
//!
//! With HTTP/2 a response that ends before its request does is followed by RST_STREAM with NO_ERROR
//! (RFC 9113, section 8.1). Some clients take that for a failure of the request if they are still sending
//! (curl 7.88 does). And a copy has no content but what was read. Most bodies are short and follow their
//! head at once, so that a moment's wait avoids the one and makes the other whole.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::Version;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::{
    outcome::DropReason,
    proxy::{body::IncomingBody, interim::Interim, tee::CopyWriter},
};

/// Longest that a response waits, with HTTP/2, whether the request is mirrored or not. With HTTP/1 only copies
/// are the better for it, and none makes a client wait: they get the bytes that have arrived.
const WAIT: Duration = Duration::from_millis(50);

/// Bytes that are taken, which a client may send without a WINDOW_UPDATE (RFC 9113, section 6.9.2).
const BYTES: usize = 65_535;

/// Takes what is left of the body of a request by this version, within the bounds, and shows it to
/// `copies`; they are cut where it is more.
pub(super) fn discard(
    mut body: IncomingBody,
    version: Version,
    interim: &Interim,
    copies: Vec<CopyWriter>,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    // Of HTTP/1 what is left is the connection's affair. A client that waits for 100 is not asked for
    // its body: the response does not depend on it.
    let copied = !copies.is_empty() && !interim.is_awaited();
    if body.is_end_stream() || (version != Version::HTTP_2 && !copied) {
        return None;
    }
    Some(Box::pin(async move {
        let wait = if version == Version::HTTP_2 { WAIT } else { Duration::ZERO };
        let whole = timeout(wait, take(&mut body, &copies)).await.unwrap_or(false);
        for copy in copies {
            if whole { copy.finish() } else { copy.cut(DropReason::PrimaryEnded) }
        }
    }))
}

/// Whether it came to its end.
async fn take(body: &mut IncomingBody, copies: &[CopyWriter]) -> bool {
    let mut left = BYTES;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        let taken = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(taken) else { return false };
        left = less;
        copies.iter().for_each(|copy| copy.frame(&frame));
    }
    true
}
