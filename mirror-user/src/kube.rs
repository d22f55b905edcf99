//! The API server of a cluster, as far as mirror speaks to it. In: where the cluster is. Out: a
//! client (`client`), and of each watched kind a stream of [`Event`]s ([`Watch`]) that survives
//! what happens to API servers: restarts, compactions, lists cut in the middle, servers that do
//! not stream lists. It decodes no object: that is the reader's, one object at a time.

#![forbid(unsafe_code)]

pub use self::{
    backoff::Backoff,
    client::{ClientError, ConfigSource, connect},
    health::Health,
    relist::RelistTracker,
    resource::Resource,
    watch::{Event, Watch, WatchError},
};

mod backoff;
mod client;
mod health;
mod relist;
mod resource;
mod watch;
