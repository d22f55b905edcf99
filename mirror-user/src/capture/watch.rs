//! The capture thread: follows each workload's cgroup, captures when a process lives in it, lets
//! go when the last is gone. Looks every 100 ms, which is the delay of both.

mod refusal;

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
    CanaryState, FamilyState, Hand, Origin, Plan, Programs, ProgramsError, Shown, State,
    WorkloadConfig, WorkloadStatus,
    attach::Attached,
    cgroup::{self, Agents, Home},
    pod::{Identity, Outside, Pod},
    predating::{Existing, Frontends, Predating, Subject},
};
use crate::sockets::{Netns, NetnsSockets};
use refusal::Refusal;

/// Between two looks at the cgroups.
const TICK: Duration = Duration::from_millis(100);
/// Between two attempts at a workload that was refused, and two looks at whether a captured one
/// still has the same network namespace. (A new sandbox is mostly seen sooner: its cgroup is empty
/// between the two, or another.)
const RECHECK: Duration = Duration::from_secs(1);

/// What the handles tell the thread.
#[derive(Debug)]
pub(crate) enum Order {
    /// Capture these pods, and no others, beside what was configured; answer when they are known.
    Enrol(Vec<WorkloadConfig>, Sender<()>),
    /// Detach the connect hooks; answer when done.
    StopCapturing(Sender<()>),
    /// Let go of everything and end.
    End,
}

/// Where one workload stands.
enum Phase {
    Waiting { why: &'static str },
    Refused { reason: String, since: Instant },
    Captured { cookie: u64, attached: Attached, checked: Instant, predating: Predating },
}

/// What a workload without a process waits for.
const EMPTY: Phase = Phase::Waiting { why: "no process in the cgroup" };
/// What a pod waits for whose processes are the node's still.
const AT_HOST: Phase =
    Phase::Waiting { why: "all its processes are in the node's network namespace" };

/// A captured namespace and how many workloads are in it.
struct Shared {
    pod: Pod,
    users: usize,
}

/// All that the thread owns.
pub(crate) struct Watch {
    members: Vec<(WorkloadConfig, Phase)>,
    pods: HashMap<u64, Shared>,
    programs: Programs,
    outside: Outside,
    host_netns: Vec<u64>,
    next_key: u64,
    frontends: Frontends,
    existing: Existing,
    /// Where in `members` to look for the next to count.
    counted: usize,
    stopped: bool,
    status: Shown,
}

impl Watch {
    pub(crate) fn new(
        plan: Plan,
        programs: Programs,
        sockets: Arc<NetnsSockets>,
        hand: Hand,
        status: Shown,
    ) -> Result<Self, ProgramsError> {
        let outside =
            Outside { sockets, hand, pods: programs.pods()?, listeners: programs.sockets()? };
        let Plan { workloads, routes, existing } = plan;
        let members = workloads.into_iter().map(|config| (config, EMPTY)).collect();
        // Nothing is published before the first look: "no process in the cgroup" would be a guess,
        // by which the agent counted as ready before it captured.
        Ok(Self {
            members,
            pods: HashMap::new(),
            programs,
            outside,
            host_netns: cgroup::host_netns(),
            next_key: 1,
            frontends: Frontends::new(routes),
            existing,
            counted: 0,
            stopped: false,
            status,
        })
    }

