//! Matches as text, for `/config` and `mirror explain`.

use std::fmt;

use super::{Matcher, PathMatch, ValueMatch};

impl fmt::Display for Matcher {
    /// `path starts with /get, method = GET, header x-env = (hidden), query v ~ (hidden)`: the values
    /// may be secrets. Only the alternate form (`{:#}`) has them: `header x-env = canary`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.path)?;
        self.method.iter().try_for_each(|method| write!(f, ", method = {method}"))?;
        for header in &self.headers {
            write!(f, ", header {} ", header.name)?;
            header.value.fmt(f)?;
        }
        for param in &self.query {
            write!(f, ", query {} ", param.name)?;
            param.value.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for PathMatch {
    /// `= /get`, `starts with /get`, `~ /v[0-9]+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Prefix(path) => write!(f, "starts with {path}"),
            Self::Regex(pattern) => write!(f, "~ {}", pattern.as_str()),
            Self::Grpc(grpc) => grpc.fmt(f),
        }
    }
}

impl fmt::Display for ValueMatch {
    /// `= (hidden)`, `~ (hidden)`; in the alternate form `= canary`, `~ can.*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self {
            Self::Exact(_) => '=',
            Self::Regex(_) => '~',
        };
        write!(f, "{sign} {}", if f.alternate() { self.as_str() } else { "(hidden)" })
    }
}
