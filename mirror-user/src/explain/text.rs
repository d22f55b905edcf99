//! The explanation as text, for a terminal. Text from the request and the folder is written with
//! its control characters escaped.

use std::fmt::{self, Display, Formatter};

use super::{
    reply::Reply,
    report::{
        BackendView, Candidate, CopyView, Explanation, FilterStep, FrontendView, MatchResult,
        RuleView, TableView, Verdict,
    },
};
use crate::plain::Plain;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        writeln!(f, "request    {} {}", request.method, Plain(&request.target))?;
        for (name, value) in &request.headers {
            writeln!(f, "           {name}: {}", Plain(value))?;
        }
        writeln!(f, "client     of namespace {}", request.client_namespace)?;
        self.verdict.fmt(f)?;
        list(f, "problems: parts of these files are not in force", &self.problems)?;
        list(f, "conditions that are not met", &self.unmet_conditions)?;
        list(f, "warnings", &self.warnings)
    }
}

fn list(f: &mut Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "  - {}", Plain(line)))
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCaptured { why } => {
                writeln!(f, "frontend   none: {}", Plain(why))?;
                writeln!(f, "\nThe connection is not captured: it goes direct, untouched.")
            }
            Self::PassesThrough { frontend, why } => {
                frontend.fmt(f)?;
                writeln!(f, "routes     none: {why}")
            }
            Self::BadRequest { frontend, reply, why } => {
                frontend.fmt(f)?;
                writeln!(f, "\nmirror itself responds with {reply}: {why}")
            }
            Self::NoMatch { frontend, table, candidates, reply } => {
                write!(f, "{frontend}{table}")?;
                tried(f, candidates)?;
                writeln!(f, "\nNo rule matches: mirror itself responds with {reply}.")
            }
            Self::Match { frontend, table, candidates, rule } => {
                write!(f, "{frontend}{table}")?;
                tried(f, candidates)?;
                rule.fmt(f)
            }
        }
    }
}

impl Display for FrontendView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "frontend   Service {} at {}", self.service, self.addresses.join(", "))?;
        match &self.tap.why {
            None => writeln!(f, "tap        possible (mirror agent --mode auto or tap)"),
            Some(why) => writeln!(f, "tap        not possible: {}", Plain(why)),
        }
    }
}

impl Display for TableView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer { namespace } => {
                writeln!(f, "routes     producer routes, of the Service's namespace {namespace}")
            }
            Self::Consumer { namespace } => writeln!(
                f,
                "routes     consumer routes, of the client's namespace {namespace}: they replace \
                 the producer's"
            ),
        }
    }
}

fn tried(f: &mut Formatter<'_>, candidates: &[Candidate]) -> fmt::Result {
    writeln!(f, "\nmatches, in the order in which they are tried")?;
    for (at, candidate) in candidates.iter().enumerate() {
        let Candidate { wants, route, rule, rule_name, r#match, result } = candidate;
        let mark = if matches!(result, MatchResult::Chosen { .. }) { '>' } else { ' ' };
        writeln!(f, "{mark} {}. {}", at + 1, Plain(wants))?;
        writeln!(f, "     {route} rule {rule}{}, match {match}", Named(rule_name))?;
        match result {
            MatchResult::Differs { mismatches } => mismatches
                .iter()
                .try_for_each(|mismatch| writeln!(f, "     differs: {}", Plain(&mismatch.text)))?,
            MatchResult::Chosen { precedence } => writeln!(f, "     matches: {precedence}")?,
            MatchResult::Later { because } => {
                writeln!(f, "     would match, but comes after the chosen one ({because})")?;
            }
        }
    }
    Ok(())
}

impl Display for RuleView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { route, rule, name, r#match, tunnel, filters, .. } = self;
        writeln!(f, "\nrule       {route} rule {rule}{}, match {match}", Named(name))?;
        if *tunnel {
            writeln!(f, "tunnel     the request asks for one (CONNECT, or Upgrade to WebSocket)")?;
        }
        if !filters.is_empty() {
            writeln!(f, "\nfilters, in order")?;
        }
        for (at, step) in filters.iter().enumerate() {
            write!(f, "  {}. {step}", at + 1)?;
        }
        if let Some(status) = self.responds {
            return writeln!(f, "\nA filter responds with {status}: no backend gets the request.");
        }
        if !self.timeouts.is_empty() {
            let (late, timeouts) = (&self.timed_out, self.timeouts.join(", "));
            writeln!(f, "\ntimeouts, after which clients get {late}: {timeouts}")?;
        }
        if let Some(retry) = &self.retry {
            writeln!(f, "\nretry, if the backend fails: {retry}")?;
        }
        writeln!(f, "\nbackends")?;
        self.backends.iter().try_for_each(|backend| backend.fmt(f))?;
        self.no_backend.iter().try_for_each(|why| writeln!(f, "  clients get {why}"))
    }
}

