//! Fields of a line as long as a line may have them. In: what a client has sent. Out: its beginning,
//! and how much is missing; a target or host without the name and password of a user. With its
//! fields at their bounds a line has 32 KiB, escaped.

use std::borrow::Cow;

/// Of a method or a protocol's name, in bytes.
const WORD: usize = 64;
/// Of a target.
const TARGET: usize = 4096;
/// Of a host: a name has 253.
const HOST: usize = 512;
/// Of a reason, which may quote what a client has sent.
const REASON: usize = 512;

/// A method, or what stands in its place.
pub(super) fn word(text: &str) -> Cow<'_, str> {
    shortened(text.into(), WORD)
}

/// A target in any form.
pub(super) fn target(target: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let target = match target {
        Cow::Borrowed(bytes) => without_user(bytes),
        Cow::Owned(bytes) => without_user(&bytes).into_owned().into(),
    };
    if target.len() <= TARGET {
        return target;
    }
    let mut kept = target[..TARGET].to_vec();
    kept.extend(more(target.len() - TARGET).into_bytes());
    kept.into()
}

/// The same of a request whose head did not parse.
pub(super) fn text_target(text: &str) -> Cow<'_, str> {
    let target = target(text.as_bytes().into());
    match target {
        Cow::Borrowed(bytes) if bytes.len() == text.len() => text.into(),
        bytes => String::from_utf8_lossy(&bytes).into_owned().into(),
    }
}

/// A host, or an authority.
pub(super) fn host(bytes: &[u8]) -> Cow<'_, str> {
    let behind = bytes.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    shortened(String::from_utf8_lossy(&bytes[behind..]), HOST)
}

/// Why mirror refused it.
pub(super) fn reason(text: &str) -> Cow<'_, str> {
    shortened(text.into(), REASON)
}

fn shortened(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text;
    }
    let end = text.floor_char_boundary(most);
    format!("{}{}", &text[..end], more(text.len() - end)).into()
}

fn more(bytes: usize) -> String {
    format!("...({bytes} bytes more)")
}

/// Without `USER:PASSWORD@` (RFC 3986, section 3.2.1): behind `//` of absolute form, or at the
/// beginning of CONNECT's `HOST:PORT`.
fn without_user(target: &[u8]) -> Cow<'_, [u8]> {
    let begin = match target.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')) {
        Some(0) => return target.into(),
        Some(at) if at > 0 && target[at - 1] == b':' && target[at..].starts_with(b"//") => at + 2,
        _ => 0,
    };
    let length = target[begin..].iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let end = length.map_or(target.len(), |length| begin + length);
    match target[begin..end].iter().rposition(|byte| *byte == b'@') {
        Some(at) => [&target[..begin], &target[begin + at + 1..]].concat().into(),
        None => target.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_and_password_are_left_out_of_any_form() {
        for (given, shown) in [
            ("http://u:p@h:80/a?b=c@d", "http://h:80/a?b=c@d"),
            ("http://u:p@h", "http://h"),
            ("http://u@x:p@h?q", "http://h?q"),
            ("http://@h/", "http://h/"),
            ("FTP://u:p@[::1]:21/x", "FTP://[::1]:21/x"),
            ("u:p@h:443", "h:443"),
            ("http://h/u:p@x", "http://h/u:p@x"),
            ("/a@b", "/a@b"),
            ("/login?next=http://u:p@h/", "/login?next=http://u:p@h/"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(&*target(given.as_bytes().into()), shown.as_bytes(), "{given}");
            assert_eq!(text_target(given), shown);
        }
        assert_eq!(host(b"u:p@h:80"), "h:80");
        assert_eq!(host(b"h:80"), "h:80");
    }

    #[test]
    fn what_is_too_long_is_cut_with_a_mark() {
        let long = format!("/{}", "a".repeat(TARGET + 9));
        let cut = target(long.as_bytes().into());
        assert!(cut.starts_with(b"/aaa") && cut.ends_with(b"a...(10 bytes more)"));
        assert_eq!(cut.len(), TARGET + "...(10 bytes more)".len());
        assert_eq!(
            word(&"\u{e9}".repeat(40)),
            format!("{}...(16 bytes more)", "\u{e9}".repeat(32))
        );
        assert!(host(&[b'a'; 2000]).len() < HOST + 32 && reason(&long).len() < REASON + 32);
        let exact = "a".repeat(TARGET);
        assert_eq!(&*target(exact.as_bytes().into()), exact.as_bytes());
    }
}
