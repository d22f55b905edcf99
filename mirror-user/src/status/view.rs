//! The part of the agent's response that the text shows. The JSON has more.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) ready: bool,
    /// Why it is not.
    pub(super) unready: Option<String>,
    /// Who chooses the endpoint of a request: "service" or "mirror".
    pub(super) endpoints: String,
    pub(super) workloads: Vec<Workload>,
    /// Of the API server; none if routes come from a folder.
    #[serde(default)]
    pub(super) watches: Vec<Watch>,
    pub(super) frontends: BTreeMap<String, Frontend>,
    pub(super) routes: Vec<Route>,
    pub(super) copies: Vec<Copies>,
    /// An older agent has none.
    #[serde(default)]
    pub(super) responses: Vec<Responses>,
    /// Selected requests without a copy, by reason.
    pub(super) uncopied: BTreeMap<String, u64>,
    /// By reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// How connections are captured; an older agent says nothing, and proxies.
    #[serde(default)]
    pub(super) mode: Option<String>,
    /// Requests of tapped connections.
    #[serde(default)]
    pub(super) tapped: u64,
    /// Tapped connections whose further requests are not copied, by reason.
    #[serde(default)]
    pub(super) tap_stopped: BTreeMap<String, u64>,
    /// Bytes of tapped connections that could not be copied.
    #[serde(default)]
    pub(super) tap_lost_bytes: u64,
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Watch {
    pub(super) kind: String,
    /// The greatest possible age of what is known, in seconds; None before the first complete list.
    pub(super) age_seconds: Option<f64>,
    /// Why it does not follow the API server now.
    pub(super) trouble: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) ipv6: Option<Family>,
    /// By Service.
    pub(super) predating: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Family {
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Frontend {
    pub(super) service: String,
    pub(super) connections: u64,
    pub(super) ahead: bool,
    /// What becomes of its connections: "proxied", "tapped" or "direct".
    #[serde(default)]
    pub(super) capture: Option<String>,
    /// Why it is not tapped.
    #[serde(default)]
    pub(super) not_tapped: Option<NotTapped>,
    pub(super) producer: Option<Vec<serde::de::IgnoredAny>>,
    pub(super) consumers: BTreeMap<String, Vec<serde::de::IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NotTapped {
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Route {
    pub(super) route: String,
    pub(super) parent: String,
    pub(super) accepted: Condition,
    pub(super) resolved_refs: Condition,
    /// There only if some rules are not in force as written.
    #[serde(default)]
    pub(super) partially_invalid: Option<Condition>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Condition {
    pub(super) status: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Copies {
    pub(super) shadow: String,
    pub(super) selected: u64,
    pub(super) in_flight: u64,
    pub(super) delivered: u64,
    /// By reason.
    pub(super) dropped: BTreeMap<String, u64>,
    /// By reason.
    pub(super) unknown: BTreeMap<String, u64>,
    /// By class.
    #[serde(default)]
    pub(super) responses: BTreeMap<String, u64>,
}

/// To the same requests.
#[derive(Debug, Deserialize)]
pub(super) struct Responses {
    pub(super) route: String,
    pub(super) shadow: String,
    pub(super) responses: u64,
    /// By the classes of both.
    pub(super) differing: BTreeMap<String, u64>,
    pub(super) primary_seconds: Option<f64>,
    pub(super) shadow_seconds: Option<f64>,
}
