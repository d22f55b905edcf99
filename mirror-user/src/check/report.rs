//! The verdict as data: what `--json` writes, and what the text is made of.

use std::fmt;

use serde::Serialize;

use super::gather::{Input, InputError, SourceLocation};
use crate::{
    control::{
        decode::DecodeError,
        objects::ParentRef,
        resolve::{self, Condition, Resolved, RouteStatus},
    },
    model::RouteKind,
    plain,
};

/// Everything that there is to say of the files.
#[derive(Debug, Serialize)]
pub(super) struct CheckReport {
    /// In the order of the files.
    pub(super) findings: Vec<Finding>,
    /// What the controller would write.
    routes: Vec<RouteView>,
    summary: Summary,
}

/// Something to know, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// It would not be in force as written.
    Error,
    /// In force, and probably not what was meant.
    Warning,
    /// Not mirror's business.
    Note,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    file: Option<String>,
    /// Of the document's beginning.
    line: Option<u64>,
    object: Option<String>,
    /// Path of the field, when one is to blame.
    field: Option<String>,
    /// The condition that says the same in a cluster.
    condition: Option<&'static str>,
    /// Reason of that condition.
    pub(super) reason: Option<&'static str>,
    pub(super) message: String,
}

/// Conditions of a route at a parent.
#[derive(Debug, Serialize)]
struct RouteView {
    route: String,
    parent: String,
    conditions: Vec<ConditionView>,
}

#[derive(Debug, Serialize)]
struct ConditionView {
    #[serde(rename = "type")]
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct Summary {
    files: usize,
    /// Routes with a Service among their parents, refused ones included.
    routes: usize,
    errors: usize,
    warnings: usize,
}

impl CheckReport {
    pub(super) fn new(input: &Input, resolved: &Resolved) -> Self {
        let mut findings = errors(input);
        findings.extend(refused_rules(input));
        findings.extend(misgrouped(input));
        findings.extend(conditions(input, resolved));
        findings.extend(warnings(input, resolved));
        findings.extend(notes(input));
        let refused = input.refused.iter();
        let refused = refused
            .filter(|(_, refusal)| matches!(refusal, InputError::Object(error) if is_route(error)));
        let routes = input.objects.routes.len() + refused.count();
        if routes == 0 {
            findings.push(Finding::bare(
                Severity::Warning,
                "there is no HTTPRoute or GRPCRoute with a Service among its parents: nothing was checked",
            ));
        }
        findings.sort_by(|a, b| a.position().cmp(&b.position()));
        // A route's references are the same at each of its parents.
        findings.dedup();
        let count =
            |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let summary = Summary { files: input.files, routes, errors, warnings };
        let views = resolved.conditions.iter().map(RouteView::new).collect();
        Self { findings, routes: views, summary }
    }

    /// Whether the exit code says that all is well.
    pub(super) fn passes(&self, strict: bool) -> bool {
        self.summary.errors == 0 && !(strict && self.summary.warnings > 0)
    }
}

impl Finding {
    fn bare(severity: Severity, message: impl Into<String>) -> Self {
        let message = message.into();
        let (file, line, object, field) = (None, None, None, None);
        Self { severity, file, line, object, field, condition: None, reason: None, message }
    }

    fn at(self, location: Option<&SourceLocation>) -> Self {
        let file = location.map(|location| location.file.clone());
        Self { file, line: location.and_then(|location| location.line), ..self }
    }

    fn of(self, object: impl Into<String>) -> Self {
        Self { object: Some(object.into()), ..self }
    }

