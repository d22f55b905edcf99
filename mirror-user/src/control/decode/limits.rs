//! What the API server refuses of a route, for routes that come from files: bounds and rules of the
//! CRDs (Gateway API v1.7, standard channel) that no type says. In a cluster the server has seen to them,
//! by the CRD that is installed there. In: a document. Out: the first field that breaks a rule.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{DecodeFault, Decoded, fault::fail};
use crate::model::RouteKind;

/// `maxItems` of lists.
const HOSTNAMES: usize = 16;
const PARENTS: usize = 32;
const RULES: usize = 16;
const MATCHES: usize = 64;
const BACKENDS: usize = 16;
const CONDITIONS: usize = 16;

/// Matches of all rules of a route together.
const ALL_MATCHES: usize = 128;

/// `maxLength`, in characters.
const NAME: usize = 253;
const FIELD_NAME: usize = 256;
const HEADER_VALUE: usize = 4096;
const QUERY_VALUE: usize = 1024;
const PATH: usize = 1024;
const CALL: usize = 1024;

/// What a path of type Exact or PathPrefix must not contain, and how it must not end.
const NOT_WITHIN: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const NOT_AT_THE_END: [&str; 2] = ["/..", "/."];

/// Checks the `spec` of a route.
pub(super) fn check(document: &Value) -> Decoded<()> {
    let is_grpc = document.get("kind").is_some_and(|kind| kind == RouteKind::Grpc.label());
    list(document, "spec.hostnames", "/spec/hostnames", HOSTNAMES)?;
    list(document, "spec.parentRefs", "/spec/parentRefs", PARENTS)?;
    let rules = list(document, "spec.rules", "/spec/rules", RULES)?;
    if rules.is_some_and(<[Value]>::is_empty) && !is_grpc {
        return refuse("spec.rules", "is empty: a route has at least one rule");
    }
    let (mut names, mut matches) = (BTreeSet::new(), 0);
    for (at, rule) in rules.into_iter().flatten().enumerate() {
        let path = format!("spec.rules[{at}]");
        if let Some(name) = rule.get("name").and_then(Value::as_str) {
            length(&format!("{path}.name"), name, NAME)?;
            if !names.insert(name) {
                let reason = format!("{name:?} is the name of another rule of this route");
                return refuse(&format!("{path}.name"), &reason);
            }
        }
        list(rule, &format!("{path}.backendRefs"), "/backendRefs", BACKENDS)?;
        check_codes(&format!("{path}.retry.codes"), rule)?;
        let here = list(rule, &format!("{path}.matches"), "/matches", MATCHES)?.unwrap_or_default();
        for (at, matching) in here.iter().enumerate() {
            check_match(&format!("{path}.matches[{at}]"), matching)?;
        }
        // Without any, the default of an HTTPRoute is one.
        matches += here.len().max(usize::from(!is_grpc));
    }
    if matches > ALL_MATCHES {
        let reason = format!("has {matches} matches in all, and may have {ALL_MATCHES}");
        return refuse("spec.rules", &reason);
    }
    Ok(())
}

/// `codes` of `retry` are a set.
fn check_codes(path: &str, rule: &Value) -> Decoded<()> {
    let codes = rule.pointer("/retry/codes").and_then(Value::as_array);
    let mut known = BTreeSet::new();
    for (at, code) in codes.into_iter().flatten().enumerate() {
        if code.as_i64().is_some_and(|code| !known.insert(code)) {
            return refuse(&format!("{path}[{at}]"), &format!("{code} is listed before"));
        }
    }
    Ok(())
}

