//! The life of a container: started, watched, started again, ended.
//!
//! In: what to start. Out: its record, kept up to date. It is started again as the pod's
//! restartPolicy says, after 10 s, 20 s, ... 5 min (kubelet's backoff), and from 10 s again once it
//! has run for 10 minutes.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::core::v1::Container;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{
    launch::StartSpec,
    now,
    probe::{self, Target},
    record::{Ended, Records, State},
    sandbox::{Sandbox, container_id},
};
use crate::cgroup;

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// A run of this length makes the next backoff the first one again.
const LONG_RUN: Duration = Duration::from_secs(600);

/// A container and what it needs.
pub(super) struct Life {
    pub(super) index: usize,
    pub(super) container: Container,
    pub(super) uid: String,
    pub(super) sandbox: Arc<Sandbox>,
    /// Its `cgroup` and `log` are of each run.
    pub(super) launch: StartSpec,
    pub(super) target: Target,
    pub(super) records: Arc<Records>,
    pub(super) policy: String,
    /// Between SIGTERM and SIGKILL when liveness fails.
    pub(super) grace: Duration,
    /// The pod ends; the time that it gives, in `stopping`.
    pub(super) stop: CancellationToken,
    pub(super) stop_grace: Arc<std::sync::OnceLock<Duration>>,
}

impl Life {
    /// Runs until the container has ended for good.
    pub(super) async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        for restarts in 0.. {
            let start = Instant::now();
            let ended = match self.once(restarts).await {
                Ok(ended) => ended,
                Err(error) => {
                    let message = format!("{error:#}");
                    self.set(State::Waiting { reason: "CreateContainerError", message });
                    None
                }
            };
            let failed = ended.as_ref().is_none_or(|ended| ended.code != 0);
            if self.stop.is_cancelled() || !again(&self.policy, failed) {
                return;
            }
            if start.elapsed() > LONG_RUN {
                backoff = FIRST_BACKOFF;
            }
            if let Some(ended) = ended {
                let message = format!("back-off {backoff:?} restarting failed container");
                self.records.change(self.index, |record| {
                    record.last = Some(ended);
                    record.state = State::Waiting { reason: "CrashLoopBackOff", message };
                });
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    fn set(&self, state: State) {
        self.records.change(self.index, |record| record.state = state);
    }

    /// One run; None when it never began.
    async fn once(&mut self, restarts: u32) -> Result<Option<Ended>> {
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        let id = container_id(&self.uid, &self.container.name, restarts);
        self.launch.cgroup = self.sandbox.scope(&id)?;
        self.launch.log.set_file_name(format!("{}-{restarts}.log", self.container.name));
        let launch = self.launch.clone();
        let child = spawn_blocking(move || launch.start()).await??;
        let pid = i32::try_from(child.id())?;
        let started = now();
        self.records.change(self.index, |record| {
            record.id.clone_from(&id);
            record.state = State::Running { since: started, pid };
            record.restarts = restarts;
            record.launch = Some(self.launch.clone());
            (record.started, record.ready) = (false, false);
        });
        let status = self.watch(child, pid).await?;
        // What it has left running, with the host's PID namespace.
        let scope = self.launch.cgroup.clone();
        spawn_blocking(move || cgroup::remove(&scope)).await??;
        let ended = Ended {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            signal: status.signal(),
            started,
            finished: now(),
            id,
        };
        self.records.change(self.index, |record| {
            record.state = State::Terminated(ended.clone());
            (record.started, record.ready) = (false, false);
        });
        Ok(Some(ended))
    }

    /// Waits for the process's end, which the pod's end or a failing probe brings about.
    async fn watch(&self, mut child: Child, pid: i32) -> Result<ExitStatus> {
        let mut wait = spawn_blocking(move || child.wait());
        let probes =
            probe::run(self.target.clone(), self.container.clone(), &self.records, self.index);
        let grace = tokio::select! {
            status = &mut wait => return Ok(status??),
            () = self.stop.cancelled() => self.stop_grace.get().copied().unwrap_or_default(),
            () = probes => self.grace,
        };
        // It was not waited for: the pid is its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if let Ok(status) = tokio::time::timeout(grace, &mut wait).await {
            return Ok(status??);
        }
        cgroup::signal(&self.launch.cgroup, Signal::SIGKILL)?;
        Ok(wait.await??)
    }
}

fn again(policy: &str, failed: bool) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => failed,
        _ => true,
    }
}
