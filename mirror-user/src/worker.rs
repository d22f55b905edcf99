//! Workers: single-threaded runtimes that own listeners and everything behind them. In:
//! [`WorkerCommand`]s from the capture and the agent. Out: heartbeats, reports, and how much is left to
//! drain.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    io,
    net::TcpListener as StdListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc as std_mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    runtime,
    sync::mpsc,
    task::{AbortHandle, spawn_local},
    time::{MissedTickBehavior, interval},
};

use crate::{
    admin::ReportRequest,
    heartbeat::{BEAT, HeartbeatSink},
    outcome::{AccessLog, Recorder},
    proxy::{self, Context, SharedContext, Tap},
    segment::SegmentSource,
    sockets,
    workload::{WorkerCommand, Workload},
};

/// What a worker is made of.
pub struct WorkerParts {
    /// Its number, from 0.
    pub index: u32,
    /// What it shares with the others.
    pub shared: SharedContext,
    /// Where its requests are logged.
    pub access: AccessLog,
    /// Its heartbeat.
    pub heartbeat: Box<dyn HeartbeatSink>,
    /// What tapped connections send; None where nothing is tapped.
    pub tap: Option<Box<dyn SegmentSource>>,
}

/// A running worker. Dropping it ends the worker and waits for its thread.
#[derive(Debug)]
pub struct Worker {
    // Commands come from the control path, a few per change of a workload: nothing to bound.
    commands: mpsc::UnboundedSender<WorkerCommand>,
    report_requests: mpsc::Sender<ReportRequest>,
    stats: Arc<WorkerStats>,
    thread: Option<JoinHandle<()>>,
}

/// What the rest of the agent sees of a worker without asking it.
#[derive(Debug)]
pub struct WorkerStats {
    started: Instant,
    /// Milliseconds from the start to the last beat.
    beat: AtomicU64,
    /// Connections served, and connections that wait in accept queues, at the last beat.
    left: AtomicUsize,
}

impl Worker {
    /// Starts the worker's thread.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn start(parts: WorkerParts) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (report_requests, received_requests) = mpsc::channel(4);
        let stats = Arc::new(WorkerStats {
            started: Instant::now(),
            beat: AtomicU64::new(0),
            left: AtomicUsize::new(0),
        });
        let channels =
            Channels { inbox, report_requests: received_requests, stats: Arc::clone(&stats) };
        let (made, making) = std_mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("worker-{}", parts.index))
            .spawn(move || serve(parts, channels, &made))?;
        // If the channel closed without a message, the thread has panicked; joining it shows that.
        making.recv().unwrap_or(Ok(()))?;
        Ok(Self { commands, report_requests, stats, thread: Some(thread) })
    }

    /// Sends a command to the worker; one that has ended ignores it.
    pub fn send(&self, command: WorkerCommand) {
        let _ = self.commands.send(command);
    }

    /// A line for [`WorkerCommand`]s that outlives this handle's borrow.
    #[must_use]
    pub fn commands(&self) -> mpsc::UnboundedSender<WorkerCommand> {
        self.commands.clone()
    }

    /// A line for questions about what it counted.
    #[must_use]
    pub fn report_requests(&self) -> mpsc::Sender<ReportRequest> {
        self.report_requests.clone()
    }

    /// What can be seen of it without asking it.
    #[must_use]
    pub fn stats(&self) -> Arc<WorkerStats> {
        Arc::clone(&self.stats)
    }

    /// Connections that are served or wait to be accepted, as of the last heartbeat.
    #[must_use]
    pub fn left(&self) -> usize {
        self.stats.left.load(Relaxed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(WorkerCommand::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker's thread panicked");
        }
    }
}

struct Channels {
    inbox: mpsc::UnboundedReceiver<WorkerCommand>,
    report_requests: mpsc::Receiver<ReportRequest>,
    stats: Arc<WorkerStats>,
}