fn check_match(path: &str, matching: &Value) -> Decoded<()> {
    let bounds = [("headers", HEADER_VALUE), ("queryParams", QUERY_VALUE)];
    for (field, value) in bounds {
        let path = format!("{path}.{field}");
        let conditions = list(matching, &path, &format!("/{field}"), CONDITIONS)?;
        let mut names = BTreeSet::new();
        for (at, condition) in conditions.into_iter().flatten().enumerate() {
            let text = |field| condition.get(field).and_then(Value::as_str);
            if let Some(name) = text("name") {
                let path = format!("{path}[{at}].name");
                length(&path, name, FIELD_NAME)?;
                if !name.bytes().all(is_token) {
                    let reason =
                        format!("{name:?} has characters other than those of a header name");
                    return refuse(&path, &reason);
                }
                if !names.insert(name) {
                    return refuse(&path, &format!("{name:?} has a condition before this one"));
                }
            }
            if let Some(text) = text("value") {
                length(&format!("{path}[{at}].value"), text, value)?;
            }
        }
    }
    if let Some(call) = matching.get("method").filter(|method| method.is_object()) {
        return check_call(&format!("{path}.method"), call);
    }
    let kind = matching.pointer("/path/type").and_then(Value::as_str).unwrap_or("PathPrefix");
    match matching.pointer("/path/value").and_then(Value::as_str) {
        Some(value) => check_path(&format!("{path}.path.value"), value, kind),
        None => Ok(()),
    }
}

/// GRPCMethodMatch.
fn check_call(path: &str, call: &Value) -> Decoded<()> {
    let is_exact = call.get("type").is_none_or(|kind| kind == "Exact");
    for (field, dots) in [("service", true), ("method", false)] {
        let Some(text) = call.get(field).and_then(Value::as_str) else { continue };
        let path = format!("{path}.{field}");
        if text.chars().count() > CALL {
            length(&path, text, CALL)?;
        }
        if is_exact && !is_call_name(text, dots) {
            let reason = format!("{text:?} is not the name of a gRPC {field}");
            return refuse(&path, &reason);
        }
    }
    Ok(())
}

/// Identifiers of Protocol Buffers, of a service with dots between them and perhaps one before.
fn is_call_name(text: &str, dots: bool) -> bool {
    let identifier = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match dots {
        true => text.strip_prefix('.').unwrap_or(text).split('.').all(identifier),
        false => identifier(text),
    }
}

fn check_path(path: &str, value: &str, kind: &str) -> Decoded<()> {
    length(path, value, PATH)?;
    if kind == "RegularExpression" {
        return Ok(());
    }
    if let Some(part) = NOT_WITHIN.into_iter().find(|part| value.contains(part)) {
        return refuse(path, &format!("{value:?} contains {part:?}"));
    }
    if let Some(end) = NOT_AT_THE_END.into_iter().find(|end| value.ends_with(end)) {
        return refuse(path, &format!("{value:?} ends with {end:?}"));
    }
    if !is_path(value.as_bytes()) {
        return refuse(path, &format!("{value:?} has characters that no path of a URI has"));
    }
    Ok(())
}

/// The characters of RFC 3986's `pchar`, slashes, and percent-encoded octets.
fn is_path(mut value: &[u8]) -> bool {
    loop {
        value = match value {
            [] => return true,
            [b'%', first, second, rest @ ..]
                if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() =>
            {
                rest
            }
            [byte, rest @ ..]
                if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte) =>
            {
                rest
            }
            _ => return false,
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The list at a pointer, if there is one.
fn list<'v>(
    value: &'v Value,
    path: &str,
    pointer: &str,
    most: usize,
) -> Decoded<Option<&'v [Value]>> {
    let list = value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice);
    match list.map(<[Value]>::len) {
        Some(count) if count > most => {
            refuse(path, &format!("has {count} entries, and may have {most}"))
        }
        _ => Ok(list),
    }
}

fn length(path: &str, text: &str, most: usize) -> Decoded<()> {
    match text.chars().count() {
        0 => refuse(path, "is empty"),
        count if count > most => {
            refuse(path, &format!("has {count} characters, and may have {most}"))
        }
        _ => Ok(()),
    }
}

fn refuse<T>(path: &str, reason: &str) -> Decoded<T> {
    fail(path, DecodeFault::Invalid(format!("{reason} (the API server refuses the route)")))
}
