//! `mirror agent`: the composition root. It makes the parts in the order in which they need each
//! other, follows the routes, and takes everything apart again on SIGTERM.
//!
//! Start: check, programs, watchdog, workers, routes, capture, admin: nothing is captured before
//! there is a worker to serve it and a route to serve it by. Stop: the module `drain`.

mod drain;
mod view;
pub mod watchdog;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    view::{Admission, Capturing, Logs, Routes, View},
    watchdog::{Pulse, Watchdog},
};
use crate::{
    admin::Admin,
    capture::{self, Capture, Existing, Hand, KernelFrontends, KernelHeart, Plan, Programs},
    cli::{self, AgentArgs, Log, ShadowFrom, SourceChoice},
    control::{
        Control,
        config_dump::Report,
        files,
        kube::Cluster,
        source::{Files, Source},
    },
    enrol::{Enrolment, Tree},
    kube::{self, Where},
    outcome::{AccessLog, LogWriter},
    proxy::{Budgets, Options, ShadowOptions, ShadowPlace, SharedContext},
    route::Snapshot,
    sockets::NetnsSockets,
    worker::{Command, Heart, Worker, WorkerParts},
};

/// How long a worker may be silent before the watchdog kills the agent.
const STALE: Duration = Duration::from_secs(3);

/// How long connecting to one endpoint of a primary may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long lines of the access log may take to be written at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT, and drains it.
///
/// # Errors
/// What keeps it from starting, in words that say what to do. Nothing is left behind.
pub fn run(args: &AgentArgs, log: &Log) -> anyhow::Result<()> {
    let budgets = args.budgets.checked()?;
    let source = args.source.choice(Where::in_pod())?;
    Admin::check(args.admin, args.admin_remote)?;
    let notice = capture::check()?;
    for warning in &notice.warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    let mut programs = Programs::load(args.workers, tracing::enabled!(tracing::Level::DEBUG))?;
    let sockets = Arc::new(NetnsSockets::new().context("cannot open the agent's own namespace")?);
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let shared = SharedContext {
        options: options(args),
        routes: Arc::clone(&snapshot),
        sockets: sockets.clone(),
        budgets: Arc::new(shadow_budgets(budgets)?),
    };
    let (access, writer) = access_log(args).context("cannot start the access log")?;
    let (watchdog, pulses) =
        Watchdog::spawn(args.workers, STALE, &args.log).context("cannot start the watchdog")?;
    let workers = start_workers(&programs, pulses, &shared, &access)?;
    let report = Arc::new(ArcSwap::from_pointee(Report::default()));
    let mut control =
        Control::new(KernelFrontends::new(&programs)?, Arc::clone(&snapshot), Arc::clone(&report));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut source = runtime.block_on(open(&source))?;
    let pods_changed = source.put_in_force(&mut control, Instant::now());
    let obstacle = obstacle(&mut programs, &notice.cgroup2);
    let workloads = if obstacle.is_none() { args.capture.clone() } else { Vec::new() };
    let existing = if args.reset_existing { Existing::Reset } else { Existing::Keep };
    let plan = Plan { workloads, routes: Arc::clone(&snapshot), existing };
    let capture = Arc::new(Capture::start(plan, programs, sockets, hand(&workers))?);
    let tree = Tree::new(notice.cgroup2);
    let enrolment = Enrolment::start(args.enrol.policy(), tree, capture.enroller());
    let enrolment = Arc::new(enrolment.context("cannot start the enrolment of pods")?);
    let enrolling = obstacle.is_none();
    if enrolling && pods_changed {
        enrolment.follow(source.objects());
    }
    let logs = Logs { access, own: log.dropped() };
    let capturing = Capturing { obstacle, capture: &capture, enrolment: &enrolment };
    let routes = Routes { snapshot, report, watches: source.watches() };
    let view = View::new(capturing, &workers, routes, shared.budgets, logs);
    let mut agent = Agent { args, workers, watchdog, control, capture, enrolment, enrolling };
    runtime.block_on(agent.live(Arc::new(view), &mut source))?;
    drop(runtime);
    agent.end(writer)
}

/// Begins to follow the source.
async fn open(choice: &SourceChoice) -> anyhow::Result<Source> {
    match choice {
        SourceChoice::Files(folder) => {
            Ok(Source::Files(Box::new(Files::new(files::watch(folder)?))))
        }
        SourceChoice::Kube { node } => {
            let client = kube::connect(Where::find()).await?;
            tracing::info!(node, "following the API server");
            Ok(Source::Cluster(Box::new(Cluster::follow(&client, node))))
        }
    }
}

/// A started agent.
struct Agent<'a> {
    args: &'a AgentArgs,
    workers: Vec<Worker>,
    watchdog: Watchdog,
    control: Control<KernelFrontends>,
    capture: Arc<Capture>,
    enrolment: Arc<Enrolment>,
    /// Not when nothing can be captured.
    enrolling: bool,
}

