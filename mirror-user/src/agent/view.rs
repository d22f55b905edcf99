//! What the admin window shows of a running agent.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::ErrorCounter;

use super::tapping::Tapping;
use crate::{
    admin::{self, Admin, AdminError, Hosts, ReportRequest},
    capture::{Capture, TapCounters, WorkloadState, WorkloadStatus},
    cli::Suppressed,
    control::config_dump::ControlReport,
    dump::{ConfigDump, RoutesDump, WatchDump, WorkloadDump},
    kube::Health,
    memory::AgentUsage,
    outcome::{AccessLog, AgentMetrics, WatchMetrics},
    proxy::Budgets,
    route::{EndpointChoice, Snapshot},
    selection::PodSelection,
    worker::{Worker, WorkerStats},
};

/// Read by the admin server for each request.
pub(super) struct AgentView {
    /// Why nothing is captured at all.
    obstacle: Option<String>,
    tapping: Tapping,
    /// Gone once the agent takes itself apart.
    capture: Weak<Capture>,
    pod_selection: Weak<PodSelection>,
    /// All pods that were there at the start have left the state Starting.
    settled: AtomicBool,
    workers: Vec<Arc<WorkerStats>>,
    routes: RouteSources,
    budgets: Arc<Budgets>,
    memory: Arc<AgentUsage>,
    logs: Logs,
}

/// What is in force, and where it comes from.
pub(super) struct RouteSources {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) report: Arc<ArcSwap<ControlReport>>,
    pub(super) endpoints: EndpointChoice,
    /// By kind; none when routes come from a folder.
    pub(super) watches: Vec<(&'static str, Health)>,
}

impl RouteSources {
    /// Why nothing is in force yet.
    fn awaited(&self) -> Option<String> {
        if self.snapshot.load().generation > 0 {
            return None;
        }
        let mut missing = self.watches.iter().filter(|(_, health)| !health.is_complete());
        let (kind, health) = missing.next()?;
        let trouble = health.trouble().unwrap_or_else(|| "the list is incomplete".into());
        Some(format!("the first list of {kind} from the API server is not complete: {trouble}"))
    }
}

impl WatchDump {
    fn new((kind, health): &(&'static str, Health)) -> Self {
        Self {
            kind: (*kind).into(),
            complete: health.is_complete(),
            age_seconds: health.age().map(|age| age.as_secs_f64()),
            trouble: health.trouble(),
        }
    }
}

/// The logs, as far as lines of them were dropped.
pub(super) struct Logs {
    pub(super) access: AccessLog,
    pub(super) own: ErrorCounter,
    pub(super) suppressed: Suppressed,
}

/// What captures; the view keeps none of it alive.
pub(super) struct Capturing<'a> {
    /// Why nothing is captured at all.
    pub(super) obstacle: Option<String>,
    pub(super) tapping: Tapping,
    pub(super) capture: &'a Arc<Capture>,
    pub(super) selection: &'a Arc<PodSelection>,
}

impl AgentView {
    pub(super) fn new(
        capturing: Capturing<'_>,
        workers: &[Worker],
        routes: RouteSources,
        (budgets, memory): (Arc<Budgets>, Arc<AgentUsage>),
        logs: Logs,
    ) -> Self {
        let workers = workers.iter().map(Worker::stats).collect();
        let Capturing { obstacle, tapping, capture, selection } = capturing;
        Self {
            obstacle,
            tapping,
            capture: Arc::downgrade(capture),
            pod_selection: Arc::downgrade(selection),
            settled: AtomicBool::new(false),
            workers,
            routes,
            budgets,
            memory,
            logs,
        }
    }

    /// Configured workloads, then pods; None while one of the parts has not looked yet, or none is
    /// there any more.
    fn looked_at(&self) -> Option<Vec<WorkloadStatus>> {
        let mut others = self.pod_selection.upgrade()?.status()?;
        let mut workloads = self.capture.upgrade()?.status()?;
        // One that was handed over meanwhile.
        others.retain(|pod| workloads.iter().all(|workload| workload.uid != pod.uid));
        workloads.append(&mut others);
        Some(workloads)
    }

    fn workloads(&self) -> Vec<WorkloadStatus> {
        self.looked_at().unwrap_or_default()
    }
}

impl admin::AdminView for AgentView {
    fn heartbeats(&self) -> Vec<Duration> {
        self.workers.iter().map(|stats| stats.heartbeat_age()).collect()
    }

    /// A workload that waits for its cgroup, or is refused for good, does not make the agent unready;
    /// nor does one whose IPv6 is off. Pods come and go: the agent waits only for those of its start, and
    /// a pod whose canary fails does not make it unready, because that would stop an upgrade.
    fn ready(&self) -> Result<(), String> {
        if let Some(obstacle) = &self.obstacle {
            return Err(format!("nothing is captured: {obstacle}"));
        }
        if let Some(awaited) = self.routes.awaited() {
            return Err(awaited);
        }
        let Some(workloads) = self.looked_at() else {
            return Err("the capture thread has not started or has ended".into());
        };
        let settled = self.settled.load(Relaxed);
        let unready = |workload: &&WorkloadStatus| match workload.state {
            WorkloadState::Starting => workload.uid.is_none() || !settled,
            WorkloadState::Off => workload.uid.is_none(),
            WorkloadState::Draining => true,
            WorkloadState::Waiting
            | WorkloadState::On
            | WorkloadState::Full
            | WorkloadState::Refused
            | WorkloadState::NotRequested => false,
        };
        match workloads.iter().find(unready) {
            None => {
                self.settled.store(true, Relaxed);
                Ok(())
            }
            Some(workload) => {
                let why = workload.reason.as_deref().unwrap_or("no canary has come through yet");
                Err(format!("{} is {}: {why}", workload.name, workload.state.label()))
            }
        }
    }

