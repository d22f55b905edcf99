//! `GRPCMethodMatch`: a condition on the path of a call, `/service/method` (gRPC over HTTP/2, "Requests"). In:
//! a path. Out: yes or no.

use std::fmt;

use super::{ValueMatch, View};

/// A condition on the service and the method of a gRPC call; at least one of the two is there.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcMethodMatch {
    /// The service with its package, any when None.
    pub service: Option<ValueMatch>,
    /// The method, any when None.
    pub method: Option<ValueMatch>,
}

impl GrpcMethodMatch {
    /// Whether `path` (no query) is that of a call that is meant.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        split(path).is_some_and(|(service, method)| {
            let part = |wanted: &Option<ValueMatch>, value| {
                wanted.as_ref().is_none_or(|wanted| wanted.matches(value))
            };
            part(&self.service, service) && part(&self.method, method)
        })
    }

    pub(super) fn holds(&self, view: &View<'_>) -> bool {
        let expressions = [&self.service, &self.method].into_iter().flatten();
        let expressions = expressions.filter(|value| matches!(value, ValueMatch::Regex(_)));
        view.did(expressions.count() * view.path().len());
        self.matches(view.path())
    }

    /// Characters of what it wants of the service and of the method: more come first (GRPCRouteRule,
    /// `matches`).
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        let characters = |value: &Option<ValueMatch>| {
            value.as_ref().map_or(0, |value| value.as_str().chars().count())
        };
        (characters(&self.service), characters(&self.method))
    }
}

/// Service and method of a call's path; None of a path that no call has.
pub(in crate::route) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = path.strip_prefix(b"/")?;
    let slash = rest.iter().rposition(|byte| *byte == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

impl fmt::Display for GrpcMethodMatch {
    /// `= /echo.Echo/Say`, or with expressions or without one of the two: `service = echo.Echo, method ~ Get.*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(ValueMatch::Exact(service)), Some(ValueMatch::Exact(method))) =
            (&self.service, &self.method)
        {
            return write!(f, "= /{service}/{method}");
        }
        let parts = [("service", &self.service), ("method", &self.method)];
        let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (at, (name, value)) in parts.enumerate() {
            write!(f, "{}{name} {value:#}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Pattern;

    fn exact(value: &str) -> Option<ValueMatch> {
        Some(ValueMatch::Exact(value.into()))
    }

    fn regex(value: &str) -> Option<ValueMatch> {
        Some(ValueMatch::Regex(Pattern::new(value).unwrap()))
    }

    #[test]
    fn grpc_methods() {
        let both = GrpcMethodMatch { service: exact("a.B"), method: exact("C") };
        let service = GrpcMethodMatch { service: exact("a.B"), method: None };
        let method = GrpcMethodMatch { service: None, method: exact("C") };
        let expression = GrpcMethodMatch { service: regex("a\\..*"), method: regex("[A-C]") };
        for (path, expected) in [
            ("/a.B/C", [true, true, true, true]),
            ("/a.B/D", [false, true, false, false]),
            ("/a.X/C", [false, false, true, true]),
            ("/a.B/c", [false, true, false, false]),
            ("/a.B", [false; 4]),
            ("a.B/C", [false; 4]),
            ("/a.B/C/", [false; 4]),
            ("/x/a.B/C", [false, false, true, false]),
            ("/", [false; 4]),
            ("*", [false; 4]),
            ("", [false; 4]),
        ] {
            let found = [&both, &service, &method, &expression].map(|m| m.matches(path.as_bytes()));
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(both.to_string(), "= /a.B/C");
        assert_eq!(service.to_string(), "service = a.B");
        assert_eq!(expression.to_string(), "service ~ a\\..*, method ~ [A-C]");
        assert_eq!((both.lengths(), method.lengths()), ((3, 1), (0, 1)));
    }
}
