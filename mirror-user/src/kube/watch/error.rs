//! Why a watch does not follow the server.

use std::time::Duration;

/// How an attempt to list or watch failed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No answer: refused, reset, not trusted, no usable credentials.
    #[error("the API server cannot be asked: {}", causes(.0))]
    Unreachable(#[source] Box<::kube::Error>),
    /// The server said no, by a status of HTTP or within the stream.
    #[error("the API server answered {status}: {message}{}", advice(*.status))]
    Refused {
        /// Status of HTTP, or the `code` of a Status object.
        status: u16,
        /// Its `message`.
        message: String,
        /// The least time to wait, if it named one.
        retry_after: Duration,
    },
    /// The stream broke.
    #[error("the answer of the API server broke off: {0}")]
    Cut(String),
    /// Nothing came for so long.
    #[error("the API server said nothing for {0:?}")]
    Silent(Duration),
    /// What came is not what the protocol says.
    #[error("the API server sent what is no answer to a watch or list: {0}")]
    Garbage(String),
    /// Nobody reads the events any more; not a failure.
    #[error("nobody reads the events")]
    Unread,
}

/// The error and its causes: what refused, and why, stands at the end of them.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        next = cause.source();
    }
    said
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

    /// Whether everything must be listed anew. A server that is busy, or that does not know us at
    /// this moment, may know the version when it is asked again; one that does not take it for
    /// another reason (from the future, after etcd was restored: 504) never will.
    pub(super) fn forgets(&self, resuming: bool) -> bool {
        match self {
            Self::Refused { status, .. } => resuming && !matches!(status, 401 | 403 | 429 | 503),
            _ => false,
        }
    }
}
