//! A section of the report: what one part of the bench has measured.

use serde::Serialize;
use serde_json::Value;

use super::goals::Goal;

/// Text for people, data for programs, and the goals that it says something about.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub(super) name: &'static str,
    #[serde(skip)]
    pub(super) text: String,
    pub(super) data: Value,
    pub(super) goals: Vec<Goal>,
}

impl Section {
    /// One that could not be measured at all: it stays in the report.
    pub(super) fn failed(name: &'static str, error: &anyhow::Error) -> Self {
        let reason = format!("{error:#}");
        Self {
            name,
            text: format!("FAILED: {reason}\n"),
            data: serde_json::json!({ "failed": reason }),
            goals: Vec::new(),
        }
    }
}