impl Agent<'_> {
    /// Follows the source until a signal, then drains.
    async fn live(&mut self, view: Arc<View>, source: &mut Source) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cancel = CancellationToken::new();
        let lines = self.workers.iter().map(Worker::questions).collect();
        let admission = Admission { address: self.args.admin, remote: self.args.admin_remote };
        let admin = admission.open(view, lines, cancel.clone()).await?;
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tracing::info!(workers = self.args.workers, admin = %self.args.admin, "the agent runs");
        loop {
            tokio::select! {
                () = source.changed() => {
                    let pods_changed = source.put_in_force(&mut self.control, Instant::now());
                    if self.enrolling && pods_changed {
                        self.enrolment.follow(source.objects());
                    }
                }
                _ = second.tick() => {
                    self.keep_watchdog();
                    if self.control.is_incomplete() {
                        self.control.retry(source.objects(), source.remarks(), Instant::now());
                    }
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        drain::drain(&self.capture, &self.workers, self.args.grace).await;
        cancel.cancel();
        // It ends by the token; a panic in it was told already.
        let _ = admin.await;
        Ok(())
    }

    fn keep_watchdog(&mut self) {
        if let Err(error) = self.watchdog.revive() {
            tracing::error!(%error, "no watchdog: a hang of the agent would stay silent");
        }
    }

    /// Takes everything apart: the capture before the workers that serve it, the watchdog last.
    fn end(self, writer: Option<LogWriter>) -> anyhow::Result<()> {
        let Self { workers, watchdog, control, capture, enrolment, .. } = self;
        drop((control, enrolment, capture));
        drop(workers);
        drop(watchdog);
        if let Some(writer) = writer {
            writer.finish(LOG_FLUSH).context("the access log is not complete")?;
        }
        tracing::info!("the agent ends");
        Ok(())
    }
}

/// Why nothing can be captured on this machine, if so. The agent goes on, unready, so that it says
/// why to whoever asks.
fn obstacle(programs: &mut Programs, cgroup2: &Path) -> Option<String> {
    let own = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let error = capture::trial(programs, cgroup2, &own).err()?;
    tracing::error!(%error, "nothing is captured");
    Some(error.to_string())
}

/// A captured workload needs a listener per worker, a connection two descriptors: the soft limit,
/// made for programs that use select(2), is far too low.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files; accept may fail under load");
    }
}

fn shadow_budgets(budgets: cli::Budgets) -> anyhow::Result<Budgets> {
    let bytes = |size| usize::try_from(size).context("a budget is larger than the address space");
    Ok(Budgets::new(bytes(budgets.request)?, bytes(budgets.backend)?, bytes(budgets.agent)?))
}

fn options(args: &AgentArgs) -> Options {
    Options {
        sniff_timeout: args.sniff_timeout,
        head_timeout: args.head_timeout,
        connect_timeout: CONNECT_TIMEOUT,
        shadow: ShadowOptions {
            host_suffix: args.shadow.host_suffix.clone(),
            place: match args.shadow.from {
                ShadowFrom::Node => ShadowPlace::Node,
                ShadowFrom::Pod => ShadowPlace::Pod,
            },
            connections: args.shadow.connections as usize,
            connect_timeout: args.shadow.connect_timeout,
            response_timeout: args.shadow.response_timeout,
        },
    }
}

fn access_log(args: &AgentArgs) -> io::Result<(AccessLog, Option<LogWriter>)> {
    match args.access_log {
        None => Ok((AccessLog::off(), None)),
        Some(format) => {
            let (log, writer) = AccessLog::start(format, io::stdout())?;
            Ok((log, Some(writer)))
        }
    }
}

fn start_workers(
    programs: &Programs,
    pulses: Vec<Pulse>,
    shared: &SharedContext,
    access: &AccessLog,
) -> anyhow::Result<Vec<Worker>> {
    (0..)
        .zip(pulses)
        .map(|(index, pulse)| {
            let heart = Box::new(Hearts { kernel: KernelHeart::new(programs)?, watchdog: pulse });
            let parts =
                WorkerParts { index, shared: shared.clone(), access: access.clone(), heart };
            Worker::start(parts).with_context(|| format!("cannot start worker {index}"))
        })
        .collect()
}

/// A worker's heartbeat goes to the connect hook and to the watchdog.
struct Hearts {
    kernel: KernelHeart,
    watchdog: Pulse,
}

impl Heart for Hearts {
    fn beat(&mut self, worker: u32, full: bool) {
        self.kernel.beat(worker, full);
        self.watchdog.beat();
    }
}

fn hand(workers: &[Worker]) -> Hand {
    let lines: Vec<_> = workers.iter().map(Worker::commands).collect();
    Box::new(move |worker, command: Command| {
        if let Some(line) = lines.get(worker as usize) {
            // A worker that has ended serves nobody, and the hook sees that it is stale.
            let _ = line.send(command);
        }
    })
}
