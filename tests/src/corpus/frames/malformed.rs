//! Which header lists no peer may accept (RFC 9113, sections 8.2 and 8.3). In: decoded fields. Out: whether
//! the stream is to be reset.

/// Of whom they come, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Request,
    Response,
    Trailers,
}

pub(super) fn is_malformed(fields: &[(Vec<u8>, Vec<u8>)], list: List) -> bool {
    let known: &[&[u8]] = match list {
        List::Request => &[b":method", b":scheme", b":authority", b":path", b":protocol"],
        List::Response => &[b":status"],
        List::Trailers => &[],
    };
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut regular = false;
    for (name, value) in fields {
        if name.starts_with(b":") {
            if regular || !known.contains(&&**name) || seen.contains(&&**name) {
                return true;
            }
            if !is_pseudo_value(name, value) {
                return true;
            }
            seen.push(name);
        } else {
            regular = true;
            if !is_name(name) || !is_value(value) || is_of_connection(name, value) {
                return true;
            }
        }
    }
    let has = |name: &[u8]| seen.contains(&name);
    match list {
        List::Request if fields.iter().any(|(_, value)| value == b"CONNECT") => false,
        List::Request => !has(b":method") || !has(b":scheme") || !has(b":path"),
        List::Response => !has(b":status"),
        List::Trailers => false,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| is_token(*b) && !b.is_ascii_uppercase())
}

fn is_value(value: &[u8]) -> bool {
    value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f))
}

fn is_pseudo_value(name: &[u8], value: &[u8]) -> bool {
    match name {
        b":method" => !value.is_empty() && value.iter().all(|b| is_token(*b)),
        b":status" => value.len() == 3 && value.iter().all(u8::is_ascii_digit),
        b":path" => !value.is_empty() && value.iter().all(|b| b.is_ascii_graphic() && *b != b'<'),
        _ => value.iter().all(u8::is_ascii_graphic),
    }
}

/// Fields of one hop (section 8.2.2).
fn is_of_connection(name: &[u8], value: &[u8]) -> bool {
    let names: [&[u8]; 5] =
        [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    names.contains(&name) || (name == b"te" && value != b"trailers")
}
