//! The selection thread: keeps the list of pods, decides on each, and looks for the cgroups of those
//! to capture until they are there. A pod is known before kubelet makes its cgroup; a static pod
//! also before kubelet makes its log folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{
    Decision, NotRequested, PodLogs, Policy, SelectionRefusal, Tree, claims::CgroupClaims, decide,
};
use crate::{
    capture::{PodSender, WorkloadConfig, WorkloadOrigin, WorkloadState, WorkloadStatus},
    control::objects::Objects,
    model::{CaptureLabel, CgroupClaim, ObjectName, PodRow},
};

/// Between two looks for cgroups that are missing.
const TICK: Duration = Duration::from_millis(100);
/// The same when none is missing, or all have been for [`PATIENCE`].
const IDLE: Duration = Duration::from_secs(1);
/// How long a pod's cgroup is looked for often: kubelet makes it before it pulls an image.
const PATIENCE: Duration = Duration::from_secs(30);

/// All pods of the node at one moment.
pub(super) struct PodList {
    pods: Vec<PodRow>,
    /// Those that say something.
    namespaces: BTreeMap<String, CaptureLabel>,
}

impl PodList {
    pub(super) fn new(objects: &Objects) -> Self {
        let named = objects.namespaces.values().filter(|row| row.label != CaptureLabel::None);
        Self {
            pods: objects.pods.values().cloned().collect(),
            namespaces: named.map(|row| (row.name.name.clone(), row.label.clone())).collect(),
        }
    }
}

/// A pod of the list.
struct Entry {
    row: PodRow,
    /// By its row, its Namespace and the policy.
    wanted: Decision,
    /// The same, unless there is a doubt about its identity.
    decision: Decision,
    since: Instant,
    cgroup: Option<PathBuf>,
}

impl Entry {
    /// What is looked for may come any moment: its cgroup, or its log folder.
    fn is_missing(&self) -> bool {
        self.wanted == Decision::Capture && self.cgroup.is_none()
    }

    /// The uid or hash in the name of the cgroup that is looked for.
    fn looked_for(&self) -> Option<&str> {
        if self.decision != Decision::Capture || self.cgroup.is_some() {
            return None;
        }
        match &self.row.claim {
            CgroupClaim::Uid => Some(&self.row.uid),
            CgroupClaim::Hash(hash) => Some(hash),
            CgroupClaim::Misshapen(_) => None,
        }
    }

    fn set(&mut self, decision: Decision) {
        if self.decision != decision {
            log_decision(&self.row, &decision);
            self.decision = decision;
        }
        if self.decision != Decision::Capture {
            // One that is captured no more and then again is looked for again.
            self.cgroup = None;
        }
    }

    fn config(&self) -> Option<WorkloadConfig> {
        let cgroup = self.cgroup.clone()?;
        Some(WorkloadConfig {
            namespace: self.row.name.namespace.clone(),
            name: self.row.name.name.clone(),
            cgroup,
            origin: WorkloadOrigin::Pod { uid: self.row.uid.clone() },
        })
    }

    /// None when the pod was handed to the capture.
    fn status(&self) -> Option<WorkloadStatus> {
        let (state, reason) = match &self.decision {
            Decision::Capture if self.cgroup.is_some() => return None,
            Decision::Capture => (WorkloadState::Waiting, "it has no cgroup (v2) yet".to_owned()),
            Decision::Refused(refusal) => (WorkloadState::Refused, refusal.to_string()),
            Decision::NotRequested(not_requested) => {
                (WorkloadState::NotRequested, not_requested.to_string())
            }
        };
        let mut status = WorkloadStatus::new(self.row.name.to_string(), state, Some(reason));
        status.uid = Some(self.row.uid.to_string());
        Some(status)
    }
}

/// All that the thread owns.
pub(super) struct PodReconciler {
    policy: Policy,
    tree: Tree,
    logs: PodLogs,
    pod_sender: PodSender,
    /// By uid, and by name: documents in files may repeat a uid.
    entries: BTreeMap<(Box<str>, ObjectName), Entry>,
    sent: Vec<WorkloadConfig>,
    status: Arc<Mutex<Option<Vec<WorkloadStatus>>>>,
}

