//! Upgrade (RFC 9110, section 7.8). In: the fields of a request, and those of the 101 that it got.
//! Out: what the request asks to switch to, without what mirror could not follow; and whether the
//! 101 is what was asked for. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::route::retain;

/// Goes with an Upgrade to HTTP/2 (RFC 7540, section 3.2.1).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What the fields ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpgradeRequest {
    /// To go on as it is.
    Stay,
    /// WebSocket, perhaps among others.
    WebSocket,
    /// Other protocols, which most servers pass over.
    Other,
}

/// Protocols that a request may ask for, or a response name, at most: each of the ones is held against
/// each of the others. Of more nothing is asked, as if the server passed over them.
const MOST: usize = 100;

/// Reads the protocols of all Upgrade fields. HTTP/2 is taken out of them: a connection that
/// switches to it carries requests that mirror would not see (RFC 9113, section 3.1 retired it).
pub(super) fn read(headers: &mut HeaderMap) -> UpgradeRequest {
    if protocols(headers.get_all(header::UPGRADE)).nth(MOST).is_some() {
        return UpgradeRequest::Stay;
    }
    if protocols(headers.get_all(header::UPGRADE)).any(is_http2) {
        remove_http2(headers);
    }
    let mut upgrade = UpgradeRequest::Stay;
    for protocol in protocols(headers.get_all(header::UPGRADE)) {
        if split(protocol).0.eq_ignore_ascii_case(b"websocket") {
            return UpgradeRequest::WebSocket;
        }
        upgrade = UpgradeRequest::Other;
    }
    upgrade
}

/// Takes out all that asks for another protocol.
pub(super) fn remove(headers: &mut HeaderMap) {
    retain(headers, |name| name != header::UPGRADE && name != HTTP2_SETTINGS);
}

/// Leaves the protocols that are not HTTP/2, in one field; Connection then names no field that is
/// gone.
fn remove_http2(headers: &mut HeaderMap) {
    let others = protocols(headers.get_all(header::UPGRADE)).filter(|one| !is_http2(one));
    let others = others.collect::<Vec<_>>().join(&b", "[..]);
    retain(headers, |name| name != HTTP2_SETTINGS);
    match HeaderValue::from_bytes(&others) {
        Ok(others) if !others.is_empty() => {
            headers.insert(header::UPGRADE, others);
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        _ => remove(headers),
    }
}

/// What a request asks for, until its response is there.
#[derive(Debug)]
pub(super) struct RequestedProtocols(Vec<HeaderValue>);

impl RequestedProtocols {
    /// Of a request's head as it is sent.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::UPGRADE).iter().cloned().collect())
    }

    /// Whether a 101 with these fields was asked for. A server must not switch to a protocol that
    /// the client did not name (RFC 9110, section 7.8); HTTP/1.1 may be said to run above it (RFC
    /// 2817, section 3.3), and one that does not say what it switches to can only mean what was
    /// asked for.
    pub(super) fn allows(&self, response: &HeaderMap) -> bool {
        let mut said = protocols(response.get_all(header::UPGRADE)).peekable();
        if said.peek().is_none() {
            return !self.0.is_empty();
        }
        let mut any = false;
        for (count, one) in said.enumerate() {
            if count >= MOST {
                return false;
            }
            if protocols(&self.0).any(|requested| is_same(requested, one)) {
                any = true;
            } else if !one.eq_ignore_ascii_case(b"HTTP/1.1") {
                return false;
            }
        }
        any
    }
}

/// The members of a list, of all its fields. A space parts them as well: a server that looks for a
/// word in the value would find it there.
fn protocols<'a>(
    fields: impl IntoIterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = &'a [u8]> {
    let members =
        |field: &'a HeaderValue| field.as_bytes().split(|byte| matches!(byte, b',' | b' ' | b'\t'));
    fields.into_iter().flat_map(members).filter(|member| !member.is_empty())
}

/// Name and version.
fn split(protocol: &[u8]) -> (&[u8], Option<&[u8]>) {
    match protocol.iter().position(|byte| *byte == b'/') {
        Some(at) => (&protocol[..at], Some(&protocol[at + 1..])),
        None => (protocol, None),
    }
}

/// `h2c` and what its drafts called it, `h2`, and `HTTP/2.0`.
fn is_http2(protocol: &[u8]) -> bool {
    let (name, version) = split(protocol);
    let starts =
        |with: &[u8]| name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    name.eq_ignore_ascii_case(b"h2")
        || name.eq_ignore_ascii_case(b"h2c")
        || starts(b"h2-")
        || starts(b"h2c-")
        || starts(b"http-draft")
        || (name.eq_ignore_ascii_case(b"http") && version.is_some_and(|v| v.starts_with(b"2")))
}

