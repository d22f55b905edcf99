//! The capture thread: follows each workload's cgroup, captures when a process lives in it, lets
//! go when the last is gone. Looks every 100 ms, which is the delay of both.

mod phase;
mod refusal;
mod show;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use mirror_common::{Family, MAX_PODS};

use super::{
    CapturePlan, CommandSender, Programs, ProgramsError, SharedStatus, WorkloadConfig,
    WorkloadOrigin,
    attach::Attached,
    cgroup::{self, Agents, NetnsOwner, Sandbox, is_shortage},
    existing_connections::{CountTarget, Existing, ExistingConnections, Frontends},
    pod::{CaptureDeps, CapturedPod, Identity},
};
use crate::sockets::{Netns, NetnsSockets};
use phase::{AT_HOST, EMPTY, NetnsClaim, Phase};
use refusal::CaptureRefusal;

/// Between two looks at the cgroups.
const TICK: Duration = Duration::from_millis(100);
/// Between two attempts at a workload that was refused, and two looks at whether a captured one
/// still has the same network namespace. (A new sandbox is mostly seen sooner: its cgroup is empty
/// between the two, or another.)
const RECHECK: Duration = Duration::from_secs(1);
/// Between two lines of the log about descriptors or memory that the agent is short of.
const REMIND: Duration = Duration::from_secs(10);

/// Commands from the handles to the thread.
#[derive(Debug)]
pub(crate) enum CaptureCommand {
    /// Capture these pods, and no others, beside what was configured; reply once they are known.
    Select(Vec<WorkloadConfig>, Sender<()>),
    /// Detach the connect hooks; reply when done.
    StopCapturing(Sender<()>),
    /// Let go of everything and end.
    End,
}

/// A captured namespace and how many workloads are in it.
struct SharedPod {
    pod: CapturedPod,
    users: usize,
}

/// All that the thread owns.
pub(crate) struct CaptureLoop {
    members: Vec<(WorkloadConfig, Phase)>,
    pods: HashMap<u64, SharedPod>,
    programs: Programs,
    deps: CaptureDeps,
    host_netns: Vec<u64>,
    next_key: u64,
    frontends: Frontends,
    existing: Existing,
    /// Where in `members` to look for the next to count.
    counted: usize,
    stopped: bool,
    /// When a shortage was last logged.
    reminded: Option<Instant>,
    status: SharedStatus,
}

impl CaptureLoop {
    pub(crate) fn new(
        plan: CapturePlan,
        programs: Programs,
        sockets: Arc<NetnsSockets>,
        command_sender: CommandSender,
        status: SharedStatus,
    ) -> Result<Self, ProgramsError> {
        let CapturePlan { workloads, routes, existing, memory } = plan;
        let (pods, listeners) = (programs.pods()?, programs.sockets()?);
        let deps = CaptureDeps { sockets, send_command: command_sender, memory, pods, listeners };
        let members = workloads.into_iter().map(|config| (config, EMPTY)).collect();
        // Nothing is published before the first look: "no process in the cgroup" would be a guess,
        // by which the agent counted as ready before it captured.
        Ok(Self {
            members,
            pods: HashMap::new(),
            programs,
            deps,
            host_netns: cgroup::host_netns(),
            next_key: 1,
            frontends: Frontends::new(routes),
            existing,
            counted: 0,
            stopped: false,
            reminded: None,
            status,
        })
    }

