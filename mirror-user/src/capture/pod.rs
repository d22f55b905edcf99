//! A captured network namespace: the listeners in it, sk_lookup on it, its entry in the pods map,
//! a canary for each family. Shared by all workloads (cgroups) in it. Dropping it takes everything
//! back.
//!
//! The families stand on their own: what IPv6 lacks never switches IPv4 off, nor the reverse.

mod addresses;
mod listeners;
mod v6;

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    maps::{HashMap, MapData, MapError, SockMap},
    programs::sk_lookup::SkLookupLink,
};
use mirror_common::{Family, PodEntry, PodFlags};

use super::{
    CanaryState, CommandSender, FamilyState, FamilyStatus,
    canary::{Canary, CanaryError},
    programs::{PORTS, Programs, ProgramsError},
};
use crate::{
    error_chain::WithCauses,
    memory::{AgentUsage, UsageSnapshot},
    sockets::{Netns, NetnsSockets, NetnsTarget, netlink::RouteMonitor},
    workload::{WorkerCommand, Workload},
};
use addresses::PodAddresses;
use listeners::PodListeners;
use v6::Loopback6;

/// How long new connections of a full workload go direct at least.
const FULL: Duration = Duration::from_secs(1);

/// Why a namespace could not be captured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("entering the network namespace: {0}")]
    Netns(#[source] io::Error),
    #[error("no port from {} to {} is free on the listeners' addresses in the network namespace", PORTS.start, PORTS.end - 1)]
    NoPort,
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    #[error("a map of the programs: {}", WithCauses(.0))]
    Map(#[from] MapError),
}

/// What capturing a namespace needs of the outside; one for the agent.
pub(crate) struct CaptureDeps {
    pub(crate) sockets: Arc<NetnsSockets>,
    pub(crate) send_command: CommandSender,
    pub(crate) memory: Arc<AgentUsage>,
    pub(crate) pods: HashMap<MapData, u64, PodEntry>,
    pub(crate) listeners: SockMap<MapData>,
}

/// One captured namespace.
pub(crate) struct CapturedPod {
    listeners: PodListeners,
    cookie: u64,
    entry: PodEntry,
    v4: FamilyCapture,
    v6: FamilyCapture,
    loopback6: Loopback6,
    /// None where the kernel gave none: the canaries find out in time.
    route_monitor: Option<RouteMonitor>,
    /// What the canaries say; the entry has less while the workload is full.
    allowed: PodFlags,
    /// Connections to tapped frontends are tapped, not taken to the workers.
    taps: bool,
    /// Since when new connections go direct because the workload holds much.
    full: Option<Instant>,
    /// None after the end began.
    steer: Option<SkLookupLink>,
}

/// The way of one family's connections, and what its canary last said.
struct FamilyCapture {
    family: Family,
    canary: Canary,
    verdict: Option<Result<(), CanaryError>>,
}

/// Who a namespace is captured for.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) key: u64,
    pub(crate) slot: u32,
}

impl CapturedPod {
    /// Takes hold of the namespace behind `fd`, listens in it and steers to the listeners. New
    /// connections still go direct: the canaries switch it on.
    pub(crate) fn new(
        netns: Netns,
        identity: Identity,
        programs: &mut Programs,
        deps: &mut CaptureDeps,
    ) -> Result<Self, PodError> {
        let cookie = netns.cookie;
        let fd: OwnedFd = netns.fd.try_clone().map_err(PodError::Netns)?;
        let Identity { name, namespace, key, slot } = identity;
        let netns = NetnsTarget::Netns(Arc::new(netns));
        v6::remove_stale(&deps.sockets, &netns);
        let port = listeners::free_port(&deps.sockets, &netns)?;
        let route_monitor =
            deps.sockets.run(&netns, RouteMonitor::new).and_then(|route_monitor| route_monitor);
        let route_monitor = route_monitor.inspect_err(
            |error| tracing::debug!(name, %error, "cannot watch the namespace's routes"),
        );
        let memory = deps.memory.open(&name);
        let workload = Arc::new(Workload { name, namespace, netns, key, memory });
        let entry = PodEntry { slot, port: port.to_be(), ..PodEntry::default() };
        let family_capture = |family| FamilyCapture {
            family,
            canary: Canary::new(family, port, Instant::now()),
            verdict: None,
        };
        let mut pod = Self {
            listeners: PodListeners { workload, slot, port, workers: programs.workers() },
            cookie,
            entry,
            v4: family_capture(Family::V4),
            v6: family_capture(Family::V6),
            loopback6: Loopback6::new(port),
            route_monitor: route_monitor.ok(),
            allowed: PodFlags::default(),
            taps: false,
            full: None,
            steer: None,
        };
        if let Err(error) = pod.open(&fd, programs, deps) {
            pod.close(deps);
            return Err(error);
        }
        Ok(pod)
    }

    fn open(
        &mut self,
        fd: &OwnedFd,
        programs: &mut Programs,
        deps: &mut CaptureDeps,
    ) -> Result<(), PodError> {
        self.listeners.listen(Family::V4, deps)?;
        self.steer = Some(programs.steer(fd, self.listeners.slot, self.listeners.port)?);
        deps.pods.insert(self.cookie, self.entry, 0)?;
        Ok(())
    }

    /// Takes everything back; the workers drop what they hold.
    pub(crate) fn close(&mut self, deps: &mut CaptureDeps) {
        // The entry may not be there.
        let _ = deps.pods.remove(&self.cookie);
        self.listeners.leave(deps);
        self.steer = None;
        self.loopback6.close(&deps.sockets, &self.listeners.workload);
    }

