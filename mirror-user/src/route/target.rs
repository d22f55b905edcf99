//! A request's target as the bytes that it came in. Clients send more than RFC 3986 allows
//! (`up{job="x"}`, `<`, a backtick, latin-1), and servers take it: what neither end minds is neither
//! refused nor changed on the way. In: the bytes behind the method. Out: the head's Uri, with the
//! bytes beside it where a Uri does not hold them; its path and query, for matching. Pure.
//!
//! A Uri holds nearly every target as it came, and then it is all that there is.

use std::ops::Range;

use bytes::Bytes;
use http::{
    Method, Uri, request,
    uri::{Authority, PathAndQuery, Scheme},
};

/// A target that its head's Uri does not hold byte for byte, among the head's extensions. The Uri
/// then has a scheme, which no other request in origin form has, so that only heads with one are
/// looked through.
#[derive(Clone, Debug)]
pub struct Verbatim {
    bytes: Bytes,
    /// Where the path begins: behind the authority, if the target is in absolute form; else 0.
    path: usize,
    held: bool,
}

/// Not a target of any form (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidTarget;

/// Path and query of a target, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'h> {
    path: &'h [u8],
    /// Of the path, the query and what parts them; may be shorter than the path.
    whole: &'h [u8],
}

impl<'h> Target<'h> {
    /// Of a request.
    #[must_use]
    pub fn of(head: &'h request::Parts) -> Self {
        match (Verbatim::of(head), head.uri.path_and_query()) {
            (Some(verbatim), _) => Self::split(verbatim.path_and_query()),
            (None, Some(whole)) => {
                Self { path: whole.path().as_bytes(), whole: whole.as_str().as_bytes() }
            }
            (None, None) => Self { path: head.uri.path().as_bytes(), whole: &[] },
        }
    }

    fn split(bytes: &'h [u8]) -> Self {
        // A fragment is no part of a target (RFC 9112, section 3.2): it passes, and is not matched.
        let end = bytes.iter().position(|byte| *byte == b'#').unwrap_or(bytes.len());
        let whole = &bytes[..end];
        match whole.iter().position(|byte| *byte == b'?').unwrap_or(end) {
            // RFC 9110, section 4.2.3.
            0 => Self { path: b"/", whole },
            path => Self { path: &whole[..path], whole },
        }
    }

    /// Up to `?` or `#`; `*` and the empty path of CONNECT are possible.
    #[must_use]
    pub fn path(self) -> &'h [u8] {
        self.path
    }

    /// Between `?` and `#`.
    #[must_use]
    pub fn query(self) -> &'h [u8] {
        self.behind_path().get(1..).unwrap_or_default()
    }

    /// The query with the `?` in front of it; empty if there is none.
    pub(super) fn behind_path(self) -> &'h [u8] {
        let mark = if self.whole.starts_with(b"?") { 0 } else { self.path.len() };
        self.whole.get(mark..).unwrap_or_default()
    }
}

impl Verbatim {
    /// The target of a request, if its Uri does not hold it byte for byte.
    #[must_use]
    pub fn of(head: &request::Parts) -> Option<&Self> {
        head.uri.scheme().and_then(|_| head.extensions.get())
    }

    /// The target as it came.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What follows the authority; `/` if nothing does.
    #[must_use]
    pub fn path_and_query(&self) -> &[u8] {
        match &self.bytes[self.path..] {
            [] => b"/",
            rest => rest,
        }
    }

    /// Whether it has a scheme and an authority, which the head's Uri then has as well.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.path > 0
    }

    /// Whether the Uri beside it has the same path and query.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The same in origin form (RFC 9112, section 3.2.1), or `*` (section 3.2.4).
    #[must_use]
    pub fn origin_form(&self, options: bool) -> Bytes {
        match &self.bytes[self.path..] {
            [] if options => Bytes::from_static(b"*"),
            [] => Bytes::from_static(b"/"),
            [b'/', ..] => self.bytes.slice(self.path..),
            rest => [b"/", rest].concat().into(),
        }
    }
}

