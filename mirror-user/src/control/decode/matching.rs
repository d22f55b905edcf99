//! `matches` of a rule.

use gateway_api::httproutes::{
    HttpRouteRulesMatches as Typed, HttpRouteRulesMatchesHeaders as TypedHeader,
    HttpRouteRulesMatchesHeadersType as HeaderType, HttpRouteRulesMatchesMethod as TypedMethod,
    HttpRouteRulesMatchesPath as TypedPath, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParams as TypedQuery,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use http::{HeaderName, Method};

use super::{Decoded, Fault, fault::fail};
use crate::route::{HeaderMatch, Matcher, PathMatch, Pattern, QueryMatch, ValueMatch};

/// Of several conditions on one name only the first counts, as the API prescribes
/// (HTTPHeaderMatch and HTTPQueryParamMatch, `name`).
pub(super) fn matcher(path: &str, typed: Typed) -> Decoded<Matcher> {
    let mut matcher = Matcher {
        path: typed.path.map_or_else(|| Ok(PathMatch::default()), |p| path_match(path, p))?,
        method: typed.method.as_ref().map(method),
        ..Matcher::default()
    };
    for (at, typed) in typed.headers.into_iter().flatten().enumerate() {
        let header = header(&format!("{path}.headers[{at}]"), typed)?;
        if matcher.headers.iter().all(|other| other.name != header.name) {
            matcher.headers.push(header);
        }
    }
    for (at, typed) in typed.query_params.into_iter().flatten().enumerate() {
        let query = query(&format!("{path}.queryParams[{at}]"), typed)?;
        if matcher.query.iter().all(|other| other.name != query.name) {
            matcher.query.push(query);
        }
    }
    Ok(matcher)
}

fn path_match(path: &str, typed: TypedPath) -> Decoded<PathMatch> {
    let value = typed.value.unwrap_or_else(|| "/".into());
    let path = format!("{path}.path.value");
    if typed.r#type == Some(PathType::RegularExpression) {
        return Ok(PathMatch::Regex(pattern(&path, &value)?));
    }
    if !value.starts_with('/') {
        return fail(path, Fault::Invalid(format!("{value:?} does not start with a slash")));
    }
    if value.contains(['?', '#']) {
        return fail(path, Fault::Invalid(format!("{value:?} is more than a path")));
    }
    Ok(match typed.r#type {
        Some(PathType::Exact) => PathMatch::Exact(value),
        _ => PathMatch::Prefix(value),
    })
}

fn method(typed: &TypedMethod) -> Method {
    match typed {
        TypedMethod::Get => Method::GET,
        TypedMethod::Head => Method::HEAD,
        TypedMethod::Post => Method::POST,
        TypedMethod::Put => Method::PUT,
        TypedMethod::Delete => Method::DELETE,
        TypedMethod::Connect => Method::CONNECT,
        TypedMethod::Options => Method::OPTIONS,
        TypedMethod::Trace => Method::TRACE,
        TypedMethod::Patch => Method::PATCH,
    }
}

fn header(path: &str, typed: TypedHeader) -> Decoded<HeaderMatch> {
    let Ok(name) = HeaderName::from_bytes(typed.name.as_bytes()) else {
        let reason = format!("{:?} is not a header name", typed.name);
        return fail(format!("{path}.name"), Fault::Invalid(reason));
    };
    let regex = typed.r#type == Some(HeaderType::RegularExpression);
    Ok(HeaderMatch { name, value: value(path, typed.value, regex)? })
}

fn query(path: &str, typed: TypedQuery) -> Decoded<QueryMatch> {
    let regex = typed.r#type == Some(QueryType::RegularExpression);
    Ok(QueryMatch { name: typed.name, value: value(path, typed.value, regex)? })
}

fn value(path: &str, value: String, regex: bool) -> Decoded<ValueMatch> {
    Ok(if regex {
        ValueMatch::Regex(pattern(&format!("{path}.value"), &value)?)
    } else {
        ValueMatch::Exact(value)
    })
}

fn pattern(path: &str, source: &str) -> Decoded<Pattern> {
    Pattern::new(source).or_else(|error| {
        fail(path, Fault::Invalid(format!("{source:?} is not a regular expression: {error}")))
    })
}