impl Display for FilterStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestHeaders { changes } => {
                writeln!(f, "request headers: {}", Plain(&changes.join("; ")))
            }
            Self::ResponseHeaders { changes } => {
                writeln!(f, "response headers: {}", Plain(&changes.join("; ")))
            }
            Self::Mirror(copy) => copy.fmt(f),
            Self::Rewrite { host, target } => {
                let host = host.iter().map(|host| format!("host {host}"));
                let target = target.iter().map(|target| format!("target {target}"));
                let parts: Vec<_> = host.chain(target).collect();
                writeln!(f, "rewrite: {}", Plain(&parts.join("; ")))
            }
            Self::Redirect { status, location } => {
                writeln!(f, "redirect: {status}, location {}", Plain(location))
            }
            Self::Cors { preflight: Some(fields) } => {
                writeln!(
                    f,
                    "CORS: responds to this preflight request: {}",
                    Plain(&fields.join("; "))
                )
            }
            Self::Cors { preflight: None } => {
                writeln!(f, "CORS: sets fields of the response as the request's Origin needs")
            }
            Self::NotReached => writeln!(f, "not reached: a filter before this one responds"),
        }
    }
}

impl Display for CopyView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { shadow, numerator, denominator, never, host, headers, endpoints } = self;
        let shadow = shadow.as_deref().unwrap_or("nowhere");
        match (numerator, denominator) {
            (all, of) if all == of => writeln!(f, "mirror every request to {shadow}")?,
            (some, 100) => writeln!(f, "mirror {some} % of the requests to {shadow}")?,
            (some, of) => writeln!(f, "mirror {some} of {of} requests to {shadow}")?,
        }
        if let Some(never) = never {
            return writeln!(f, "     {}", Plain(never));
        }
        writeln!(f, "     endpoints {}", endpoints.join(", "))?;
        writeln!(f, "     host {}", Plain(host.as_deref().unwrap_or("none")))?;
        let others = headers.iter().filter(|(name, _)| name != "host");
        others.into_iter().try_for_each(|(n, v)| writeln!(f, "     {n}: {}", Plain(v)))
    }
}

impl Display for BackendView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { service, weight, share, changes, address, endpoints, answer, grpc, host } = self;
        let service = service.as_deref().unwrap_or("nowhere");
        let share = (share * 1e4).round() / 1e4;
        writeln!(f, "  - {service}, weight {weight}: {share} % of the requests")?;
        changes.iter().try_for_each(|change| writeln!(f, "    {}", Plain(change)))?;
        match answer {
            Some((status, why)) => {
                let reply = Reply { status: *status, grpc: grpc.clone() };
                writeln!(f, "    mirror itself responds with {reply}: {}", Plain(why))
            }
            None => {
                match address {
                    Some(address) => {
                        writeln!(f, "    address {address}; the cluster chooses the endpoint")?;
                    }
                    None => writeln!(f, "    endpoints {}", endpoints.join(", "))?,
                }
                writeln!(f, "    host {}", Plain(host.as_deref().unwrap_or("none")))
            }
        }
    }
}

/// ` "name"`, or nothing.
struct Named<'a>(&'a Option<String>);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, " {name:?}"))
    }
}
