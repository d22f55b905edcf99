//! How the connect hook ended for a connection: an index of the per-CPU counters, and the label
//! of the metric.

/// What became of a connection that passed the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Reason {
    /// Sent to the agent.
    Captured = 0,
    /// No frontend has this address and port.
    NotAFrontend = 1,
    /// The network namespace is not captured, or not by this agent.
    PodUnknown = 2,
    /// Capturing this family is switched off for the namespace: it has none of it, or the canary
    /// failed, or did not succeed yet.
    PodOff = 3,
    /// Every worker is stale.
    NoLiveWorker = 4,
    /// The live workers' accept queues are over half full.
    QueueFull = 5,
    /// The socket is bound to a device, from which loopback cannot be reached.
    BoundDevice = 6,
    /// To 127.0.0.0/8 or its like already.
    Loopback = 7,
    /// Not a TCP stream.
    NotTcp = 8,
    /// From a service mesh's proxy.
    MeshUid = 9,
    /// Not taken to the agent: what the client sends is copied.
    Tapped = 10,
    /// To be tapped, and the kernel had no memory to note it: direct, without copies.
    TapFailed = 11,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Captured,
        Self::NotAFrontend,
        Self::PodUnknown,
        Self::PodOff,
        Self::NoLiveWorker,
        Self::QueueFull,
        Self::BoundDevice,
        Self::Loopback,
        Self::NotTcp,
        Self::MeshUid,
        Self::Tapped,
        Self::TapFailed,
    ];

    /// Entries of the counters' map.
    #[allow(clippy::cast_possible_truncation, reason = "twelve")]
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The index in the counters' map.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The value of the metric's label `reason`; stable.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::NotAFrontend => "not_a_frontend",
            Self::PodUnknown => "pod_unknown",
            Self::PodOff => "pod_off",
            Self::NoLiveWorker => "no_live_worker",
            Self::QueueFull => "queue_full",
            Self::BoundDevice => "bound_device",
            Self::Loopback => "loopback",
            Self::NotTcp => "not_tcp",
            Self::MeshUid => "mesh_uid",
            Self::Tapped => "tapped",
            Self::TapFailed => "tap_failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_places_in_the_list() {
        for (place, reason) in (0..).zip(Reason::ALL) {
            assert_eq!(reason.index(), place);
        }
    }

    #[test]
    fn no_label_is_used_twice() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!(Reason::ALL.iter().skip(i + 1).all(|b| a.label() != b.label()));
        }
    }
}
