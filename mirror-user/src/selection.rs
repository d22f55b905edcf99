//! Selection: which pods of this node are captured, and where they are. In: rows of Pods and
//! Namespaces. Out: for each pod a decision ([`decide`]), and for those to capture a cgroup that is
//! theirs beyond doubt ([`Doubt`]), handed to [`crate::capture`]. It attaches nothing and enters no
//! namespace itself.
//!
//! A separate thread does it, because searching the cgroup tree may take milliseconds.

#![forbid(unsafe_code)]

mod claims;
mod decide;
mod pod_logs;
mod reconciler;
mod tree;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

pub use self::{
    claims::Doubt,
    decide::{Choice, Decision, NotRequested, Policy, SelectionRefusal, decide},
    pod_logs::{NoEvidence, PodLogs},
    tree::Tree,
};
use crate::{
    capture::{PodSender, WorkloadStatus},
    control::objects::Objects,
};
use reconciler::{PodList, PodReconciler};

/// The selection in progress. Dropping it ends it; what is captured stays so.
#[derive(Debug)]
pub struct PodSelection {
    /// None once it ends.
    pod_lists: Option<Sender<PodList>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<Option<Vec<WorkloadStatus>>>>,
}

impl PodSelection {
    /// Selects pods by `policy`, finds cgroups in `tree` and hands them to `pod_sender`. Static pods are
    /// believed by `logs`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        policy: Policy,
        tree: Tree,
        logs: PodLogs,
        pod_sender: PodSender,
    ) -> io::Result<Self> {
        let (pod_lists, inbox) = mpsc::channel();
        let status = Arc::default();
        let reconciler = PodReconciler::new(policy, tree, logs, pod_sender, Arc::clone(&status));
        let thread = thread::Builder::new()
            .name("selection".into())
            .spawn(move || reconciler.run(&inbox))?;
        Ok(Self { pod_lists: Some(pod_lists), thread: Some(thread), status })
    }

    /// From now on these are the node's pods.
    pub fn follow(&self, objects: &Objects) {
        if let Some(pod_lists) = &self.pod_lists {
            // It has ended only if it panicked, which is reported at the end.
            let _ = pod_lists.send(PodList::new(objects));
        }
    }

    /// Pods that were not handed to the capture, each with its reason; None before the first list
    /// was looked at.
    #[must_use]
    pub fn status(&self) -> Option<Vec<WorkloadStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for PodSelection {
    fn drop(&mut self) {
        self.pod_lists = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the selection thread panicked");
        }
    }
}
