//! What the thread shows of a workload. In: its phase, and its namespace where it is captured. Out:
//! its status.

use mirror_common::Family;

use super::{CaptureLoop, Phase, SharedPod};
use crate::capture::{
    CanaryState, FamilyState, WorkloadConfig, WorkloadOrigin, WorkloadState, WorkloadStatus,
};

impl CaptureLoop {
    pub(super) fn describe(&self, config: &WorkloadConfig, phase: &Phase) -> WorkloadStatus {
        let mut status = WorkloadStatus::new(config.full_name(), WorkloadState::Waiting, None);
        status.cgroup = Some(config.cgroup.display().to_string());
        if let WorkloadOrigin::Pod { uid } = &config.origin {
            status.uid = Some(uid.to_string());
        }
        match phase {
            Phase::Waiting { why } => status.reason = Some((*why).into()),
            Phase::Short { reason, .. } => status.reason = Some(reason.clone()),
            Phase::Refused { reason, .. } => {
                status.state = WorkloadState::Refused;
                status.reason = Some(reason.clone());
            }
            Phase::Captured { cookie, predating, .. } => {
                status.predating = predating.counts().clone();
                let Some(SharedPod { pod, .. }) = self.pods.get(cookie) else { return status };
                let (canary, reason) = pod.canary();
                let full = pod.full();
                let ipv6 = pod.ipv6();
                status.state = match (self.stopped, pod.is_on(Family::V4), canary) {
                    (true, ..) => WorkloadState::Draining,
                    _ if full.is_some() => WorkloadState::Full,
                    (false, true, _) if ipv6.state == FamilyState::Starting => {
                        WorkloadState::Starting
                    }
                    (false, true, _) => WorkloadState::On,
                    (false, false, CanaryState::Pending) => WorkloadState::Starting,
                    (false, false, _) => WorkloadState::Off,
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
