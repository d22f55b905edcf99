//! The status as text, for a terminal. Control characters are written escaped.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use serde::de::IgnoredAny;

use super::Status;
use crate::{
    dump::{
        ConditionDump, ConfigDump, CopiesDump, FamilyDump, FrontendDump, LabelText, ObstacleDump,
        PairsDump, RouteDump, WatchDump, WorkloadDump,
    },
    plain::Plain,
};

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.unready {
            None => writeln!(f, "agent      ready")?,
            Some(why) => writeln!(f, "agent      not ready: {}", Plain(why.trim_end()))?,
        }
        let ConfigDump { mode, endpoints, workloads, watches, routes, .. } = &self.config;
        let chooser = if endpoints == "mirror" { "mirror" } else { "the cluster" };
        writeln!(f, "endpoints  chosen by {chooser}")?;
        if mode != "proxy" {
            writeln!(f, "mode       {}", Plain(mode))?;
        }
        writeln!(f, "workloads  {}", tally(workloads))?;
        counted(f, "uncopied", "request(s)", &self.uncopied)?;
        counted(f, "refused", "request(s) or connection(s)", &self.refused)?;
        if self.tapped + self.tap_lost_bytes > 0 {
            let Self { tapped, tap_lost_bytes, .. } = self;
            writeln!(f, "tapped     {tapped} requests, {tap_lost_bytes} bytes lost")?;
        }
        counted(f, "tap ended", "connection(s) before their end", &self.tap_stopped)?;
        let troubled: Vec<_> = watches.iter().filter(|watch| watch.trouble.is_some()).collect();
        section(f, "watches that do not follow the API server", &troubled)?;
        section(f, "workloads", workloads)?;
        let frontends: Vec<_> = routes.frontends.iter().map(FrontendRow).collect();
        section(f, "frontends", &frontends)?;
        section(f, "routes", &routes.routes)?;
        section(f, "copies", &self.copies)?;
        section(
            f,
            "responses of shadows, beside the primary's to the same requests",
            &self.responses,
        )?;
        let predating: Vec<_> = workloads.iter().filter(|w| !w.predating.is_empty()).collect();
        let predating: Vec<_> = predating.into_iter().map(ExistingConnectionCounts).collect();
        section(f, "connections that predate capture, and are direct until reopened", &predating)?;
        section(
            f,
            "problems",
            &routes.problems.iter().map(|text| Plain(text)).collect::<Vec<_>>(),
        )?;
        section(f, "warnings", &routes.warnings.iter().map(|text| Plain(text)).collect::<Vec<_>>())
    }
}

/// A title and a line for each; nothing if there are no lines.
fn section(f: &mut Formatter<'_>, title: &str, lines: &[impl Display]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
}

/// How many are in which state.
fn tally(workloads: &[WorkloadDump]) -> String {
    let mut states = BTreeMap::new();
    for workload in workloads {
        *states.entry(&*workload.state).or_insert(0) += 1;
    }
    if states.is_empty() {
        return "none".into();
    }
    let states: Vec<_> = states.iter().map(|(state, n)| format!("{n} {}", words(state))).collect();
    states.join(", ")
}

/// How many in all, and for which reasons, the most frequent first; nothing if the count is zero.
fn counted(
    f: &mut Formatter<'_>,
    title: &str,
    what: &str,
    reasons: &BTreeMap<LabelText, u64>,
) -> fmt::Result {
    let sum: u64 = reasons.values().sum();
    if sum == 0 {
        return Ok(());
    }
    let what = what.replace("(s)", if sum == 1 { "" } else { "s" });
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> = reasons.iter().map(|(why, n)| format!("{} {n}", words(why))).collect();
    writeln!(f, "{title:<10} {sum} {what} ({})", reasons.join(", "))
}

/// `not_asked` as two words.
fn words(label: &str) -> String {
    label.replace('_', " ")
}

