//! What is known of a captured workload, for `/config`, readiness and metrics.

use std::collections::BTreeMap;

use crate::dump::{FamilyDump, WorkloadDump};

/// State of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadState {
    /// Its cgroup does not exist, or has no process.
    Waiting,
    /// Attached; the canaries have not come through yet.
    Starting,
    /// New connections to frontends are captured; the field `ipv6` says whether those of IPv6 are.
    On,
    /// The canary of IPv4 fails: its new connections go direct.
    Off,
    /// Its connections hold so much that new ones go direct.
    Full,
    /// It cannot be captured, or must not be; tried again every second.
    Refused,
    /// Capture of this pod is not requested: a label, or the agent's flag, says so.
    NotRequested,
    /// The agent is ending: new connections go direct, captured ones are still served.
    Draining,
}

impl WorkloadState {
    /// As in `/config` and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::On => "on",
            Self::Off => "off",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::NotRequested => "not_asked",
            Self::Draining => "draining",
        }
    }
}

/// The last result of a workload's canary of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryState {
    /// Not done yet.
    Pending,
    /// It reached a worker through the namespace's loopback.
    Passed,
    /// It did not.
    Failed,
}

impl CanaryState {
    /// As in `/config`.
    fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// State of an address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyState {
    /// Not known yet.
    Starting,
    /// New connections to frontends of the family are captured.
    On,
    /// The canary fails, or its way cannot be made: new connections go direct.
    Off,
    /// The network namespace has no address of the family.
    Absent,
}

impl FamilyState {
    /// As in `/config` and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::On => "on",
            Self::Off => "off",
            Self::Absent => "absent",
        }
    }
}

/// A family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Its state.
    pub state: FamilyState,
    /// Why it is off or absent.
    pub reason: Option<String>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadStatus {
    /// `namespace/name`.
    pub name: String,
    /// Of a pod, its uid.
    pub uid: Option<String>,
    /// Its cgroup; None while it is not known.
    pub cgroup: Option<String>,
    /// Its state.
    pub state: WorkloadState,
    /// Why it is off or refused, or what it waits for.
    pub reason: Option<String>,
    /// The agent's port in its network namespace.
    pub port: Option<u16>,
    /// Cookie of that namespace.
    pub netns_cookie: Option<u64>,
    /// The last result of the canary of IPv4.
    pub canary: Option<CanaryState>,
    /// State of IPv6.
    pub ipv6: Option<FamilyStatus>,
    /// Its connections to frontends that are not captured, by Service, because they were opened
    /// before. Counted at most a minute ago, 5 s if there are any.
    pub predating: BTreeMap<String, u64>,
}

impl WorkloadStatus {
    /// A status with only these fields known.
    #[must_use]
    pub fn new(name: String, state: WorkloadState, reason: Option<String>) -> Self {
        Self {
            name,
            uid: None,
            cgroup: None,
            state,
            reason,
            port: None,
            netns_cookie: None,
            canary: None,
            ipv6: None,
            predating: BTreeMap::new(),
        }
    }
}

impl From<WorkloadStatus> for WorkloadDump {
    fn from(status: WorkloadStatus) -> Self {
        let family =
            |FamilyStatus { state, reason }| FamilyDump { state: state.label().into(), reason };
        Self {
            name: status.name,
            uid: status.uid,
            cgroup: status.cgroup,
            state: status.state.label().into(),
            reason: status.reason,
            port: status.port,
            netns_cookie: status.netns_cookie,
            canary: status.canary.map(|canary| canary.label().into()),
            ipv6: status.ipv6.map(family),
            predating: status.predating,
        }
    }
}
