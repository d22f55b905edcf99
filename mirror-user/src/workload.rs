//! A workload that is captured, as the data path knows it, and the commands to a worker about it. Made by the
//! capture, used by the workers.

#![forbid(unsafe_code)]

use std::{net::TcpListener as StdListener, sync::Arc};

use crate::{memory::WorkloadUsage, sockets::NetnsTarget};

/// A captured workload, as the data path knows it.
#[derive(Debug)]
pub struct Workload {
    /// `namespace/name`, for logs.
    pub name: String,
    /// Namespace that it counts as: decides which consumer routes hold.
    pub namespace: String,
    /// Where its upstream sockets are made.
    pub netns: NetnsTarget,
    /// Distinguishes captures; from 1 upward, never reused within one agent.
    pub key: u64,
    /// What its connections make the agent hold.
    pub memory: Arc<WorkloadUsage>,
}

/// A command to a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Accept from this listener on behalf of the workload, beside those that it has.
    Serve {
        /// The workload whose namespace the listener is in.
        workload: Arc<Workload>,
        /// Bound and listening, non-blocking.
        listener: StdListener,
    },
    /// Drop the listeners, all connections and idle upstreams of the workload with this key, so
    /// that nothing keeps its namespace alive.
    Leave(u64),
    /// Close each connection after the response in progress; go on accepting.
    Drain,
    /// End, with whatever is still open.
    End,
}
