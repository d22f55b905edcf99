//! Labels: the stable strings by which metrics and the access log call each outcome. They are
//! part of the interface: dashboards and alerts name them.

use super::{
    ConnectionKind, CopyOutcome, DropReason, Ending, Mode, RefusalReason, ResponseSource,
    RetryReason, RouteRetryReason, ShadowClosed, TapEnd, Uncopied, UnknownReason,
};
use crate::route::ServicePort;

/// Gives a field-less enum its labels and the list of its variants, from one table.
macro_rules! labels {
    ($($kind:ident: $count:literal { $($variant:ident => $label:literal,)+ })+) => {$(
        impl $kind {
            /// Every variant, in the order of declaration.
            pub const ALL: [Self; $count] = [$(Self::$variant),+];

            /// The name in metrics and logs; never changes.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    )+};
}

labels! {
    ConnectionKind: 10 {
        Http1 => "http1",
        Opaque => "opaque",
        Http2 => "http2",
        ServerFirst => "server_first",
        NoRoute => "no_route",
        Tombstone => "tombstone",
        Canary => "canary",
        UnknownId => "unknown_id",
        Silent => "silent",
        Refused => "refused",
    }
    ResponseSource: 16 {
        Primary => "primary",
        NoMatch => "no_match",
        InvalidBackend => "invalid_backend",
        NoEndpoint => "no_endpoint",
        BadRequest => "bad_request",
        Timeout => "timeout",
        ConnectRefused => "connect_refused",
        ConnectTimeout => "connect_timeout",
        Unreachable => "unreachable",
        ConnectFailed => "connect_failed",
        BadResponse => "bad_response",
        Unread => "unread",
        UnrequestedUpgrade => "unasked_upgrade",
        Redirect => "redirect",
        Preflight => "preflight",
        None => "none",
    }
    Ending: 4 {
        Complete => "complete",
        ClientGone => "client_gone",
        PrimaryFailed => "primary_failed",
        Tunnel => "tunnel",
    }
    DropReason: 16 {
        NoEndpoint => "no_endpoint",
        Connections => "connections",
        Backoff => "backoff",
        Connect => "connect",
        ConnectTimeout => "connect_timeout",
        RequestBudget => "request_budget",
        BackendBudget => "backend_budget",
        NamespaceBudget => "namespace_budget",
        AgentBudget => "agent_budget",
        PrimaryEnded => "primary_ended",
        ClientGone => "client_gone",
        ShadowClosed => "shadow_closed",
        SendTimeout => "send_timeout",
        Unfit => "unfit",
        Shutdown => "shutdown",
        Tap => "tap",
    }
    UnknownReason: 4 {
        Timeout => "timeout",
        Closed => "closed",
        Malformed => "malformed",
        Flood => "flood",
    }
    ShadowClosed: 2 {
        LongResponse => "long_response",
        Flood => "flood",
    }
    Uncopied: 5 {
        WebSocket => "websocket",
        Connect => "connect",
        InvalidBackend => "invalid_backend",
        RefusedShadow => "refused_shadow",
        Malformed => "malformed",
    }
    Mode: 2 {
        Proxy => "proxy",
        Tap => "tap",
    }
    TapEnd: 10 {
        Lost => "lost",
        Malformed => "malformed",
        Http2 => "http2",
        Connect => "connect",
        Upgrade => "upgrade",
        Expect => "expect",
        Memory => "memory",
        Evicted => "evicted",
        Untapped => "untapped",
        UnknownWorkload => "unknown_workload",
    }
    RefusalReason: 35 {
        MalformedHead => "malformed_head",
        HeadTooLarge => "head_too_large",
        TooManyFields => "too_many_fields",
        TargetTooLong => "target_too_long",
        InvalidTarget => "invalid_target",
        InvalidHost => "invalid_host",
        InvalidField => "invalid_field",
        InvalidLength => "invalid_length",
        InvalidEncoding => "invalid_encoding",
        ConnectContent => "connect_content",
        NoMatch => "no_match",
        InvalidBackend => "invalid_backend",
        NoEndpoint => "no_endpoint",
        Timeout => "timeout",
        UnrequestedUpgrade => "unasked_upgrade",
        HeadTimeout => "head_timeout",
        IncompleteHead => "incomplete_head",
        MalformedBody => "malformed_body",
        MalformedResponse => "malformed_response",
        ConnectRefused => "connect_refused",
        ConnectTimeout => "connect_timeout",
        Unreachable => "unreachable",
        ConnectFailed => "connect_failed",
        Unfit => "unfit",
        NoConnectProtocol => "no_connect_protocol",
        MalformedStream => "malformed_stream",
        StreamLimit => "stream_limit",
        MalformedHttp2 => "malformed_http2",
        Http2Flood => "http2_flood",
        UnknownId => "unknown_id",
        Outside => "outside",
        ConnectionMemory => "connection_memory",
        PodMemory => "pod_memory",
        AgentMemory => "agent_memory",
        PodConnections => "pod_connections",
    }
    RetryReason: 4 {
        Connect => "connect",
        Unsent => "unsent",
        NoResponse => "unanswered",
        Refused => "refused",
    }
    RouteRetryReason: 5 {
        Code => "code",
        Connect => "connect",
        Refused => "refused",
        Lost => "lost",
        Timeout => "timeout",
    }
}

impl CopyOutcome {
    /// How many outcomes there are, reasons distinguished.
    pub const COUNT: usize = 1 + DropReason::ALL.len() + UnknownReason::ALL.len();

    /// Every outcome with every reason, in the order of [`CopyOutcome::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Delivered)
            .chain(DropReason::ALL.into_iter().map(Self::Dropped))
            .chain(UnknownReason::ALL.into_iter().map(Self::Unknown))
    }

    /// A number from 0 to [`CopyOutcome::COUNT`] - 1.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Delivered => 0,
            Self::Dropped(reason) => 1 + reason as usize,
            Self::Unknown(reason) => 1 + DropReason::ALL.len() + reason as usize,
        }
    }

    /// `delivered`, `dropped` or `unknown`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped(_) => "dropped",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why; empty for a delivered one.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Delivered => "",
            Self::Dropped(reason) => reason.label(),
            Self::Unknown(reason) => reason.label(),
        }
    }
}

