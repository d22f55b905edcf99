//! Enrolment: which pods of this node are captured, and where they are. In: rows of Pods and
//! Namespaces. Out: for each pod a decision ([`decide`]), and for those to capture a cgroup, handed
//! to [`crate::capture`]. It attaches nothing and enters no namespace itself.
//!
//! One thread of its own does it, since looking through the cgroup tree may take milliseconds.

mod clerk;
mod decide;
mod row;
mod tree;
mod wish;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

pub use self::{
    decide::{Choice, Policy, Refusal, Unasked, Verdict, decide},
    row::{Mesh, NamespaceRow, PodRow},
    tree::Tree,
    wish::{LABEL, Wish},
};
use crate::{
    capture::{Enroller, WorkloadStatus},
    control::objects::Objects,
};
use clerk::{Clerk, Roll};

/// Enrolment in progress. Dropping it ends it; what is captured stays so.
#[derive(Debug)]
pub struct Enrolment {
    /// None once it ends.
    rolls: Option<Sender<Roll>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<Option<Vec<WorkloadStatus>>>>,
}

impl Enrolment {
    /// Enrols by `policy`, finds cgroups in `tree` and hands them to `enroller`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(policy: Policy, tree: Tree, enroller: Enroller) -> io::Result<Self> {
        let (rolls, inbox) = mpsc::channel();
        let status = Arc::default();
        let clerk = Clerk::new(policy, tree, enroller, Arc::clone(&status));
        let thread =
            thread::Builder::new().name("enrol".into()).spawn(move || clerk.run(&inbox))?;
        Ok(Self { rolls: Some(rolls), thread: Some(thread), status })
    }

    /// From now on these are the node's pods.
    pub fn follow(&self, objects: &Objects) {
        if let Some(rolls) = &self.rolls {
            // It has ended only when it panicked, which is told at the end.
            let _ = rolls.send(Roll::new(objects));
        }
    }

    /// Pods that were not handed to the capture, each with its reason; None before the first roll
    /// was looked at.
    #[must_use]
    pub fn status(&self) -> Option<Vec<WorkloadStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        self.rolls = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the enrolment thread panicked");
        }
    }
}
