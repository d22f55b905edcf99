//! Conditions of a route at one of its parents, with the reasons of the Gateway API
//! (RouteConditionReason): made from what the decoder and the compiler found. Pure.

use crate::{
    control::{
        decode::{DecodeError, DecodeFault},
        objects::{HttpRoute, ObjectName},
    },
    route::{InvalidBackend, ServicePort},
};

/// A condition, with a reason of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether its status is True.
    pub holds: bool,
    /// Of `Accepted`: `Accepted`, `NoMatchingParent`, `Conflicted`, `UnsupportedValue` or
    /// `IncompatibleFilters`. Of `ResolvedRefs` and `PartiallyInvalid`: `ResolvedRefs`,
    /// `BackendNotFound`, `InvalidKind`, `RefNotPermitted` or `UnsupportedProtocol`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Condition {
    /// `Accepted` of a route that the decoder refused: it is not in force, not even in part.
    #[must_use]
    pub fn refused(error: &DecodeError) -> Self {
        let reason = match error.fault {
            DecodeFault::Incompatible(_) => "IncompatibleFilters",
            _ => "UnsupportedValue",
        };
        let message = format!("{}: {}", error.path, error.fault);
        Self { holds: false, reason, message }
    }

    pub(super) fn accepted(route: &HttpRoute) -> Self {
        let message = match route.hostnames.is_empty() {
            true => "the route is attached".into(),
            false => "the route is attached; its hostnames do not select".into(),
        };
        Self { holds: true, reason: "Accepted", message }
    }

    pub(super) fn no_parent(message: String) -> Self {
        Self { holds: false, reason: "NoMatchingParent", message }
    }

    /// Clients that connect to `service` reach addresses that belong to `other` already.
    pub(super) fn conflicted(service: &ObjectName, other: &ServicePort) -> Self {
        let message = format!(
            "every address of Service {service} belongs to {other} already, whose routes hold there"
        );
        Self { holds: false, reason: "Conflicted", message }
    }

    /// `ResolvedRefs`, from the faults of all rules: the first decides the reason.
    pub(super) fn resolved_refs<'f>(faults: impl Iterator<Item = &'f InvalidBackend>) -> Self {
        let faults: Vec<_> = faults.collect();
        let Some(first) = faults.first() else {
            let message = "all references lead to a Service".into();
            return Self { holds: true, reason: "ResolvedRefs", message };
        };
        let mut messages: Vec<_> = faults.iter().map(ToString::to_string).collect();
        messages.dedup();
        Self { holds: false, reason: reason(first), message: messages.join("; ") }
    }

    /// `PartiallyInvalid`, from the faults of each rule: when some rules have any, and not all.
    /// The API wants the message to begin with "Dropped Rule".
    pub(super) fn partially_invalid(rules: &[Vec<InvalidBackend>]) -> Option<Self> {
        if rules.iter().all(|faults| !faults.is_empty()) {
            return None;
        }
        let invalid = rules.iter().enumerate();
        let invalid = invalid.filter_map(|(at, faults)| faults.first().map(|first| (at, first)));
        let (places, firsts): (Vec<_>, Vec<_>) = invalid.unzip();
        let first = firsts.first()?;
        let places: Vec<_> = places.iter().map(|at| format!("spec.rules[{at}]")).collect();
        let message = format!(
            "Dropped Rule parts, of {}: their references that lead nowhere (see ResolvedRefs) get \
             no copies, and their backends' share is answered with 500; the other rules hold",
            places.join(", ")
        );
        Some(Self { holds: true, reason: reason(first), message })
    }
}

fn reason(fault: &InvalidBackend) -> &'static str {
    match fault {
        InvalidBackend::NoService(_) | InvalidBackend::NoPort { .. } => "BackendNotFound",
        InvalidBackend::Kind(_) => "InvalidKind",
        InvalidBackend::NotPermitted(_) => "RefNotPermitted",
        InvalidBackend::Protocol { .. } => "UnsupportedProtocol",
    }
}
