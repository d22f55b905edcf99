//! The verdict as text, for a terminal. Names of others are written escaped.

use std::fmt::{self, Display, Formatter};

use super::{
    judge::{Judged, Judgement, Latency, Outcome, Subject, Verdict, Window},
    number::{count, duration, percent, seconds, short},
    times::Percentile,
};
use crate::plain::Plain;

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::NotEnoughData => "not enough data",
            Self::Fail => "fail",
        }
    }
}

impl Subject {
    fn text(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Errors => "errors",
            Self::Slower => "slower",
            Self::Lost => "lost",
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [one] = &*self.shadows else {
            writeln!(f, "{}: {} shadows\n", self.verdict.text(), self.shadows.len())?;
            for shadow in &self.shadows {
                writeln!(f, "{shadow}")?;
            }
            return write!(f, "{}", self.window);
        };
        writeln!(f, "{one}")?;
        write!(f, "{}", self.window)
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, route, seconds, agents } = self;
        write!(f, "counted for {kind} {} by {} agent", Plain(route), agents.len())?;
        let several = if agents.len() == 1 { "" } else { "s" };
        match seconds {
            Some(seconds) => writeln!(f, "{several} in {}", duration(*seconds))?,
            None => {
                let oldest = agents.iter().map(|agent| agent.uptime_seconds).fold(0.0, f64::max);
                let each =
                    if agents.len() == 1 { "its start," } else { "the start of each, at most" };
                writeln!(f, "{several} since {each} {} ago", duration(oldest))?;
            }
        }
        for agent in agents {
            if let Some(why) = &agent.unready {
                writeln!(
                    f,
                    "the agent at {} is not ready: {}",
                    agent.address,
                    Plain(why.trim_end())
                )?;
            }
        }
        Ok(())
    }
}

impl Display for Judged {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        sentence(f, self)?;
        writeln!(
            f,
            "\n{:<11}{:<27}{:<20}{:<10}result",
            "judgement", "measured", "95 % interval", "limit"
        )?;
        for judgement in &self.judgements {
            row(f, judgement)?;
        }
        for judgement in &self.judgements {
            missing(f, judgement)?;
        }
        matrix(f, self)?;
        latencies(f, &self.primary_latency, &self.shadow_latency)?;
        copies(f, self)
    }
}

/// What a person wants to know.
fn sentence(f: &mut Formatter<'_>, judged: &Judged) -> fmt::Result {
    write!(f, "{}: {} ", judged.verdict.text(), Plain(&judged.shadow))?;
    let share = |subject| judged.judgement(subject).measured_text();
    if judged.responses == 0 {
        write!(f, "responded to no request that the primary responded to as well")?;
    } else {
        write!(
            f,
            "responded with another status class than the primary in {} of {} responses{}, and with an error \
             where the primary had none in {}",
            share(Subject::Different),
            count(judged.responses),
            judged.judgement(Subject::Different).interval_text(" (", ")"),
            share(Subject::Errors)
        )?;
    }
    let slower = judged.judgement(Subject::Slower);
    if slower.measured.is_some() {
        let (ratio, interval) = (slower.measured_text(), slower.interval_text(" (", ")"));
        write!(f, "; it took {ratio} the primary's time{interval}")?;
    }
    let lost = judged.judgement(Subject::Lost);
    match lost.measured {
        Some(_) => {
            writeln!(f, "; {} of {} copies were lost.", lost.measured_text(), count(lost.of))
        }
        None => writeln!(f, "; no copy has ended."),
    }
}

impl Judgement {
    fn is_ratio(&self) -> bool {
        self.subject == Subject::Slower
    }

    fn measured_text(&self) -> String {
        match self.measured {
            None => "-".into(),
            Some(ratio) if self.is_ratio() => format!("{} times", short(ratio)),
            Some(share) => format!("{} %", percent(share)),
        }
    }

    fn interval_text(&self, before: &str, after: &str) -> String {
        match self.interval {
            None => String::new(),
            Some(i) if self.is_ratio() => {
                format!("{before}{} to {}{after}", short(i.lower), short(i.upper))
            }
            Some(i) => format!("{before}{} to {} %{after}", percent(i.lower), percent(i.upper)),
        }
    }

    fn limit_text(&self) -> String {
        if self.is_ratio() { short(self.limit) } else { format!("{} %", percent(self.limit)) }
    }
}

