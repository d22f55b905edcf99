//! A Kubernetes cluster on one machine: the real control plane inside the simulated node.
//!
//! In: a [`Node`](crate::Node). Out: an API server that listens inside the node's network
//! namespace, and through a relay on 127.0.0.1 of the host, with the same kubeconfig. etcd,
//! kube-apiserver, kube-controller-manager, kube-scheduler and kubectl are those of the release,
//! built from source (`tests/cluster`, in Go): without Go nothing here works, and nothing is
//! imitated.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use mirror_tests::{Node, cluster::{Channel, ControlPlane, Options}};
//!
//! let node = Node::create("example")?;
//! let mut plane = ControlPlane::start(&node, &Options::default())?;
//! plane.install_gateway_api(Channel::Standard)?;
//! plane.kubectl(&["create", "namespace", "shop"], "")?;
//! plane.kill_server()?;
//! plane.start_server()?;
//! # Ok(())
//! # }
//! ```

mod account;
mod api;
mod binaries;
mod conformance;
mod control_plane;
mod controller;
mod gate;
mod gateway_api;
mod kubelet;
mod relay;

pub use account::{Account, Request, allowed, requests_of};
pub use api::Api;
pub use binaries::{Binaries, go, go_folder};
pub use conformance::{Conformance, TestResult};
pub use control_plane::{ControlPlane, Options};
pub use controller::{Controller, DEPLOY, NAMESPACE};
pub use gate::Gate;
pub use gateway_api::{Channel, Release};
pub use kubelet::{Image, Images, Kubelet};
