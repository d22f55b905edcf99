//! Flags that bound what connections may make the agent hold.

use clap::value_parser;

use super::{BoundError, ByteSize, bounds, size::bytes};
use crate::memory::MemoryLimits;

/// The least that a connection may be bounded to: the buffers of one that is used.
const LEAST_CONNECTION: ByteSize = ByteSize(256 << 10);

/// The least that a pod may be bounded to: a few connections.
const LEAST_POD: ByteSize = ByteSize(1 << 20);

/// The least that the agent may be bounded to.
const LEAST_AGENT: ByteSize = ByteSize(4 << 20);

/// Bounds on what is held in memory for connections of clients. Copies have separate bounds
/// (`--budget-*`). [`MemoryArgs::checked`] compares them.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct MemoryArgs {
    /// Most bytes held for one client connection: its buffers, heads and streams, and those of its
    /// connections to primaries [default: what its pod may still hold]. A number with B, KiB, MiB or
    /// GiB; at least 256KiB, at most --pod-memory.
    #[arg(long, env = "MIRROR_CONNECTION_MEMORY", value_name = "SIZE")]
    pub connection_memory: Option<ByteSize>,

    /// Most bytes held for all connections of one pod [default: twice what the agent may still hold]. At
    /// three quarters of it, new connections of the pod go direct. At least 1MiB, at most --agent-memory.
    #[arg(long, env = "MIRROR_POD_MEMORY", value_name = "SIZE")]
    pub pod_memory: Option<ByteSize>,

    /// Most bytes held for the connections of all pods. One pod may take at most two thirds of what is
    /// free. An idle connection takes about 10KiB, one in use about 18KiB. At least 4MiB.
    #[arg(long, env = "MIRROR_AGENT_MEMORY", value_name = "SIZE", default_value = "128MiB")]
    pub agent_memory: ByteSize,

    /// Most connections that one pod may have to captured Services at a time. At three quarters of it,
    /// new connections of the pod go direct. 16 to 1000000.
    #[arg(long, env = "MIRROR_POD_CONNECTIONS", value_name = "N",
          default_value_t = 4096, value_parser = value_parser!(u32).range(16..=1_000_000))]
    pub pod_connections: u32,
}

impl MemoryArgs {
    /// The bounds.
    ///
    /// # Errors
    /// When one is too small, or a part exceeds the whole.
    pub fn checked(self) -> Result<MemoryLimits, BoundError> {
        let agent = ("--agent-memory", self.agent_memory);
        let pod = self.pod_memory.map_or(agent, |size| ("--pod-memory", size));
        let connection = self.connection_memory.map_or(pod, |size| ("--connection-memory", size));
        let bounds = [(connection, LEAST_CONNECTION), (pod, LEAST_POD), (agent, LEAST_AGENT)];
        bounds::check(bounds, "nothing could be served")?;
        let or_free = |size: Option<ByteSize>| size.map_or(usize::MAX, bytes);
        Ok(MemoryLimits {
            connection: or_free(self.connection_memory),
            workload: or_free(self.pod_memory),
            agent: bytes(self.agent_memory),
            connections: usize::try_from(self.pod_connections).unwrap_or(usize::MAX),
        })
    }
}
