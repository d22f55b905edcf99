//! The data path with real sockets, without privileges and without the kernel's programs: a
//! listener on 127.64.0.2 accepts connections whose local address carries frontend 2, exactly as
//! captured ones do. Clients, primaries and shadows are raw sockets, so that every byte counts.

mod access;
mod agreement;
mod budgets;
mod endings;
mod faults;
mod framing;
mod harness;
mod http1;
mod http2;
mod http2_copies;
mod http2_ends;
mod http2_mixed;
mod interim;
mod leaving;
mod limits;
mod mirroring;
mod opaque;
mod pipelining;
mod routes;
mod server;
mod streams;
mod timeouts;
mod tunnels;
mod wire;
