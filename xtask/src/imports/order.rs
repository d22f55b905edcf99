//! The list as it is written: a place on each line, from the top down. A module may import from those
//! below its own place. `a | b` are places that import nothing of each other. `from -> to` is an import
//! that exists against the order, as an exception.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// The order.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The places of each line.
    lines: Vec<Vec<String>>,
    exceptions: BTreeSet<(String, String)>,
}

impl Order {
    /// # Errors
    /// A line of another form, or a place that is named twice.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut order = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some((from, to)) = line.split_once("->") {
                let exception = (from.trim().to_owned(), to.trim().to_owned());
                if !order.exceptions.insert(exception) {
                    bail!("line {number}: this exception stands twice");
                }
                continue;
            }
            let places: Vec<_> = line.split('|').map(|place| place.trim().to_owned()).collect();
            for place in &places {
                let is_path = place.split("::").all(is_name);
                if !is_path {
                    bail!("line {number}: {place:?} is not the path of a module");
                }
                if order.places().any(|other| other == place) {
                    bail!("line {number}: {place} stands twice");
                }
            }
            order.lines.push(places);
        }
        Ok(order)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flatten().map(String::as_str)
    }

    pub(super) fn exceptions(&self) -> impl Iterator<Item = &(String, String)> {
        self.exceptions.iter()
    }

    pub(super) fn is_exception(&self, import: &(String, String)) -> bool {
        self.exceptions.contains(import)
    }

    /// The line and the place that a module belongs to: the longest of those that it is within.
    pub(super) fn place(&self, module: &str) -> Option<(usize, &str)> {
        let places = self.lines.iter().enumerate();
        let places =
            places.flat_map(|(line, places)| places.iter().map(move |place| (line, place)));
        places
            .filter(|(_, place)| is_within(module, place))
            .max_by_key(|(_, place)| place.len())
            .map(|(line, place)| (line, place.as_str()))
    }

    /// Why a module must not import from another.
    pub(super) fn forbids(&self, from: &str, to: &str) -> Option<&'static str> {
        let ((line, place), (other_line, other)) = (self.place(from)?, self.place(to)?);
        if place == other {
            None
        } else if line == other_line {
            Some("of which it is to know nothing")
        } else if line > other_line {
            Some("which stands above it")
        } else {
            None
        }
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a module is that of a place, or below it.
pub(super) fn is_within(module: &str, place: &str) -> bool {
    module.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
