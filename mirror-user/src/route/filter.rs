//! Filters of a rule or of one of its backends, in the order of the route.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Backend, Cors, InvalidBackend, Redirect, Rewrite};

/// One entry of `filters`, of a rule or of one of its backends.
#[derive(Debug)]
pub enum Filter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderModifier),
    /// `RequestMirror`.
    Mirror(Mirror),
    /// `RequestRedirect`: mirror responds, and no filter behind it acts on the request.
    Redirect(Arc<Redirect>),
    /// `URLRewrite`.
    Rewrite(Arc<Rewrite>),
    /// `CORS`: mirror responds to preflight requests; other responses get fields.
    Cors(Arc<Cors>),
}

impl Filter {
    /// Whether it may change the fields of a response, whoever made it.
    #[must_use]
    pub fn changes_response(&self) -> bool {
        match self {
            Self::ResponseHeaders(_) | Self::Cors(_) => true,
            Self::RequestHeaders(_) | Self::Mirror(_) | Self::Redirect(_) | Self::Rewrite(_) => {
                false
            }
        }
    }
}

/// `set`, `add` and `remove` of an HTTPHeaderFilter, applied in that order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderModifier {
    /// Replaces all values of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appends a value to the name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes all values of the name.
    pub remove: Vec<HeaderName>,
}

impl HeaderModifier {
    /// Changes `headers` in place. The order of the names that stay is kept
    /// (`HeaderMap::remove` would move the last one into the gap).
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        if self.remove.iter().any(|name| headers.contains_key(name)) {
            retain(headers, |name| !self.remove.contains(name));
        }
    }
}

/// Keeps the fields whose name `keep` accepts, in their order.
pub fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let mut kept = HeaderMap::with_capacity(headers.len());
    // A name comes with the first of its values alone.
    let mut current = None;
    for (name, value) in std::mem::take(headers) {
        if let Some(name) = name {
            current = keep(&name).then_some(name);
        }
        if let Some(name) = &current {
            kept.append(name, value);
        }
    }
    *headers = kept;
}

/// A `RequestMirror` filter.
#[derive(Debug)]
pub struct Mirror {
    /// The shadow backend.
    pub target: Result<Arc<Backend>, InvalidBackend>,
    /// Which share of the requests it copies.
    pub share: Fraction,
}

/// `percent` or `fraction` of a RequestMirror: `numerator` of `denominator` requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// 0 to `denominator`.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

impl Fraction {
    /// Every request: what a filter without `percent` and `fraction` means.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// Whether a request with this draw (uniform over all of u64) is copied.
    #[must_use]
    pub fn selects(self, draw: u64) -> bool {
        ((u128::from(draw) * u128::from(self.denominator)) >> 64) < u128::from(self.numerator)
    }
}
