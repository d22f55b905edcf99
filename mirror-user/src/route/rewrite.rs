//! `URLRewrite`, and the path modifiers that it shares with `RequestRedirect`. In: a request's head.
//! Out: the head with another host, another path, or both. Query, fragment and whatever bytes of the
//! path are not replaced stay as they came: nothing is decoded, encoded or normalised. Pure.

use std::fmt;

use http::{HeaderValue, header, request};

use super::{
    Target,
    matcher::elements,
    target::{self, InvalidTarget},
};

/// `HTTPPathModifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// `ReplaceFullPath`: the new path, which begins with a slash.
    Full(String),
    /// `ReplacePrefixMatch`. Neither ends with a slash, so that `/` is the empty text here.
    Prefix {
        /// The path of the rule's only match, a PathPrefix.
        matched: String,
        /// What stands there instead; begins with a slash if it is not empty.
        replacement: String,
    },
}

/// `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// `hostname`: replaces the value of Host, with its port.
    pub hostname: Option<HeaderValue>,
    /// `path`.
    pub path: Option<PathModifier>,
}

impl PathModifier {
    /// `value` without a slash in front gets one.
    #[must_use]
    pub fn full(value: &str) -> Self {
        Self::Full(format!("/{}", value.strip_prefix('/').unwrap_or(value)))
    }

    /// `matched`: the path of the match. A trailing slash of either means nothing
    /// (HTTPPathModifier, `replacePrefixMatch`).
    #[must_use]
    pub fn prefix(matched: &str, replacement: &str) -> Self {
        let replacement = replacement.trim_end_matches('/');
        let slash = if replacement.is_empty() || replacement.starts_with('/') { "" } else { "/" };
        let replacement = format!("{slash}{replacement}");
        Self::Prefix { matched: elements(matched).into(), replacement }
    }

    /// The path that stands for `path`, which begins with a slash as the result does. None: there is
    /// nothing to replace, since it is no path (`*`, and the authority of CONNECT), or one that the
    /// rule's match does not hold for.
    #[must_use]
    pub fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        if !path.starts_with(b"/") {
            return None;
        }
        match self {
            Self::Full(full) => Some(full.clone().into_bytes()),
            Self::Prefix { matched, replacement } => {
                let rest = path.strip_prefix(matched.as_bytes())?;
                match rest {
                    [] if replacement.is_empty() => Some(b"/".to_vec()),
                    [] | [b'/', ..] => Some([replacement.as_bytes(), rest].concat()),
                    _ => None,
                }
            }
        }
    }
}

impl Rewrite {
    /// Changes the head in place. CONNECT stays as it came: its target is where the tunnel leads
    /// (RFC 9112, section 3.2.3). A target in absolute form gets the host as well, because it outranks
    /// Host (section 3.2.2).
    ///
    /// # Errors
    /// [`InvalidTarget`], when host and path make no target; those that a route was decoded with
    /// always do.
    pub(crate) fn apply(&self, head: &mut request::Parts) -> Result<(), InvalidTarget> {
        let path = Target::of(head).path();
        if path.is_empty() {
            return Ok(());
        }
        let path = self.path.as_ref().and_then(|modifier| modifier.apply(path));
        let host = self.hostname.as_ref();
        target::replace(head, host.map(HeaderValue::as_bytes), path.as_deref())?;
        if let Some(host) = host {
            head.headers.insert(header::HOST, host.clone());
        }
        Ok(())
    }
}

impl fmt::Display for Rewrite {
    /// `rewrite: host one.example, prefix /a to /b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.hostname.iter().filter_map(|host| host.to_str().ok());
        let host = host.map(|host| format!("host {host}"));
        let parts: Vec<_> = host.chain(self.path.iter().map(ToString::to_string)).collect();
        write!(f, "rewrite: {}", parts.join(", "))
    }
}

impl fmt::Display for PathModifier {
    /// `prefix /a to /b`, or `path to /b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |prefix: &str| if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() };
        match self {
            Self::Full(path) => write!(f, "path to {path}"),
            Self::Prefix { matched, replacement } => {
                write!(f, "prefix {} to {}", shown(matched), shown(replacement))
            }
        }
    }
}

#[cfg(test)]
mod tests;
