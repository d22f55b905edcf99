//! The response of `/status`. In: readiness, the response of `/config`, the workers' counts, and since when they count. Out:
//! [`StatusDump`].

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use mirror_common::TapCount;
use serde_json::Value;

use crate::{
    dump::{CopiesDump, HistogramDump, LabelText, PairsDump, RunDump, StatusDump},
    model::RouteName,
    outcome::{Copies, CopyOutcome, Histogram, Pairs, RefusalReason, Report, Uncopied, stopped},
    route::ServicePort,
};

impl StatusDump<Value> {
    pub(super) fn new(
        ready: Result<(), String>,
        config: Value,
        report: &Report,
        tap: &[(TapCount, u64)],
        run: RunDump,
    ) -> Self {
        let copies = report.copies.iter().map(|(shadow, copies)| CopiesDump::new(shadow, copies));
        Self {
            ready: ready.is_ok(),
            unready: ready.err(),
            run: Some(run),
            copies: copies.collect(),
            responses: report.pairs.iter().map(|(key, pairs)| PairsDump::new(key, pairs)).collect(),
            uncopied: counted(Uncopied::ALL.map(Uncopied::label), report.uncopied),
            refused: counted(RefusalReason::ALL.map(RefusalReason::label), report.refused),
            tapped: report.exchanges.values().map(|counts| counts.tapped).sum(),
            tap_stopped: labelled(stopped(report, tap)),
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
) -> BTreeMap<LabelText, u64> {
    labelled(labels.into_iter().zip(counts).filter(|(_, count)| *count > 0))
}

fn labelled(counts: impl IntoIterator<Item = (&'static str, u64)>) -> BTreeMap<LabelText, u64> {
    counts.into_iter().map(|(label, count)| (Cow::Borrowed(label), count)).collect()
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
            responses: labelled(copies.responses()),
        };
        for outcome in CopyOutcome::all() {
            let count = copies.ended[outcome.index()];
            match outcome {
                CopyOutcome::Delivered => dump.delivered = count,
                CopyOutcome::Dropped(_) if count > 0 => {
                    dump.dropped.insert(outcome.reason().into(), count);
                }
                CopyOutcome::Unknown(_) if count > 0 => {
                    dump.unknown.insert(outcome.reason().into(), count);
                }
                CopyOutcome::Dropped(_) | CopyOutcome::Unknown(_) => {}
            }
        }
        dump
    }
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
            classes: classes(pairs),
            primary_times: HistogramDump::new(&pairs.primary),
            shadow_times: HistogramDump::new(&pairs.shadow),
        }
    }
}

fn classes(pairs: &Pairs) -> BTreeMap<LabelText, BTreeMap<LabelText, u64>> {
    let mut classes = BTreeMap::<LabelText, BTreeMap<LabelText, u64>>::new();
    for (primary, shadow, count) in pairs.cells() {
        classes.entry(primary.into()).or_default().insert(shadow.into(), count);
    }
    classes
}

impl HistogramDump {
    fn new(times: &Histogram) -> Self {
        let (bounds, counts): (Vec<_>, Vec<_>) = times.buckets().into_iter().unzip();
        let bounds_seconds = bounds.into_iter().filter(|bound| bound.is_finite()).collect();
        Self { bounds_seconds, counts, sum_seconds: times.seconds() }
    }
}
