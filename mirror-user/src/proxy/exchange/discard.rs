//! Content of a stream of HTTP/2 that no primary gets. In: the body of a request that mirror is about to
//! respond to itself. Out: nothing, once the body has ended or has taken too long.
//!
//! A response that ends before its request does is followed by RST_STREAM with NO_ERROR (RFC 9113,
//! section 8.1). Some clients take that for a failure of the request if they are still sending (curl 7.88
//! does). Most bodies are short and follow their head at once, so that a moment's wait avoids it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::Version;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::proxy::body::IncomingBody;

/// Longest that a response waits.
const WAIT: Duration = Duration::from_millis(50);

/// Bytes that are taken, which a client may send without a WINDOW_UPDATE (RFC 9113, section 6.9.2).
const BYTES: usize = 65_535;

/// Takes what is left of the body of a request by this version, within the bounds.
pub(super) fn discard(
    mut body: IncomingBody,
    version: Version,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    if version != Version::HTTP_2 || body.is_end_stream() {
        return None;
    }
    Some(Box::pin(async move {
        let all = async {
            let mut left = BYTES;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let taken = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(taken) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        // Whether it was whole does not matter.
        let _ = timeout(WAIT, all).await;
    }))
}
