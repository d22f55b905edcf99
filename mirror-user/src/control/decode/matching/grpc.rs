//! `matches` of a rule of a GRPCRoute.

use gateway_api::grpcroutes::{
    GrpcRouteRulesMatches as Typed, GrpcRouteRulesMatchesMethod as TypedMethod,
    GrpcRouteRulesMatchesMethodType as MethodType,
};

use super::{headers, pattern};
use crate::{
    control::{
        decode::{DecodeFault, Decoded, fault::fail, filter::same},
        expressions::{Allowance, MatchInput},
    },
    route::{GrpcMethodMatch, Matcher, PathMatch, ValueMatch},
};

/// One without a method holds for every request.
pub(super) fn matcher(path: &str, typed: Typed, expressions: &mut Allowance) -> Decoded<Matcher> {
    let method = typed.method.map(|typed| method(&format!("{path}.method"), typed, expressions));
    let fields = same(&format!("{path}.headers"), &typed.headers)?;
    Ok(Matcher {
        path: method.transpose()?.map_or_else(PathMatch::default, PathMatch::Grpc),
        headers: headers(path, fields, expressions)?,
        ..Matcher::default()
    })
}

/// GRPCMethodMatch. An empty text is as none.
fn method(path: &str, typed: TypedMethod, expressions: &mut Allowance) -> Decoded<GrpcMethodMatch> {
    let by_expression = typed.r#type == Some(MethodType::RegularExpression);
    let mut part = |field: &str, text: Option<String>| {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        let path = format!("{path}.{field}");
        let value = match by_expression {
            true => ValueMatch::Regex(pattern(&path, &text, MatchInput::Target, expressions)?),
            false => exact(&path, text)?,
        };
        Ok(Some(value))
    };
    let (service, method) = (part("service", typed.service)?, part("method", typed.method)?);
    if service.is_none() && method.is_none() {
        return fail(path, DecodeFault::Invalid("names neither a service nor a method".into()));
    }
    Ok(GrpcMethodMatch { service, method })
}

/// What is no part of a path would never match.
fn exact(path: &str, text: String) -> Decoded<ValueMatch> {
    if text.contains('/') {
        let reason = format!("{text:?} contains a slash: service and method are two fields");
        return fail(path, DecodeFault::Invalid(reason));
    }
    Ok(ValueMatch::Exact(text))
}
