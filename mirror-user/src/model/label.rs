//! The label `mirror.dev/capture`: of a Pod or Namespace, whether its connections are captured; of
//! a Service, whether connections to it are, before a route is attached. In: labels. Out: what they say.

use std::{collections::BTreeMap, fmt};

/// The label's key.
pub const LABEL: &str = "mirror.dev/capture";

/// Label of a Service: routes at it apply to clients that connect to its endpoints as well, as ingress
/// controllers, balancers of gRPC and registries do. Values as those of a [`Consent`](super::Consent).
pub const CAPTURE_ENDPOINTS: &str = "mirror.dev/capture-endpoints";

/// What the label of one object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CaptureLabel {
    /// There is no such label.
    #[default]
    None,
    /// `enabled`.
    Enabled,
    /// `disabled`.
    Disabled,
    /// Any other value.
    Unknown(Box<str>),
}

impl CaptureLabel {
    /// Reads the label.
    #[must_use]
    pub fn of(labels: Option<&BTreeMap<String, String>>) -> Self {
        match labels.and_then(|labels| labels.get(LABEL)).map(String::as_str) {
            None => Self::None,
            Some("enabled") => Self::Enabled,
            Some("disabled") => Self::Disabled,
            Some(other) => Self::Unknown(other.into()),
        }
    }

    /// What is wrong with the label's value, for people; None when nothing is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        matches!(self, Self::Unknown(_))
            .then(|| format!("its label {self} is neither enabled nor disabled"))
    }
}

/// As `KEY=VALUE`.
impl fmt::Display for CaptureLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match self {
            Self::None => return write!(f, "no label {LABEL}"),
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Unknown(other) => other,
        };
        write!(f, "{LABEL}={value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("app".into(), "x".into()), (LABEL.into(), value.into())])
    }

    #[test]
    fn a_label_is_read_by_its_exact_value() {
        assert_eq!(CaptureLabel::of(Some(&labels("enabled"))), CaptureLabel::Enabled);
        assert_eq!(CaptureLabel::of(Some(&labels("disabled"))), CaptureLabel::Disabled);
        assert_eq!(CaptureLabel::of(None), CaptureLabel::None);
        assert_eq!(CaptureLabel::of(Some(&BTreeMap::new())), CaptureLabel::None);
        let wrong = CaptureLabel::of(Some(&labels("Enabled")));
        assert_eq!(
            wrong.fault().unwrap(),
            "its label mirror.dev/capture=Enabled is neither enabled nor disabled"
        );
        assert_eq!(CaptureLabel::Enabled.fault(), None);
    }
}
