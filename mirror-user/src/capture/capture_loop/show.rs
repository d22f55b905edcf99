//! What the thread shows of a workload. In: its phase, and its namespace where it is captured. Out:
//! its status.

use mirror_common::Family;

use super::{CaptureLoop, Phase, SharedPod};
use crate::capture::{CanaryState, FamilyState, Origin, State, WorkloadConfig, WorkloadStatus};

impl CaptureLoop {
    pub(super) fn describe(&self, config: &WorkloadConfig, phase: &Phase) -> WorkloadStatus {
        let mut status = WorkloadStatus::new(config.full_name(), State::Waiting, None);
        status.cgroup = Some(config.cgroup.display().to_string());
        if let Origin::Pod { uid } = &config.origin {
            status.uid = Some(uid.to_string());
        }
        match phase {
            Phase::Waiting { why } => status.reason = Some((*why).into()),
            Phase::Short { reason, .. } => status.reason = Some(reason.clone()),
            Phase::Refused { reason, .. } => {
                status.state = State::Refused;
                status.reason = Some(reason.clone());
            }
            Phase::Captured { cookie, predating, .. } => {
                status.predating = predating.counts().clone();
                let Some(SharedPod { pod, .. }) = self.pods.get(cookie) else { return status };
                let (canary, reason) = pod.canary();
                let full = pod.full();
                let ipv6 = pod.ipv6();
                status.state = match (self.stopped, pod.is_on(Family::V4), canary) {
                    (true, ..) => State::Draining,
                    _ if full.is_some() => State::Full,
                    (false, true, _) if ipv6.state == FamilyState::Starting => State::Starting,
                    (false, true, _) => State::On,
                    (false, false, CanaryState::Pending) => State::Starting,
                    (false, false, _) => State::Off,
                };
                status.ipv6 = Some(ipv6);
                status.reason = full.or_else(|| reason.map(str::to_owned));
                status.port = Some(pod.port());
                status.netns_cookie = Some(*cookie);
                status.canary = Some(canary);
            }
        }
        status
    }
}
