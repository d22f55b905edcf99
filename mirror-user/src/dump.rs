//! The JSON of `/config` and `/status`, which the agent serves, and which `mirror status` and `mirror verdict` read. In: labels, names and
//! counts. Out: a separate tree, so that what the endpoints promise does not change with the types of the
//! data path. An agent of another version may know other states and reasons, so these are strings here.
//! Fields that the text of `mirror status` does not show are served only.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

/// The name of a state or of a reason.
pub(crate) type LabelText = Cow<'static, str>;

/// The response of `/status`: all that `/config` says, whether the agent is ready, how the copies ended,
/// and what was refused. `C`: the response of `/config`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct StatusDump<C> {
    pub(crate) ready: bool,
    /// Why it is not.
    pub(crate) unready: Option<String>,
    /// Which run of the agent has counted; an older agent does not say.
    #[serde(default)]
    pub(crate) run: Option<RunDump>,
    pub(crate) copies: Vec<CopiesDump>,
    /// Responses of primaries and shadows to the same requests, by route and shadow. An older agent has
    /// none.
    #[serde(default)]
    pub(crate) responses: Vec<PairsDump>,
    /// Selected requests that no copy was made of, by reason.
    pub(crate) uncopied: BTreeMap<LabelText, u64>,
    /// What mirror refused or ended on its own account, by reason.
    pub(crate) refused: BTreeMap<LabelText, u64>,
    /// Requests of tapped connections.
    #[serde(default)]
    pub(crate) tapped: u64,
    /// Tapped connections whose further requests are not copied, by reason.
    #[serde(default)]
    pub(crate) tap_stopped: BTreeMap<LabelText, u64>,
    /// Bytes of tapped connections that found no room in a ring.
    #[serde(default)]
    pub(crate) tap_lost_bytes: u64,
    #[serde(flatten)]
    pub(crate) config: C,
}

/// One run of an agent, from its start to its end: counts of another run begin at zero.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct RunDump {
    /// Random, so that two runs differ, also those of one node.
    pub(crate) id: String,
    /// Since its start.
    pub(crate) uptime_seconds: f64,
}

/// Copies for one shadow since the start: selected = delivered + dropped + unknown + in flight.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CopiesDump {
    pub(crate) shadow: String,
    pub(crate) selected: u64,
    pub(crate) in_flight: u64,
    pub(crate) delivered: u64,
    /// By reason.
    pub(crate) dropped: BTreeMap<LabelText, u64>,
    /// By reason.
    pub(crate) unknown: BTreeMap<LabelText, u64>,
    /// By class.
    #[serde(default)]
    pub(crate) responses: BTreeMap<LabelText, u64>,
}

/// Requests of a route that a shadow has responded to, since the start.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct PairsDump {
    pub(crate) route: String,
    pub(crate) shadow: String,
    pub(crate) responses: u64,
    /// By the classes of both, where the shadow's is another than the primary's.
    pub(crate) differing: BTreeMap<String, u64>,
    /// Until the heads of the responses were there, on average, in seconds; None without any.
    pub(crate) primary_seconds: Option<f64>,
    pub(crate) shadow_seconds: Option<f64>,
    /// How many, by the class of the primary's response, then of the shadow's. An older agent has none.
    #[serde(default)]
    pub(crate) classes: BTreeMap<LabelText, BTreeMap<LabelText, u64>>,
    /// How these means come about.
    #[serde(default)]
    pub(crate) primary_times: HistogramDump,
    #[serde(default)]
    pub(crate) shadow_times: HistogramDump,
}

/// Durations by bucket. A bucket contains its upper bound, and not its lower one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct HistogramDump {
    /// The upper bound of each bucket but the last, which has none.
    pub(crate) bounds_seconds: Vec<f64>,
    /// One more than bounds.
    pub(crate) counts: Vec<u64>,
    pub(crate) sum_seconds: f64,
}

/// The response of `/config`: what is in force, and who is captured. `M`: a match of a frontend.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ConfigDump<M> {
    /// Why nothing is captured at all.
    #[serde(skip_deserializing)]
    pub(crate) obstacle: Option<String>,
    /// How connections are captured: of the flag, or "proxy" where the kernel cannot tap.
    #[serde(default = "always_proxy")]
    pub(crate) mode: LabelText,
    /// Who chooses the endpoint of a request: "service" or "mirror".
    pub(crate) endpoints: LabelText,
    pub(crate) workloads: Vec<WorkloadDump>,
    /// Of the API server; none if routes come from a folder.
    #[serde(default)]
    pub(crate) watches: Vec<WatchDump>,
    #[serde(flatten)]
    pub(crate) routes: RoutesDump<M>,
}

/// An older agent says nothing, and proxies.
fn always_proxy() -> LabelText {
    "proxy".into()
}

