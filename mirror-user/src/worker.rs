//! Workers: single-threaded runtimes that own listeners and everything behind them. In:
//! [`Command`]s from the capture and the agent. Out: heartbeats, reports, and how much is left to
//! drain.

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
    admin::Ask,
    outcome::{AccessLog, Recorder},
    proxy::{self, Context, SharedContext},
    sockets::{self, Place},
};

/// Time between two heartbeats.
pub const BEAT: Duration = Duration::from_millis(100);

/// A captured workload, as the data path knows it.
#[derive(Debug)]
pub struct Workload {
    /// `namespace/name`, for logs.
    pub name: String,
    /// Namespace that it counts as: decides which consumer routes hold.
    pub namespace: String,
    /// Where its upstream sockets are made.
    pub place: Place,
    /// Distinguishes captures; from 1 upward, never reused within one agent.
    pub key: u64,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept from this listener on behalf of the workload, beside those that it has.
    Serve {
        /// The workload whose namespace the listener is in.
        workload: Arc<Workload>,
        /// Bound and listening, non-blocking.
        listener: StdListener,
    },
    /// Drop the listeners, all connections and idle upstreams of the workload with this key, so
    /// that nothing keeps its namespace alive.
    Leave(u64),
    /// Close each connection after the answer that is under way; go on accepting.
    Drain,
    /// End, with whatever is still open.
    End,
}

/// Tells the kernel, and the watchdog, that a worker's loop is alive.
pub trait Heart: Send {
    /// Called by the worker's own loop every 100 ms. `full`: a listener's accept queue is over
    /// half full.
    fn beat(&mut self, worker: u32, full: bool);
}

/// What a worker is made of.
pub struct WorkerParts {
    /// Its number, from 0.
    pub index: u32,
    /// What it shares with the others.
    pub shared: SharedContext,
    /// Where its requests are logged.
    pub access: AccessLog,
    /// Its heartbeat.
    pub heart: Box<dyn Heart>,
}

/// A running worker. Dropping it ends the worker and waits for its thread.
#[derive(Debug)]
pub struct Worker {
    // Commands come from the control path, a few per change of a workload: nothing to bound.
    commands: mpsc::UnboundedSender<Command>,
    questions: mpsc::Sender<Ask>,
    vitals: Arc<Vitals>,
    thread: Option<JoinHandle<()>>,
}

/// What the rest of the agent sees of a worker without asking it.
#[derive(Debug)]
pub struct Vitals {
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
        let (questions, asked) = mpsc::channel(4);
        let vitals = Arc::new(Vitals {
            started: Instant::now(),
            beat: AtomicU64::new(0),
            left: AtomicUsize::new(0),
        });
        let lines = Lines { inbox, asked, vitals: Arc::clone(&vitals) };
        let (made, making) = std_mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("worker-{}", parts.index))
            .spawn(move || serve(parts, lines, &made))?;
        // Without a word the thread has panicked; joining it tells.
        making.recv().unwrap_or(Ok(()))?;
        Ok(Self { commands, questions, vitals, thread: Some(thread) })
    }

    /// Tells the worker; a worker that has ended hears nothing.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// A line for [`Command`]s that outlives this handle's borrow.
    #[must_use]
    pub fn commands(&self) -> mpsc::UnboundedSender<Command> {
        self.commands.clone()
    }

    /// A line for questions about what it counted.
    #[must_use]
    pub fn questions(&self) -> mpsc::Sender<Ask> {
        self.questions.clone()
    }

    /// What can be seen of it without asking it.
    #[must_use]
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// Connections that are served or wait to be accepted, as of the last heartbeat.
    #[must_use]
    pub fn left(&self) -> usize {
        self.vitals.left.load(Relaxed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tell(Command::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker's thread panicked");
        }
    }
}

struct Lines {
    inbox: mpsc::UnboundedReceiver<Command>,
    asked: mpsc::Receiver<Ask>,
    vitals: Arc<Vitals>,
}

/// The worker's thread. A runtime whose tasks all are of one thread cannot leave it, and so is made
/// on it; beside one that could, a set of such tasks would be a second queue to each wake-up.
fn serve(parts: WorkerParts, lines: Lines, made: &std_mpsc::SyncSender<io::Result<()>>) {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    match runtime {
        Ok(runtime) => {
            // Whoever starts the worker waits for this.
            let _ = made.send(Ok(()));
            runtime.block_on(run(parts, lines));
        }
        Err(error) => drop(made.send(Err(error))),
    }
}

async fn run(parts: WorkerParts, mut lines: Lines) {
    let WorkerParts { index, shared, access, mut heart } = parts;
    let ctx = Context::new(&shared, Recorder::new(access));
    let mut doors = Doors { ctx: Rc::clone(&ctx), open: HashMap::new() };
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                let queues = doors.queues();
                heart.beat(index, queues.full);
                lines.vitals.beat(ctx.live() + queues.waiting);
                ctx.sweep();
            }
            Some(ask) = lines.asked.recv() => {
                // That nobody waits for the answer any more is no error.
                let _ = ask.send(ctx.report());
            }
            command = lines.inbox.recv() => match command {
                Some(Command::Serve { workload, listener }) => doors.open(workload, listener),
                Some(Command::Leave(key)) => doors.close(key),
                Some(Command::Drain) => ctx.drain(),
                Some(Command::End) | None => return ctx.end(),
            },
        }
    }
}

impl Vitals {
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
struct Doors {
    ctx: Rc<Context>,
    /// One for each family.
    open: HashMap<u64, Vec<Door>>,
}

struct Door {
    listener: Rc<TcpListener>,
    task: AbortHandle,
}

/// What waits in the accept queues.
struct Queues {
    waiting: usize,
    /// One of them is over half full.
    full: bool,
}

impl Doors {
    fn open(&mut self, workload: Arc<Workload>, listener: StdListener) {
        let key = workload.key;
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let listener = Rc::new(listener);
                let accepting = proxy::accept(Rc::clone(&self.ctx), workload, Rc::clone(&listener));
                let task = spawn_local(accepting).abort_handle();
                self.open.entry(key).or_default().push(Door { listener, task });
            }
            Err(error) => {
                tracing::error!(client = %workload.name, %error, "a listener cannot be served");
            }
        }
    }

    fn close(&mut self, key: u64) {
        for door in self.open.remove(&key).unwrap_or_default() {
            door.task.abort();
        }
        self.ctx.leave(key);
    }

    fn queues(&self) -> Queues {
        let mut queues = Queues { waiting: 0, full: false };
        for door in self.open.values().flatten() {
            if let Ok(queue) = sockets::accept_queue(&*door.listener) {
                queues.waiting += queue.waiting as usize;
                queues.full |= queue.waiting > queue.limit / 2;
            }
        }
        queues
    }
}
