//! Capture: takes the connections of workloads to the workers. In: cgroups to capture, and the
//! programs. Out: listeners inside the workloads' network namespaces ([`Command`]s to the
//! workers), and a state for each workload. It never touches a byte of a connection.
//!
//! One thread of its own does all of it: it enters namespaces, and it must go on when workers or
//! the control path are busy.

mod attach;
mod canary;
mod cgroup;
mod check;
mod config;
mod counters;
mod frontends;
mod heart;
mod pod;
mod predating;
mod programs;
mod status;
mod trial;
mod watch;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwap;
pub(crate) use cgroup::populated;
pub use check::{CheckError, Notice, check};
pub use config::{Origin, WorkloadConfig};
pub use counters::Counters;
pub use frontends::{FrontendMapError, KernelFrontends};
pub use heart::KernelHeart;
pub use predating::Existing;
pub use programs::{Programs, ProgramsError};
pub use status::{CanaryState, FamilyState, FamilyStatus, State, WorkloadStatus};
pub use trial::{TrialConnectArgs, TrialError, trial, trial_connect};

use crate::{route::Snapshot, sockets::NetnsSockets, worker::Command};
use watch::{Order, Watch};

/// Hands a command to the worker with this number (from 0). Called by the capture thread; must
/// not block.
pub type Hand = Box<dyn Fn(u32, Command) + Send>;

/// What to capture, and of what.
#[derive(Debug)]
pub struct Plan {
    /// Workloads beside the pods that are enrolled.
    pub workloads: Vec<WorkloadConfig>,
    /// The frontends in force, for counting the connections that predate capture.
    pub routes: Arc<ArcSwap<Snapshot>>,
    /// What becomes of those.
    pub existing: Existing,
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
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
    status: Shown,
    counters: Counters,
}

/// What the thread shows; None before its first look.
type Shown = Arc<Mutex<Option<Vec<WorkloadStatus>>>>;

/// Tells a capture which pods to capture.
#[derive(Clone, Debug)]
pub struct Enroller(Sender<Order>);

impl Enroller {
    /// From now on these are the pods to capture, beside what it was started with. One that was
    /// told of before, all equal, goes on undisturbed. When it returns, [`Capture::status`] names
    /// them.
    pub fn enrol(&self, pods: Vec<WorkloadConfig>) {
        let (done, wait) = mpsc::channel();
        // An error means that the capture has ended, and everything is let go.
        if self.0.send(Order::Enrol(pods, done)).is_ok() {
            let _ = wait.recv();
        }
    }
}

impl Capture {
    /// Captures the plan's workloads as they appear, for as many workers as the programs were loaded for.
    /// Open [`KernelFrontends`] and one [`KernelHeart`] per worker before this takes the programs.
    ///
    /// # Errors
    /// A map that cannot be opened, or no thread. What goes wrong with one workload is in
    /// [`Capture::status`] and in the log.
    pub fn start(
        plan: Plan,
        programs: Programs,
        sockets: Arc<NetnsSockets>,
        hand: Hand,
    ) -> Result<Self, CaptureError> {
        let counters = Counters::new(&programs)?;
        let status = Shown::default();
        let (orders, inbox) = mpsc::channel();
        let mut watch = Watch::new(plan, programs, sockets, hand, Arc::clone(&status))?;
        let thread = thread::Builder::new()
            .name("capture".into())
            .spawn(move || watch.run(&inbox))
            .map_err(CaptureError::Thread)?;
        Ok(Self { orders, thread: Some(thread), status, counters })
    }

    /// Detaches the connect hooks and captures nothing new, and returns when that is done. What is
    /// captured stays served: listeners, sk_lookup and the names of peers remain until the drop.
    pub fn stop_capturing(&self) {
        let (done, wait) = mpsc::channel();
        if self.orders.send(Order::StopCapturing(done)).is_ok() {
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
    pub fn enroller(&self) -> Enroller {
        Enroller(self.orders.clone())
    }

    /// The counters of the connect hook.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the capture thread panicked");
        }
    }
}
