//! `requestRedirect` and `urlRewrite`, which share hostnames and path modifiers.

use gateway_api::httproutes::{
    HttpRouteRulesFiltersRequestRedirect as TypedRedirect,
    HttpRouteRulesFiltersRequestRedirectPath as TypedPath,
    HttpRouteRulesFiltersRequestRedirectPathType as PathType,
    HttpRouteRulesFiltersRequestRedirectScheme as TypedScheme,
    HttpRouteRulesFiltersUrlRewrite as TypedRewrite,
};
use http::{HeaderValue, StatusCode};

use super::{RuleContext, same};
use crate::{
    control::decode::{DecodeFault, Decoded, fault::fail, port},
    route::{HttpScheme, PathModifier, Redirect, Rewrite},
};

/// Bound of the API (PreciseHostname), in bytes.
const MAX_HOSTNAME: usize = 253;

/// Bound of the API (HTTPPathModifier), in characters.
const MAX_PATH: usize = 1024;

pub(super) fn redirect(
    path: &str,
    typed: TypedRedirect,
    context: RuleContext<'_>,
) -> Decoded<Redirect> {
    let at = |field: &str| format!("{path}.{field}");
    let modifier = |typed| path_modifier(&at("path"), typed, context);
    Ok(Redirect {
        scheme: typed.scheme.map(|scheme| match scheme {
            TypedScheme::Http => HttpScheme::Http,
            TypedScheme::Https => HttpScheme::Https,
        }),
        hostname: hostname(&at("hostname"), typed.hostname)?,
        port: typed.port.map(|number| port(&at("port"), number)).transpose()?,
        path: typed.path.map(modifier).transpose()?,
        status: status(&at("statusCode"), typed.status_code.unwrap_or(302))?,
    })
}

pub(super) fn rewrite(
    path: &str,
    typed: TypedRewrite,
    context: RuleContext<'_>,
) -> Decoded<Rewrite> {
    let hostname = hostname(&format!("{path}.hostname"), typed.hostname)?;
    let path = format!("{path}.path");
    let modifier = |typed| path_modifier(&path, same(&path, &typed)?, context);
    Ok(Rewrite {
        // Only letters, digits, dots and hyphens are left.
        hostname: hostname.and_then(|hostname| HeaderValue::try_from(hostname).ok()),
        path: typed.path.map(modifier).transpose()?,
    })
}

fn status(path: &str, code: i64) -> Decoded<StatusCode> {
    match code {
        301 => Ok(StatusCode::MOVED_PERMANENTLY),
        302 => Ok(StatusCode::FOUND),
        303 => Ok(StatusCode::SEE_OTHER),
        307 => Ok(StatusCode::TEMPORARY_REDIRECT),
        308 => Ok(StatusCode::PERMANENT_REDIRECT),
        other => {
            let reason = format!("{other} is not one of 301, 302, 303, 307 and 308");
            fail(path, DecodeFault::Invalid(reason))
        }
    }
}

/// PreciseHostname: labels of lower-case letters, digits and hyphens.
fn hostname(path: &str, hostname: Option<String>) -> Decoded<Option<String>> {
    let Some(hostname) = hostname else { return Ok(None) };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inner)
    };
    if hostname.len() > MAX_HOSTNAME || !hostname.split('.').all(is_label) {
        let reason = format!(
            "{hostname:?} is not a hostname: labels of lower-case letters, digits and hyphens, \
             without a port or a wildcard"
        );
        return fail(path, DecodeFault::Invalid(reason));
    }
    Ok(Some(hostname))
}

fn path_modifier(path: &str, typed: TypedPath, context: RuleContext<'_>) -> Decoded<PathModifier> {
    let at = |field: &str| format!("{path}.{field}");
    let (own, value, other) = match typed.r#type {
        PathType::ReplaceFullPath => {
            ("replaceFullPath", typed.replace_full_path, typed.replace_prefix_match)
        }
        PathType::ReplacePrefixMatch => {
            ("replacePrefixMatch", typed.replace_prefix_match, typed.replace_full_path)
        }
    };
    if other.is_some() {
        let reason = format!("its type allows {own} alone");
        return fail(path, DecodeFault::Invalid(reason));
    }
    let Some(value) = value else {
        return fail(at(own), DecodeFault::Missing("a path modifier of this type"));
    };
    if value.chars().count() > MAX_PATH || !is_path(value.as_bytes()) {
        let reason = format!(
            "{value:?} is not a path of at most {MAX_PATH} characters (RFC 3986, section 3.3): \
             percent-encode what a path does not have"
        );
        return fail(at(own), DecodeFault::Invalid(reason));
    }
    match (typed.r#type, context.prefix) {
        (PathType::ReplaceFullPath, _) => Ok(PathModifier::full(&value)),
        (PathType::ReplacePrefixMatch, Some(matched)) => Ok(PathModifier::prefix(matched, &value)),
        (PathType::ReplacePrefixMatch, None) => {
            let reason = "needs exactly one match in its rule, of type PathPrefix: write a separate \
                          rule for each prefix";
            fail(at(own), DecodeFault::Invalid(reason.into()))
        }
    }
}

/// Characters of a path, as the API demands them of the path of a match.
fn is_path(value: &[u8]) -> bool {
    let mut rest = value;
    while let [byte, behind @ ..] = rest {
        rest = match (byte, behind) {
            (b'%', [high, low, behind @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                behind
            }
            (b'%', _) => return false,
            (byte, behind)
                if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte) =>
            {
                behind
            }
            _ => return false,
        };
    }
    true
}
