//! `matches` of a rule.

use gateway_api::grpcroutes::GrpcRouteRulesMatches;
use gateway_api::httproutes::{
    HttpRouteRulesMatches as Typed, HttpRouteRulesMatchesHeaders as TypedHeader,
    HttpRouteRulesMatchesHeadersType as HeaderType, HttpRouteRulesMatchesMethod as TypedMethod,
    HttpRouteRulesMatchesPath as TypedPath, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParams as TypedQuery,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use http::{HeaderName, Method};

use serde_json::Value;

use super::{DecodeFault, Decoded, Defaults, fault::fail, strict_at};
use crate::{
    control::expressions::{Allowance, MatchInput},
    model::RouteKind,
    route::{HeaderMatch, Matcher, PathMatch, Pattern, QueryMatch, ValueMatch},
};

/// Characters of an expression that a message shows.
const SHOWN: usize = 80;

mod grpc;

/// A match of a rule, as it deserialized.
pub(super) enum TypedMatch {
    Http(Box<Typed>),
    Grpc(GrpcRouteRulesMatches),
}

impl TypedMatch {
    /// One of a route of this kind.
    pub(super) fn of(
        kind: RouteKind,
        path: &str,
        document: &Value,
        defaults: &Defaults,
    ) -> Decoded<Self> {
        match kind {
            RouteKind::Http => strict_at(path, document, defaults).map(Self::Http),
            RouteKind::Grpc => strict_at(path, document, defaults).map(Self::Grpc),
        }
    }

    pub(super) fn decode(self, path: &str, expressions: &mut Allowance) -> Decoded<Matcher> {
        match self {
            Self::Http(typed) => matcher(path, *typed, expressions),
            Self::Grpc(typed) => grpc::matcher(path, typed, expressions),
        }
    }
}

/// Of several conditions on one name only the first counts, as the API prescribes
/// (HTTPHeaderMatch and HTTPQueryParamMatch, `name`).
fn matcher(path: &str, typed: Typed, expressions: &mut Allowance) -> Decoded<Matcher> {
    let mut matcher = Matcher {
        path: match typed.path {
            Some(typed) => path_match(path, typed, expressions)?,
            None => PathMatch::default(),
        },
        method: typed.method.as_ref().map(method),
        ..Matcher::default()
    };
    matcher.headers = headers(path, typed.headers, expressions)?;
    for (at, typed) in typed.query_params.into_iter().flatten().enumerate() {
        let query = query(&format!("{path}.queryParams[{at}]"), typed, expressions)?;
        if matcher.query.iter().all(|other| other.name != query.name) {
            matcher.query.push(query);
        }
    }
    Ok(matcher)
}

fn path_match(path: &str, typed: TypedPath, expressions: &mut Allowance) -> Decoded<PathMatch> {
    let value = typed.value.unwrap_or_else(|| "/".into());
    let path = format!("{path}.path.value");
    if typed.r#type == Some(PathType::RegularExpression) {
        return Ok(PathMatch::Regex(pattern(&path, &value, MatchInput::Target, expressions)?));
    }
    if !value.starts_with('/') {
        return fail(path, DecodeFault::Invalid(format!("{value:?} does not start with a slash")));
    }
    if value.contains(['?', '#']) {
        return fail(path, DecodeFault::Invalid(format!("{value:?} contains more than a path")));
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

fn headers(
    path: &str,
    typed: Option<Vec<TypedHeader>>,
    expressions: &mut Allowance,
) -> Decoded<Vec<HeaderMatch>> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (at, typed) in typed.into_iter().flatten().enumerate() {
        let header = header(&format!("{path}.headers[{at}]"), typed, expressions)?;
        if headers.iter().all(|other| other.name != header.name) {
            headers.push(header);
        }
    }
    Ok(headers)
}

fn header(path: &str, typed: TypedHeader, expressions: &mut Allowance) -> Decoded<HeaderMatch> {
    let Ok(name) = HeaderName::from_bytes(typed.name.as_bytes()) else {
        let reason = format!("{:?} is not a header name", typed.name);
        return fail(format!("{path}.name"), DecodeFault::Invalid(reason));
    };
    let value = match typed.r#type {
        Some(HeaderType::RegularExpression) => {
            value(path, &typed.value, MatchInput::Header, expressions)?
        }
        _ => ValueMatch::Exact(typed.value),
    };
    Ok(HeaderMatch { name, value })
}

fn query(path: &str, typed: TypedQuery, expressions: &mut Allowance) -> Decoded<QueryMatch> {
    let value = match typed.r#type {
        Some(QueryType::RegularExpression) => {
            value(path, &typed.value, MatchInput::Target, expressions)?
        }
        _ => ValueMatch::Exact(typed.value),
    };
    Ok(QueryMatch { name: typed.name, value })
}

fn value(
    path: &str,
    source: &str,
    input: MatchInput,
    expressions: &mut Allowance,
) -> Decoded<ValueMatch> {
    pattern(&format!("{path}.value"), source, input, expressions).map(ValueMatch::Regex)
}

/// Long ones are shown in part.
fn pattern(
    path: &str,
    source: &str,
    input: MatchInput,
    expressions: &mut Allowance,
) -> Decoded<Pattern> {
    expressions.compile(source, input).or_else(|refusal| {
        let shown: String = source.chars().take(SHOWN).collect();
        let cut = if shown.len() < source.len() { " (and so on)" } else { "" };
        fail(path, DecodeFault::Invalid(format!("the expression {shown:?}{cut} {refusal}")))
    })
}
