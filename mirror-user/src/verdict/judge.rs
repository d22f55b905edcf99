//! The judgements. In: what was counted of the shadows of a route, and limits. Out: for each shadow what was measured,
//! how certain that is, and whether it is within its limit. Pure; the JSON of `mirror verdict` is these types.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::{
    counts::{Classes, Counts, Reasons},
    reading::{AgentReading, CountedShadow, Reading},
    share::{Interval, needed, wilson},
    times::{self, LEAST, Percentile},
};
use crate::{dump::HistogramDump, model::RouteName};

/// The class of a primary that did not respond: its client went away, for example.
const NO_RESPONSE: &str = "none";

/// Classes of errors.
const ERRORS: [&str; 2] = ["5xx", "grpc_error"];

/// What is permitted: shares, and how many times as long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) different: f64,
    pub(super) errors: f64,
    pub(super) slower: f64,
    pub(super) lost: f64,
}

/// The worst of several is what all of them come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Pass,
    NotEnoughData,
    Fail,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Subject {
    /// The classes of both responses differ.
    Different,
    /// The shadow's is an error, and the primary's is none.
    Errors,
    /// Ratio of the shadow's mean time to the primary's.
    Slower,
    /// Copies dropped or unknown, of those that ended.
    Lost,
}

/// One judgement: `count` of `of` is the share that was measured, or of `of` responses the ratio of times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Judgement {
    pub(super) subject: Subject,
    pub(super) result: Outcome,
    pub(super) measured: Option<f64>,
    /// Of 95 %.
    pub(super) interval: Option<Interval>,
    pub(super) limit: f64,
    pub(super) count: Option<u64>,
    pub(super) of: u64,
    /// How many would decide, if what is measured stays what it is: an estimate. None where nothing is to be
    /// decided, or no number would.
    pub(super) needed: Option<u64>,
}

/// Times to the heads of responses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) responses: u64,
    pub(super) mean_seconds: Option<f64>,
    pub(super) p50: Option<Percentile>,
    pub(super) p90: Option<Percentile>,
    pub(super) p99: Option<Percentile>,
}

/// Copies that ended, whichever route they are of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct EndedCopies {
    pub(super) delivered: u64,
    pub(super) dropped: Reasons,
    pub(super) unknown: Reasons,
    pub(super) other_routes: BTreeSet<String>,
}

/// A shadow, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Judged {
    pub(super) shadow: String,
    pub(super) verdict: Outcome,
    /// Requests that both responded to.
    pub(super) responses: u64,
    /// Requests that only the shadow responded to; they are not judged.
    pub(super) without_primary: u64,
    /// Some connections are tapped, so that their primaries' responses are not seen.
    pub(super) tapped: bool,
    pub(super) judgements: [Judgement; 4],
    /// By the class of the primary's response, then of the shadow's.
    pub(super) classes: Classes,
    pub(super) primary_latency: Latency,
    pub(super) shadow_latency: Latency,
    pub(super) copies: EndedCopies,
}

/// An agent that has counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct CountingAgent {
    pub(super) address: String,
    pub(super) uptime_seconds: f64,
    /// Why it is not ready.
    pub(super) unready: Option<String>,
}

/// Who has counted what for how long.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Window {
    pub(super) kind: &'static str,
    /// `namespace/name`.
    pub(super) route: String,
    /// None: each since its start.
    pub(super) seconds: Option<f64>,
    pub(super) agents: Vec<CountingAgent>,
}

/// What it all comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    pub(super) verdict: Outcome,
    #[serde(flatten)]
    pub(super) window: Window,
    pub(super) shadows: Vec<Judged>,
}

impl Outcome {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::NotEnoughData => 2,
        }
    }

    /// All of the interval is on one side of the limit, or nothing is decided.
    fn of(interval: Interval, limit: f64) -> Self {
        if interval.lower > limit {
            Self::Fail
        } else if interval.upper <= limit {
            Self::Pass
        } else {
            Self::NotEnoughData
        }
    }
}

impl Verdict {
    pub(super) fn new(window: Window, shadows: Vec<Judged>) -> Self {
        let verdict = shadows.iter().map(|shadow| shadow.verdict).max();
        // Of no shadow there is no data.
        Self { verdict: verdict.unwrap_or(Outcome::NotEnoughData), window, shadows }
    }
}