impl Display for WatchDump {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Plain(&self.kind))?;
        match self.age_seconds {
            Some(age) => write!(f, "up to {age:.0} s old")?,
            None => write!(f, "never listed")?,
        }
        write!(f, ": {}", Plain(self.trouble.as_deref().unwrap_or("no trouble")))
    }
}

impl Display for WorkloadDump {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = Plain(&self.name).to_string();
        let mut line = format!("{name:<40} {:<9}", words(&self.state));
        if let Some(reason) = &self.reason {
            line += &format!(" {}", Plain(reason));
        }
        if let Some(FamilyDump { state, reason }) = self.ipv6.as_ref().filter(|v6| v6.state != "on")
        {
            let reason = reason.as_deref().map(|why| format!(": {}", Plain(why)));
            line += &format!(" (IPv6 {state}{})", reason.unwrap_or_default());
        }
        f.write_str(line.trim_end())
    }
}

/// A frontend at its address.
struct FrontendRow<'a>((&'a String, &'a FrontendDump<IgnoredAny>));

impl Display for FrontendRow<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (address, FrontendDump { service, connections, ahead, producer, consumers, .. }) =
            self.0;
        write!(f, "{address:<25} {:<40} {connections} connections", Plain(service).to_string())?;
        if let Some(matches) = producer {
            write!(f, ", {} matches", matches.len())?;
        }
        for (namespace, matches) in consumers {
            write!(f, ", {} matches for clients of {}", matches.len(), Plain(namespace))?;
        }
        if *ahead {
            write!(f, ", captured ahead of its routes")?;
        }
        match (&self.0.1.capture, &self.0.1.not_tapped) {
            (capture, Some(ObstacleDump { why, .. })) => {
                write!(f, ", {} because: {}", Plain(capture), Plain(why))
            }
            (capture, None) if capture != "proxied" => write!(f, ", {}", Plain(capture)),
            _ => Ok(()),
        }
    }
}

impl Display for RouteDump {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { route, parent, accepted, resolved_refs, partially_invalid } = self;
        write!(f, "{} at {}:", Plain(route), Plain(parent))?;
        condition(f, "Accepted", accepted)?;
        write!(f, ",")?;
        condition(f, "ResolvedRefs", resolved_refs)?;
        match partially_invalid {
            // With the same reason it says again what ResolvedRefs says.
            Some(ConditionDump { reason, message, .. }) if *reason != resolved_refs.reason => {
                write!(f, ", PartiallyInvalid ({reason}: {})", Plain(message))
            }
            _ => Ok(()),
        }
    }
}

/// Why, where it does not hold.
fn condition(f: &mut Formatter<'_>, kind: &str, condition: &ConditionDump) -> fmt::Result {
    let ConditionDump { status, reason, message } = condition;
    if *status {
        write!(f, " {kind}")
    } else {
        write!(f, " not {kind} ({reason}: {})", Plain(message))
    }
}

impl Display for CopiesDump {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { shadow, selected, in_flight, delivered, dropped, unknown, responses } = self;
        write!(f, "to {}: {selected} selected, {delivered} delivered", Plain(shadow))?;
        for (name, reasons) in [("dropped", dropped), ("unknown", unknown)] {
            let sum: u64 = reasons.values().sum();
            write!(f, ", {sum} {name}")?;
            if sum > 0 {
                let reasons: Vec<_> = reasons.iter().map(|(why, n)| format!("{why} {n}")).collect();
                write!(f, " ({})", reasons.join(", "))?;
            }
        }
        write!(f, ", {in_flight} in flight")?;
        if responses.is_empty() {
            return Ok(());
        }
        let responses: Vec<_> = responses.iter().map(|(code, n)| format!("{code} {n}")).collect();
        write!(f, "; responses: {}", responses.join(", "))
    }
}