/// The worker's thread. A runtime whose tasks all are of one thread cannot leave it, and so is made
/// on it; beside one that could, a set of such tasks would be a second queue to each wake-up.
fn serve(parts: WorkerParts, channels: Channels, made: &std_mpsc::SyncSender<io::Result<()>>) {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    match runtime {
        Ok(runtime) => {
            // Whoever starts the worker waits for this.
            let _ = made.send(Ok(()));
            runtime.block_on(run(parts, channels));
        }
        Err(error) => drop(made.send(Err(error))),
    }
}

async fn run(parts: WorkerParts, mut channels: Channels) {
    let WorkerParts { index, shared, access, mut heartbeat, tap } = parts;
    let ctx = Context::new(&shared, Recorder::new(access));
    let tapping = tap.map(|source| {
        let tap = Tap::new(&ctx);
        spawn_local(Rc::clone(&tap).run(source));
        tap
    });
    let mut listeners = Listeners { ctx: Rc::clone(&ctx), tap: tapping, open: HashMap::new() };
    spawn_local(ctx.time_slices.renew());
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                let queues = listeners.queues();
                heartbeat.beat(index, queues.full);
                channels.stats.beat(ctx.live() + queues.waiting);
                ctx.sweep();
            }
            Some(request) = channels.report_requests.recv() => {
                // If the receiver no longer waits for the report, that is not an error.
                let _ = request.send(ctx.report());
            }
            command = channels.inbox.recv() => match command {
                Some(WorkerCommand::Serve { workload, listener }) => listeners.open(workload, listener),
                Some(WorkerCommand::Leave(key)) => listeners.close(key),
                Some(WorkerCommand::Drain) => ctx.drain(),
                Some(WorkerCommand::End) | None => return ctx.end(),
            },
        }
    }
}

impl WorkerStats {
    /// Time since the worker's last heartbeat.
    #[must_use]
    pub fn heartbeat_age(&self) -> Duration {
        let beat = Duration::from_millis(self.beat.load(Relaxed));
        self.started.elapsed().saturating_sub(beat)
    }

    fn beat(&self, left: usize) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(now, Relaxed);
        self.left.store(left, Relaxed);
    }
}

/// The listeners of a worker, by workload.
struct Listeners {
    ctx: Rc<Context>,
    /// Which of their workloads' connections are tapped.
    tap: Option<Rc<Tap>>,
    /// One for each family.
    open: HashMap<u64, Vec<Listener>>,
}

struct Listener {
    socket: Rc<TcpListener>,
    task: AbortHandle,
}

/// What waits in the accept queues.
struct Queues {
    waiting: usize,
    /// One of them is over half full, or cannot be taken from.
    full: bool,
}

impl Listeners {
    fn open(&mut self, workload: Arc<Workload>, listener: StdListener) {
        let key = workload.key;
        if let Some(tap) = &self.tap {
            tap.join(&workload);
        }
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let listener = Rc::new(listener);
                let accepting = proxy::accept(Rc::clone(&self.ctx), workload, Rc::clone(&listener));
                // Its connections are paid for by the same slice.
                let task = spawn_local(self.ctx.time_slices.of(key).pay(accepting)).abort_handle();
                self.open.entry(key).or_default().push(Listener { socket: listener, task });
            }
            Err(error) => {
                tracing::error!(client = %workload.name, %error, "cannot serve a listener");
            }
        }
    }

    fn close(&mut self, key: u64) {
        for listener in self.open.remove(&key).unwrap_or_default() {
            listener.task.abort();
        }
        if let Some(tap) = &self.tap {
            tap.leave(key);
        }
        self.ctx.leave(key);
    }

    fn queues(&self) -> Queues {
        let mut queues = Queues { waiting: 0, full: self.ctx.is_starving() };
        for listener in self.open.values().flatten() {
            if let Ok(queue) = sockets::accept_queue(&*listener.socket) {
                queues.waiting += queue.waiting as usize;
                queues.full |= queue.waiting > queue.limit / 2;
            }
        }
        queues
    }
}