impl Window {
    pub(super) fn new(route: &RouteName, length: Option<Duration>, reading: &Reading) -> Self {
        let agent = |agent: &AgentReading| CountingAgent {
            address: agent.address.to_string(),
            uptime_seconds: agent.run.uptime_seconds,
            unready: agent.unready.clone(),
        };
        Self {
            kind: route.kind.label(),
            route: route.object.to_string(),
            seconds: length.map(|length| length.as_secs_f64()),
            agents: reading.agents().map(agent).collect(),
        }
    }
}

impl Judged {
    pub(super) fn all(counted: Vec<CountedShadow>, limits: &Limits) -> Vec<Self> {
        counted.into_iter().map(|counted| Self::new(counted, limits)).collect()
    }

    fn new(counted: CountedShadow, limits: &Limits) -> Self {
        let CountedShadow { shadow, counts, other_routes, tapped } = counted;
        let compared = || counts.cells().filter(|(primary, ..)| *primary != NO_RESPONSE);
        let all = |cells: &mut dyn Iterator<Item = (&str, &str, u64)>| {
            cells.map(|(.., n)| n).sum::<u64>()
        };
        let responses = all(&mut compared());
        let without_primary = all(&mut counts.cells()) - responses;
        let different = all(&mut compared().filter(|(primary, own, _)| primary != own));
        let is_error = |class: &str| ERRORS.contains(&class);
        let errors =
            all(&mut compared().filter(|(primary, own, _)| is_error(own) && !is_error(primary)));
        let lost = counts.dropped.values().chain(counts.unknown.values()).sum::<u64>();
        let judgements = [
            Judgement::share(Subject::Different, (different, responses), limits.different),
            Judgement::share(Subject::Errors, (errors, responses), limits.errors),
            Judgement::ratio(&counts.primary, &counts.shadow, limits.slower),
            Judgement::share(Subject::Lost, (lost, lost + counts.delivered), limits.lost),
        ];
        let verdict = judgements.iter().map(|judgement| judgement.result).max();
        let Counts { classes, primary, shadow: times, delivered, dropped, unknown } = counts;
        Self {
            shadow,
            verdict: verdict.expect("there are four"),
            responses,
            without_primary,
            tapped,
            judgements,
            classes,
            primary_latency: Latency::new(&primary),
            shadow_latency: Latency::new(&times),
            copies: EndedCopies { delivered, dropped, unknown, other_routes },
        }
    }

    pub(super) fn judgement(&self, subject: Subject) -> &Judgement {
        let found = self.judgements.iter().find(|judgement| judgement.subject == subject);
        found.expect("each subject has its judgement")
    }
}

impl Judgement {
    fn share(subject: Subject, (count, of): (u64, u64), limit: f64) -> Self {
        let (interval, measured) = (wilson(count, of), (of > 0).then(|| count as f64 / of as f64));
        let result = Outcome::of(interval, limit);
        // If nothing was counted, as if nothing would go wrong.
        let needed = needed(measured.unwrap_or(0.0), limit);
        let needed = needed.filter(|_| result == Outcome::NotEnoughData);
        Self {
            subject,
            result,
            measured,
            interval: measured.map(|_| interval),
            limit,
            count: Some(count),
            of,
            needed,
        }
    }

    fn ratio(primary: &HistogramDump, shadow: &HistogramDump, limit: f64) -> Self {
        let ratio = times::ratio(primary, shadow);
        let result =
            ratio.map_or(Outcome::NotEnoughData, |found| Outcome::of(found.interval, limit));
        let needed = ratio.map_or(Some(LEAST), |found| found.needed(limit));
        Self {
            subject: Subject::Slower,
            result,
            measured: ratio.map(|found| found.ratio),
            interval: ratio.map(|found| found.interval),
            limit,
            count: None,
            of: primary.count().min(shadow.count()),
            needed: needed.filter(|_| result == Outcome::NotEnoughData),
        }
    }
}

impl Latency {
    fn new(times: &HistogramDump) -> Self {
        Self {
            responses: times.count(),
            mean_seconds: times.mean(),
            p50: times.percentile(0.5),
            p90: times.percentile(0.9),
            p99: times.percentile(0.99),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