impl Display for PairsDump {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { route, shadow, responses, differing, .. } = self;
        write!(f, "{} to {}: {responses} responses", Plain(route), Plain(shadow))?;
        let sum: u64 = differing.values().sum();
        if sum == 0 {
            write!(f, ", all of the primary's class")?;
        } else {
            let mut differing: Vec<_> = differing.iter().collect();
            differing.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let differing: Vec<_> =
                differing.iter().map(|(how, n)| format!("{}: {n}", Plain(how))).collect();
            write!(f, ", {sum} of another class ({})", differing.join("; "))?;
        }
        match (self.primary_seconds, self.shadow_seconds) {
            (Some(primary), Some(shadow)) => write!(
                f,
                "; on average after {:.1} ms, the primary's after {:.1} ms",
                shadow * 1e3,
                primary * 1e3
            ),
            _ => Ok(()),
        }
    }
}

/// What a workload has of them.
struct ExistingConnectionCounts<'a>(&'a WorkloadDump);

impl Display for ExistingConnectionCounts<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let services = self.0.predating.iter();
        let services: Vec<_> = services.map(|(to, n)| format!("{n} to {}", Plain(to))).collect();
        write!(f, "{}: {}", Plain(&self.0.name), services.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A status with something to show in each section.
    fn full() -> Status {
        let condition = |status| json!({"status": status, "reason": "R", "message": "why"});
        serde_json::from_value(json!({
            "ready": false, "unready": "no\n", "generation": 7, "obstacle": null,
            "endpoints": "service",
            "workloads": [
                {"name": "a/b", "state": "on", "reason": null, "uid": "0", "cgroup": "/x",
                    "ipv6": {"state": "on", "reason": null}, "predating": {"d/s:80": 3}},
                {"name": "a/c", "state": "not_asked", "reason": "a label\u{1b}[2J",
                    "ipv6": null, "predating": {}},
                {"name": "a/d", "state": "on", "reason": null,
                    "ipv6": {"state": "off", "reason": "lo is down"}, "predating": {}},
            ],
            "watches": [
                {"kind": "Service", "complete": true, "age_seconds": 0.0, "trouble": null},
                {"kind": "HTTPRoute", "complete": true, "age_seconds": 64.2, "trouble": "refused"},
                {"kind": "Pod", "complete": false, "age_seconds": null, "trouble": "a\nb"},
            ],
            "mode": "auto", "tapped": 4, "tap_stopped": {"http2": 2}, "tap_lost_bytes": 7,
            "frontends": {
                "10.0.0.1:80": {"service": "d/s:80", "connections": 2, "ahead": true,
                    "capture": "proxied", "not_tapped": {"reason": "filter", "why": "r\n"},
                    "producer": [{}], "consumers": {"x": [{}, {}]}},
                "10.0.0.2:80": {"service": "d/t:80", "connections": 0, "ahead": false,
                    "capture": "tapped", "not_tapped": null, "producer": [{}], "consumers": {}},
                "10.0.0.3:80": {"service": "d/u:80", "connections": 0, "ahead": false,
                    "capture": "proxied", "not_tapped": null, "producer": [{}], "consumers": {}}},
            "routes": [{"route": "d/r", "parent": "d/s", "accepted": condition(true),
                "resolved_refs": condition(false), "partially_invalid": {"status": true,
                    "reason": "P", "message": "why"}}],
            "copies": [{"shadow": "d/v2:80", "selected": 9, "in_flight": 1, "delivered": 5,
                "dropped": {"connect": 2}, "unknown": {"timeout": 1},
                "responses": {"2xx": 3, "5xx": 2}}],
            "responses": [{"route": "d/r", "shadow": "d/v2:80", "responses": 5,
                "differing": {"primary 2xx, shadow 5xx": 2}, "primary_seconds": 0.00121,
                "shadow_seconds": 0.0034}],
            "uncopied": {"connect": 1},
            "refused": {"head_too_large": 1, "invalid_target": 12},
            "problems": ["p"], "warnings": [],
        }))
        .unwrap()
    }

    #[test]
    fn everything_is_shown_and_a_program_in_a_name_is_not_run() {
        let pad = |text: &str, to: usize| format!("{text:<to$}");
        let expected = [
            "agent      not ready: no".to_owned(),
            "endpoints  chosen by the cluster".into(),
            "mode       auto".into(),
            "workloads  1 not asked, 2 on".into(),
            "uncopied   1 request (connect 1)".into(),
            "refused    13 requests or connections (invalid target 12, head too large 1)".into(),
            "tapped     4 requests, 7 bytes lost".into(),
            "tap ended  2 connections before their end (http2 2)".into(),
            String::new(),
            "watches that do not follow the API server".into(),
            "  HTTPRoute: up to 64 s old: refused".into(),
            "  Pod: never listed: a\\nb".into(),
            String::new(),
            "workloads".into(),
            format!("  {} on", pad("a/b", 40)),
            format!("  {} not asked a label\\u{{1b}}[2J", pad("a/c", 40)),
            format!("  {} {} (IPv6 off: lo is down)", pad("a/d", 40), pad("on", 9)),
            String::new(),
            "frontends".into(),
            format!(
                "  {} {} 2 connections, 1 matches, 2 matches for clients of x, captured ahead of \
                 its routes, proxied because: r\\n",
                pad("10.0.0.1:80", 25),
                pad("d/s:80", 40)
            ),
            format!(
                "  {} {} 0 connections, 1 matches, tapped",
                pad("10.0.0.2:80", 25),
                pad("d/t:80", 40)
            ),
            format!("  {} {} 0 connections, 1 matches", pad("10.0.0.3:80", 25), pad("d/u:80", 40)),
            String::new(),
            "routes".into(),
            "  d/r at d/s: Accepted, not ResolvedRefs (R: why), PartiallyInvalid (P: why)".into(),
            String::new(),
            "copies".into(),
            "  to d/v2:80: 9 selected, 5 delivered, 2 dropped (connect 2), 1 unknown (timeout 1), \
             1 in flight; responses: 2xx 3, 5xx 2"
                .into(),
            String::new(),
            "responses of shadows, beside the primary's to the same requests".into(),
            "  d/r to d/v2:80: 5 responses, 2 of another class (primary 2xx, shadow 5xx: 2); on average \
             after 3.4 ms, the primary's after 1.2 ms"
                .into(),
            String::new(),
            "connections that predate capture, and are direct until reopened".into(),
            "  a/b: 3 to d/s:80".into(),
            String::new(),
            "problems".into(),
            "  p".into(),
            String::new(),
        ];
        assert_eq!(full().to_string(), expected.join("\n"));
    }
    #[test]
    fn an_agent_of_another_version_is_understood() {
        let older: Status = serde_json::from_value(json!({
            "ready": true, "endpoints": "service", "workloads": [
                {"name": "a/b", "state": "paused", "predating": {}}],
            "frontends": {"10.0.0.1:80": {"service": "d/s:80", "connections": 0, "ahead": false,
                "producer": ["a match"], "consumers": {}}},
            "routes": [], "copies": [{"shadow": "d/v2:80", "selected": 0, "in_flight": 0,
                "delivered": 0, "dropped": {}, "unknown": {}}],
            "uncopied": {}, "refused": {}, "problems": [], "warnings": [],
            "tombstones": [7], "more": {"of": "it"},
        }))
        .unwrap();
        let expected = [
            "agent      ready".to_owned(),
            "endpoints  chosen by the cluster".into(),
            "workloads  1 paused".into(),
            "\nworkloads".into(),
            format!("  {:<40} paused", "a/b"),
            "\nfrontends".into(),
            format!("  {:<25} {:<40} 0 connections, 1 matches", "10.0.0.1:80", "d/s:80"),
            "\ncopies".into(),
            "  to d/v2:80: 0 selected, 0 delivered, 0 dropped, 0 unknown, 0 in flight\n".into(),
        ];
        assert_eq!(older.to_string(), expected.join("\n"));
    }
}
