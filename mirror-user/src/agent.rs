//! `mirror agent`: the composition root. It makes the parts in the order in which they need each
//! other, follows the routes, and takes everything apart again on SIGTERM.
//!
//! Start: check, programs, watchdog, workers, routes, capture, admin: nothing is captured before
//! there is a worker to serve it and a route to serve it by. Stop: the module `drain`.

#![forbid(unsafe_code)]

mod drain;
mod tapping;
mod view;
pub mod watchdog;

use std::{
    io,
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
    tapping::Tapping,
    view::{Admission, AgentView, Capturing, Logs, RouteSources},
    watchdog::{HeartbeatPipe, Watchdog},
};
use crate::{
    admin::{Admin, Hosts},
    capture::{
        self, Capture, CapturePlan, CommandSender, Existing, KernelFrontends, KernelHeartbeat,
        Programs, TapRing,
    },
    cli::{self, AgentArgs, Log, ShadowFrom, SourceChoice},
    control::{
        Control,
        config_dump::ControlReport,
        files,
        kube::Cluster,
        source::{Files, Source},
    },
    heartbeat::HeartbeatSink,
    kube::{self, ConfigSource},
    memory::AgentUsage,
    outcome::{AccessLog, LogWriter},
    proxy::{Budgets, Options, ShadowNetns, ShadowOptions, SharedContext},
    route::{EndpointChoice, Snapshot},
    segment::SegmentSource,
    selection::{PodLogs, PodSelection, Tree},
    sockets::NetnsSockets,
    worker::{Worker, WorkerParts},
    workload::WorkerCommand,
};

/// How long a worker may be silent before the watchdog kills the agent.
const STALE: Duration = Duration::from_secs(3);

/// How long connecting to a primary may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long lines of the access log may take to be written at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT, and drains it.
///
/// # Errors
/// Says why the agent cannot start, and what to do. Nothing is left behind.
pub fn run(args: &AgentArgs, log: &Log) -> anyhow::Result<()> {
    let budgets = args.budgets.checked()?;
    let memory = Arc::new(AgentUsage::new(args.memory.checked()?));
    let source = args.source.choice(ConfigSource::in_pod())?;
    Admin::check(args.admin, args.admin_remote)?;
    let notice = capture::check()?;
    for warning in &notice.warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    let debug = tracing::enabled!(tracing::Level::DEBUG);
    let mut programs = Programs::load(args.workers, debug)?;
    let mut tapping = Tapping::load(args.tap, &mut programs, debug);
    let sockets = Arc::new(NetnsSockets::new().context("cannot open the agent's own namespace")?);
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let shared = SharedContext {
        options: options(args, args.endpoint_choice(&source)),
        routes: Arc::clone(&snapshot),
        sockets: sockets.clone(),
        budgets: Arc::new(shadow_budgets(budgets)?),
    };
    let (access, writer) = access_log(args).context("cannot start the access log")?;
    let (watchdog, pipes) =
        Watchdog::spawn(args.workers, STALE, &args.log).context("cannot start the watchdog")?;
    let workers = start_workers(&programs, tapping.take_rings(), pipes, &shared, &access)?;
    let report = Arc::new(ArcSwap::from_pointee(ControlReport::default()));
    let mut control =
        Control::new(KernelFrontends::new(&programs)?, Arc::clone(&snapshot), Arc::clone(&report))
            .by(args.policy(&source))
            .capturing(tapping.mode, shared.options.endpoints);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut source = runtime.block_on(open(&source, args))?;
    let pods_changed = source.put_in_force(&mut control, Instant::now());
    let obstacle = obstacle(&mut programs);
    let workloads = if obstacle.is_none() { args.capture.clone() } else { Vec::new() };
    let existing = if args.reset_existing { Existing::Reset } else { Existing::Keep };
    let routes = Arc::clone(&snapshot);
    let plan = CapturePlan { workloads, routes, existing, memory: Arc::clone(&memory) };
    let capture = Arc::new(Capture::start(plan, programs, sockets, command_sender(&workers))?);
    let own = capture::own_cgroup(&notice.cgroup2);
    let tree = Tree::new(notice.cgroup2, own.as_deref());
    let logs = PodLogs::new(args.selection.pod_logs.clone());
    let pod_selection =
        PodSelection::start(args.selection.policy(), tree, logs, capture.pod_sender());
    let pod_selection = Arc::new(pod_selection.context("cannot start the selection of pods")?);
    let selecting = obstacle.is_none();
    if selecting && pods_changed {
        pod_selection.follow(source.objects());
    }
    let logs = Logs { access, own: log.dropped(), suppressed: log.suppressed() };
    let capturing = Capturing { obstacle, tapping, capture: &capture, selection: &pod_selection };
    let (endpoints, watches) = (shared.options.endpoints, source.watches());
    let routes = RouteSources { snapshot, report, endpoints, watches };
    let view = AgentView::new(capturing, &workers, routes, (shared.budgets, memory), logs);
    let mut agent = Agent { args, workers, watchdog, control, capture, pod_selection, selecting };
    runtime.block_on(agent.run(Arc::new(view), &mut source))?;
    drop(runtime);
    agent.end(writer)
}

