//! The labels of a Namespace that say what its tenants may do with addresses that are not its
//! Services' own. Whoever owns the cluster sets them: tenants do not own their Namespace. In:
//! labels. Out: a consent.

use std::collections::BTreeMap;

/// Routes of the Namespace's Services may claim the addresses of endpoints, as headless Services
/// need it.
pub const ENDPOINT_FRONTENDS: &str = "mirror.dev/endpoint-frontends";

/// Copies for the Namespace's Services may go to addresses that are no Pod's of it: outside of the
/// cluster, or Nodes' own (`hostNetwork`).
pub const EXTERNAL_SHADOWS: &str = "mirror.dev/external-shadows";

/// What one of the labels says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// There is no such label, or its value is `disabled`.
    #[default]
    Withheld,
    /// `enabled`.
    Given,
    /// Any other value, which gives nothing.
    Unknown(Box<str>),
}

impl Consent {
    /// Reads the label of this key.
    #[must_use]
    pub fn of(labels: Option<&BTreeMap<String, String>>, key: &str) -> Self {
        match labels.and_then(|labels| labels.get(key)).map(String::as_str) {
            None | Some("disabled") => Self::Withheld,
            Some("enabled") => Self::Given,
            Some(other) => Self::Unknown(other.into()),
        }
    }

    /// What is wrong with the label's value, for people; None when nothing is.
    #[must_use]
    pub fn fault(&self, key: &str) -> Option<String> {
        match self {
            Self::Unknown(value) => Some(format!(
                "its label {key}={value} is neither enabled nor disabled, and permits nothing"
            )),
            Self::Withheld | Self::Given => None,
        }
    }
}
