//! What can be wrong with a document, and where.

use std::fmt;

use serde_ignored::Path as Ignored;

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Kind and name of the object, as far as they could be read.
    pub object: String,
    /// Path of the field, as `spec.rules[0].filters[1].type`.
    pub path: String,
    /// What is wrong with it.
    pub fault: DecodeFault,
}

impl DecodeError {
    pub(super) fn new(object: &str, path: &str, fault: DecodeFault) -> Self {
        Self { object: object.into(), path: path.into(), fault }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.path, self.fault)
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    /// The field that makes a document an object is not there.
    #[error("is missing: {0} has it")]
    Missing(&'static str),
    /// No `metadata.name`.
    #[error("has no name that is a string (a number or true has to be quoted)")]
    NoName,
    /// A known kind in an API version that is not read.
    #[error("{found} is not supported, only {supported}")]
    Version {
        /// The version of the document.
        found: String,
        /// Those that are read.
        supported: String,
    },
    /// A field that does not exist in the API, or that mirror does not know.
    #[error("unknown field{}", also(.others))]
    UnknownField {
        /// Further unknown fields of the same document.
        others: Vec<String>,
    },
    /// Not of the field's type.
    #[error("{0}")]
    Malformed(String),
    /// Of the right type, and out of bounds or contradictory.
    #[error("{0}")]
    Invalid(String),
    /// Known, and not honoured by this version of mirror.
    #[error("{0} is not supported; remove it (a part of a route is never ignored)")]
    Unsupported(String),
    /// Filters that exclude each other (HTTPRouteRule, `filters`).
    #[error("{0}")]
    Incompatible(String),
}

impl DecodeFault {
    /// Whether it is a field that mirror does not know.
    #[must_use]
    pub fn is_unknown_field(&self) -> bool {
        matches!(self, Self::UnknownField { .. })
    }

    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::NoName => "no_name",
            Self::Version { .. } => "version",
            Self::UnknownField { .. } => "unknown_field",
            Self::Malformed(_) => "malformed",
            Self::Invalid(_) => "invalid",
            Self::Unsupported(_) => "unsupported",
            Self::Incompatible(_) => "incompatible",
        }
    }
}

fn also(others: &[String]) -> String {
    if others.is_empty() { String::new() } else { format!(" (also {})", others.join(", ")) }
}

/// Path of a field within a document.
#[derive(Debug)]
pub(super) struct Path(pub(super) String);

impl Path {
    /// The same path, of a value that stands at `place`.
    pub(super) fn within(self, place: &str) -> Self {
        match self.0.as_str() {
            _ if place.is_empty() => self,
            // Of the whole value.
            "" | "." => Self(place.into()),
            path => Self(format!("{place}.{path}")),
        }
    }
}

/// Shorthand for the errors of the decoders.
pub(super) fn fail<T>(
    path: impl Into<String>,
    fault: DecodeFault,
) -> Result<T, (Path, DecodeFault)> {
    Err((Path(path.into()), fault))
}

/// A path as the API's documentation writes it.
pub(super) fn render(path: &Ignored<'_>) -> String {
    match path {
        Ignored::Root => String::new(),
        Ignored::Seq { parent, index } => format!("{}[{index}]", render(parent)),
        Ignored::Map { parent, key } => match render(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Ignored::Some { parent }
        | Ignored::NewtypeStruct { parent }
        | Ignored::NewtypeVariant { parent } => render(parent),
    }
}