/// Labels of the classes that [`class`] numbers.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The class of a status: its first digit, 0 when the client got none or one outside 100..=599.
pub(super) fn class(status: Option<u16>) -> usize {
    status.map_or(0, |status| usize::from(status / 100)).min(CLASSES.len()) % CLASSES.len()
}

/// A Service port as a label. Port 0, which no Service has, marks the stand-in that takes what
/// exceeds the bound on series.
pub(super) fn service(port: &ServicePort) -> String {
    if port.port == 0 { port.name.clone() } else { port.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_outcome_has_its_own_index_and_label() {
        let all: Vec<_> = CopyOutcome::all().collect();
        assert_eq!(all.len(), CopyOutcome::COUNT);
        assert!(all.iter().enumerate().all(|(at, outcome)| outcome.index() == at));
        let names: HashSet<_> = all.iter().map(|o| (o.label(), o.reason())).collect();
        assert_eq!(names.len(), CopyOutcome::COUNT);
    }

    #[test]
    fn the_position_in_the_list_is_the_discriminant() {
        assert!(ConnectionKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(ResponseSource::ALL.iter().enumerate().all(|(at, source)| *source as usize == at));
        assert!(Ending::ALL.iter().enumerate().all(|(at, ending)| *ending as usize == at));
        assert!(RefusalReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(TapEnd::ALL.iter().enumerate().all(|(at, end)| *end as usize == at));
        assert!(Uncopied::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(ShadowClosed::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(RetryReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        let retries = RouteRetryReason::ALL.iter().enumerate();
        assert!(retries.into_iter().all(|(at, reason)| *reason as usize == at));
        let labels: HashSet<_> = ConnectionKind::ALL.iter().map(|k| k.label()).collect();
        assert_eq!(labels.len(), ConnectionKind::ALL.len());
    }

    #[test]
    fn a_status_falls_into_its_class() {
        for (status, label) in [
            (None, "none"),
            (Some(99), "none"),
            (Some(101), "1xx"),
            (Some(204), "2xx"),
            (Some(599), "5xx"),
            (Some(600), "none"),
            (Some(u16::MAX), "none"),
        ] {
            assert_eq!(CLASSES[class(status)], label, "{status:?}");
        }
    }
}