    /// Runs until the command to end arrives, and then releases all that is captured.
    pub(crate) fn run(&mut self, inbox: &Receiver<CaptureCommand>) {
        let mut next = Instant::now();
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(CaptureCommand::Select(pods, done)) => {
                    self.select(pods);
                    self.tick(Instant::now());
                    self.publish();
                    let _ = done.send(());
                }
                Ok(CaptureCommand::StopCapturing(done)) => {
                    self.stop();
                    // The handle may be gone; then nothing waits.
                    let _ = done.send(());
                }
                Ok(CaptureCommand::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.tick(Instant::now());
                    next = Instant::now() + TICK;
                }
            }
            self.publish();
        }
        for index in 0..self.members.len() {
            self.release(index);
        }
        self.programs.flush_log();
        self.publish();
    }

    /// Lets go of pods that are not among these, and takes up those that are new.
    fn select(&mut self, pods: Vec<WorkloadConfig>) {
        let is_pod = |config: &WorkloadConfig| matches!(config.origin, WorkloadOrigin::Pod { .. });
        for index in (0..self.members.len()).rev() {
            let config = &self.members[index].0;
            if is_pod(config) && !pods.contains(config) {
                self.release(index);
                self.members.remove(index);
            }
        }
        for pod in pods {
            if !self.members.iter().any(|(config, _)| *config == pod) {
                self.members.push((pod, EMPTY));
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            self.follow(index, now);
        }
        self.tap();
        for shared in self.pods.values_mut() {
            shared.pod.tick(&mut self.deps, now);
        }
        self.count(now);
        self.programs.flush_log();
    }

    /// Says of each namespace whether its connections may be tapped: all workloads in it must allow it.
    fn tap(&mut self) {
        self.pods.values_mut().for_each(|shared| shared.pod.set_taps(true));
        for (config, phase) in &mut self.members {
            if let Phase::Captured { cookie, attached, .. } = phase
                && !attached.taps(&mut self.programs, &config.cgroup)
                && let Some(shared) = self.pods.get_mut(cookie)
            {
                shared.pod.set_taps(false);
            }
        }
    }

    /// Counts the connections that predate capture of the next workload that is due, in turn.
    fn count(&mut self, now: Instant) {
        self.frontends.refresh(now);
        for step in 0..self.members.len() {
            let index = (self.counted + step) % self.members.len();
            let (config, phase) = &mut self.members[index];
            let Phase::Captured { cookie, predating, .. } = phase else { continue };
            let Some(SharedPod { pod, .. }) = self.pods.get(cookie) else { continue };
            // Before the canaries are back it is unknown which connections are captured.
            let settled = !self.stopped && pod.is_settled();
            if !settled || !predating.is_due(&self.frontends, now) {
                continue;
            }
            let target = CountTarget {
                name: config.full_name(),
                cgroups: cgroup::ids(&config.cgroup),
                netns: &pod.workload().netns,
                sockets: &self.deps.sockets,
                on: Family::ALL.map(|family| pod.is_on(family)),
            };
            predating.count(&target, &self.frontends, self.existing, now);
            self.counted = index + 1;
            return;
        }
    }

    /// Looks at one workload's cgroup and does what follows.
    fn follow(&mut self, index: usize, now: Instant) {
        let (config, phase) = &self.members[index];
        let populated = match cgroup::populated(&config.cgroup) {
            Ok(populated) => populated,
            // It says nothing of the workload, which stays what it is.
            Err(error) if is_shortage(&error) => return self.remind(&error.to_string(), now),
            Err(error) => return self.refuse(index, &CaptureRefusal::Cgroup(error), now),
        };
        match phase {
            Phase::Captured { .. } if !populated => {
                tracing::info!(workload = config.full_name(), "the last process is gone");
                self.release(index);
            }
            Phase::Captured { attached, checked, .. } => {
                let due = now.duration_since(*checked) >= RECHECK;
                if !attached.is_on(&config.cgroup) || (due && self.moved(index, now)) {
                    self.release(index);
                    self.try_capture(index, now);
                }
            }
            Phase::Refused { since, .. } | Phase::Short { since, .. }
                if populated && now.duration_since(*since) < RECHECK => {}
            _ if populated && !self.stopped => self.try_capture(index, now),
            Phase::Waiting { .. } => {}
            Phase::Refused { .. } | Phase::Short { .. } => self.members[index].1 = EMPTY,
        }
    }

    /// Whether the workload lives in another network namespace than the captured one. While its
    /// sandbox stands, nothing else is looked at.
    fn moved(&mut self, index: usize, now: Instant) -> bool {
        let (config, phase) = &mut self.members[index];
        let Phase::Captured { sandbox, checked, .. } = phase else { return false };
        *checked = now;
        let in_host = self.host_netns.contains(&sandbox.inode);
        if !in_host && sandbox.stands().unwrap_or(true) {
            return false;
        }
        match cgroup::netns_owner(&config.cgroup, &self.host_netns) {
            Ok(NetnsOwner::Own(found)) if found.inode == sandbox.inode => {
                *sandbox = found;
                false
            }
            Ok(NetnsOwner::Own(_)) => true,
            Ok(NetnsOwner::Host(found)) => {
                config.origin == WorkloadOrigin::Flag && found.inode != sandbox.inode
            }
            Ok(NetnsOwner::Nobody) | Err(_) => false,
        }
    }

    fn try_capture(&mut self, index: usize, now: Instant) {
        if self.stopped {
            return;
        }
        match self.capture(index, now) {
            Ok(phase) => self.members[index].1 = phase,
            Err(refusal) if refusal.is_shortage() => {
                let reason = refusal.to_string();
                self.remind(&reason, now);
                self.members[index].1 = Phase::Short { reason, since: now };
            }
            Err(refusal) => self.refuse(index, &refusal, now),
        }
    }

    fn capture(&mut self, index: usize, now: Instant) -> Result<Phase, CaptureRefusal> {
        let config = self.members[index].0.clone();
        match cgroup::agents(&config.cgroup, config.origin != WorkloadOrigin::Flag) {
            Agents::None => {}
            Agents::This => return Err(CaptureRefusal::Own),
            Agents::Other => return Err(CaptureRefusal::Agent),
        }
        let netns_owner =
            cgroup::netns_owner(&config.cgroup, &self.host_netns).map_err(CaptureRefusal::Netns)?;
        let sandbox = match (netns_owner, &config.origin) {
            (NetnsOwner::Own(sandbox), _) | (NetnsOwner::Host(sandbox), WorkloadOrigin::Flag) => {
                sandbox
            }
            // The processes ended meanwhile.
            (NetnsOwner::Nobody, _) => return Ok(EMPTY),
            // The runtime starts them there, and gives them the pod's before they run.
            (NetnsOwner::Host(..), WorkloadOrigin::Pod { .. }) => return Ok(AT_HOST),
        };
        let Some(fd) = sandbox.netns().map_err(CaptureRefusal::Netns)? else { return Ok(EMPTY) };
        let netns = Netns::new(fd, &self.deps.sockets).map_err(CaptureRefusal::Netns)?;
        let cookie = netns.cookie;
        self.join(&config, &sandbox, netns, now)?;
        match Attached::new(&mut self.programs, &config.cgroup) {
            Ok(attached) => {
                tracing::info!(workload = config.full_name(), cookie, "captured");
                // Soon again: a process may have joined the cgroup before it entered its
                // namespace.
                let checked = now.checked_sub(RECHECK).unwrap_or(now);
                let predating = ExistingConnections::default();
                Ok(Phase::Captured { cookie, sandbox, attached, checked, predating })
            }
            Err(error) => {
                self.leave(cookie);
                Err(error.into())
            }
        }
    }

    /// Counts the workload in with the namespace, which is captured when it is the first, or its
    /// claim is the best.
    fn join(
        &mut self,
        config: &WorkloadConfig,
        sandbox: &Sandbox,
        netns: Netns,
        now: Instant,
    ) -> Result<(), CaptureRefusal> {
        let cookie = netns.cookie;
        if let Some((holder, theirs)) = self.holder(cookie) {
            let own = NetnsClaim::of(config, sandbox);
            let other = &self.members[holder].0;
            let flags = (own, theirs) == (NetnsClaim::Flag, NetnsClaim::Flag);
            if flags && other.namespace == config.namespace {
                self.pods.get_mut(&cookie).expect("it has a holder").users += 1;
                return Ok(());
            }
            if own >= theirs {
                return Err(CaptureRefusal::Shared { other: other.full_name() });
            }
            self.refuse(holder, &CaptureRefusal::Shared { other: config.full_name() }, now);
        }
        let slot = self.free_slot().ok_or(CaptureRefusal::Full)?;
        let key = self.next_key;
        self.next_key += 1;
        let identity =
            Identity { name: config.full_name(), namespace: config.namespace.clone(), key, slot };
        let pod = CapturedPod::new(netns, identity, &mut self.programs, &mut self.deps)?;
        self.pods.insert(cookie, SharedPod { pod, users: 1 });
        Ok(())
    }

    /// The first of those whose namespace it is, and its claim: all flags of one Namespace, or one
    /// pod.
    fn holder(&self, cookie: u64) -> Option<(usize, NetnsClaim)> {
        self.members.iter().enumerate().find_map(|(index, (config, phase))| match phase {
            Phase::Captured { cookie: held, sandbox, .. } if *held == cookie => {
                Some((index, NetnsClaim::of(config, sandbox)))
            }
            _ => None,
        })
    }

    fn free_slot(&self) -> Option<u32> {
        (0..MAX_PODS).find(|slot| self.pods.values().all(|shared| shared.pod.slot() != *slot))
    }

    /// Counts a workload out of a namespace, which is let go with the last.
    fn leave(&mut self, cookie: u64) {
        let Some(shared) = self.pods.get_mut(&cookie) else { return };
        shared.users -= 1;
        if shared.users == 0
            && let Some(mut shared) = self.pods.remove(&cookie)
        {
            shared.pod.close(&mut self.deps);
        }
    }

    fn release(&mut self, index: usize) {
        let phase = std::mem::replace(&mut self.members[index].1, EMPTY);
        if let Phase::Captured { cookie, attached, .. } = phase {
            drop(attached);
            self.leave(cookie);
        }
    }

    fn refuse(&mut self, index: usize, refusal: &CaptureRefusal, now: Instant) {
        self.release(index);
        let (config, phase) = &mut self.members[index];
        let reason = refusal.to_string();
        let known = matches!(phase, Phase::Refused { reason: known, .. } if *known == reason);
        if !known {
            tracing::warn!(workload = config.full_name(), reason, "not captured");
        }
        *phase = Phase::Refused { reason, since: now };
    }

    /// Logs a shortage, at most once per [`REMIND`].
    fn remind(&mut self, what: &str, now: Instant) {
        if self.reminded.is_none_or(|at| now.duration_since(at) >= REMIND) {
            self.reminded = Some(now);
            tracing::warn!(
                error = what,
                "the agent lacks file descriptors or memory: captured workloads stay captured, the \
                 others are retried every second; raise its limits"
            );
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        for (_, phase) in &mut self.members {
            if let Phase::Captured { attached, .. } = phase {
                attached.stop();
            }
        }
    }

    fn publish(&self) {
        let status = self.members.iter().map(|(config, phase)| self.describe(config, phase));
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.collect());
    }
}