/// A captured workload, or one that is not captured, and why.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WorkloadDump {
    /// `namespace/name`.
    pub(crate) name: String,
    /// Of a pod, its uid.
    #[serde(skip_deserializing)]
    pub(crate) uid: Option<String>,
    /// Its cgroup; None while it is not known.
    #[serde(skip_deserializing)]
    pub(crate) cgroup: Option<String>,
    pub(crate) state: LabelText,
    /// Why it is off or refused, or what it waits for.
    pub(crate) reason: Option<String>,
    /// The agent's port in its network namespace.
    #[serde(skip_deserializing)]
    pub(crate) port: Option<u16>,
    /// Cookie of that namespace.
    #[serde(skip_deserializing)]
    pub(crate) netns_cookie: Option<u64>,
    /// The last result of the canary of IPv4.
    #[serde(skip_deserializing)]
    pub(crate) canary: Option<LabelText>,
    pub(crate) ipv6: Option<FamilyDump>,
    /// Its connections to frontends that are not captured, by Service, because they were opened
    /// before.
    pub(crate) predating: BTreeMap<String, u64>,
}

/// A family of addresses.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct FamilyDump {
    pub(crate) state: LabelText,
    /// Why it is off or absent.
    pub(crate) reason: Option<String>,
}

/// The state of a watch.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WatchDump {
    pub(crate) kind: LabelText,
    /// Everything was listed once.
    #[serde(skip_deserializing)]
    pub(crate) complete: bool,
    /// The greatest possible age of what is known, in seconds; None before the first complete list.
    pub(crate) age_seconds: Option<f64>,
    /// Why it does not follow the API server now.
    pub(crate) trouble: Option<String>,
}

/// The routes in force, and what the control path said last.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RoutesDump<M> {
    /// Of the snapshot.
    #[serde(skip_deserializing)]
    pub(crate) generation: u64,
    /// Live frontends, by address.
    pub(crate) frontends: BTreeMap<String, FrontendDump<M>>,
    /// Removed frontends whose id is still known: address by id.
    #[serde(skip_deserializing)]
    pub(crate) tombstones: BTreeMap<u32, String>,
    /// Conditions of each route and parent.
    pub(crate) routes: Vec<RouteDump>,
    /// Which routes mirror to which shadows.
    #[serde(default)]
    pub(crate) mirrors: BTreeSet<MirrorDump>,
    /// What to know, and what is not in force because it was refused.
    pub(crate) problems: Vec<String>,
    /// What to know, though all of it is in force.
    pub(crate) warnings: Vec<String>,
    #[serde(skip_deserializing)]
    pub(crate) addresses_refused: RefusedAddressesDump,
}

/// A frontend.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct FrontendDump<M> {
    #[serde(skip_deserializing)]
    pub(crate) id: u32,
    pub(crate) service: String,
    /// Connections that carry the id now.
    pub(crate) connections: usize,
    /// Whether its Service is captured ahead of its routes.
    pub(crate) ahead: bool,
    /// What becomes of its connections: "proxied", "tapped" or "direct".
    #[serde(default = "always_proxied")]
    pub(crate) capture: LabelText,
    /// Why it is not tapped; absent where it is, or would not be in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_tapped: Option<ObstacleDump>,
    pub(crate) producer: Option<Vec<M>>,
    pub(crate) consumers: BTreeMap<String, Vec<M>>,
    /// Matches that are in force and not listed.
    #[serde(skip_deserializing, skip_serializing_if = "is_zero")]
    pub(crate) matches_left_out: usize,
}

/// An older agent says nothing, and proxies.
fn always_proxied() -> LabelText {
    "proxied".into()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
pub(crate) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Why a frontend is not tapped.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ObstacleDump {
    #[serde(skip_deserializing)]
    pub(crate) reason: LabelText,
    pub(crate) why: String,
}

/// The conditions of a route at a parent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RouteDump {
    pub(crate) route: String,
    pub(crate) parent: String,
    pub(crate) accepted: ConditionDump,
    pub(crate) resolved_refs: ConditionDump,
    /// Absent unless some rules are not in force as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partially_invalid: Option<ConditionDump>,
}

/// A route that mirrors to a shadow, at a frontend or at several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) struct MirrorDump {
    pub(crate) route: String,
    pub(crate) shadow: String,
    /// Connections are tapped there, so that no response of the primary is seen.
    pub(crate) tapped: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ConditionDump {
    pub(crate) status: bool,
    pub(crate) reason: LabelText,
    pub(crate) message: String,
}

/// How many addresses are not used, by why.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RefusedAddressesDump {
    /// Addresses that are no frontends, though a Service claims them.
    pub(crate) frontends: BTreeMap<&'static str, u64>,
    /// Endpoints of shadows that get no copies.
    pub(crate) shadows: BTreeMap<&'static str, u64>,
}