/// Names have no case; a version that one of the two does not say is any.
fn is_same(requested: &[u8], said: &[u8]) -> bool {
    let ((name, version), (other, said)) = (split(requested), split(said));
    let same = version.zip(said).is_none_or(|(version, said)| version.eq_ignore_ascii_case(said));
    same && name.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(upgrade: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade, HTTP2-Settings"));
        headers.insert(HTTP2_SETTINGS, HeaderValue::from_static("AAMA"));
        for value in upgrade {
            headers.append(header::UPGRADE, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn upgrade(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(header::UPGRADE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn websocket_is_found_wherever_it_stands() {
        for value in [
            &["websocket"][..],
            &["WebSocket"],
            &["websocket/13"],
            &["TLS/1.2, websocket"],
            &["TLS/1.2,websocket"],
            &["TLS/1.2 websocket"],
            &["TLS/1.2", "websocket"],
            &[",, websocket ,"],
        ] {
            let mut headers = fields(value);
            assert_eq!(read(&mut headers), UpgradeRequest::WebSocket, "{value:?}");
            assert_eq!(upgrade(&headers), value, "as it came");
        }
    }

    #[test]
    fn other_protocols_stay_as_they_came() {
        for value in [&["TLS/1.2"][..], &["foo/2", "bar"], &["HTTP/1.1"], &["websockets"], &["h2x"]]
        {
            let mut headers = fields(value);
            assert_eq!(read(&mut headers), UpgradeRequest::Other, "{value:?}");
            assert_eq!(upgrade(&headers), value);
        }
        for value in [&[][..], &[""], &[" , ,"]] {
            assert_eq!(read(&mut fields(value)), UpgradeRequest::Stay, "{value:?}");
        }
    }

    #[test]
    fn http2_leaves_any_list() {
        for (value, left) in [
            (&["h2c"][..], ""),
            (&["H2C", "h2"], ""),
            (&["h2c-14, h2-14,HTTP-draft-04/2.0"], ""),
            (&["HTTP/2.0, http/2"], ""),
            (&["foo, h2c"], "foo"),
            (&["foo", "h2c, bar/1"], "foo, bar/1"),
            (&["h2c foo"], "foo"),
            (&["h2c/1"], ""),
            (&["websocket,h2c"], "websocket"),
        ] {
            let mut headers = fields(value);
            let expected = match left {
                "" => UpgradeRequest::Stay,
                "websocket" => UpgradeRequest::WebSocket,
                _ => UpgradeRequest::Other,
            };
            assert_eq!(read(&mut headers), expected, "{value:?}");
            assert_eq!(upgrade(&headers).join("|"), left);
            assert!(!headers.contains_key(HTTP2_SETTINGS), "{value:?}");
            if expected != UpgradeRequest::Stay {
                assert_eq!(headers[header::CONNECTION], "Upgrade");
            }
        }
    }

    #[test]
    fn a_101_is_held_against_the_request() {
        let allows = |requested: &[&str], said: &[&str]| {
            RequestedProtocols::of(&fields(requested)).allows(&fields(said))
        };
        for (requested, said) in [
            (&["websocket"][..], &["WebSocket"][..]),
            (&["TLS/1.2"], &["TLS/1.2"]),
            (&["TLS/1.2"], &["TLS/1.2, HTTP/1.1"]),
            (&["TLS/1.0,HTTP/1.1"], &["TLS/1.0", "HTTP/1.1"]),
            (&["foo, bar/2"], &["bar"]),
            (&["websocket/13"], &["websocket"]),
            (&["foo"], &[]),
        ] {
            assert!(allows(requested, said), "{requested:?} {said:?}");
        }
        for (requested, said) in [
            (&[][..], &["websocket"][..]),
            (&[], &[]),
            (&["websocket"], &["foo"]),
            (&["TLS/1.2"], &["TLS/1.3"]),
            (&["TLS/1.2"], &["TLS/1.2, h2c"]),
            (&["TLS/1.2"], &["HTTP/1.1"]),
            (&["foo"], &["foobar"]),
        ] {
            assert!(!allows(requested, said), "{requested:?} {said:?}");
        }
    }

    #[test]
    fn many_protocols_are_none() {
        let many = vec!["foo"; MOST + 1].join(",");
        assert_eq!(read(&mut fields(&[&many])), UpgradeRequest::Stay);
        assert_eq!(read(&mut fields(&[&vec!["foo"; MOST].join(",")])), UpgradeRequest::Other);
        let requested = RequestedProtocols::of(&fields(&["foo"]));
        assert!(!requested.allows(&fields(&[&many])), "a server that names them all");
        // A product of the two once: of 128 KiB each it took minutes.
        let long = fields(&[&",a".repeat(64 * 1024)]);
        let took = crate::work::cpu(|| {
            assert_eq!(read(&mut long.clone()), UpgradeRequest::Stay);
            assert!(!RequestedProtocols::of(&fields(&["foo"])).allows(&long));
        });
        assert!(took.as_millis() < 100, "{took:?}");
    }
}
