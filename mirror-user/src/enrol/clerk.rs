//! The enrolment thread: keeps the roll of pods, decides on each, and looks for the cgroups of those
//! to capture until they are there. A pod is known before kubelet makes its cgroup.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{PodRow, Policy, Tree, Verdict, Wish, decide};
use crate::{
    capture::{Enroller, Origin, State, WorkloadConfig, WorkloadStatus},
    control::objects::Objects,
};

/// Between two looks for cgroups that are missing.
const TICK: Duration = Duration::from_millis(100);
/// The same when none is missing, or all have been for [`PATIENCE`].
const IDLE: Duration = Duration::from_secs(1);
/// How long a pod's cgroup is looked for often: kubelet makes it before it pulls an image.
const PATIENCE: Duration = Duration::from_secs(30);

/// All pods of the node at one moment.
pub(super) struct Roll {
    pods: Vec<PodRow>,
    /// Those that say something.
    namespaces: BTreeMap<String, Wish>,
}

impl Roll {
    pub(super) fn new(objects: &Objects) -> Self {
        let named = objects.namespaces.values().filter(|row| row.wish != Wish::None);
        Self {
            pods: objects.pods.values().cloned().collect(),
            namespaces: named.map(|row| (row.name.name.clone(), row.wish.clone())).collect(),
        }
    }
}

/// A pod of the roll.
struct Entry {
    row: PodRow,
    verdict: Verdict,
    since: Instant,
    cgroup: Option<PathBuf>,
}

impl Entry {
    fn is_missing(&self) -> bool {
        self.verdict == Verdict::Capture && self.cgroup.is_none()
    }

    fn config(&self) -> Option<WorkloadConfig> {
        let cgroup = self.cgroup.clone()?;
        Some(WorkloadConfig {
            namespace: self.row.name.namespace.clone(),
            name: self.row.name.name.clone(),
            cgroup,
            origin: Origin::Pod { uid: self.row.uid.clone() },
        })
    }

    /// None when the pod was handed to the capture.
    fn status(&self) -> Option<WorkloadStatus> {
        let (state, reason) = match &self.verdict {
            Verdict::Capture if self.cgroup.is_some() => return None,
            Verdict::Capture => (State::Waiting, "it has no cgroup (v2) yet".to_owned()),
            Verdict::Refused(refusal) => (State::Refused, refusal.to_string()),
            Verdict::NotAsked(unasked) => (State::NotAsked, unasked.to_string()),
        };
        let mut status = WorkloadStatus::new(self.row.name.to_string(), state, Some(reason));
        status.uid = Some(self.row.uid.to_string());
        Some(status)
    }
}

/// All that the thread owns.
pub(super) struct Clerk {
    policy: Policy,
    tree: Tree,
    enroller: Enroller,
    /// By uid.
    entries: BTreeMap<Box<str>, Entry>,
    handed: Vec<WorkloadConfig>,
    status: Arc<Mutex<Option<Vec<WorkloadStatus>>>>,
}

impl Clerk {
    pub(super) fn new(
        policy: Policy,
        tree: Tree,
        enroller: Enroller,
        status: Arc<Mutex<Option<Vec<WorkloadStatus>>>>,
    ) -> Self {
        let (entries, handed) = (BTreeMap::new(), Vec::new());
        Self { policy, tree, enroller, entries, handed, status }
    }

    /// Runs until the sender of rolls is gone.
    pub(super) fn run(mut self, inbox: &Receiver<Roll>) {
        loop {
            match inbox.recv_timeout(self.pause()) {
                Ok(roll) => {
                    // Only the newest counts.
                    let roll = inbox.try_iter().last().unwrap_or(roll);
                    self.take(roll, Instant::now());
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

    fn take(&mut self, roll: Roll, now: Instant) {
        let Roll { pods, namespaces } = roll;
        let mut known = std::mem::take(&mut self.entries);
        for row in pods {
            let namespace = namespaces.get(&row.name.namespace).unwrap_or(&Wish::None);
            let verdict = decide(&row, namespace, &self.policy);
            let before = known.remove(&row.uid);
            if before.as_ref().map(|entry| &entry.verdict) != Some(&verdict) {
                tell(&row, &verdict);
            }
            let since = before.as_ref().map_or(now, |entry| entry.since);
            // One that is captured no more and then again is looked for again.
            let capture = verdict == Verdict::Capture;
            let cgroup = before.and_then(|entry| entry.cgroup).filter(|_| capture);
            self.entries.insert(row.uid.clone(), Entry { row, verdict, since, cgroup });
        }
    }

    /// Looks for what is missing, and hands over the pods that are there.
    fn look(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            // Removed while the pod is there: kubelet will make it again.
            entry.cgroup = entry.cgroup.take().filter(|cgroup| cgroup.is_dir());
        }
        let missing = self.entries.values().filter(|entry| entry.is_missing());
        let missing: BTreeSet<_> = missing.map(|entry| entry.row.cgroup.clone()).collect();
        if !missing.is_empty() {
            let found = self.tree.find(&missing, now);
            for entry in self.entries.values_mut().filter(|entry| entry.is_missing()) {
                entry.cgroup = found.get(&entry.row.cgroup).cloned();
            }
        }
        let pods: Vec<_> = self.entries.values().filter_map(Entry::config).collect();
        if pods != self.handed {
            self.handed.clone_from(&pods);
            self.enroller.enrol(pods);
        }
    }

    fn publish(&self) {
        let status = self.entries.values().filter_map(Entry::status).collect();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

fn tell(row: &PodRow, verdict: &Verdict) {
    let pod = row.name.to_string();
    match verdict {
        Verdict::Capture => tracing::debug!(pod, "to be captured"),
        Verdict::Refused(why) => tracing::info!(pod, %why, "not captured"),
        Verdict::NotAsked(why) => tracing::debug!(pod, %why, "not captured"),
    }
}
