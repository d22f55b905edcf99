//! One `matches` entry of a rule: a pure predicate over the request's head. In: the head as it
//! was parsed. Out: yes or no. It allocates nothing, except where an escaped query value meets a regular
//! expression, and for an index of the query where several matches ask for parameters. (The index of
//! a table does for a field that is repeated, and for an escaped query value.)
//!
//! Where the Gateway API leaves the choice to the implementation:
//! - Paths are compared as sent, byte for byte: no percent-decoding, no removal of `.` or double
//!   slashes, no character that a path must not have.
//! - A prefix of `/` holds for every request, `*` (OPTIONS) and CONNECT included.
//! - A header that occurs more than once is compared as one value, joined by `,` (RFC 9110 5.2).
//! - Query parameters are form-decoded (`%20` and `+` are a space) before they are compared, name
//!   and value; the first of a name counts; one without `=` has the empty value.
//! - Expressions must match the whole value, and are those of [`Pattern`]. Bytes that are no UTF-8 count as U+FFFD there, unless
//!   the expression names them (`(?-u:\xe9)`), so that `.` holds for them.

use http::{HeaderName, HeaderValue, Method};

pub use self::{
    grpc::GrpcMethodMatch,
    mismatch::{Mismatch, Part, Values},
    pattern::{Pattern, PatternError},
};
pub(super) use self::{
    grpc::split as grpc_call,
    query::{Pairs, decode},
    view::View,
};
use super::Target;

mod grpc;
mod mismatch;
mod pattern;
mod query;
#[cfg(test)]
mod tests;
mod text;
mod view;

/// `HTTPRouteMatch` or `GRPCRouteMatch`: all of its parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matcher {
    /// Condition on the path.
    pub path: PathMatch,
    /// The method, any when None.
    pub method: Option<Method>,
    /// Conditions on headers.
    pub headers: Vec<HeaderMatch>,
    /// Conditions on query parameters.
    pub query: Vec<QueryMatch>,
}

/// `HTTPPathMatch`, or what a `GRPCRouteMatch` wants of the path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(String),
    /// Whole elements of the path from its start; a trailing slash is ignored.
    Prefix(String),
    /// The whole path against an expression.
    Regex(Pattern),
    /// Service and method of a gRPC call.
    Grpc(GrpcMethodMatch),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// `HTTPHeaderMatch`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// Compared without case.
    pub name: HeaderName,
    /// What the value must be.
    pub value: ValueMatch,
}

/// `HTTPQueryParamMatch`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// Compared exactly; the first parameter of that name counts.
    pub name: String,
    /// What the value must be.
    pub value: ValueMatch,
}

/// `type` and `value` of a header or query match.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    /// Equal, byte for byte.
    Exact(String),
    /// The whole value against an expression.
    Regex(Pattern),
}

impl Matcher {
    /// Whether the request of this head is meant.
    #[must_use]
    pub fn matches(&self, head: &http::request::Parts) -> bool {
        self.holds(&View::new(head))
    }

    /// The same for a head that others look at as well.
    pub(super) fn holds(&self, view: &View<'_>) -> bool {
        view.looked();
        self.accepts(view.method())
            && self.path.holds(view)
            && self.headers.iter().all(|header| header.matches(view))
            && self.query.iter().all(|param| param.matches(view))
    }

    fn accepts(&self, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
    }
}

impl PathMatch {
    /// Whether `path` (no query; `*` and the empty path of CONNECT are possible) is meant.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == exact.as_bytes(),
            Self::Prefix(prefix) => {
                let prefix = elements(prefix).as_bytes();
                path.strip_prefix(prefix).is_some_and(|rest| {
                    prefix.is_empty() || rest.is_empty() || rest.starts_with(b"/")
                })
            }
            Self::Regex(pattern) => pattern.matches(path),
            Self::Grpc(grpc) => grpc.matches(path),
        }
    }

    fn holds(&self, view: &View<'_>) -> bool {
        match self {
            Self::Regex(pattern) => view.holds(pattern, || std::iter::once(view.path())),
            Self::Exact(_) | Self::Prefix(_) => self.matches(view.path()),
            Self::Grpc(grpc) => grpc.holds(view),
        }
    }
}

/// A prefix without its trailing slash, so that `/` becomes the empty one.
pub(super) fn elements(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

impl ValueMatch {
    /// The value or the expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(exact) => exact,
            Self::Regex(pattern) => pattern.as_str(),
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

impl HeaderMatch {
    fn matches(&self, view: &View<'_>) -> bool {
        let all = view.fields(&self.name);
        let mut values = all.iter().map(HeaderValue::as_bytes);
        let Some(first) = values.next() else { return false };
        match &self.value {
            ValueMatch::Exact(exact) => equals_joined(exact.as_bytes(), first, values),
            ValueMatch::Regex(pattern) => view.holds(pattern, || {
                let rest = all.iter().skip(1).map(HeaderValue::as_bytes);
                std::iter::once(first).chain(rest.flat_map(|value| [&b","[..], value]))
            }),
        }
    }
}

/// Whether `whole` is `first` and the others with a comma before each.
fn equals_joined<'a>(whole: &[u8], first: &[u8], mut rest: impl Iterator<Item = &'a [u8]>) -> bool {
    let Some(left) = whole.strip_prefix(first) else { return false };
    rest.try_fold(left, |left, value| left.strip_prefix(b",")?.strip_prefix(value))
        .is_some_and(<[u8]>::is_empty)
}

impl QueryMatch {
    fn matches(&self, view: &View<'_>) -> bool {
        view.param(&self.name).is_some_and(|value| view.is(&self.value, value))
    }
}
