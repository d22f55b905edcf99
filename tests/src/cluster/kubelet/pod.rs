//! The life of a pod: sandbox, volumes, containers, status, and its end.
//!
//! In: the Pod, and later versions of it. Out: processes; the status in the API server; at the end
//! nothing, and the object is deleted. Init containers, attach, port-forward, terminals, CSI and
//! eviction are not there: a pod with init containers is refused in its status.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    container::Life,
    dns,
    environment::{self, Addresses},
    launch::{Mount, StartSpec},
    probe::Target,
    record::Records,
    sandbox::Sandbox,
    security::Security,
    status::Status,
    volumes::{self, Volumes},
};

/// Between attempts at what needs the API server.
const RETRY: Duration = Duration::from_millis(500);

/// A pod on this node.
pub(super) struct PodLife {
    pub(super) context: Arc<Context>,
    /// The newest version; None once the object is gone.
    pub(super) versions: watch::Receiver<Option<Pod>>,
    pub(super) records: Arc<Records>,
    pub(super) pod: Pod,
    pub(super) folder: PathBuf,
}

impl PodLife {
    /// Runs until the pod is gone.
    pub(super) async fn run(mut self) {
        let mut status = Status::new();
        let stop = CancellationToken::new();
        let grace = Arc::new(OnceLock::new());
        let mut lives = JoinSet::new();
        let mut addresses = None;
        let mut dirty = true;
        // What was made, kept until the pod ends.
        let mut sandbox = None;
        while !self.ending() {
            if sandbox.is_none() {
                match self.start(&stop, &grace, &mut lives).await {
                    Ok(made) => {
                        addresses = Some(self.addresses(&made));
                        sandbox = Some(made);
                    }
                    Err(error) => self.records.wait("ContainerCreating", &format!("{error:#}")),
                }
                dirty = true;
            }
            if dirty {
                dirty = self.tell(&mut status, addresses, false).await.is_err();
            }
            let retry = dirty || sandbox.is_none();
            tokio::select! {
                () = self.records.changed.notified() => dirty = true,
                _ = self.versions.changed() => {}
                () = sleep(RETRY), if retry => {}
            }
        }
        let _ = grace.set(self.grace());
        stop.cancel();
        let _ = self.tell(&mut status, addresses, true).await;
        while lives.join_next().await.is_some() {}
        let _ = self.tell(&mut status, addresses, true).await;
        // Blocks until the last process is gone.
        let _ = tokio::task::spawn_blocking(move || drop(sandbox)).await;
        let _ = fs::remove_dir_all(&self.folder);
        self.delete().await;
    }

    /// Whether it is to end, and with which version.
    fn ending(&mut self) -> bool {
        let newest = self.versions.borrow_and_update().clone();
        let Some(newest) = newest else { return true };
        self.pod = newest;
        self.pod.metadata.deletion_timestamp.is_some()
    }

