//! The explanation as data: what `--json` writes, and what the text is made of.

use serde::Serialize;

use super::reply::{GrpcStatus, Reply};

/// What the agent would do with the request, and why.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) request: RequestView,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    /// Files that are refused.
    pub(super) problems: Vec<String>,
    /// Conditions of the routes of this Service that do not hold.
    pub(super) unmet_conditions: Vec<String>,
    /// What else there is to know of the objects involved.
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct RequestView {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) client_namespace: String,
}

/// What becomes of it.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(super) enum Verdict {
    /// No frontend: the connection goes direct.
    NotCaptured { why: String },
    /// A frontend, and no route for clients of this namespace.
    PassesThrough { frontend: FrontendView, why: String },
    /// mirror itself responds with 400.
    BadRequest {
        frontend: FrontendView,
        #[serde(flatten)]
        reply: Reply,
        why: String,
    },
    /// mirror itself responds with 404.
    NoMatch {
        frontend: FrontendView,
        table: TableView,
        candidates: Vec<Candidate>,
        #[serde(flatten)]
        reply: Reply,
    },
    /// A rule matches.
    Match {
        frontend: FrontendView,
        table: TableView,
        candidates: Vec<Candidate>,
        rule: Box<RuleView>,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct FrontendView {
    pub(super) service: String,
    /// More than one for a headless Service.
    pub(super) addresses: Vec<String>,
    pub(super) tap: TapView,
}

/// Whether its connections can be tapped.
#[derive(Debug, Serialize)]
pub(super) struct TapView {
    pub(super) possible: bool,
    /// The name of what stands against it.
    pub(super) reason: Option<&'static str>,
    pub(super) why: Option<String>,
}

/// Which table holds for the client.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum TableView {
    /// Routes of the Service's own namespace: for all clients.
    Producer { namespace: String },
    /// Routes of the client's namespace: for its clients alone.
    Consumer { namespace: String },
}

/// A match of the table, in the order in which they are tried.
#[derive(Debug, Serialize)]
pub(super) struct Candidate {
    pub(super) wants: String,
    pub(super) route: String,
    pub(super) rule: usize,
    pub(super) rule_name: Option<String>,
    /// Its place in the rule's `matches`.
    pub(super) r#match: usize,
    #[serde(flatten)]
    pub(super) result: MatchResult,
}

#[derive(Debug, Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub(super) enum MatchResult {
    /// Tried, and does not hold, or would not if it were tried.
    Differs { mismatches: Vec<MismatchView> },
    /// The first that holds.
    Chosen { precedence: String },
    /// Holds as well, and comes later: why the chosen one comes first.
    Later { because: String },
}

#[derive(Debug, Serialize)]
pub(super) struct MismatchView {
    pub(super) part: &'static str,
    pub(super) name: Option<String>,
    pub(super) wants: String,
    pub(super) has: Option<String>,
    #[serde(skip)]
    pub(super) text: String,
}

/// The rule that matches, and what it does.
#[derive(Debug, Serialize)]
pub(super) struct RuleView {
    pub(super) route: String,
    pub(super) rule: usize,
    pub(super) name: Option<String>,
    pub(super) r#match: usize,
    /// CONNECT or Upgrade: a tunnel, which is never copied.
    pub(super) tunnel: bool,
    /// `filters`, in order.
    pub(super) filters: Vec<FilterStep>,
    /// `timeouts`; a request that takes longer gets 504.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) timeouts: Vec<String>,
    /// That 504, or what a gRPC call gets instead.
    #[serde(skip)]
    pub(super) timed_out: Reply,
    /// `retry`; the request is sent to its backend again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry: Option<String>,
    pub(super) backends: Vec<BackendView>,
    /// Why the rule has no backend to choose; clients get 500.
    pub(super) no_backend: Option<String>,
    /// Status with which one of the filters responds; what follows it in this view is not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) responds: Option<u16>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "filter", rename_all = "snake_case")]
pub(super) enum FilterStep {
    RequestHeaders {
        changes: Vec<String>,
    },
    ResponseHeaders {
        changes: Vec<String>,
    },
    Mirror(CopyView),
    /// The request with other values of what the filter names.
    Rewrite {
        host: Option<String>,
        target: Option<String>,
    },
    /// mirror responds itself.
    Redirect {
        status: u16,
        location: String,
    },
    /// mirror responds itself, if it is a preflight request: with these fields. Others get such fields
    /// with their response.
    Cors {
        preflight: Option<Vec<String>>,
    },
    /// It stands behind a filter that responds.
    NotReached,
}

/// A copy, as its head is at the place of its mirror filter.
#[derive(Debug, Serialize)]
pub(super) struct CopyView {
    /// The Service, or None when the reference leads nowhere.
    pub(super) shadow: Option<String>,
    pub(super) numerator: u32,
    pub(super) denominator: u32,
    /// Why none is made, or none arrives.
    pub(super) never: Option<String>,
    pub(super) host: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) endpoints: Vec<String>,
}

/// One of `backendRefs`.
#[derive(Debug, Serialize)]
pub(super) struct BackendView {
    pub(super) service: Option<String>,
    pub(super) weight: u32,
    /// Of the rule's requests, in percent.
    pub(super) share: f64,
    pub(super) changes: Vec<String>,
    /// What requests are sent to where the cluster chooses the endpoint; None where mirror does.
    pub(super) address: Option<String>,
    pub(super) endpoints: Vec<String>,
    /// Status with which mirror itself responds, and why; None if a backend gets the request.
    pub(super) answer: Option<(u16, String)>,
    /// Of that response to a gRPC call, unless a filter responds.
    #[serde(flatten)]
    pub(super) grpc: Option<GrpcStatus>,
    pub(super) host: Option<String>,
}

impl Verdict {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Match { .. } => 0,
            Self::BadRequest { .. } | Self::NoMatch { .. } => 3,
            Self::NotCaptured { .. } | Self::PassesThrough { .. } => 4,
        }
    }
}
