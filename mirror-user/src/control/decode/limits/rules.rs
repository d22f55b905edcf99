//! The rules of the CRDs of routes that are in CEL there, and that decoding does not hold to anyway. In: a
//! document whose fields are within their bounds. Out: the first field that breaks a rule.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Decoded, refuse};
use crate::{control::decode::GATEWAY, model::RouteKind};

/// Matches of all rules of a route together.
const ALL_MATCHES: usize = 128;

/// What a path of type Exact or PathPrefix must not contain, and how it must not end.
const NOT_WITHIN: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const NOT_AT_THE_END: [&str; 2] = ["/..", "/."];

pub(super) fn check(kind: RouteKind, spec: &Value) -> Decoded<()> {
    check_parents(entries(spec, "parentRefs"))?;
    let rules = entries(spec, "rules");
    let mut names = BTreeMap::new();
    let mut matches = 0;
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{at}]");
        if let Some(name) = rule.get("name").and_then(Value::as_str)
            && names.insert(name, at).is_some()
        {
            let reason = format!("{name:?} is the name of another rule of this route");
            return refuse(&format!("{path}.name"), &reason);
        }
        let here = entries(rule, "matches");
        for (at, matching) in here.iter().enumerate() {
            let path = format!("{path}.matches[{at}]");
            match kind {
                RouteKind::Http => check_path(&format!("{path}.path.value"), matching)?,
                RouteKind::Grpc => check_call(&format!("{path}.method"), &matching["method"])?,
            }
        }
        // `null` is no list: the server puts its default there.
        let explicit = rule.get("matches").is_some_and(Value::is_array);
        if explicit && here.is_empty() && replaces_prefix(rule) {
            let reason = "is empty, and replacePrefixMatch needs exactly one match, of type \
                          PathPrefix: leave it out, which means the prefix /";
            return refuse(&format!("{path}.matches"), reason);
        }
        // Without the field, the default of an HTTPRoute is one.
        let by_default = usize::from(kind == RouteKind::Http);
        matches += if explicit { here.len() } else { by_default };
    }
    if matches > ALL_MATCHES {
        let reason = format!("has {matches} matches in all, and may have {ALL_MATCHES}");
        return refuse("spec.rules", &reason);
    }
    Ok(())
}

/// Whether a filter of the rule or of a backend replaces the prefix that was matched.
fn replaces_prefix(rule: &Value) -> bool {
    let of_backends = entries(rule, "backendRefs").iter().flat_map(|one| entries(one, "filters"));
    let mut filters = entries(rule, "filters").iter().chain(of_backends);
    filters.any(|filter| {
        let fields = ["requestRedirect", "urlRewrite"];
        fields.iter().any(|field| filter[field]["path"].get("replacePrefixMatch").is_some())
    })
}

/// References to one parent differ by `sectionName`, which each of them has if there are several.
fn check_parents(parents: &[Value]) -> Decoded<()> {
    let mut sections: BTreeMap<[&str; 4], Vec<&str>> = BTreeMap::new();
    for (at, parent) in parents.iter().enumerate() {
        let field = |name| parent.get(name).and_then(Value::as_str);
        let identity = [
            field("group").unwrap_or(GATEWAY),
            field("kind").unwrap_or("Gateway"),
            field("namespace").unwrap_or_default(),
            field("name").unwrap_or_default(),
        ];
        let section = field("sectionName").unwrap_or_default();
        let others = sections.entry(identity).or_default();
        let path = format!("spec.parentRefs[{at}]");
        if others.contains(&section) {
            let reason = "names the same parent as an entry before it, and no sectionName \
                          distinguishes them (a port does not)";
            return refuse(&path, reason);
        }
        if others.iter().any(|other| other.is_empty() != section.is_empty()) {
            let reason = "names the same parent as an entry before it, and only one of them has a \
                          sectionName";
            return refuse(&path, reason);
        }
        others.push(section);
    }
    Ok(())
}

/// GRPCMethodMatch.
fn check_call(path: &str, call: &Value) -> Decoded<()> {
    if call.get("type").is_some_and(|kind| kind != "Exact") {
        return Ok(());
    }
    for (field, dots) in [("service", true), ("method", false)] {
        let text = call.get(field).and_then(Value::as_str);
        if let Some(text) = text.filter(|text| !is_call_name(text, dots)) {
            let reason = format!("{text:?} is not the name of a gRPC {field}");
            return refuse(&format!("{path}.{field}"), &reason);
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

fn check_path(path: &str, matching: &Value) -> Decoded<()> {
    let kind = matching.pointer("/path/type").and_then(Value::as_str).unwrap_or("PathPrefix");
    let value = matching.pointer("/path/value").and_then(Value::as_str);
    let Some(value) = value.filter(|_| kind != "RegularExpression") else { return Ok(()) };
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

fn entries<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