    /// Lets the canaries go on and switches capturing accordingly.
    pub(crate) fn tick(&mut self, deps: &mut CaptureDeps, now: Instant) {
        if self.route_monitor.as_ref().is_some_and(RouteMonitor::changed) {
            self.v4.canary.run_soon(now);
            self.v6.canary.run_soon(now);
        }
        let sockets = Arc::clone(&deps.sockets);
        let Self { listeners, v4, v6, loopback6, .. } = self;
        let netns = &listeners.workload.netns;
        let result_v4 = v4.canary.poll(&sockets, netns, now, || Ok(()));
        let result_v6 = v6.canary.poll(&sockets, netns, now, || loopback6.prepare(listeners, deps));
        let mut entry = self.entry;
        if result_v4.is_some() || result_v6.is_some() {
            // The CNI plugin may have given it an address since.
            let own = PodAddresses::of(&sockets, netns);
            (entry.own_address, entry.own_address_v6) = own.words();
        }
        for (family_capture, result) in [(v4, result_v4), (v6, result_v6)] {
            if let Some(result) = result {
                family_capture.set_result(result, &mut self.allowed, &listeners.workload.name);
            }
        }
        self.full = full_since(&listeners.workload, self.full, now);
        entry.flags = if self.full.is_some() { PodFlags::default() } else { self.allowed };
        if self.taps {
            // It needs neither a listener nor memory of the pod's account.
            entry.flags = entry.flags.with(PodFlags::TAP);
        }
        if entry != self.entry {
            match deps.pods.insert(self.cookie, entry, 0) {
                Ok(()) => self.entry = entry,
                Err(error) => {
                    let workload = &self.listeners.workload.name;
                    let error = WithCauses(&error);
                    tracing::error!(workload, %error, "cannot switch the capture on or off");
                }
            }
        }
    }

    /// Whether connections to tapped frontends are tapped, from the next tick on.
    pub(crate) fn set_taps(&mut self, taps: bool) {
        self.taps = taps;
    }

    /// Whether new connections of the family are captured.
    pub(crate) fn is_on(&self, family: Family) -> bool {
        self.entry.flags.contains(family.flag())
    }

    /// Why new connections go direct though the canaries pass.
    pub(crate) fn full(&self) -> Option<String> {
        self.full?;
        let UsageSnapshot { bytes, connections, .. } = self.listeners.workload.memory.usage();
        let kib = bytes / 1024;
        Some(format!("it holds {kib} KiB for {connections} connections: new ones go direct"))
    }

    /// Whether the canaries of both families have come back at least once.
    pub(crate) fn is_settled(&self) -> bool {
        self.v4.verdict.is_some() && self.v6.verdict.is_some()
    }

    /// The last result of the IPv4 canary, and why it failed.
    pub(crate) fn canary(&self) -> (CanaryState, Option<&str>) {
        match &self.v4.verdict {
            None => (CanaryState::Pending, None),
            Some(Ok(())) => (CanaryState::Passed, None),
            Some(Err(CanaryError::Absent(why) | CanaryError::Broken(why))) => {
                (CanaryState::Failed, Some(why))
            }
        }
    }

    /// How it stands with IPv6.
    pub(crate) fn ipv6(&self) -> FamilyStatus {
        let (state, reason) = match &self.v6.verdict {
            None => (FamilyState::Starting, None),
            Some(Ok(())) if self.full.is_some() || self.is_on(Family::V6) => {
                (FamilyState::On, None)
            }
            Some(Ok(())) => (FamilyState::Off, None),
            Some(Err(CanaryError::Absent(why))) => (FamilyState::Absent, Some(why.clone())),
            Some(Err(CanaryError::Broken(why))) => (FamilyState::Off, Some(why.clone())),
        };
        FamilyStatus { state, reason }
    }

    pub(crate) fn workload(&self) -> &Workload {
        &self.listeners.workload
    }

    pub(crate) fn port(&self) -> u16 {
        self.listeners.port
    }

    pub(crate) fn slot(&self) -> u32 {
        self.listeners.slot
    }
}

/// Since when the workload is full, if it is. It stays so for a while, so that each change is logged at
/// most once in [`FULL`].
fn full_since(workload: &Workload, since: Option<Instant>, now: Instant) -> Option<Instant> {
    match (workload.memory.is_full(), since) {
        (true, None) => {
            let UsageSnapshot { bytes, connections, .. } = workload.memory.usage();
            let workload = &workload.name;
            tracing::warn!(
                workload,
                bytes,
                connections,
                "it holds so much that its new connections go direct; see --pod-memory, \
                 --agent-memory and --pod-connections"
            );
            Some(now)
        }
        (false, Some(begun)) if now.saturating_duration_since(begun) >= FULL => {
            tracing::info!(workload = workload.name, "new connections are captured again");
            None
        }
        (_, since) => since,
    }
}

impl FamilyCapture {
    /// Applies the canary's result: switches the family's bit, and logs a change.
    fn set_result(
        &mut self,
        result: Result<(), CanaryError>,
        flags: &mut PodFlags,
        workload: &str,
    ) {
        let flag = self.family.flag();
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let was = flags.contains(flag);
        *flags = if result.is_ok() { flags.with(flag) } else { flags.without(flag) };
        match &result {
            Ok(()) if !was => tracing::info!(workload, family, "new connections are captured"),
            Err(CanaryError::Broken(reason)) if was => {
                tracing::warn!(workload, family, reason, "new connections go direct");
            }
            Err(CanaryError::Absent(reason)) if self.verdict.as_ref() != Some(&result) => {
                tracing::info!(workload, family, reason, "nothing to capture");
            }
            _ => {}
        }
        self.verdict = Some(result);
    }
}
