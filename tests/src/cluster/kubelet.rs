//! The node's agent, in the place of kubelet and a container runtime: pods are processes.
//!
//! In: the Pods that the scheduler gives to this node. Out: processes of this machine (see
//! [`Images`]), each pod with a network namespace and a cgroup named as kubelet's systemd driver
//! names it; their status; logs and exec for kubectl. Services are balanced by the real kube-proxy,
//! in its nftables mode. One module for each duty:
//!
//! | module | duty |
//! |---|---|
//! | `object` | the Node object, its Lease |
//! | `follow` | which pods there are |
//! | `pod`, `container` | their lives: start, restart, end |
//! | `sandbox` | network namespace and cgroup |
//! | `volumes`, `environment`, `security`, `launch` | a container's files, variables, privileges, process |
//! | `probe` | httpGet and tcpSocket |
//! | `record`, `status` | what is known of them, and reported |
//! | `server` | logs and exec |
//! | `dns` | names of Services |
//! | `images` | which program stands for an image |

mod container;
mod context;
mod dns;
mod environment;
mod follow;
mod images;
mod launch;
mod object;
mod pod;
mod probe;
mod record;
mod sandbox;
mod security;
mod server;
mod status;
mod volumes;

use std::{collections::HashMap, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::Api;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::images::{Image, Images};
use self::{
    context::Context,
    follow::{Change, follow},
    pod::PodLife,
    record::Records,
    server::{Known, Server},
};
use super::{ControlPlane, control_plane::NODE_NAME};
use crate::{
    command::run,
    process::{Process, eventually},
};

/// As kubelet has it.
const SERVER_PORT: u16 = 10250;

/// The node of a cluster. Dropping it ends its pods at once; their objects stay.
#[derive(Debug)]
pub struct Kubelet {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    proxy: Process,
}

impl Kubelet {
    /// Registers the node, and runs what is scheduled to it.
    ///
    /// # Errors
    /// The API server does not take the node, or a port is not free.
    pub fn start(plane: &ControlPlane<'_>, images: Images) -> Result<Self> {
        let pki = plane.pki("");
        let kubeconfig = plane.pki("node.kubeconfig");
        let stop = CancellationToken::new();
        let (sender, started) = oneshot::channel();
        let node = plane.node();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let context =
            runtime.block_on(Context::new(node, Path::new(&kubeconfig), NODE_NAME, images))?;
        let context = Arc::new(context);
        let ended = stop.clone();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let result = serve(&context, Path::new(&pki)).await;
                let failed = result.is_err();
                let _ = sender.send(result);
                if !failed {
                    tokio::select! {
                        () = pods(&context) => {}
                        () = ended.cancelled() => {}
                    }
                }
            });
            // Waits for containers are ended by their cgroups' removal, with the node.
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        started.blocking_recv().context("the node's thread has ended")??;
        let proxy = proxy(plane)?;
        Ok(Self { stop, thread: Some(thread), proxy })
    }

    /// What kube-proxy has written.
    #[must_use]
    pub fn proxy_log(&self) -> String {
        self.proxy.stderr()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if let Some(Err(_)) = ended {
            eprintln!("the node's thread panicked");
        }
    }
}

/// The real kube-proxy, inside the node. The settings of conntrack stay as they are: they are the
/// machine's, not the namespace's.
fn proxy(plane: &ControlPlane<'_>) -> Result<Process> {
    let binary = plane.binaries().path("kube-proxy");
    let kubeconfig = format!("--kubeconfig={}", plane.pki("proxy.kubeconfig"));
    let name = format!("--hostname-override={NODE_NAME}");
    let argv = [
        &*binary,
        &kubeconfig,
        &name,
        "--proxy-mode=nftables",
        "--cluster-cidr=10.244.0.0/16",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
        "--bind-address=127.0.0.1",
    ];
    let mut proxy = plane.node().spawn("kube-proxy", &argv)?;
    let mut ended = None;
    let ready = eventually("kube-proxy balances", Duration::from_secs(30), || {
        ended = proxy.wait(Duration::ZERO).ok().flatten();
        let list = ["nft", "list", "table", "ip", "kube-proxy"];
        let table = plane.node().netns().enter(|| run(&list, ""));
        ended.is_some() || matches!(table, Ok(Ok(_)))
    });
    match ended {
        Some(status) => bail!("kube-proxy: {status}: {}", proxy.stderr()),
        None => ready.with_context(|| proxy.stderr())?,
    }
    Ok(proxy)
}

/// Makes the node known and opens its ports.
async fn serve(context: &Arc<Context>, pki: &Path) -> Result<()> {
    let server = Server::bind(context, pki)?;
    let socket = dns::bind(context)?;
    object::register(context).await?;
    tokio::spawn(object::heartbeats(Arc::clone(context)));
    tokio::spawn(dns::serve(Arc::clone(context), socket));
    tokio::spawn(server.serve(Arc::clone(&context.registry)));
    Ok(())
}

/// Follows the pods of this node, each in a separate task.
async fn pods(context: &Arc<Context>) {
    let (sender, mut changes) = mpsc::channel(64);
    let api: Api<Pod> = Api::all(context.client.clone());
    let fields = format!("spec.nodeName={}", context.node_name);
    tokio::spawn(follow(api, fields, sender));
    // By uid: a name may come back.
    let mut lives: HashMap<String, watch::Sender<Option<Pod>>> = HashMap::new();
    while let Some(change) = changes.recv().await {
        match change {
            Change::All(pods) => {
                let there: Vec<_> = pods.iter().map(uid).collect();
                for (_, life) in lives.iter().filter(|(uid, _)| !there.contains(uid)) {
                    let _ = life.send(None);
                }
                pods.into_iter().for_each(|pod| apply(context, &mut lives, pod));
            }
            Change::Applied(pod) => apply(context, &mut lives, pod),
            Change::Deleted(pod) => {
                if let Some(life) = lives.get(&uid(&pod)) {
                    let _ = life.send(None);
                }
            }
        }
        lives.retain(|_, life| !life.is_closed());
    }
}

fn apply(
    context: &Arc<Context>,
    lives: &mut HashMap<String, watch::Sender<Option<Pod>>>,
    pod: Pod,
) {
    let uid = uid(&pod);
    if let Some(life) = lives.get(&uid) {
        let _ = life.send(Some(pod));
        return;
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let names = containers
        .map(|container| (container.name.as_str(), container.image.as_deref().unwrap_or_default()));
    let records = Arc::new(Records::new(names));
    let folder = context.folder.join(&uid);
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let known = Known { records: Arc::clone(&records), folder: folder.clone() };
    context.registry.add(&namespace, &name, known);
    let (sender, versions) = watch::channel(Some(pod.clone()));
    lives.insert(uid, sender);
    let life = PodLife { context: Arc::clone(context), versions, records, pod, folder };
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let records = Arc::clone(&life.records);
        life.run().await;
        context.registry.forget(&namespace, &name, &records);
    });
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn now() -> Timestamp {
    Timestamp::now()
}