    fn grace(&self) -> Duration {
        let deletion = self.pod.metadata.deletion_grace_period_seconds;
        Duration::from_secs(deletion.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0))
    }

    fn addresses(&self, sandbox: &Sandbox) -> Addresses {
        Addresses { pod: sandbox.ip, node: self.context.node_ip }
    }

    /// Makes the sandbox and the volumes, and starts the containers' lives.
    async fn start(
        &self,
        stop: &CancellationToken,
        stop_grace: &Arc<OnceLock<Duration>>,
        lives: &mut JoinSet<()>,
    ) -> Result<Arc<Sandbox>> {
        let spec = self.pod.spec.as_ref().context("a Pod without a spec")?;
        if spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
            bail!("this node runs no init containers");
        }
        fs::create_dir_all(&self.folder)?;
        let folder = self.folder.join("volumes");
        let volumes = volumes::prepare(&self.context, &self.pod, &folder).await?;
        let (context, pod) = (Arc::clone(&self.context), self.pod.clone());
        let sandbox = tokio::task::spawn_blocking(move || Sandbox::create(&context, &pod));
        let sandbox = Arc::new(sandbox.await??);
        let mut ready = Vec::new();
        for (index, container) in spec.containers.iter().enumerate() {
            let launch = self.launch(container, &sandbox, &volumes).await;
            let launch = launch.with_context(|| format!("container {}", container.name))?;
            ready.push(Life {
                index,
                container: container.clone(),
                uid: self.pod.metadata.uid.clone().unwrap_or_default(),
                sandbox: Arc::clone(&sandbox),
                launch,
                target: Target { netns: self.context.netns.clone(), ip: sandbox.ip.into() },
                records: Arc::clone(&self.records),
                policy: spec.restart_policy.clone().unwrap_or_else(|| "Always".into()),
                grace: seconds(spec.termination_grace_period_seconds),
                stop: stop.clone(),
                stop_grace: Arc::clone(stop_grace),
            });
        }
        for life in ready {
            lives.spawn(life.run());
        }
        Ok(sandbox)
    }

    async fn launch(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        volumes: &Volumes,
    ) -> Result<StartSpec> {
        let spec = self.pod.spec.as_ref().context("a Pod without a spec")?;
        let name = container.image.as_deref().unwrap_or_default();
        let Some(image) = self.context.images.find(name) else {
            bail!("ErrImagePull: this node's table has no image {name}");
        };
        let addresses = self.addresses(sandbox);
        let variables =
            environment::variables(&self.context, &self.pod, container, image, addresses).await?;
        let host_network = spec.host_network.unwrap_or_default();
        let root = self.folder.join(format!("root-{}", container.name));
        Ok(StartSpec {
            argv: environment::command(container, image, &variables)?,
            variables,
            folder: container.working_dir.clone(),
            security: Security::new(spec, container),
            mounts: mounts(container, image, volumes)?,
            files: dns::files(&self.context, &self.pod, sandbox.ip),
            hostname: (!host_network).then(|| self.pod.metadata.name.clone()).flatten(),
            host_pid: spec.host_pid.unwrap_or_default(),
            cgroup: sandbox.cgroup.clone(),
            netns: sandbox.netns.clone(),
            root,
            log: self.folder.join("log"),
        })
    }

    /// Writes the status.
    async fn tell(
        &self,
        status: &mut Status,
        addresses: Option<Addresses>,
        ending: bool,
    ) -> Result<()> {
        let node = self.context.node_ip;
        let patch = status.patch(&self.pod, &self.records.all(), addresses, node, ending);
        let (api, name) = self.api();
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            // Gone, or another one of its name: the watch will report it.
            Err(kube::Error::Api(response)) if matches!(response.code, 404 | 409) => Ok(()),
            result => result.map(drop).context("the pod's status"),
        }
    }

    /// Deletes the object for good, as only its node may.
    async fn delete(&self) {
        let (api, name) = self.api();
        let uid = self.pod.metadata.uid.clone();
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        while self.versions.borrow().is_some() {
            match api.delete(name, &params).await {
                Ok(_) => return,
                Err(kube::Error::Api(response)) if matches!(response.code, 404 | 409) => return,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    fn api(&self) -> (Api<Pod>, &str) {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = self.pod.metadata.name.as_deref().unwrap_or_default();
        (Api::namespaced(self.context.client.clone(), namespace), name)
    }
}

fn seconds(value: Option<i64>) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(30))
}

fn mounts(
    container: &Container,
    image: &super::images::Image,
    volumes: &Volumes,
) -> Result<Vec<Mount>> {
    let files = image.files.iter().map(|(source, target)| {
        Ok(Mount { source: source.clone(), target: target.clone(), read_only: true })
    });
    let volumes = container.volume_mounts.iter().flatten().map(|mount| {
        let source = volumes.get(&mount.name);
        let source = source.with_context(|| format!("no volume {}", mount.name))?;
        let sub = mount.sub_path.as_ref().filter(|sub| !sub.is_empty());
        Ok(Mount {
            source: sub.map_or_else(|| source.clone(), |sub| source.join(sub)),
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only.unwrap_or_default(),
        })
    });
    files.chain(volumes).collect()
}
