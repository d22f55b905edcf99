//! The API's table of prefixes, targets of every form, and what holds for any of them.

use bytes::Bytes;
use http::{Method, Request};
use proptest::prelude::*;

use super::*;
use crate::route::{PathMatch, Verbatim};

fn head(method: Method, target: &[u8]) -> request::Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = method;
    head.headers.insert(header::HOST, HeaderValue::from_static("front:8000"));
    target::set(&mut head, &Bytes::copy_from_slice(target), 0..target.len()).unwrap();
    head
}

/// The target as it leaves by HTTP/1.
fn written(head: &request::Parts) -> Vec<u8> {
    match Verbatim::of(head) {
        Some(verbatim) => verbatim.as_bytes().to_vec(),
        None => head.uri.to_string().into_bytes(),
    }
}

fn replaced(path: &str, matched: &str, replacement: &str) -> Option<String> {
    let path = PathModifier::prefix(matched, replacement).apply(path.as_bytes());
    path.map(|path| String::from_utf8(path).unwrap())
}

#[test]
fn prefixes_are_replaced_as_the_table_of_the_api_says() {
    for (path, matched, replacement, expected) in [
        // HTTPPathModifier, `replacePrefixMatch`.
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        // What follows from it.
        ("/foo", "/foo/", "/xyz/", "/xyz"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
        ("/foo/bar", "/foo", "/a/b//", "/a/b/bar"),
        ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
        ("/a", "/", "/xyz", "/xyz/a"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/", "/", "/", "/"),
        ("/", "/", "", "/"),
        ("/foo/%2F%zz", "/foo", "/xyz", "/xyz/%2F%zz"),
    ] {
        let found = replaced(path, matched, replacement);
        assert_eq!(found.as_deref(), Some(expected), "{path} {matched} {replacement}");
    }
}

#[test]
fn what_the_prefix_does_not_match_stays() {
    for (path, matched) in [("/food", "/foo"), ("/", "/foo"), ("*", "/"), ("", "/")] {
        assert_eq!(replaced(path, matched, "/xyz"), None, "{path} {matched}");
    }
    assert_eq!(PathModifier::full("/x").apply(b"*"), None);
}

#[test]
fn a_full_path_begins_with_a_slash() {
    for (value, expected) in [("/one", "/one"), ("one/", "/one/"), ("", "/"), ("/", "/")] {
        let path = PathModifier::full(value).apply(b"/anything");
        assert_eq!(path.as_deref(), Some(expected.as_bytes()));
    }
}

#[test]
fn targets_of_every_form_keep_what_is_not_replaced() {
    let rewrite = Rewrite {
        hostname: Some(HeaderValue::from_static("one.example")),
        path: Some(PathModifier::prefix("/a", "/xyz")),
    };
    for (method, target, expected, host) in [
        (Method::GET, &b"/a"[..], &b"/xyz"[..], "one.example"),
        (Method::GET, b"/a?b=c?d", b"/xyz?b=c?d", "one.example"),
        (Method::GET, b"/a/<`\xe9?q=<5>#f?", b"/xyz/<`\xe9?q=<5>#f?", "one.example"),
        (Method::GET, b"/a?", b"/xyz?", "one.example"),
        (Method::GET, b"/a#f", b"/xyz#f", "one.example"),
        (Method::GET, b"HTTP://ext:81/a/b?c", b"HTTP://one.example/xyz/b?c", "one.example"),
        (Method::GET, b"https://u:p@ext/a#f", b"https://one.example/xyz#f", "one.example"),
        (Method::OPTIONS, b"*", b"*", "one.example"),
        (Method::CONNECT, b"ext:443", b"ext:443", "front:8000"),
        // By HTTP/2, with a protocol (RFC 8441, section 4).
        (Method::CONNECT, b"/a/chat", b"/xyz/chat", "one.example"),
    ] {
        let mut head = head(method, target);
        rewrite.apply(&mut head).unwrap();
        let found = written(&head);
        assert_eq!(found, expected, "{}", found.escape_ascii());
        assert_eq!(head.headers[header::HOST], host, "{}", target.escape_ascii());
    }
    let full = Rewrite { hostname: None, path: Some(PathModifier::full("/one")) };
    for (target, expected) in [
        (&b"http://ext?x=1"[..], &b"http://ext/one?x=1"[..]),
        (b"http://ext", b"http://ext/one"),
        (b"/a/b?c", b"/one?c"),
    ] {
        let mut head = head(Method::GET, target);
        full.apply(&mut head).unwrap();
        assert_eq!(written(&head), expected);
        assert_eq!(head.headers[header::HOST], "front:8000");
    }
}

proptest! {
    /// Whatever a client sends and a route says: the result is a path, and the query is the request's.
    #[test]
    fn any_target_that_matches_is_rewritten_to_a_path_with_its_query(
        matched in "(/[a-c]{0,2}){1,3}",
        replacement in "[/a-c]{0,6}",
        rest in prop::collection::vec(0x21_u8..=0xff, 0..12),
        full: bool,
    ) {
        let rest: Vec<_> = rest.into_iter().filter(|byte| *byte != 0x7f).collect();
        let target = [matched.as_bytes(), b"/", &rest].concat();
        let mut head = head(Method::GET, &target);
        let (before, query) = {
            let before = Target::of(&head);
            (before.path().to_vec(), before.query().to_vec())
        };
        let modifier = match full {
            true => PathModifier::full(&replacement),
            false => PathModifier::prefix(&matched, &replacement),
        };
        prop_assume!(PathMatch::Prefix(matched.clone()).matches(&before));
        let expected = modifier.apply(&before);
        let rewrite = Rewrite { hostname: None, path: Some(modifier) };
        prop_assert!(rewrite.apply(&mut head).is_ok());
        let after = Target::of(&head);
        prop_assert!(after.path().starts_with(b"/"), "{}", after.path().escape_ascii());
        prop_assert_eq!(after.query(), query);
        prop_assert_eq!(Some(after.path()), expected.as_deref());
        if !full {
            let kept = &before[elements(&matched).len()..];
            prop_assert!(after.path().ends_with(kept) || kept.is_empty());
        }
        let tail = target.iter().position(|byte| matches!(byte, b'?' | b'#'));
        let tail = tail.map_or(&b""[..], |at| &target[at..]);
        prop_assert!(written(&head).ends_with(tail));
    }
}
