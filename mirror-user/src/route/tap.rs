//! Which frontends are tapped: their connections stay as they are, and what clients send is copied. Pure.
//!
//! That is possible where routes do no more than mirror, so that a client and its primary need nothing
//! between them, and where what the client sends can be read from its side alone.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{
    AppProtocol, Backend, EndpointChoice, Filter, Matcher, RouteTable, Rule, ServicePort, Timeouts,
};
use crate::model::{RouteKind, RouteName};

/// How connections to frontends are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// All are taken to the agent.
    #[default]
    Proxy,
    /// Those are tapped that can be; others are left alone.
    Tap,
    /// Those are tapped that can be; others are taken to the agent.
    Auto,
}

/// What becomes of the connections to one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontendCapture {
    /// They are taken to the agent. The obstacle is known if it would tap them otherwise.
    Proxied(Option<TapObstacle>),
    /// They are left alone, for want of a way to tap them.
    Direct(TapObstacle),
    /// They are tapped.
    Tapped,
    /// Nothing is captured: the frontend was removed.
    Removed,
}

impl Default for FrontendCapture {
    fn default() -> Self {
        Self::Proxied(None)
    }
}

impl FrontendCapture {
    /// The name in `/config`; never changes.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Proxied(_) => "proxied",
            Self::Direct(_) => "direct",
            Self::Tapped => "tapped",
            Self::Removed => "removed",
        }
    }

    /// Why it is not tapped.
    #[must_use]
    pub fn obstacle(&self) -> Option<&TapObstacle> {
        match self {
            Self::Proxied(obstacle) => obstacle.as_ref(),
            Self::Direct(obstacle) => Some(obstacle),
            Self::Tapped | Self::Removed => None,
        }
    }
}

/// Why a frontend cannot be tapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapObstacle {
    /// What it is.
    pub kind: ObstacleKind,
    /// The rule that it is found in, by its place, if it is one's.
    pub rule: Option<(Arc<RouteName>, usize)>,
}

/// What stands in the way of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObstacleKind {
    /// The Service is captured ahead of its routes.
    Ahead,
    /// Routes apply to clients of some Namespaces only.
    SomeClients,
    /// A request may match no rule, and would get 404.
    NoMatch,
    /// A filter of a rule or backend is not `RequestMirror`.
    Filter,
    /// A rule has timeouts.
    Timeouts,
    /// A rule has a retry.
    Retry,
    /// A rule's backends are not the parent itself at its own port.
    Backend,
    /// mirror chooses the endpoints.
    Endpoints,
    /// gRPC, or a port whose `appProtocol` is HTTP/2: only HTTP/1 is copied from a tap.
    Http2,
}

impl ObstacleKind {
    /// Its name; never changes.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ahead => "captured_ahead",
            Self::SomeClients => "some_clients",
            Self::NoMatch => "no_match",
            Self::Filter => "filter",
            Self::Timeouts => "timeouts",
            Self::Retry => "retry",
            Self::Backend => "backend",
            Self::Endpoints => "endpoints",
            Self::Http2 => "http2",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ahead => "the Service is captured ahead of its routes",
            Self::SomeClients => "routes apply to clients of some Namespaces only",
            Self::NoMatch => "a request may match no rule and get 404",
            Self::Filter => "a filter is not RequestMirror",
            Self::Timeouts => "it has timeouts",
            Self::Retry => "it has a retry",
            Self::Backend => "its backends are not the parent itself",
            Self::Endpoints => "mirror chooses the endpoints (--endpoints)",
            Self::Http2 => "it is for HTTP/2, which a tap does not copy yet",
        }
    }
}

impl fmt::Display for TapObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((route, index)) = &self.rule {
            write!(f, "rule {index} of {route}: ")?;
        }
        f.write_str(self.kind.text())
    }
}

