//! Which line of the Gateway API's list decides between two matches, as text. In: two
//! precedences. Out: the first field in which they differ. It orders nothing itself: that is the
//! derived `Ord` of [`Precedence`].

use std::{
    cmp::Ordering,
    fmt,
    time::{Duration, SystemTime},
};

use super::{PathRank, Precedence};

/// A line of the list (HTTPRouteRule, `matches`; of the path GRPCRouteRule, `matches`, has two other
/// lines), in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Exact, expression, prefix.
    PathKind,
    /// Characters of the path, within a kind.
    PathLength,
    /// Characters of a gRPC service.
    Service,
    /// Characters of a gRPC method.
    GrpcMethod,
    /// Whether a method is named.
    Method,
    /// How many headers are named.
    Headers,
    /// How many query parameters are named.
    Query,
    /// `creationTimestamp` of the route.
    Age,
    /// `namespace/name` of the route.
    RouteName,
    /// The rule's place in its route, and the match's in its rule.
    Place,
}

impl Precedence {
    /// What decides between the two, and how; None when they are equal, which two matches of one
    /// table never are.
    #[must_use]
    pub fn decide(&self, other: &Self) -> Option<(Criterion, Ordering)> {
        let Self { path, method, headers, query, created, route, place } = self;
        let kind = match (path, &other.path) {
            (PathRank::Grpc { service, .. }, PathRank::Grpc { service: others, .. }) => {
                if service == others { Criterion::GrpcMethod } else { Criterion::Service }
            }
            (PathRank::Grpc { .. }, _) | (_, PathRank::Grpc { .. }) => Criterion::Service,
            (path, other) if path.kind() == other.kind() => Criterion::PathLength,
            _ => Criterion::PathKind,
        };
        let fields = [
            (kind, path.cmp(&other.path)),
            (Criterion::Method, method.cmp(&other.method)),
            (Criterion::Headers, headers.cmp(&other.headers)),
            (Criterion::Query, query.cmp(&other.query)),
            (Criterion::Age, created.cmp(&other.created)),
            (Criterion::RouteName, route.cmp(&other.route)),
            (Criterion::Place, place.cmp(&other.place)),
        ];
        fields.into_iter().find(|(_, order)| order.is_ne())
    }

    /// The match's place in its rule's `matches`, from 0.
    #[must_use]
    pub fn match_index(&self) -> usize {
        self.place.0.1
    }
}

impl PathRank {
    fn kind(self) -> &'static str {
        match self {
            Self::Prefix(_) => "prefix",
            Self::Regex(_) => "expression",
            Self::Exact => "exact path",
            Self::Grpc { .. } => "gRPC method",
        }
    }
}

impl fmt::Display for Criterion {
    /// Completes "it comes first because".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PathKind => "exact paths come before expressions, and those before prefixes",
            Self::PathLength => "its path is longer",
            Self::Service => "what it wants of the service is longer",
            Self::GrpcMethod => "what it wants of the gRPC method is longer",
            Self::Method => "it names a method",
            Self::Headers => "it names more headers",
            Self::Query => "it names more query parameters",
            Self::Age => "its route is older",
            Self::RouteName => "its route's name comes first in alphabetical order",
            Self::Place => "it comes first in its route",
        })
    }
}

impl fmt::Display for Precedence {
    /// `prefix of length 4, any method, 1 header(s), 0 query parameter(s), ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, method, headers, query, created, .. } = self;
        match path {
            PathRank::Exact => f.write_str(path.kind())?,
            PathRank::Regex(length) => write!(f, "{} of {length} character(s)", path.kind())?,
            // A trailing slash does not count: that of "/" alone neither.
            PathRank::Prefix(length) => write!(f, "{} of length {length}", path.kind())?,
            PathRank::Grpc { service, method } => {
                let kind = path.kind();
                write!(
                    f,
                    "{kind} of {service} character(s) of the service and {method} of the method"
                )?;
            }
        }
        f.write_str(if *method { ", a method" } else { ", any method" })?;
        write!(f, ", {headers} header(s), {query} query parameter(s)")?;
        match created.0 {
            i64::MAX => f.write_str(", route without a creation time"),
            seconds => {
                let after = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
                let created = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + after);
                write!(f, ", route created {created}")
            }
        }
    }
}
