//! Serving: one connection of a client. In: a stream and the bytes sniffed. Out: requests to the
//! exchange, and the connection's end.

mod clock;
mod http1;
mod http2;

pub(super) use self::{http1::serve as http1, http2::serve as http2};
