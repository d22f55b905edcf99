//! Why a match does not hold, in the terms of the request. In: a match and a head. Out: each part
//! that does not hold, what it wants and what the request has. For people: it uses the same
//! predicates as [`Matcher::matches`] and decides nothing itself.

use std::fmt;

use http::{HeaderName, request};

use super::{Matcher, Target, ValueMatch, View, query};

/// A part of a match that does not hold for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which part.
    pub part: Part,
    /// What it wants, as text.
    pub wanted: String,
    /// What the request has; None if it has nothing there.
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

/// What is shown of the values that a match wants, which may be secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// All of them.
    Shown,
    /// That there is one.
    Hidden,
}

impl Values {
    fn of(self, value: &ValueMatch) -> String {
        match self {
            Self::Shown => format!("{value:#}"),
            Self::Hidden => value.to_string(),
        }
    }

    /// A whole match.
    #[must_use]
    pub fn of_match(self, matcher: &Matcher) -> String {
        match self {
            Self::Shown => format!("{matcher:#}"),
            Self::Hidden => matcher.to_string(),
        }
    }
}

impl Matcher {
    /// All parts that do not hold, in the order of the API's fields; none when the match holds.
    /// `values`: of headers and query parameters, as far as the match names them.
    #[must_use]
    pub fn mismatches(&self, head: &request::Parts, values: Values) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let view = View::new(head);
        let target = Target::of(head);
        let (path, query) = (target.path(), target.query());
        if !self.path.matches(path) {
            found.push(self.path_mismatch(path));
        }
        for header in self.headers.iter().filter(|header| !header.matches(&view)) {
            let has = head.headers.get_all(&header.name).iter();
            let has: Vec<_> = has.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            found.push(Mismatch {
                part: Part::Header(header.name.clone()),
                wanted: values.of(&header.value),
                found: (!has.is_empty()).then(|| has.join(",")),
            });
        }
        for param in self.query.iter().filter(|param| !param.matches(&view)) {
            let value = query::first(query, &param.name);
            found.push(Mismatch {
                part: Part::Query(param.name.clone()),
                wanted: values.of(&param.value),
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

    fn path_mismatch(&self, path: &[u8]) -> Mismatch {
        Mismatch {
            part: Part::Path,
            wanted: self.path.to_string(),
            found: (!path.is_empty()).then(|| String::from_utf8_lossy(path).into_owned()),
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