/// Gives `head`, whose method is known, the target that lies at this place of `raw`. It has neither
/// whitespace nor control characters.
///
/// # Errors
/// [`InvalidTarget`]: it is of none of the four forms.
pub(crate) fn set(
    head: &mut request::Parts,
    raw: &Bytes,
    place: Range<usize>,
) -> Result<(), InvalidTarget> {
    let length = place.len();
    if let Ok(uri) = Uri::from_maybe_shared(raw.slice(place.clone())) {
        head.uri = uri;
        if head.uri.path_and_query().is_some_and(|held| held.as_str().len() == length) {
            return Ok(());
        }
    }
    set_any(head, raw.slice(place))
}

/// Gives the target another path, and another authority if it is in absolute form; each stays where
/// None stands, and so does all else, byte for byte. Neither has whitespace or control characters.
///
/// # Errors
/// [`InvalidTarget`]: the authority is none, or the path does not begin with a slash.
pub(super) fn replace(
    head: &mut request::Parts,
    authority: Option<&[u8]>,
    path: Option<&[u8]>,
) -> Result<(), InvalidTarget> {
    let verbatim = Verbatim::of(head);
    let authority = authority.filter(|_| verbatim.is_some_and(Verbatim::is_absolute));
    if authority.is_none() && path.is_none() {
        return Ok(());
    }
    let (front, rest) = match (verbatim, head.uri.path_and_query()) {
        (Some(verbatim), _) => verbatim.bytes.split_at(verbatim.path),
        (None, whole) => (&b""[..], whole.map_or("", PathAndQuery::as_str).as_bytes()),
    };
    let scheme = behind_scheme(front).map_or(&b""[..], |at| &front[..at]);
    let end = rest.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(rest.len());
    let (old, behind) = rest.split_at(end);
    let authority = authority.unwrap_or(&front[scheme.len()..]);
    let bytes: Bytes = [scheme, authority, path.unwrap_or(old), behind].concat().into();
    set(head, &bytes, 0..bytes.len())
}

/// The host of an authority, and its port or nothing. A colon inside brackets belongs to the address.
pub(crate) fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    }
}

#[cold]
fn set_any(head: &mut request::Parts, bytes: Bytes) -> Result<(), InvalidTarget> {
    let uri = Uri::from_maybe_shared(bytes.clone()).ok();
    if bytes.starts_with(b"/") {
        // The fragment is cut off, or there is a byte that no Uri has.
        return set_origin(head, bytes, uri.as_ref());
    }
    match behind_scheme(&bytes).filter(|_| head.method != Method::CONNECT) {
        Some(at) => set_absolute(head, bytes, at),
        None => {
            // The http crate takes an empty scheme for one.
            head.uri = uri.filter(|uri| uri.scheme().is_none()).ok_or(InvalidTarget)?;
            Ok(())
        }
    }
}

fn set_origin(
    head: &mut request::Parts,
    bytes: Bytes,
    uri: Option<&Uri>,
) -> Result<(), InvalidTarget> {
    let path = uri.and_then(Uri::path_and_query).cloned();
    let held = path.is_some();
    let nobody = Authority::from_static("verbatim.invalid");
    head.uri = with_path(Scheme::HTTP, nobody, path)?;
    head.extensions.insert(Verbatim { bytes, path: 0, held });
    Ok(())
}

/// `at`: where the authority begins.
fn set_absolute(head: &mut request::Parts, bytes: Bytes, at: usize) -> Result<(), InvalidTarget> {
    let scheme = Scheme::try_from(&bytes[..at - 3]).map_err(|_| InvalidTarget)?;
    let length = bytes[at..].iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let end = length.map_or(bytes.len(), |length| at + length);
    let authority =
        Authority::from_maybe_shared(bytes.slice(at..end)).map_err(|_| InvalidTarget)?;
    let mut verbatim = Verbatim { bytes, path: end, held: false };
    let origin = verbatim.origin_form(head.method == Method::OPTIONS);
    let path = PathAndQuery::from_maybe_shared(origin).ok();
    verbatim.held = path.is_some();
    head.uri = with_path(scheme, authority, path)?;
    head.extensions.insert(verbatim);
    Ok(())
}

