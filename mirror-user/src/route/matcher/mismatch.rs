//! Why a match does not hold, in the terms of the request. In: a match and a head. Out: each part
//! that does not hold, what it wants and what the request has. For people: it asks the same
//! predicates as [`Matcher::matches`] and decides nothing of its own.

use std::fmt;

use http::{HeaderName, request};

use super::{Matcher, query};

/// A part of a match that does not hold for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which part.
    pub part: Part,
    /// What it wants, in words.
    pub wanted: String,
    /// What the request has; None when it has nothing there.
    pub found: Option<String>,
}

/// A part of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `path`.
    Path,
    /// `method`.
    Method,
    /// One of `headers`.
    Header(HeaderName),
    /// One of `queryParams`.
    Query(String),
}

impl Matcher {
    /// All parts that do not hold, in the order of the API's fields; none when the match holds.
    #[must_use]
    pub fn mismatches(&self, head: &request::Parts) -> Vec<Mismatch> {
        let mut found = Vec::new();
        if !self.path.matches(head.uri.path()) {
            found.push(self.path_mismatch(head));
        }
        for header in self.headers.iter().filter(|header| !header.matches(&head.headers)) {
            let values = head.headers.get_all(&header.name).iter();
            let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            found.push(Mismatch {
                part: Part::Header(header.name.clone()),
                wanted: header.value.to_string(),
                found: (!values.is_empty()).then(|| values.join(",")),
            });
        }
        let query = head.uri.query().unwrap_or_default();
        for param in self.query.iter().filter(|param| !param.matches(query)) {
            let value = query::first(query, &param.name);
            found.push(Mismatch {
                part: Part::Query(param.name.clone()),
                wanted: param.value.to_string(),
                found: value.map(|v| String::from_utf8_lossy(&query::decode(v)).into_owned()),
            });
        }
        if !self.accepts(&head.method) {
            found.push(Mismatch {
                part: Part::Method,
                wanted: self.method.iter().map(ToString::to_string).collect(),
                found: Some(head.method.to_string()),
            });
        }
        found
    }

    fn path_mismatch(&self, head: &request::Parts) -> Mismatch {
        let path = head.uri.path();
        Mismatch {
            part: Part::Path,
            wanted: self.path.to_string(),
            found: (!path.is_empty()).then(|| path.to_owned()),
        }
    }
}

impl Part {
    /// `path`, `method`, `header` or `query`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::Header(_) => "header",
            Self::Query(_) => "query",
        }
    }

    /// Of the header or query parameter.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Path | Self::Method => None,
            Self::Header(name) => Some(name.as_str()),
            Self::Query(name) => Some(name),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, wanted, found } = self;
        f.write_str(part.label())?;
        if let Some(name) = part.name() {
            write!(f, " {name}")?;
        }
        match found {
            Some(found) => write!(f, ": wants {wanted}, the request has {found}"),
            None => write!(f, ": wants {wanted}, the request has none"),
        }
    }
}
