//! The accounting of copies: selected = delivered + dropped + unknown, plus those in flight.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{agent::Agent, metrics::Metrics, process::eventually};

/// Longer than the response timeout of the shadow leg.
const LONG: Duration = Duration::from_secs(25);

/// What `/metrics` says of the copies for one shadow, or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Copies that a mirror filter selected.
    pub selected: u64,
    /// Sent whole, and got a response.
    pub delivered: u64,
    /// Not sent, or not whole.
    pub dropped: u64,
    /// Sent, but without a response.
    pub unknown: u64,
    /// Neither yet.
    pub in_flight: u64,
}

impl Copies {
    /// Of all shadows, so far.
    ///
    /// # Errors
    /// `/metrics` does not respond.
    pub fn read(agent: &Agent<'_>) -> Result<Self> {
        Ok(Self::of(&agent.metrics()?, None))
    }

    /// Reads the samples of this shadow (`namespace/name:port`), or the sums over all.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters")]
    pub fn of(metrics: &Metrics, shadow: Option<&str>) -> Self {
        let shadow = shadow.map(|name| ("shadow", name));
        let count = |name, labels: &[(&str, &str)]| {
            let labels: Vec<_> = labels.iter().copied().chain(shadow).collect();
            metrics.sum(name, &labels) as u64
        };
        let ended = |outcome| count("mirror_copies_total", &[("outcome", outcome)]);
        Self {
            selected: count("mirror_copies_selected_total", &[]),
            delivered: ended("delivered"),
            dropped: ended("dropped"),
            unknown: ended("unknown"),
            in_flight: count("mirror_copies_in_flight", &[]),
        }
    }

    /// Waits until no copy is in flight, and checks that every one is accounted for.
    ///
    /// # Errors
    /// Some stay in flight for longer than 25 s, or the sum is not that of the selected.
    pub fn settled(agent: &Agent<'_>) -> Result<Self> {
        Self::settle(agent, None)
    }

    /// As [`Copies::settled`], of one shadow (`namespace/name:port`).
    ///
    /// # Errors
    /// As there.
    pub fn settled_for(agent: &Agent<'_>, shadow: &str) -> Result<Self> {
        Self::settle(agent, Some(shadow))
    }

    /// The lines of `/metrics` that say why copies were lost.
    ///
    /// # Errors
    /// `/metrics` does not respond.
    pub fn losses(agent: &Agent<'_>) -> Result<String> {
        let (_, text) = agent.get("/metrics")?;
        let copies = text.lines().filter(|line| line.starts_with("mirror_copies_total"));
        let lost = copies.filter(|l| l.contains("\"dropped\"") || l.contains("\"unknown\""));
        Ok(lost.filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>().join("\n"))
    }

    fn settle(agent: &Agent<'_>, shadow: Option<&str>) -> Result<Self> {
        let mut copies = Self::default();
        let mut failed = None;
        eventually("no copy is in flight", LONG, || {
            match agent.metrics() {
                Ok(metrics) => copies = Self::of(&metrics, shadow),
                Err(error) => failed = Some(error),
            }
            failed.is_some() || copies.in_flight == 0
        })
        .with_context(|| copies.to_string())?;
        if let Some(error) = failed {
            return Err(error);
        }
        let ended = copies.delivered + copies.dropped + copies.unknown;
        ensure!(copies.selected == ended, "not every copy is accounted for: {copies}");
        Ok(copies)
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { selected, delivered, dropped, unknown, in_flight } = self;
        write!(
            f,
            "{selected} selected = {delivered} delivered + {dropped} dropped + {unknown} unknown \
             + {in_flight} in flight"
        )
    }
}