    /// As they stand in the files; what belongs to none comes last.
    fn position(&self) -> (bool, &Option<String>, Option<u64>, Severity) {
        (self.file.is_none(), &self.file, self.line, self.severity)
    }
}

/// What could not be read or decoded.
fn errors(input: &Input) -> Vec<Finding> {
    let finding = |(location, refusal): &(SourceLocation, InputError)| {
        let finding = match refusal {
            InputError::File(message) => Finding::bare(Severity::Error, message.as_str()),
            InputError::Object(error) => undecodable(error),
            InputError::Twice { identity, first } => {
                let line = first.line.map(|line| format!(":{line}")).unwrap_or_default();
                let message = format!("is already defined at {}{line}", first.file);
                Finding::bare(Severity::Error, message).of(identity.as_str())
            }
        };
        finding.at(Some(location))
    };
    input.refused.iter().map(finding).collect()
}

fn is_route(error: &DecodeError) -> bool {
    let kind = error.object.split(' ').next().unwrap_or_default();
    RouteKind::of(kind).is_some()
}

fn undecodable(error: &DecodeError) -> Finding {
    let finding = Finding::bare(Severity::Error, error.fault.to_string()).of(error.object.as_str());
    let finding = Finding { field: Some(error.path.clone()), ..finding };
    if is_route(error) {
        let reason = Some(Condition::refused(error).reason);
        return Finding { condition: Some("Accepted"), reason, ..finding };
    }
    finding
}

/// Rules that cannot be served, of routes that are in force otherwise.
fn refused_rules(input: &Input) -> impl Iterator<Item = Finding> {
    input.objects.routes.values().flat_map(move |route| {
        let object = route.name.identity();
        let refused = route.refused_rules();
        refused.map(move |(_, refusal)| {
            let finding = Finding::bare(Severity::Error, refusal.fault.to_string());
            let finding = finding.of(object.as_str()).at(input.places.get(&object));
            let reason = Some(Condition::reason_of(&refusal.fault));
            let field = Some(refusal.path.clone());
            Finding { field, condition: Some(PARTIAL), reason, ..finding }
        })
    })
}

/// Conditions that a user would have to act on.
fn conditions<'r>(input: &'r Input, resolved: &'r Resolved) -> impl Iterator<Item = Finding> + 'r {
    resolved.conditions.iter().flat_map(move |status| {
        let object = status.route.identity();
        let unmet = typed(status).into_iter();
        let unmet = unmet.filter(|(kind, condition)| !condition.holds && *kind != PARTIAL);
        unmet.map(move |(kind, condition)| {
            let message = match kind {
                // The parent is in the words of the others.
                "ResolvedRefs" => condition.message.clone(),
                _ => format!("at {}: {}", parent(&status.parent), condition.message),
            };
            let finding = Finding::bare(Severity::Error, message).of(object.as_str());
            let finding = finding.at(input.places.get(&object));
            Finding { condition: Some(kind), reason: Some(condition.reason), ..finding }
        })
    })
}

const PARTIAL: &str = "PartiallyInvalid";

fn typed(status: &RouteStatus) -> Vec<(&'static str, &Condition)> {
    let always = [("Accepted", &status.accepted), ("ResolvedRefs", &status.resolved_refs)];
    always.into_iter().chain(status.partially_invalid.iter().map(|c| (PARTIAL, c))).collect()
}

/// `parentRefs` that seem to name a Service, and do not: an agent only warns of them, because the route is
/// left to others.
fn misgrouped(input: &Input) -> impl Iterator<Item = Finding> {
    resolve::misgrouped_parents(&input.objects).map(|warning| {
        let place = input.places.get(&warning.object);
        Finding::bare(Severity::Error, warning.message).of(warning.object).at(place)
    })
}

fn warnings(input: &Input, resolved: &Resolved) -> Vec<Finding> {
    let errors: Vec<_> = resolve::misgrouped_parents(&input.objects).collect();
    let warnings = resolved.warnings.iter().filter(|warning| !errors.contains(warning));
    let warnings = warnings.map(|warning| {
        let finding = Finding::bare(Severity::Warning, warning.message.as_str());
        finding.of(warning.object.as_str()).at(input.places.get(&warning.object))
    });
    warnings.collect()
}

fn notes(input: &Input) -> Vec<Finding> {
    let foreign = input.gateway_routes.iter().map(|(location, object)| {
        let message = "all its parents are Gateways, so mirror ignores it (a \
                       Service as a parent needs group: \"\" and kind: Service)";
        Finding::bare(Severity::Note, message).of(object.as_str()).at(Some(location))
    });
    let unread = input.unread.iter().map(|(location, object)| {
        let message = "is of a kind that mirror does not read";
        Finding::bare(Severity::Note, message).of(object.as_str()).at(Some(location))
    });
    foreign.chain(unread).collect()
}

/// As `default/httpbin:8000` or `default/httpbin#http`.
fn parent(parent: &ParentRef) -> String {
    let port = parent.port.map(|port| format!(":{port}")).unwrap_or_default();
    let section = parent.section.as_ref().map(|name| format!("#{name}")).unwrap_or_default();
    format!("{}{port}{section}", parent.service)
}

impl RouteView {
    fn new(status: &RouteStatus) -> Self {
        let conditions = typed(status).into_iter().map(|(kind, condition)| ConditionView {
            kind,
            status: condition.holds,
            reason: condition.reason,
            message: condition.message.clone(),
        });
        Self {
            route: status.route.to_string(),
            parent: parent(&status.parent),
            conditions: conditions.collect(),
        }
    }
}

/// As compilers write it, so that editors find the place.
impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{}", plain::message(&finding.to_string()))?;
        }
        let Summary { files, routes, errors, warnings } = self.summary;
        let mut counts = [(files, "file"), (routes, "route"), (errors, "error")]
            .map(|(count, what)| plural(count, what))
            .to_vec();
        counts.push(plural(warnings, "warning"));
        writeln!(f, "{}", counts.join(", "))
    }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            match self.line {
                Some(line) => write!(f, "{line}: ")?,
                None => write!(f, " ")?,
            }
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        })?;
        for part in self.object.iter().chain(&self.field).filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)?;
        if let (Some(condition), Some(reason)) = (self.condition, self.reason) {
            let status = if condition == PARTIAL { "True" } else { "False" };
            write!(f, " [{condition}={status}, {reason}]")?;
        }
        Ok(())
    }
}
