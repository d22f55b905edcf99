//! Matches in words, for `/config` and `mirror explain`.

use std::fmt;

use super::{Matcher, PathMatch, ValueMatch};

impl fmt::Display for Matcher {
    /// `path starts with /get, method = GET, header x-env = canary, query v ~ [0-9]+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.path)?;
        self.method.iter().try_for_each(|method| write!(f, ", method = {method}"))?;
        self.headers.iter().try_for_each(|h| write!(f, ", header {} {}", h.name, h.value))?;
        self.query.iter().try_for_each(|q| write!(f, ", query {} {}", q.name, q.value))
    }
}

impl fmt::Display for PathMatch {
    /// `= /get`, `starts with /get`, `~ /v[0-9]+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Prefix(path) => write!(f, "starts with {path}"),
            Self::Regex(pattern) => write!(f, "~ {}", pattern.as_str()),
        }
    }
}

impl fmt::Display for ValueMatch {
    /// `= canary`, `~ can.*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => write!(f, "= {exact}"),
            Self::Regex(pattern) => write!(f, "~ {}", pattern.as_str()),
        }
    }
}