fn with_path(
    scheme: Scheme,
    authority: Authority,
    path: Option<PathAndQuery>,
) -> Result<Uri, InvalidTarget> {
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = http::uri::Parts::default();
    (parts.scheme, parts.authority, parts.path_and_query) =
        (Some(scheme), Some(authority), Some(path));
    Uri::from_parts(parts).map_err(|_| InvalidTarget)
}

/// Where the authority begins, if there is a scheme (RFC 3986, section 3.1).
fn behind_scheme(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = bytes.split_at(end);
    let named = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (named && rest.starts_with(b"://")).then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: Method, target: &[u8]) -> Result<request::Parts, InvalidTarget> {
        let mut head = http::Request::new(()).into_parts().0;
        head.method = method;
        set(&mut head, &Bytes::copy_from_slice(target), 0..target.len()).map(|()| head)
    }

    fn split(target: &[u8]) -> (String, String) {
        let head = head(Method::GET, target).unwrap();
        let target = Target::of(&head);
        (target.path().escape_ascii().to_string(), target.query().escape_ascii().to_string())
    }

    #[test]
    fn a_target_that_a_uri_holds_is_the_uri_alone() {
        for target in ["/", "/a?b=c", "/a%2Fb//c;d", "/q?u=http://x/y?z", "/caf\u{e9}", "*", "/?"] {
            let head = head(Method::GET, target.as_bytes()).unwrap();
            assert_eq!(head.uri, target);
            assert!(Verbatim::of(&head).is_none() && head.extensions.is_empty(), "{target}");
        }
    }

    #[test]
    fn any_other_lies_beside_it() {
        for target in [
            &b"/a<b"[..],
            b"/q?x=<5>",
            b"/a`b^c\\d|e",
            b"/caf\xe9?\xff=\xfe",
            b"/a#b",
            b"/a?b#c?d",
            b"http://a",
            b"HTTP://A:80/b?c",
            b"http://a?b=<",
            b"ftp://u:p@[::1]:21/x",
        ] {
            let head = head(Method::GET, target).unwrap();
            assert_eq!(Verbatim::of(&head).unwrap().as_bytes(), target);
        }
    }

    #[test]
    fn path_and_query_are_those_that_came() {
        let pair = |path: &str, query: &str| (path.to_owned(), query.to_owned());
        assert_eq!(split(b"/a?b=c"), pair("/a", "b=c"));
        assert_eq!(split(b"/a<b?c=<5>?d"), pair("/a<b", "c=<5>?d"));
        assert_eq!(split(b"/\xe9?\xff"), pair("/\\xe9", "\\xff"));
        assert_eq!(split(b"/a#b?c"), pair("/a", ""));
        assert_eq!(split(b"/a?b#c"), pair("/a", "b"));
        assert_eq!(split(b"http://h"), pair("/", ""));
        assert_eq!(split(b"http://h?x=1"), pair("/", "x=1"));
        assert_eq!(split(b"http://h/a<b?c"), pair("/a<b", "c"));
        assert_eq!(split(b"*"), pair("*", ""));
    }

    #[test]
    fn the_origin_form_has_a_path() {
        for (target, origin) in [
            (&b"http://h"[..], &b"/"[..]),
            (b"http://h?x", b"/?x"),
            (b"http://h/", b"/"),
            (b"http://h/a<b", b"/a<b"),
            (b"http://h#f", b"/#f"),
        ] {
            let head = head(Method::GET, target).unwrap();
            assert_eq!(Verbatim::of(&head).unwrap().origin_form(false), origin);
        }
        let head = head(Method::OPTIONS, b"http://h").unwrap();
        assert_eq!(Verbatim::of(&head).unwrap().origin_form(true), "*");
        assert_eq!(head.uri.path(), "*", "what HTTP/2 sends (RFC 9113, section 8.3.1)");
    }

    #[test]
    fn what_has_none_of_the_forms_is_invalid() {
        for target in ["http:///1", "http://a<b/", "?x=1", "x<y", "#", "http://a b", "://a/"] {
            assert!(head(Method::GET, target.as_bytes()).is_err(), "{target}");
        }
    }
}