impl PodReconciler {
    pub(super) fn new(
        policy: Policy,
        tree: Tree,
        logs: PodLogs,
        pod_sender: PodSender,
        status: Arc<Mutex<Option<Vec<WorkloadStatus>>>>,
    ) -> Self {
        let (entries, sent) = (BTreeMap::new(), Vec::new());
        Self { policy, tree, logs, pod_sender, entries, sent, status }
    }

    /// Runs until the sender of lists is gone.
    pub(super) fn run(mut self, inbox: &Receiver<PodList>) {
        loop {
            match inbox.recv_timeout(self.pause()) {
                Ok(pod_list) => {
                    // Only the newest counts.
                    let pod_list = inbox.try_iter().last().unwrap_or(pod_list);
                    self.take(pod_list, Instant::now());
                    self.look(Instant::now());
                    self.publish();
                }
                Err(RecvTimeoutError::Timeout) if self.entries.is_empty() => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.look(Instant::now());
                    self.publish();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn pause(&self) -> Duration {
        let mut missing = self.entries.values().filter(|entry| entry.is_missing());
        if missing.any(|entry| entry.since.elapsed() < PATIENCE) { TICK } else { IDLE }
    }

    fn take(&mut self, pod_list: PodList, now: Instant) {
        let PodList { pods, namespaces } = pod_list;
        let mut known = std::mem::take(&mut self.entries);
        for row in pods {
            let namespace = namespaces.get(&row.name.namespace).unwrap_or(&CaptureLabel::None);
            let wanted = decide(&row, namespace, &self.policy);
            let key = (row.uid.clone(), row.name.clone());
            let entry = match known.remove(&key) {
                Some(before) => Entry { row, wanted, ..before },
                None => {
                    let decision = Decision::NotRequested(NotRequested::Default);
                    Entry { row, wanted, decision, since: now, cgroup: None }
                }
            };
            self.entries.insert(key, entry);
        }
    }

    /// Whose identity is beyond doubt; log folders come and go.
    fn check_identities(&mut self) {
        let claims = CgroupClaims::new(self.entries.values().map(|entry| &entry.row), &self.logs);
        let doubted = |entry: &Entry| match &entry.wanted {
            Decision::Capture => match claims.check(&entry.row) {
                Ok(()) => Decision::Capture,
                Err(doubt) => Decision::Refused(SelectionRefusal::Identity(doubt)),
            },
            other => other.clone(),
        };
        let verdicts: Vec<_> = self.entries.values().map(doubted).collect();
        for (entry, decision) in self.entries.values_mut().zip(verdicts) {
            entry.set(decision);
        }
    }

    /// Looks for what is missing, and hands over the pods that are there.
    fn look(&mut self, now: Instant) {
        self.check_identities();
        for entry in self.entries.values_mut() {
            // Removed while the pod is there: kubelet will make it again.
            entry.cgroup = entry.cgroup.take().filter(|cgroup| self.tree.has(cgroup));
        }
        let missing = self.entries.values().filter_map(Entry::looked_for);
        let missing: BTreeSet<_> = missing.map(Box::from).collect();
        if !missing.is_empty() {
            let found = self.tree.find(&missing, now);
            for entry in self.entries.values_mut() {
                if let Some(name) = entry.looked_for() {
                    entry.cgroup = found.get(name).cloned();
                }
            }
        }
        let pods: Vec<_> = self.entries.values().filter_map(Entry::config).collect();
        if pods != self.sent {
            self.sent.clone_from(&pods);
            self.pod_sender.send(pods);
        }
    }

    fn publish(&self) {
        let status = self.entries.values().filter_map(Entry::status).collect();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

fn log_decision(row: &PodRow, decision: &Decision) {
    let pod = row.name.to_string();
    match decision {
        Decision::Capture => tracing::debug!(pod, "to be captured"),
        Decision::Refused(why) => tracing::info!(pod, %why, "not captured"),
        Decision::NotRequested(why) => tracing::debug!(pod, %why, "not captured"),
    }
}
