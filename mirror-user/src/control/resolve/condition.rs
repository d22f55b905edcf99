//! Conditions of a route at one of its parents, with the reasons of the Gateway API
//! (RouteConditionReason): made from what the decoder and the compiler found. Pure.

use std::collections::BTreeSet;

use crate::{
    control::{
        decode::{DecodeError, DecodeFault},
        objects::{Route, RuleRefusal},
    },
    model::ObjectName,
    route::{InvalidBackend, ServicePort},
};

/// A condition, with a reason of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether its status is True.
    pub holds: bool,
    /// Of `Accepted`: `Accepted`, `NoMatchingParent`, `Conflicted`, `UnsupportedValue`,
    /// `IncompatibleFilters`, and mirror's own `NotPermitted`, `AddressRefused` and `NoRoom`. Of `ResolvedRefs` and `PartiallyInvalid`: `ResolvedRefs`,
    /// `BackendNotFound`, `InvalidKind`, `RefNotPermitted` or `UnsupportedProtocol`.
    pub reason: &'static str,
    /// As text.
    pub message: String,
}

impl Condition {
    /// `Accepted` of a route that the decoder refused: it is not in force, not even in part.
    #[must_use]
    pub fn refused(error: &DecodeError) -> Self {
        let reason = Self::reason_of(&error.fault);
        let message = format!("{}: {}", error.path, error.fault);
        Self { holds: false, reason, message }
    }

    /// The reason for a route, or a rule, that the decoder refused.
    #[must_use]
    pub fn reason_of(fault: &DecodeFault) -> &'static str {
        match fault {
            DecodeFault::Incompatible(_) => "IncompatibleFilters",
            _ => "UnsupportedValue",
        }
    }

    /// `note`: what to know of the parent, though the route is attached.
    pub(super) fn accepted(route: &Route, note: Option<String>) -> Self {
        let mut message = "the route is attached".to_owned();
        if !route.hostnames.is_empty() {
            message.push_str("; its hostnames have no effect");
        }
        if let Some(note) = note {
            message = format!("{message}; {note}");
        }
        Self { holds: true, reason: "Accepted", message }
    }

    /// `Accepted` of a route that is not looked at: there are too many.
    #[must_use]
    pub fn no_room(why: String) -> Self {
        Self { holds: false, reason: "NoRoom", message: why }
    }

    pub(super) fn not_permitted(message: String) -> Self {
        Self { holds: false, reason: "NotPermitted", message }
    }

    /// Nothing of the parent may be, or has room to be, a frontend.
    pub(super) fn no_frontend(reason: &'static str, service: &ObjectName, why: &str) -> Self {
        let message = format!("no address of Service {service} is captured: {why}");
        Self { holds: false, reason, message }
    }

    pub(super) fn no_parent(message: String) -> Self {
        Self { holds: false, reason: "NoMatchingParent", message }
    }

    /// Routes of a more specific kind are attached wherever this one is (GEP-1294, "Route types").
    pub(super) fn displaced(service: &ObjectName) -> Self {
        let message = format!(
            "GRPCRoutes are attached to the same ports of Service {service}, and apply instead of \
             HTTPRoutes (GEP-1294)"
        );
        Self { holds: false, reason: "Conflicted", message }
    }

    /// Clients that connect to `service` reach addresses that belong to `other` already.
    pub(super) fn conflicted(service: &ObjectName, other: &ServicePort) -> Self {
        let message = format!(
            "every address of Service {service} already belongs to {other}, whose routes apply there"
        );
        Self { holds: false, reason: "Conflicted", message }
    }

    /// `ResolvedRefs`, from the faults of all rules: the first decides the reason.
    /// `notes`: what to know of references without a fault.
    pub(super) fn resolved_refs<'f>(
        faults: impl Iterator<Item = &'f InvalidBackend>,
        notes: &BTreeSet<String>,
    ) -> Self {
        let faults: Vec<_> = faults.collect();
        let notes = notes.iter().cloned();
        let Some(first) = faults.first() else {
            let all = "all references resolve to a Service".to_owned();
            let message = std::iter::once(all).chain(notes).collect::<Vec<_>>().join("; ");
            return Self { holds: true, reason: "ResolvedRefs", message };
        };
        let mut messages: Vec<_> = faults.iter().map(ToString::to_string).collect();
        messages.dedup();
        messages.extend(notes);
        Self { holds: false, reason: reason(first), message: messages.join("; ") }
    }

    /// `PartiallyInvalid` of a route with rules that cannot be served, while others can. The API wants the
    /// message to begin with "Dropped Rule".
    pub(super) fn dropped_rules(refused: &[(usize, &RuleRefusal)]) -> Option<Self> {
        let (_, first) = refused.first()?;
        let texts: Vec<_> = refused.iter().map(|(_, refusal)| refusal.to_string()).collect();
        let message = format!(
            "Dropped Rule: {}; an agent that knows an earlier valid state of such a rule, with the same \
             matches, goes on with that, any other responds 500 to the requests that match it; the other \
             rules apply",
            texts.join("; ")
        );
        Some(Self { holds: true, reason: Self::reason_of(&first.fault), message })
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
            "Dropped Rule parts, of {}: references that do not resolve (see ResolvedRefs) get \
             no copies, and their backends' share of requests gets 500; the other rules apply",
            places.join(", ")
        );
        Some(Self { holds: true, reason: reason(first), message })
    }
}

fn reason(fault: &InvalidBackend) -> &'static str {
    match fault {
        InvalidBackend::NoService(_) | InvalidBackend::NoPort { .. } => "BackendNotFound",
        InvalidBackend::Kind(_) => "InvalidKind",
        InvalidBackend::NotPermitted(_) | InvalidBackend::Refused { .. } => "RefNotPermitted",
        InvalidBackend::Protocol { .. } => "UnsupportedProtocol",
        InvalidBackend::RefusedRule(_) | InvalidBackend::NoAddresses { .. } => "UnsupportedValue",
    }
}
