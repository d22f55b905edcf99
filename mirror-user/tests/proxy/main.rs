//! The data path with real sockets, without privileges and without the kernel's programs: a
//! listener on 127.64.0.2 accepts connections whose local address carries frontend 2, exactly as
//! captured ones do. Clients, primaries and shadows are raw sockets, so that every byte counts.

mod access;
mod agreement;
mod backend_filters;
mod budgets;
mod cors;
mod endings;
mod faults;
mod frames;
mod framing;
mod grpc;
mod harness;
mod hostile_shadows;
mod http1;
mod http2;
mod http2_copies;
mod http2_ends;
mod http2_limits;
mod http2_malformed;
mod http2_mixed;
mod http2_pings;
mod interim;
mod keepalive;
mod leaving;
mod limits;
mod malformed;
mod memory;
mod mirroring;
mod opaque;
mod ownership;
mod pipelining;
mod raw_connection;
mod redirect;
mod refusals;
mod retry;
mod retry_http2;
mod rewrite;
mod routes;
mod server;
mod slow_uploads;
mod streams;
mod targets;
mod timeouts;
mod trailers;
mod tunnels;
