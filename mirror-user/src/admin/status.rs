//! The response of `/status`: all that `/config` says, whether the agent is ready, how the copies ended,
//! and what was refused.

use std::{collections::BTreeMap, sync::Arc};

use mirror_common::TapCount;
use serde::Serialize;
use serde_json::Value;

use crate::{
    model::RouteName,
    outcome::{Copies, CopyOutcome, Histogram, Pairs, RefusalReason, Report, Uncopied, stopped},
    route::ServicePort,
};

/// See `mirror status`.
#[derive(Serialize)]
pub(super) struct StatusReport {
    ready: bool,
    /// Why it is not.
    unready: Option<String>,
    copies: Vec<CopiesDump>,
    /// Responses of primaries and shadows to the same requests, by route and shadow.
    responses: Vec<PairsDump>,
    /// Selected requests that no copy was made of, by reason.
    uncopied: BTreeMap<&'static str, u64>,
    /// What mirror refused or ended on its own account, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Requests of tapped connections.
    tapped: u64,
    /// Tapped connections whose further requests are not copied, by reason.
    tap_stopped: BTreeMap<&'static str, u64>,
    /// Bytes of tapped connections that found no room in a ring.
    tap_lost_bytes: u64,
    #[serde(flatten)]
    config: Value,
}

/// Copies for one shadow since the start: selected = delivered + dropped + unknown + in flight.
#[derive(Serialize)]
struct CopiesDump {
    shadow: String,
    selected: u64,
    in_flight: u64,
    delivered: u64,
    dropped: BTreeMap<&'static str, u64>,
    unknown: BTreeMap<&'static str, u64>,
    /// By class.
    responses: BTreeMap<&'static str, u64>,
}

/// Requests of a route that a shadow has responded to, since the start.
#[derive(Serialize)]
struct PairsDump {
    route: String,
    shadow: String,
    responses: u64,
    /// Their classes, where the primary's is another.
    differing: BTreeMap<String, u64>,
    /// Until the heads of the responses were there, on average, in seconds; None without any.
    primary_seconds: Option<f64>,
    shadow_seconds: Option<f64>,
}

impl PairsDump {
    fn new((route, shadow): &(Arc<RouteName>, Arc<ServicePort>), pairs: &Pairs) -> Self {
        let seconds = |times: &Histogram| times.mean().map(|mean| mean.as_secs_f64());
        Self {
            route: route.to_string(),
            shadow: shadow.to_string(),
            responses: pairs.alike().1,
            differing: pairs.differing().into_iter().collect(),
            primary_seconds: seconds(&pairs.primary),
            shadow_seconds: seconds(&pairs.shadow),
        }
    }
}

impl StatusReport {
    pub(super) fn new(
        ready: Result<(), String>,
        config: Value,
        report: &Report,
        tap: &[(TapCount, u64)],
    ) -> Self {
        let copies = report.copies.iter().map(|(shadow, copies)| CopiesDump::new(shadow, copies));
        Self {
            ready: ready.is_ok(),
            unready: ready.err(),
            copies: copies.collect(),
            responses: report.pairs.iter().map(|(key, pairs)| PairsDump::new(key, pairs)).collect(),
            uncopied: counted(Uncopied::ALL.map(Uncopied::label), report.uncopied),
            refused: counted(RefusalReason::ALL.map(RefusalReason::label), report.refused),
            tapped: report.exchanges.values().map(|counts| counts.tapped).sum(),
            tap_stopped: stopped(report, tap),
            tap_lost_bytes: tap
                .iter()
                .filter(|(what, _)| *what == TapCount::LostBytes)
                .map(|(_, n)| n)
                .sum(),
            config,
        }
    }
}

/// Those that occurred.
fn counted<const N: usize>(
    labels: [&'static str; N],
    counts: [u64; N],
) -> BTreeMap<&'static str, u64> {
    labels.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

impl CopiesDump {
    fn new(shadow: &ServicePort, copies: &Copies) -> Self {
        let mut dump = Self {
            shadow: shadow.to_string(),
            selected: copies.selected,
            in_flight: copies.in_flight(),
            delivered: 0,
            dropped: BTreeMap::new(),
            unknown: BTreeMap::new(),
            responses: copies.responses().collect(),
        };
        for outcome in CopyOutcome::all() {
            let count = copies.ended[outcome.index()];
            match outcome {
                CopyOutcome::Delivered => dump.delivered = count,
                CopyOutcome::Dropped(_) if count > 0 => {
                    dump.dropped.insert(outcome.reason(), count);
                }
                CopyOutcome::Unknown(_) if count > 0 => {
                    dump.unknown.insert(outcome.reason(), count);
                }
                CopyOutcome::Dropped(_) | CopyOutcome::Unknown(_) => {}
            }
        }
        dump
    }
}
