//! What every part of the node's agent shares: where things are, and the client of the API server.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context as _, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Images, server::Registry};
use crate::node::Node;

/// Shared by all tasks.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) images: Images,
    pub(super) node_name: String,
    pub(super) node_ip: Ipv4Addr,
    /// What the names of namespaces begin with, so that they are removed with the node.
    pub(super) id: String,
    /// The node's network namespace.
    pub(super) netns: PathBuf,
    /// Where kubepods.slice is.
    pub(super) cgroup: PathBuf,
    /// Logs and volumes.
    pub(super) folder: PathBuf,
    /// The pods, for the server.
    pub(super) registry: Arc<Registry>,
    /// How many pods there ever were: an address does not come back.
    addresses: AtomicU16,
}

impl Context {
    pub(super) async fn new(
        node: &Node,
        kubeconfig: &Path,
        node_name: &str,
        images: Images,
    ) -> Result<Self> {
        let config = Kubeconfig::read_from(kubeconfig).context("the node's kubeconfig")?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let folder = node.folder().join("kubelet");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            client: Client::try_from(config)?,
            images,
            node_name: node_name.to_owned(),
            node_ip: node.ip(),
            id: node.id().to_owned(),
            netns: node.netns().path(),
            cgroup: node.cgroup().to_owned(),
            folder,
            registry: Arc::default(),
            addresses: AtomicU16::new(0),
        })
    }

    /// A number for a pod: its address and its interface's name on the node come from it.
    pub(super) fn number(&self) -> Result<u16> {
        let number = self.addresses.fetch_add(1, Ordering::Relaxed);
        number.checked_add(1).context("65,535 pods were made: start a new cluster")
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}