fn row(f: &mut Formatter<'_>, judgement: &Judgement) -> fmt::Result {
    let Judgement { subject, result, of, .. } = judgement;
    let mut measured = judgement.measured_text();
    if let (Some(part), Some(_)) = (judgement.count, judgement.measured) {
        measured += &format!(" ({} of {})", count(part), count(*of));
    }
    let interval = match judgement.interval {
        Some(_) => judgement.interval_text("", ""),
        None => "-".into(),
    };
    let (subject, limit, result) = (subject.text(), judgement.limit_text(), result.text());
    writeln!(f, "{subject:<11}{measured:<27}{interval:<20}{limit:<10}{result}")
}

/// What would be enough.
fn missing(f: &mut Formatter<'_>, judgement: &Judgement) -> fmt::Result {
    if judgement.result != Outcome::NotEnoughData {
        return Ok(());
    }
    let what = if judgement.subject == Subject::Lost { "copies" } else { "responses" };
    let (subject, of) = (judgement.subject.text(), count(judgement.of));
    match (judgement.needed, judgement.measured) {
        (Some(needed), Some(_)) => writeln!(
            f,
            "{subject}: there are {of} {what}; if it stays at {}, some {} would decide (an estimate)",
            judgement.measured_text(),
            count(needed)
        ),
        (Some(needed), None) => {
            writeln!(f, "{subject}: there are {of} {what}; {} are needed at least", count(needed))
        }
        (None, _) => writeln!(
            f,
            "{subject}: there are {of} {what}; what is measured is so near to the limit that no number of \
             them decides"
        ),
    }
}

/// How often which classes occurred together.
fn matrix(f: &mut Formatter<'_>, judged: &Judged) -> fmt::Result {
    if judged.classes.is_empty() {
        return Ok(());
    }
    let mut columns: Vec<_> = judged.classes.values().flat_map(|row| row.keys()).collect();
    columns.sort();
    columns.dedup();
    writeln!(f, "\nresponses, by the class of the primary's (rows) and the shadow's (columns)")?;
    write!(f, "{:<11}", "")?;
    for column in &columns {
        write!(f, "{:>13}", Plain(column).to_string())?;
    }
    writeln!(f)?;
    for (primary, row) in &judged.classes {
        write!(f, "{:<11}", Plain(primary).to_string())?;
        for column in &columns {
            write!(f, "{:>13}", count(row.get(*column).copied().unwrap_or(0)))?;
        }
        writeln!(f)?;
    }
    if judged.without_primary > 0 {
        let without = count(judged.without_primary);
        writeln!(f, "not judged: {without} that the primary did not respond to (none)")?;
    }
    Ok(())
}

fn latencies(f: &mut Formatter<'_>, primary: &Latency, own: &Latency) -> fmt::Result {
    if primary.responses + own.responses > 0 {
        writeln!(f, "\n{:<11}{:<32}shadow", "latency", "primary")?;
        let mean = |latency: &Latency| latency.mean_seconds.map_or("-".into(), seconds);
        writeln!(f, "{:<11}{:<32}{}", "mean", mean(primary), mean(own))?;
        let rows = [
            ("p50", primary.p50, own.p50),
            ("p90", primary.p90, own.p90),
            ("p99", primary.p99, own.p99),
        ];
        for (name, primary, own) in rows {
            writeln!(f, "{name:<11}{:<32}{}", bucket(primary), bucket(own))?;
        }
    }
    Ok(())
}

/// An estimate, and what is certain.
fn bucket(percentile: Option<Percentile>) -> String {
    let Some(Percentile { seconds: inside, above_seconds, up_to_seconds }) = percentile else {
        return "-".into();
    };
    match (inside, up_to_seconds) {
        (Some(inside), Some(up_to)) => {
            format!("about {} ({} to {})", seconds(inside), seconds(above_seconds), seconds(up_to))
        }
        _ => format!("more than {}", seconds(above_seconds)),
    }
}

/// Why copies were lost, and what is to be known of the counts.
fn copies(f: &mut Formatter<'_>, judged: &Judged) -> fmt::Result {
    let copies = &judged.copies;
    for (outcome, reasons) in [("dropped", &copies.dropped), ("unknown", &copies.unknown)] {
        if !reasons.is_empty() {
            let of = reasons.iter().map(|(why, n)| format!("{} {}", Plain(why), count(*n)));
            writeln!(f, "\ncopies {outcome}: {}", of.collect::<Vec<_>>().join(", "))?;
        }
    }
    if !copies.other_routes.is_empty() {
        let others: Vec<_> = copies.other_routes.iter().map(|r| Plain(r).to_string()).collect();
        writeln!(
            f,
            "\ncopies are counted by shadow, not by route: `lost` includes those of {}",
            others.join(", ")
        )?;
    }
    if judged.tapped {
        writeln!(
            f,
            "\nconnections are tapped at some frontend of the route: responses of primaries are not seen there, \
             and cannot be compared (mirror agent --mode)"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