/// Begins to follow the source.
async fn open(choice: &SourceChoice, args: &AgentArgs) -> anyhow::Result<Source> {
    match choice {
        SourceChoice::Files(folder) => {
            Ok(Source::Files(Box::new(Files::new(files::watch(folder)?))))
        }
        SourceChoice::Kube { node } => {
            let client = kube::connect(ConfigSource::find()).await?;
            tracing::info!(node, "following the API server");
            let cluster = Cluster::follow(&client, node).within(args.addresses.bounds());
            Ok(Source::Cluster(Box::new(cluster)))
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
    pod_selection: Arc<PodSelection>,
    /// Not when nothing can be captured.
    selecting: bool,
}

impl Agent<'_> {
    /// Follows the source until a signal, then drains.
    async fn run(&mut self, view: Arc<AgentView>, source: &mut Source) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cancel = CancellationToken::new();
        let lines = self.workers.iter().map(Worker::report_requests).collect();
        let admission = Admission {
            address: self.args.admin,
            remote: self.args.admin_remote,
            hosts: Hosts::new(&self.args.admin_host),
        };
        let admin = admission.open(view, lines, cancel.clone()).await?;
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tracing::info!(workers = self.args.workers, admin = %self.args.admin, "the agent runs");
        loop {
            tokio::select! {
                () = source.changed() => {
                    let pods_changed = source.put_in_force(&mut self.control, Instant::now());
                    if self.selecting && pods_changed {
                        self.pod_selection.follow(source.objects());
                    }
                }
                _ = second.tick() => {
                    self.keep_watchdog();
                    if self.control.is_incomplete() {
                        self.control.retry(source.objects(), source.diagnostics(), Instant::now());
                    }
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        drain::drain(&self.capture, &self.workers, self.args.grace).await;
        cancel.cancel();
        // It ends by the token; a panic in it was logged already.
        let _ = admin.await;
        Ok(())
    }

    fn keep_watchdog(&mut self) {
        if let Err(error) = self.watchdog.revive() {
            tracing::error!(%error, "cannot restart the watchdog: until it runs, nothing ends an agent that hangs");
        }
    }

    /// Takes everything apart: the capture before the workers that serve it, the watchdog last.
    fn end(self, writer: Option<LogWriter>) -> anyhow::Result<()> {
        let Self { workers, watchdog, control, capture, pod_selection, .. } = self;
        drop((control, pod_selection, capture));
        drop(workers);
        drop(watchdog);
        if let Some(writer) = writer {
            writer.finish(LOG_FLUSH).context("the access log is incomplete")?;
        }
        tracing::info!("the agent has stopped");
        Ok(())
    }
}

/// Why nothing can be captured on this machine, if so. The agent continues, unready, so that /readyz and
/// /status show why.
fn obstacle(programs: &mut Programs) -> Option<String> {
    let own = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let error = capture::trial(programs, &own).err()?;
    tracing::error!(%error, "nothing is captured");
    Some(error.to_string())
}

/// Descriptors with which an agent serves some 30,000 connections.
const DESCRIPTORS: u64 = 65_536;

/// A captured workload needs a listener per worker, a connection two descriptors, three while it
/// has two primaries: the soft limit, made for programs that use select(2), is far too low.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        tracing::info!(
            before = soft,
            limit = hard,
            "raised the limit of open files to its hard limit"
        );
        Ok(hard)
    });
    match raised {
        Ok(hard) if hard < DESCRIPTORS => tracing::warn!(
            limit = hard,
            "the hard limit of open files is low: beyond some {} connections new ones are not \
             accepted; raise LimitNOFILE, or the container runtime's default",
            hard / 2
        ),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files; accept may fail under load");
        }
    }
}

fn shadow_budgets(budgets: cli::BudgetLimits) -> anyhow::Result<Budgets> {
    let bytes = |size| usize::try_from(size).context("a budget is larger than the address space");
    Ok(Budgets::new(bytes(budgets.request)?, bytes(budgets.backend)?, bytes(budgets.agent)?))
}

fn options(args: &AgentArgs, endpoints: EndpointChoice) -> Options {
    Options {
        sniff_timeout: args.sniff_timeout,
        head_timeout: args.head_timeout,
        connect_timeout: CONNECT_TIMEOUT,
        endpoints,
        shadow: ShadowOptions {
            host_suffix: args.shadow.host_suffix.clone(),
            netns: match args.shadow.from {
                ShadowFrom::Node => ShadowNetns::Node,
                ShadowFrom::Pod => ShadowNetns::Pod,
            },
            connections: args.shadow.connections as usize,
            connect_timeout: args.shadow.connect_timeout,
            response_timeout: args.shadow.response_timeout,
            response_limit: args.shadow.response_limit(),
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
    rings: Vec<TapRing>,
    pipes: Vec<HeartbeatPipe>,
    shared: &SharedContext,
    access: &AccessLog,
) -> anyhow::Result<Vec<Worker>> {
    let mut rings = rings.into_iter();
    (0..)
        .zip(pipes)
        .map(|(index, pipe)| {
            let heartbeat = Box::new(HeartbeatSinks {
                kernel: KernelHeartbeat::new(programs)?,
                watchdog: pipe,
            });
            let tap = rings.next().map(|ring| Box::new(ring) as Box<dyn SegmentSource>);
            let (shared, access) = (shared.clone(), access.clone());
            let parts = WorkerParts { index, shared, access, heartbeat, tap };
            Worker::start(parts).with_context(|| format!("cannot start worker {index}"))
        })
        .collect()
}

/// A worker's heartbeat goes to the connect hook and to the watchdog.
struct HeartbeatSinks {
    kernel: KernelHeartbeat,
    watchdog: HeartbeatPipe,
}

impl HeartbeatSink for HeartbeatSinks {
    fn beat(&mut self, worker: u32, full: bool) {
        self.kernel.beat(worker, full);
        self.watchdog.beat();
    }
}

fn command_sender(workers: &[Worker]) -> CommandSender {
    let lines: Vec<_> = workers.iter().map(Worker::commands).collect();
    Box::new(move |worker, command: WorkerCommand| {
        if let Some(line) = lines.get(worker as usize) {
            // A worker that has ended serves no connection, and the hook sees that its heartbeat is stale.
            let _ = line.send(command);
        }
    })
}
