//! Measuring one row with one peer: load, the proxy's own CPU time, and the account of copies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirror_tests::{Agent, Copies, stats::median};
use serde::Serialize;

use super::{
    backend::Arrivals, load::Generators, peers::Peer, rows::Row, scenario::Scenario, stage::Stage,
};

/// Copies that arrive, of those selected, below which a row is void: 1.000, rounded. A client that
/// ends in the middle of 64 requests leaves some whose responses it never reads.
const WHOLE: f64 = 0.9995;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) errors: u64,
    /// Requests per second.
    pub(super) rate: f64,
    /// Microseconds of the proxy's CPU time for each request; None without a proxy.
    pub(super) cpu_us: Option<f64>,
    /// Milliseconds, with all requests in progress at once.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) copies: Option<CopyCount>,
    /// Why mirror lost copies, by its own metrics, since it was started.
    pub(super) losses: String,
}

/// The account of copies of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct CopyCount {
    /// Requests that were to be copied: by mirror's own count; of other proxies, what the primary
    /// logged, times the share.
    pub(super) selected: u64,
    /// What the shadow logged, whole.
    pub(super) logged: u64,
    /// `selected` is exact, not a share of random draws.
    pub(super) exact: bool,
}

/// A row measured with a peer, so many times.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) row: String,
    pub(super) peer: String,
    pub(super) samples: Vec<Sample>,
    /// Why it could not be measured.
    pub(super) failures: Vec<String>,
}

impl CopyCount {
    /// Copies that arrived for each that was to.
    pub(super) fn share(self) -> f64 {
        if self.selected == 0 { 0.0 } else { self.logged as f64 / self.selected as f64 }
    }
}

impl Cell {
    /// The peer does not have its scenario.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.failures.is_empty()
    }

    /// The median of a figure over the runs that count: none when a run failed.
    pub(super) fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values: Vec<_> = self.samples.iter().filter_map(figure).collect();
        (self.failures.is_empty() && !values.is_empty()).then(|| median(values))
    }

    /// Why it means nothing, although it was measured: copies that did not arrive.
    pub(super) fn void(&self) -> Option<String> {
        let lost = |copies: &CopyCount| copies.exact && copies.share() < WHOLE;
        let sample = self.samples.iter().find(|sample| sample.copies.as_ref().is_some_and(lost))?;
        let copies = sample.copies?;
        let (logged, selected, losses) = (copies.logged, copies.selected, &sample.losses);
        Some(format!("{logged} of {selected} copies arrived{losses}"))
    }

    /// The smallest share of copies of all runs.
    pub(super) fn share(&self) -> Option<f64> {
        let shares = self.samples.iter().filter_map(|sample| Some(sample.copies?.share()));
        shares.reduce(f64::min)
    }

    /// Nothing measured yet.
    pub(super) fn new(row: &Row, peer: &Peer<'_>) -> Self {
        let (row, peer) = (row.name.clone(), peer.name.clone());
        Self { row, peer, samples: Vec::new(), failures: Vec::new() }
    }

    /// Takes the result of a run; one of a scenario that the peer does not have is none.
    pub(super) fn add(&mut self, result: Result<Option<Sample>>) {
        match result {
            Ok(None) => {}
            Ok(Some(sample)) => {
                if let Err(error) = sample.check() {
                    self.failures.push(format!("{error:#}"));
                }
                self.samples.push(sample);
            }
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }
}

impl Sample {
    fn check(&self) -> Result<()> {
        ensure!(self.requests > 0, "no request got a response");
        ensure!(self.errors == 0, "{} of {} requests failed", self.errors, self.requests);
        Ok(())
    }
}

/// Runs a row with a peer, once, for `duration`; None when the peer has no such scenario.
///
/// # Errors
/// The load generator or the proxy fails.
pub(super) fn sample(
    stage: &Stage<'_>,
    generators: &Generators,
    peer: &Peer<'_>,
    row: &Row,
    duration: Duration,
) -> Result<Option<Sample>> {
    let scenario = stage
        .scenario(&row.scenario())
        .with_context(|| format!("no scenario {}", row.scenario()))?;
    let address = peer.address(stage, scenario).filter(|_| peer.carries(scenario, row.traffic));
    let Some(address) = address else { return Ok(None) };
    stage.primary.forget()?;
    stage.shadow.forget()?;
    let count = scenario.mirror.map(|_| CopyMeter::begin(stage, peer, scenario)).transpose()?;
    let before = peer.cpu()?;
    let run = generators.run(peer.pod, address, row.traffic, duration)?;
    let used = peer.cpu()?.zip(before).map(|(after, before)| after - before);
    let (mut copies, mut losses) = (None, String::new());
    if let Some(mut meter) = count {
        copies = Some(meter.end(peer, row)?);
        losses = peer.agent().map(|agent| meter.losses(agent)).transpose()?.unwrap_or_default();
    }
    Ok(Some(Sample {
        requests: run.requests,
        errors: run.errors,
        rate: run.rate,
        cpu_us: used.map(|used| used * 1e6 / run.requests.max(1) as f64),
        p50_ms: run.latency.map(|(p50, _)| p50 * 1e3),
        p99_ms: run.latency.map(|(_, p99)| p99 * 1e3),
        copies,
        losses,
    }))
}

/// Counts copies during a run.
struct CopyMeter {
    at_primary: Arrivals,
    at_shadow: Arrivals,
    /// The shadow as mirror's metrics call it.
    shadow: String,
    /// By mirror's own count, before.
    selected: Option<u64>,
}

impl CopyMeter {
    fn begin(stage: &Stage<'_>, peer: &Peer<'_>, scenario: &Scenario) -> Result<Self> {
        let shadow = format!("default/{}:80", scenario.shadow_name());
        let count = |agent| Ok::<_, anyhow::Error>(Copies::settled_for(agent, &shadow)?.selected);
        let selected = peer.agent().map(count).transpose()?;
        let (at_primary, at_shadow) = (stage.primary.count()?, stage.shadow.count()?);
        Ok(Self { at_primary, at_shadow, shadow, selected })
    }

    /// The reasons in mirror's metrics, as `; connections 28`.
    fn losses(&self, agent: &Agent<'_>) -> Result<String> {
        let shadow = format!("\"{}\"", self.shadow);
        let text = Copies::losses(agent)?;
        let ours = text.lines().filter(|line| line.contains(&shadow));
        let reason = |line: &str| {
            let (labels, count) = line.rsplit_once(' ')?;
            let (_, reason) = labels.split_once("reason=\"")?;
            Some(format!("; {} {count} so far", reason.split('"').next()?))
        };
        Ok(ours.filter_map(reason).collect())
    }

    fn end(&mut self, peer: &Peer<'_>, row: &Row) -> Result<CopyCount> {
        let body = row.traffic.body();
        let percent = row.percent.unwrap_or(100);
        if let Some((agent, before)) = peer.agent().zip(self.selected) {
            let copies = Copies::settled_for(agent, &self.shadow)?;
            let logged = self.at_shadow.settled(body)?;
            return Ok(CopyCount { selected: copies.selected - before, logged, exact: true });
        }
        let logged = self.at_shadow.settled(body)?;
        let responded = self.at_primary.settled(body)?;
        let selected = responded * u64::from(percent) / 100;
        Ok(CopyCount { selected, logged, exact: percent == 100 })
    }
}
