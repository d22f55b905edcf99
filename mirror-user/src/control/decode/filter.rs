//! `filters` of a rule and of its `backendRefs`.

use std::sync::Arc;

use gateway_api::httproutes::{
    HttpRouteRulesFilters as Typed, HttpRouteRulesFiltersRequestHeaderModifier as TypedModifier,
    HttpRouteRulesFiltersRequestMirror as TypedMirror, HttpRouteRulesFiltersType as Type,
};
use http::{HeaderName, HeaderValue};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    DecodeFault, Decoded,
    fault::fail,
    route::{Reference, target},
};
use crate::{
    control::objects::RouteFilter,
    route::{Fraction, HeaderModifier, Matcher, PathMatch},
};

mod cors;
mod list;
mod redirect;

pub(super) use self::list::check_rule;

/// Fields that say how a message is framed or how long a connection lives: they belong to each
/// leg, and a route that changed them would break the message.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a filter's meaning depends on beside the filter.
#[derive(Clone, Copy)]
pub(super) struct RuleContext<'a> {
    /// The route's own.
    pub(super) namespace: &'a str,
    /// The path of the rule's only match, if it is a PathPrefix.
    prefix: Option<&'a str>,
}

impl<'a> RuleContext<'a> {
    pub(super) fn new(namespace: &'a str, matches: &'a [Matcher]) -> Self {
        let prefix = match matches {
            // The API's default.
            [] => Some("/"),
            [Matcher { path: PathMatch::Prefix(prefix), .. }] => Some(&**prefix),
            _ => None,
        };
        Self { namespace, prefix }
    }
}

/// `filters` of a rule.
pub(super) fn filters(
    path: &str,
    typed: Vec<Typed>,
    context: RuleContext<'_>,
) -> Decoded<Vec<RouteFilter>> {
    list::check(path, &typed)?;
    let typed = typed.into_iter().enumerate();
    typed.map(|(at, typed)| filter(&format!("{path}[{at}]"), typed, context)).collect()
}

/// The same of a `backendRefs` entry.
pub(super) fn backend_filters(
    path: &str,
    typed: &[impl Serialize],
    context: RuleContext<'_>,
) -> Decoded<Vec<RouteFilter>> {
    let typed = typed.iter().enumerate();
    let typed = typed.map(|(at, typed)| same(&format!("{path}[{at}]"), typed));
    filters(path, typed.collect::<Decoded<_>>()?, context)
}

fn filter(path: &str, typed: Typed, context: RuleContext<'_>) -> Decoded<RouteFilter> {
    only_its_own_field(path, &typed)?;
    let at = |field| format!("{path}.{field}");
    Ok(match typed.r#type {
        Type::RequestHeaderModifier => {
            let path = at("requestHeaderModifier");
            RouteFilter::RequestHeaders(modifier(
                &path,
                there(&path, typed.request_header_modifier)?,
            )?)
        }
        Type::ResponseHeaderModifier => {
            let path = at("responseHeaderModifier");
            let typed = there(&path, typed.response_header_modifier)?;
            RouteFilter::ResponseHeaders(modifier(&path, same(&path, &typed)?)?)
        }
        Type::RequestMirror => {
            let path = at("requestMirror");
            mirror(&path, there(&path, typed.request_mirror)?, context.namespace)?
        }
        Type::RequestRedirect => {
            let path = at("requestRedirect");
            let redirect =
                redirect::redirect(&path, there(&path, typed.request_redirect)?, context)?;
            RouteFilter::Redirect(Arc::new(redirect))
        }
        Type::UrlRewrite => {
            let path = at("urlRewrite");
            let rewrite = redirect::rewrite(&path, there(&path, typed.url_rewrite)?, context)?;
            RouteFilter::Rewrite(Arc::new(rewrite))
        }
        Type::Cors => {
            let path = at("cors");
            RouteFilter::Cors(Arc::new(cors::cors(&path, there(&path, typed.cors)?)?))
        }
        Type::ExtensionRef => {
            let what = "the filter ExtensionRef".to_owned();
            return fail(at("type"), DecodeFault::Unsupported(what));
        }
    })
}

/// The field that a filter's type names.
fn there<T>(path: &str, field: Option<T>) -> Decoded<T> {
    match field {
        Some(field) => Ok(field),
        None => fail(path, DecodeFault::Missing("a filter of this type")),
    }
}

/// Turns a generated type into its twin: the generator makes one of each place where the API has
/// one type in several.
pub(super) fn same<T: DeserializeOwned>(path: &str, typed: &impl Serialize) -> Decoded<T> {
    serde_json::to_value(typed)
        .and_then(serde_json::from_value)
        .or_else(|error| fail(path, DecodeFault::Malformed(error.to_string())))
}