    /// Runs until told to end; what was captured is let go on the way out.
    pub(crate) fn run(&mut self, inbox: &Receiver<Order>) {
        let mut next = Instant::now();
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Order::Enrol(pods, done)) => {
                    self.enrol(pods);
                    self.tick(Instant::now());
                    self.publish();
                    let _ = done.send(());
                }
                Ok(Order::StopCapturing(done)) => {
                    self.stop();
                    // The handle may have gone; nobody waits then.
                    let _ = done.send(());
                }
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.tick(Instant::now());
                    next = Instant::now() + TICK;
                }
            }
            self.publish();
        }
        for place in 0..self.members.len() {
            self.let_go(place);
        }
        self.programs.flush_log();
        self.publish();
    }

    /// Lets go of pods that are not among these, and takes up those that are new.
    fn enrol(&mut self, pods: Vec<WorkloadConfig>) {
        let is_pod = |config: &WorkloadConfig| matches!(config.origin, Origin::Pod { .. });
        for place in (0..self.members.len()).rev() {
            let config = &self.members[place].0;
            if is_pod(config) && !pods.contains(config) {
                self.let_go(place);
                self.members.remove(place);
            }
        }
        for pod in pods {
            if !self.members.iter().any(|(config, _)| *config == pod) {
                self.members.push((pod, EMPTY));
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        for place in 0..self.members.len() {
            self.follow(place, now);
        }
        for shared in self.pods.values_mut() {
            shared.pod.tick(&mut self.outside, now);
        }
        self.count(now);
        self.programs.flush_log();
    }

    /// Counts the connections that predate capture of the next workload that is due, in turn.
    fn count(&mut self, now: Instant) {
        self.frontends.refresh(now);
        for step in 0..self.members.len() {
            let place = (self.counted + step) % self.members.len();
            let (config, phase) = &mut self.members[place];
            let Phase::Captured { cookie, predating, .. } = phase else { continue };
            let Some(Shared { pod, .. }) = self.pods.get(cookie) else { continue };
            // Before the canaries are back there is no telling what is captured.
            let settled = !self.stopped && pod.is_settled();
            if !settled || !predating.is_due(&self.frontends, now) {
                continue;
            }
            let subject = Subject {
                name: config.full_name(),
                cgroups: cgroup::ids(&config.cgroup),
                place: &pod.workload().place,
                sockets: &self.outside.sockets,
                on: Family::ALL.map(|family| pod.is_on(family)),
            };
            predating.count(&subject, &self.frontends, self.existing, now);
            self.counted = place + 1;
            return;
        }
    }

    /// Looks at one workload's cgroup and does what follows.
    fn follow(&mut self, place: usize, now: Instant) {
        let (config, phase) = &self.members[place];
        let populated = match cgroup::populated(&config.cgroup) {
            Ok(populated) => populated,
            Err(error) => return self.refuse(place, &Refusal::Cgroup(error), now),
        };
        match phase {
            Phase::Captured { .. } if !populated => {
                tracing::info!(workload = config.full_name(), "the last process is gone");
                self.let_go(place);
            }
            Phase::Captured { attached, checked, cookie, .. } => {
                let due = now.duration_since(*checked) >= RECHECK;
                let (here, cookie) = (attached.is_on(&config.cgroup), *cookie);
                if !here || (due && self.moved(place, cookie, now)) {
                    self.let_go(place);
                    self.try_capture(place, now);
                }
            }
            Phase::Refused { since, .. } if populated && now.duration_since(*since) < RECHECK => {}
            _ if populated && !self.stopped => self.try_capture(place, now),
            Phase::Waiting { .. } => {}
            Phase::Refused { .. } => self.members[place].1 = EMPTY,
        }
    }

    /// Whether the workload's processes are in another network namespace than the captured one.
    fn moved(&mut self, place: usize, cookie: u64, now: Instant) -> bool {
        if let (_, Phase::Captured { checked, .. }) = &mut self.members[place] {
            *checked = now;
        }
        let held = self.pods.get(&cookie).map(|shared| shared.pod.inode());
        let config = &self.members[place].0;
        match (held, cgroup::netns(&config.cgroup, &self.host_netns)) {
            (Some(held), Ok(Home::Own(_, inode))) => inode != held,
            (Some(held), Ok(Home::Host(_, inode))) => {
                config.origin == Origin::Flag && inode != held
            }
            _ => false,
        }
    }

    fn try_capture(&mut self, place: usize, now: Instant) {
        if self.stopped {
            return;
        }
        match self.capture(place, now) {
            Ok(phase) => self.members[place].1 = phase,
            Err(refusal) => self.refuse(place, &refusal, now),
        }
    }

    fn capture(&mut self, place: usize, now: Instant) -> Result<Phase, Refusal> {
        let config = self.members[place].0.clone();
        match cgroup::agents(&config.cgroup) {
            Agents::None => {}
            Agents::This => return Err(Refusal::Own),
            Agents::Other => return Err(Refusal::Agent),
        }
        let home = cgroup::netns(&config.cgroup, &self.host_netns).map_err(Refusal::Netns)?;
        let (fd, inode) = match (home, &config.origin) {
            (Home::Own(fd, inode), _) | (Home::Host(fd, inode), Origin::Flag) => (fd, inode),
            // The processes ended meanwhile.
            (Home::Nobody, _) => return Ok(EMPTY),
            // The runtime starts them there, and gives them the pod's before they run.
            (Home::Host(..), Origin::Pod { .. }) => return Ok(AT_HOST),
        };
        let netns = Netns::new(fd, &self.outside.sockets).map_err(Refusal::Netns)?;
        let cookie = netns.cookie;
        self.join(&config, (netns, inode))?;
        match Attached::new(&mut self.programs, &config.cgroup) {
            Ok(attached) => {
                tracing::info!(workload = config.full_name(), cookie, "captured");
                // Soon again: a process may have joined the cgroup before it entered its
                // namespace.
                let checked = now.checked_sub(RECHECK).unwrap_or(now);
                let predating = Predating::default();
                Ok(Phase::Captured { cookie, attached, checked, predating })
            }
            Err(error) => {
                self.leave(cookie);
                Err(error.into())
            }
        }
    }

    /// Counts the workload in with the namespace, which is captured when it is the first.
    fn join(&mut self, config: &WorkloadConfig, netns: (Netns, u64)) -> Result<(), Refusal> {
        let cookie = netns.0.cookie;
        if let Some(shared) = self.pods.get_mut(&cookie) {
            let other = shared.pod.workload();
            let pods = matches!(config.origin, Origin::Pod { .. });
            if other.namespace != config.namespace || pods {
                return Err(Refusal::Shared { other: other.name.clone() });
            }
            shared.users += 1;
            return Ok(());
        }
        let slot = self.free_slot().ok_or(Refusal::Full)?;
        let key = self.next_key;
        self.next_key += 1;
        let identity =
            Identity { name: config.full_name(), namespace: config.namespace.clone(), key, slot };
        let pod = Pod::new(netns, identity, &mut self.programs, &mut self.outside)?;
        self.pods.insert(cookie, Shared { pod, users: 1 });
        Ok(())
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
            shared.pod.close(&mut self.outside);
        }
    }

    fn let_go(&mut self, place: usize) {
        let phase = std::mem::replace(&mut self.members[place].1, EMPTY);
        if let Phase::Captured { cookie, attached, .. } = phase {
            drop(attached);
            self.leave(cookie);
        }
    }

    fn refuse(&mut self, place: usize, refusal: &Refusal, now: Instant) {
        self.let_go(place);
        let (config, phase) = &mut self.members[place];
        let reason = refusal.to_string();
        let known = matches!(phase, Phase::Refused { reason: known, .. } if *known == reason);
        if !known {
            tracing::warn!(workload = config.full_name(), reason, "not captured");
        }
        *phase = Phase::Refused { reason, since: now };
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

    fn describe(&self, config: &WorkloadConfig, phase: &Phase) -> WorkloadStatus {
        let mut status = WorkloadStatus::new(config.full_name(), State::Waiting, None);
        status.cgroup = Some(config.cgroup.display().to_string());
        if let Origin::Pod { uid } = &config.origin {
            status.uid = Some(uid.to_string());
        }
        match phase {
            Phase::Waiting { why } => status.reason = Some((*why).into()),
            Phase::Refused { reason, .. } => {
                status.state = State::Refused;
                status.reason = Some(reason.clone());
            }
            Phase::Captured { cookie, predating, .. } => {
                status.predating = predating.counts().clone();
                let Some(Shared { pod, .. }) = self.pods.get(cookie) else { return status };
                let (canary, reason) = pod.canary();
                let ipv6 = pod.ipv6();
                status.state = match (self.stopped, pod.is_on(Family::V4), canary) {
                    (true, ..) => State::Draining,
                    (false, true, _) if ipv6.state == FamilyState::Starting => State::Starting,
                    (false, true, _) => State::On,
                    (false, false, CanaryState::Pending) => State::Starting,
                    (false, false, _) => State::Off,
                };
                status.ipv6 = Some(ipv6);
                status.reason = reason.map(str::to_owned);
                status.port = Some(pod.port());
                status.netns_cookie = Some(*cookie);
                status.canary = Some(canary);
            }
        }
        status
    }
}