    fn config(&self) -> serde_json::Value {
        let (snapshot, report) = (self.routes.snapshot.load(), self.routes.report.load());
        let dump = ConfigDump {
            obstacle: self.obstacle.clone(),
            mode: self.tapping.mode.label().into(),
            endpoints: self.routes.endpoints.label().into(),
            workloads: self.workloads().into_iter().map(WorkloadDump::from).collect(),
            watches: self.routes.watches.iter().map(WatchDump::new).collect(),
            routes: RoutesDump::new(&snapshot, &report),
        };
        serde_json::to_value(dump)
            .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }))
    }

    fn agent_metrics(&self) -> AgentMetrics {
        let (mut states, mut ipv6) = (BTreeMap::new(), BTreeMap::new());
        let mut predating = Vec::new();
        for workload in self.workloads() {
            let name = &workload.name;
            predating.extend(workload.predating.into_iter().map(|(to, n)| (name.clone(), to, n)));
            *states.entry(workload.state.label()).or_default() += 1;
            if let Some(status) = workload.ipv6 {
                *ipv6.entry(status.state.label()).or_default() += 1;
            }
        }
        let counters = self.capture.upgrade().map(|capture| capture.counters().read());
        let capture_connects = match counters {
            Some(Ok(counters)) => counters.into_iter().map(|(r, n)| (r.label(), n)).collect(),
            Some(Err(error)) => {
                tracing::warn!(%error, "the counters of the connect hook cannot be read");
                Vec::new()
            }
            None => Vec::new(),
        };
        let tap = self.tapping.counters.as_ref().map_or(Ok(Vec::new()), TapCounters::read);
        let tap = tap.unwrap_or_else(|error| {
            tracing::warn!(%error, "the counters of the tap cannot be read");
            Vec::new()
        });
        let watches = self.routes.watches.iter().map(|(kind, health)| WatchMetrics {
            kind,
            age: health.age(),
            lists: health.lists(),
            failures: health.failures(),
        });
        let held = self.budgets.held();
        let shadow_held = held.into_iter().map(|(shadow, n)| (shadow.to_string(), n as u64));
        let refused = self.routes.report.load().addresses_refused.clone();
        AgentMetrics {
            frontends_refused: refused.frontends.into_iter().collect(),
            shadow_endpoints_refused: refused.shadows.into_iter().collect(),
            shadow_held: shadow_held.collect(),
            usage: self.memory.usage(),
            capture_connects,
            tap,
            workloads: states.into_iter().collect(),
            workloads_ipv6: ipv6.into_iter().collect(),
            generation: self.routes.snapshot.load().generation,
            watches: watches.collect(),
            predating,
            access_log_dropped: self.logs.access.dropped(),
            log_dropped: self.logs.own.dropped_lines() as u64,
            log_suppressed: self.logs.suppressed.lines(),
        }
    }
}

/// The admin server's address, and who may reach it.
pub(super) struct Admission {
    pub(super) address: SocketAddr,
    pub(super) remote: bool,
    pub(super) hosts: Hosts,
}

impl Admission {
    /// Serves the window. In an upgrade the older agent has the address until it is gone: then
    /// this waits for it, and the agent works meanwhile.
    ///
    /// # Errors
    /// [`AdminError`], but not for an address in use.
    pub(super) async fn open(
        self,
        view: Arc<AgentView>,
        lines: Vec<mpsc::Sender<ReportRequest>>,
        cancel: CancellationToken,
    ) -> Result<JoinHandle<()>, AdminError> {
        let workers = admin::Workers::new(lines);
        let first = self.bind().await?;
        Ok(tokio::spawn(async move {
            let waited = cancel.run_until_cancelled(self.wait(first)).await;
            if let Some(admin) = waited {
                admin.with_hosts(self.hosts).serve(view, workers, cancel).await;
            }
        }))
    }

    /// None: the address is in use.
    async fn bind(&self) -> Result<Option<Admin>, AdminError> {
        match Admin::bind(self.address, self.remote).await {
            Ok(admin) => Ok(Some(admin)),
            Err(AdminError::Bind { address, source })
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                tracing::warn!(%address, "--admin is in use; taking it over as soon as it is free");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn wait(&self, mut bound: Option<Admin>) -> Admin {
        loop {
            if let Some(admin) = bound {
                return admin;
            }
            sleep(Duration::from_secs(1)).await;
            bound = Admin::bind(self.address, self.remote).await.ok();
        }
    }
}
