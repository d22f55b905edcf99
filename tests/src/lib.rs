//! The simulated node: a Kubernetes node on one machine, made of network namespaces and cgroups.
//!
//! In: what a test asks for (pods, Services, processes, routes). Out: real sockets between real
//! processes that cannot reach anything outside. It needs root, `ip` and `nft`. Whatever it makes
//! carries the maker's process id in its name; all of it goes when the [`Node`] is dropped, on
//! Ctrl-C, or at the latest when the next node is made.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use mirror_tests::{Agent, Node, manifest::{Route, Rule}};
//!
//! let node = Node::create("example")?;
//! let (curl, v1) = (node.pod("curl")?, node.pod("v1")?);
//! let echo = v1.echo(&["--listen", "0.0.0.0:80"])?;
//! let service = node.service("httpbin", 8000, 80, &[&v1])?;
//! node.routes().write("services.yaml", &service.manifest())?;
//! let route = Route::new("httpbin", &service).rule(Rule::to("httpbin", 8000));
//! node.routes().write("route.yaml", &route.manifest())?;
//! let agent = Agent::start(&node, &[&curl], &[])?;
//! curl.run(&["curl", "-sS", "http://httpbin:8000/get"], Duration::from_secs(5))?.ok()?;
//! assert_eq!(echo.stdout().lines().count(), 1);
//! # Ok(())
//! # }
//! ```

mod agent;
pub mod bpf;
mod cgroup;
pub mod client;
pub mod cluster;
mod command;
mod copies;
pub mod corpus;
pub mod flood;
mod generator;
mod h2load;
pub mod http;
mod leftovers;
pub mod load;
pub mod manifest;
mod metrics;
mod namespace;
mod node;
pub mod pair;
pub mod peer;
mod process;
pub mod stats;
pub mod usage;
mod wrk;

pub use agent::Agent;
pub use command::{mirror_binary, run, use_profile};
pub use copies::Copies;
pub use h2load::{H2Counts, H2Shape, H2load};
pub use metrics::Metrics;
pub use namespace::Netns;
pub use nix::sys::signal::Signal;
pub use node::{Node, Pod, Service, kubelet};
pub use pair::{Echo, Pair};
pub use peer::Peer;
pub use process::{Output, Process, eventually, slowness};
pub use wrk::{Load, Shape, Wrk};