/// The field of another type's filter would be ignored.
fn only_its_own_field(path: &str, typed: &Typed) -> Decoded<()> {
    let fields = [
        (
            "requestHeaderModifier",
            typed.request_header_modifier.is_some(),
            Type::RequestHeaderModifier,
        ),
        (
            "responseHeaderModifier",
            typed.response_header_modifier.is_some(),
            Type::ResponseHeaderModifier,
        ),
        ("requestMirror", typed.request_mirror.is_some(), Type::RequestMirror),
        ("requestRedirect", typed.request_redirect.is_some(), Type::RequestRedirect),
        ("urlRewrite", typed.url_rewrite.is_some(), Type::UrlRewrite),
        ("extensionRef", typed.extension_ref.is_some(), Type::ExtensionRef),
        ("cors", typed.cors.is_some(), Type::Cors),
    ];
    match fields.iter().find(|(_, there, of)| *there && *of != typed.r#type) {
        None => Ok(()),
        Some((field, ..)) => {
            let reason = format!("does not belong to a filter of type {:?}", typed.r#type);
            fail(format!("{path}.{field}"), DecodeFault::Invalid(reason))
        }
    }
}

fn modifier(path: &str, typed: TypedModifier) -> Decoded<HeaderModifier> {
    let set = typed
        .set
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(at, field)| pair(&format!("{path}.set[{at}]"), &field.name, &field.value));
    let add = typed.add.into_iter().flatten().enumerate().map(|(at, field)| {
        let path = format!("{path}.add[{at}]");
        not_host(&path, &field.name)?;
        pair(&path, &field.name, &field.value)
    });
    let remove = typed.remove.into_iter().flatten().enumerate().map(|(at, field)| {
        let path = format!("{path}.remove[{at}]");
        not_host(&path, &field)?;
        name(&path, &field)
    });
    Ok(HeaderModifier {
        set: set.collect::<Decoded<_>>()?,
        add: add.collect::<Decoded<_>>()?,
        remove: remove.collect::<Decoded<_>>()?,
    })
}

fn pair(path: &str, field: &str, value: &str) -> Decoded<(HeaderName, HeaderValue)> {
    let name = name(&format!("{path}.name"), field)?;
    match HeaderValue::from_str(value) {
        Ok(value) => Ok((name, value)),
        Err(_) => {
            let reason = format!("{value:?} cannot be sent as a header's value");
            fail(format!("{path}.value"), DecodeFault::Invalid(reason))
        }
    }
}

fn name(path: &str, field: &str) -> Decoded<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(field.as_bytes()) else {
        return fail(path, DecodeFault::Invalid(format!("{field:?} is not a header name")));
    };
    if FRAMING.contains(&name.as_str()) {
        let reason = format!(
            "a route cannot set {name}, which belongs to message framing or to the connection"
        );
        return fail(path, DecodeFault::Invalid(reason));
    }
    Ok(name)
}

/// Every request has exactly one Host: it can be set, not added to or removed.
fn not_host(path: &str, field: &str) -> Decoded<()> {
    if field.eq_ignore_ascii_case("host") {
        let reason = "a request has exactly one Host: use set";
        return fail(path, DecodeFault::Invalid(reason.into()));
    }
    Ok(())
}

fn mirror(path: &str, typed: TypedMirror, namespace: &str) -> Decoded<RouteFilter> {
    let share = share(path, &typed)?;
    let backend = typed.backend_ref;
    let reference = Reference {
        group: backend.group,
        kind: backend.kind,
        namespace: backend.namespace,
        name: backend.name,
        port: backend.port,
    };
    let target = target(&format!("{path}.backendRef"), reference, namespace)?;
    Ok(RouteFilter::Mirror(target, share))
}

/// HTTPRequestMirrorFilter: `percent` 0 to 100, or `fraction` with 0 <= numerator <= denominator
/// and a denominator of at least 1 (100 when there is none); not both.
fn share(path: &str, typed: &TypedMirror) -> Decoded<Fraction> {
    let invalid =
        |field: &str, reason: String| fail(format!("{path}.{field}"), DecodeFault::Invalid(reason));
    match (typed.percent, &typed.fraction) {
        (None, None) => Ok(Fraction::ALL),
        (Some(_), Some(_)) => invalid("percent", "percent and fraction exclude each other".into()),
        (Some(percent), None) => match u32::try_from(percent) {
            Ok(numerator @ 0..=100) => Ok(Fraction { numerator, denominator: 100 }),
            _ => invalid("percent", format!("{percent} is not within 0 to 100")),
        },
        (None, Some(fraction)) => {
            let (top, bottom) = (fraction.numerator, fraction.denominator.unwrap_or(100));
            match (u32::try_from(top), u32::try_from(bottom)) {
                (_, Err(_) | Ok(0)) => {
                    invalid("fraction.denominator", format!("{bottom} is less than 1"))
                }
                (Ok(numerator), Ok(denominator)) if numerator <= denominator => {
                    Ok(Fraction { numerator, denominator })
                }
                _ => invalid("fraction.numerator", format!("{top} is not within 0 to {bottom}")),
            }
        }
    }
}
