//! Capture: takes the connections of workloads to the workers. In: cgroups to capture, and the
//! programs. Out: listeners inside the workloads' network namespaces ([`WorkerCommand`]s to the
//! workers), and a state for each workload. It never touches a byte of a connection.
//!
//! A separate thread does all of it, because it enters namespaces, and must go on if workers or
//! the control path are busy.

#![forbid(unsafe_code)]

mod attach;
mod canary;
mod capture_loop;
mod cgroup;
mod check;
mod config;
mod counters;
mod existing_connections;
mod frontends;
mod heartbeat;
mod pod;
mod programs;
mod status;
mod tap;
mod trial;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwap;
pub use cgroup::own_cgroup;
pub(crate) use cgroup::{is_gone, is_shortage, populated};
pub use check::{CheckError, Notice, check};
pub use config::{WorkloadConfig, WorkloadOrigin};
pub use counters::Counters;
pub use existing_connections::Existing;
pub use frontends::{FrontendMapError, KernelFrontends};
pub use heartbeat::KernelHeartbeat;
pub use programs::{Programs, ProgramsError};
pub use status::{CanaryState, FamilyState, FamilyStatus, WorkloadState, WorkloadStatus};
pub use tap::{TapCounters, TapRing};
pub use trial::{TrialError, trial, trial_below, trial_connect};

use crate::{memory::AgentUsage, route::Snapshot, sockets::NetnsSockets, workload::WorkerCommand};
use capture_loop::{CaptureCommand, CaptureLoop};

/// Hands a command to the worker with this number (from 0). Called by the capture thread; must
/// not block.
pub type CommandSender = Box<dyn Fn(u32, WorkerCommand) + Send>;

/// What to capture, and of what.
#[derive(Debug)]
pub struct CapturePlan {
    /// Workloads beside the pods that are selected for capture.
    pub workloads: Vec<WorkloadConfig>,
    /// The frontends in force, for counting the connections that predate capture.
    pub routes: Arc<ArcSwap<Snapshot>>,
    /// What becomes of those.
    pub existing: Existing,
    /// Where each captured workload's memory is accounted for.
    pub memory: Arc<AgentUsage>,
}

/// Why capturing could not start.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A map of the programs.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The capture thread.
    #[error("starting the capture thread: {0}")]
    Thread(#[source] io::Error),
}

/// Capturing in progress. Dropping it ends it: programs detached, listeners taken from the
/// workers, nothing left behind.
#[derive(Debug)]
pub struct Capture {
    commands: Sender<CaptureCommand>,
    thread: Option<JoinHandle<()>>,
    status: SharedStatus,
    counters: Counters,
}

/// What the thread shows; None before its first look.
type SharedStatus = Arc<Mutex<Option<Vec<WorkloadStatus>>>>;

/// Sends the pods to capture to the capture thread.
#[derive(Clone, Debug)]
pub struct PodSender(Sender<CaptureCommand>);

impl PodSender {
    /// From now on these pods are captured, in addition to the configured workloads. A pod that is equal
    /// to one of the previous list stays captured without interruption. When it returns, [`Capture::status`] names
    /// them.
    pub fn send(&self, pods: Vec<WorkloadConfig>) {
        let (done, wait) = mpsc::channel();
        // An error means that the capture has ended, and everything is let go.
        if self.0.send(CaptureCommand::Select(pods, done)).is_ok() {
            let _ = wait.recv();
        }
    }
}

impl Capture {
    /// Captures the plan's workloads as they appear, for as many workers as the programs were loaded for.
    /// Open [`KernelFrontends`] and one [`KernelHeartbeat`] per worker before this takes the programs.
    ///
    /// # Errors
    /// A map that cannot be opened, or no thread. What goes wrong with one workload is in
    /// [`Capture::status`] and in the log.
    pub fn start(
        plan: CapturePlan,
        programs: Programs,
        sockets: Arc<NetnsSockets>,
        command_sender: CommandSender,
    ) -> Result<Self, CaptureError> {
        let counters = Counters::new(&programs)?;
        let status = SharedStatus::default();
        let (commands, inbox) = mpsc::channel();
        let mut capture_loop =
            CaptureLoop::new(plan, programs, sockets, command_sender, Arc::clone(&status))?;
        let thread = thread::Builder::new()
            .name("capture".into())
            .spawn(move || capture_loop.run(&inbox))
            .map_err(CaptureError::Thread)?;
        Ok(Self { commands, thread: Some(thread), status, counters })
    }

    /// Detaches the connect hooks and captures nothing new, and returns when that is done. What is
    /// captured stays served: listeners, sk_lookup and the names of peers remain until the drop.
    pub fn stop_capturing(&self) {
        let (done, wait) = mpsc::channel();
        if self.commands.send(CaptureCommand::StopCapturing(done)).is_ok() {
            // An error means that the thread has ended, and then nothing is attached.
            let _ = wait.recv();
        }
    }

    /// The workloads in the order of the configuration, then the pods, at most 100 ms old; None
    /// before the first look at them.
    #[must_use]
    pub fn status(&self) -> Option<Vec<WorkloadStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the pods to capture. Keeps nothing alive.
    #[must_use]
    pub fn pod_sender(&self) -> PodSender {
        PodSender(self.commands.clone())
    }

    /// The counters of the connect hook.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.commands.send(CaptureCommand::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the capture thread panicked");
        }
    }
}