/// The routes at one address, as far as they decide about a tap.
#[derive(Clone, Copy, Debug)]
pub struct TapSubject<'r> {
    /// The Service port behind the address.
    pub service: &'r ServicePort,
    /// What clients connect to.
    pub address: SocketAddr,
    /// Routes that apply to all clients.
    pub producer: Option<&'r RouteTable>,
    /// Whether the Service is captured ahead of its routes.
    pub ahead: bool,
}

impl<'r> TapSubject<'r> {
    /// Why the address cannot be tapped; None if it can. `consumers`: routes that apply to clients of
    /// one Namespace each.
    pub fn obstacle(
        &self,
        consumers: impl IntoIterator<Item = &'r RouteTable>,
        choice: EndpointChoice,
    ) -> Option<TapObstacle> {
        let without_rule = |kind| Some(TapObstacle { kind, rule: None });
        let Some(producer) = self.producer else {
            let ahead = if self.ahead { ObstacleKind::Ahead } else { ObstacleKind::SomeClients };
            return without_rule(ahead);
        };
        let every = Matcher::default();
        for table in std::iter::once(producer).chain(consumers) {
            if let Some(obstacle) = table.entries().find_map(|(_, rule)| self.of_rule(rule, choice))
            {
                return Some(obstacle);
            }
            if !table.entries().any(|(matcher, _)| *matcher == every) {
                return without_rule(ObstacleKind::NoMatch);
            }
        }
        None
    }

    fn of_rule(&self, rule: &Rule, choice: EndpointChoice) -> Option<TapObstacle> {
        let is_own = |backend: &Backend| {
            let address = backend.cluster_address(self.service, self.address, choice);
            match address {
                Some(address) if address == self.address => None,
                None if *backend.service == *self.service => Some(ObstacleKind::Endpoints),
                _ => Some(ObstacleKind::Backend),
            }
        };
        let http2 = |backend: &Backend| {
            (backend.protocol == AppProtocol::H2c).then_some(ObstacleKind::Http2)
        };
        let grpc = (rule.route.kind == RouteKind::Grpc).then_some(ObstacleKind::Http2);
        let found = rule.acts(|backend| is_own(backend).or_else(|| http2(backend))).or(grpc);
        found.map(|kind| TapObstacle { kind, rule: Some((Arc::clone(&rule.route), rule.index)) })
    }
}

impl CaptureMode {
    /// As the flag of the agent has it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Tap => "tap",
            Self::Auto => "auto",
        }
    }

    /// What becomes of connections to a frontend. `obstacle`: to tapping it.
    pub fn capture(self, obstacle: impl FnOnce() -> Option<TapObstacle>) -> FrontendCapture {
        match self {
            Self::Proxy => FrontendCapture::Proxied(None),
            Self::Tap => obstacle().map_or(FrontendCapture::Tapped, FrontendCapture::Direct),
            Self::Auto => obstacle()
                .map_or(FrontendCapture::Tapped, |why| FrontendCapture::Proxied(Some(why))),
        }
    }
}

impl Rule {
    /// What it does besides mirroring; None if that is all. `backend`: what stands against one that gets
    /// requests.
    pub(super) fn acts(
        &self,
        backend: impl Fn(&Backend) -> Option<ObstacleKind>,
    ) -> Option<ObstacleKind> {
        let mirrors = |filters: &[Filter]| filters.iter().all(|f| matches!(f, Filter::Mirror(_)));
        if !mirrors(&self.filters) {
            return Some(ObstacleKind::Filter);
        }
        if self.timeouts != Timeouts::default() {
            return Some(ObstacleKind::Timeouts);
        }
        if self.retry.is_some() {
            return Some(ObstacleKind::Retry);
        }
        let mut used = self.backends.refs().iter().filter(|entry| entry.weight > 0).peekable();
        if used.peek().is_none() {
            return Some(ObstacleKind::Backend);
        }
        used.find_map(|entry| match &entry.target {
            _ if !mirrors(&entry.filters) => Some(ObstacleKind::Filter),
            Ok(target) => backend(target),
            Err(_) => Some(ObstacleKind::Backend),
        })
    }
}

#[cfg(test)]
mod tests;
