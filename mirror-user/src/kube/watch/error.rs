//! Why a watch does not follow the server.

use std::time::Duration;

use crate::error_chain::WithCauses;

/// How an attempt to list or watch failed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No response: refused, reset, not trusted, no usable credentials.
    #[error("cannot reach the API server: {}", WithCauses(.0.as_ref()))]
    Unreachable(#[source] Box<::kube::Error>),
    /// The server said no, by a status of HTTP or within the stream.
    #[error("the API server responded with {status}: {message}{}", advice(*.status))]
    Refused {
        /// Status of HTTP, or the `code` of a Status object.
        status: u16,
        /// Its `message`.
        message: String,
        /// The least time to wait, if the response named one.
        retry_after: Duration,
    },
    /// The stream broke.
    #[error("the response of the API server ended early: {0}")]
    Cut(String),
    /// Nothing came for this long.
    #[error("the API server sent nothing for {0:?}")]
    Silent(Duration),
    /// What came is not what the protocol says.
    #[error("unexpected response of the API server to a list or watch: {0}")]
    Garbage(String),
    /// The reader of the events has ended; not a failure.
    #[error("the reader of the events has ended")]
    Unread,
}

fn advice(status: u16) -> &'static str {
    match status {
        401 => "; the credentials are not valid: see the ServiceAccount or the kubeconfig",
        403 => "; its role lacks this permission: see the ClusterRole in deploy/",
        _ => "",
    }
}

impl WatchError {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Cut(_) => "cut",
            Self::Silent(_) => "silent",
            Self::Garbage(_) => "garbage",
            Self::Unread => "unread",
        }
    }

    /// Whether it happens to healthy clusters: a CRD that is not installed, a compacted store.
    pub(super) fn is_routine(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 410, .. })
    }

    /// Whether everything must be listed again. A server that is busy, or that does not know us at
    /// this moment, may know the version when it is asked again; one that does not take it for
    /// another reason (from the future, after etcd was restored: 504) never will.
    pub(super) fn forgets(&self, resuming: bool) -> bool {
        match self {
            Self::Refused { status, .. } => resuming && !matches!(status, 401 | 403 | 429 | 503),
            _ => false,
        }
    }
}
