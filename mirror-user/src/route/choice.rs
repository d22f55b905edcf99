//! Who chooses the endpoint that a request goes to: the cluster, or mirror. Pure.

use std::net::SocketAddr;

use super::{Backend, Frontend, Matcher, ObstacleKind, ServicePort};

/// Who chooses the endpoint of a Service that has a ClusterIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointChoice {
    /// Whoever balances the node's Services (kube-proxy, Cilium): the primary leg connects to the
    /// ClusterIP, so that session affinity, traffic policies, topology and terminating endpoints
    /// are what they are without mirror.
    #[default]
    Service,
    /// mirror: for a host without a load balancer for ClusterIPs.
    Mirror,
}

impl EndpointChoice {
    /// As the flag of the agent has it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Mirror => "mirror",
        }
    }
}

impl Backend {
    /// The one address that requests go to which a client has sent to `requested`, an address of
    /// `frontend`; None where mirror has to choose an endpoint.
    #[must_use]
    pub fn cluster_address(
        &self,
        frontend: &ServicePort,
        requested: SocketAddr,
        choice: EndpointChoice,
    ) -> Option<SocketAddr> {
        let own = *self.service == *frontend;
        if own && !self.addresses.contains(&requested) {
            // The client has chosen the endpoint, and may mean this one (StatefulSet).
            return Some(requested);
        }
        match choice {
            EndpointChoice::Service if own => Some(requested),
            EndpointChoice::Service => {
                let mut addresses = self.addresses.iter();
                let first = addresses.clone().next().copied();
                addresses
                    .find(|address| address.is_ipv4() == requested.is_ipv4())
                    .copied()
                    .or(first)
            }
            EndpointChoice::Mirror => None,
        }
    }
}

impl Frontend {
    /// Whether every request of a client of `namespace` goes to the very address that the client
    /// asked for, unchanged, without a timeout and once: its routes do no more than mirror. `choice` is the
    /// same in each call.
    #[must_use]
    pub fn only_mirrors(&self, namespace: &str, choice: EndpointChoice) -> bool {
        let Some(table) = self.routes(namespace) else { return true };
        *table.only_mirrors.get_or_init(|| {
            let every = Matcher::default();
            let foreign = |backend: &Backend| {
                let to = backend.cluster_address(&self.service, self.address, choice);
                (to != Some(self.address)).then_some(ObstacleKind::Backend)
            };
            // A request that no rule matches gets 404.
            table.entries().any(|(matcher, _)| *matcher == every)
                && table.entries().all(|(_, rule)| rule.acts(foreign).is_none())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::route::{
        AppProtocol, Cors, Filter, FrontendCapture, PathModifier, Redirect, Rewrite, Rule, Timeouts,
    };

    fn service(name: &str) -> Arc<ServicePort> {
        Arc::new(ServicePort { namespace: "d".into(), name: name.into(), port: 80 })
    }

    fn backend(name: &str, addresses: &[&str], endpoints: &[&str]) -> Arc<Backend> {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Backend {
            service: service(name),
            protocol: AppProtocol::Unspecified,
            addresses: parse(addresses),
            endpoints: parse(endpoints),
            unready: Vec::new(),
            affinity: false,
        })
    }

    /// The address, or `endpoints`.
    fn to(backend: &Backend, requested: &str, choice: EndpointChoice) -> String {
        let address = backend.cluster_address(&service("a"), requested.parse().unwrap(), choice);
        address.map_or_else(|| "endpoints".into(), |address| address.to_string())
    }

    #[test]
    fn the_cluster_chooses_where_it_balances() {
        use EndpointChoice::{Mirror, Service};
        let dual = &["10.96.0.2:80", "[fd00:96::2]:80"];
        let (v4, v6, pod) = ("10.96.0.1:80", "[fd00:96::1]:80", "10.244.0.7:80");
        let parent = backend("a", &["10.96.0.1:80", "[fd00:96::1]:80"], &["10.244.0.7:8080"]);
        let other = backend("b", dual, &["10.244.0.9:8080"]);
        let other_v4 = backend("b", &dual[..1], &["10.244.0.9:8080"]);
        let headless_parent = backend("a", &[], &["10.244.0.7:80", "10.244.0.8:80"]);
        let headless = backend("b", &[], &["10.244.0.9:8080"]);
        for (backend, requested, choice, expected) in [
            (&parent, v4, Service, "10.96.0.1:80"),
            (&parent, v6, Service, "[fd00:96::1]:80"),
            (&parent, v4, Mirror, "endpoints"),
            (&parent, "10.244.0.7:8080", Service, "10.244.0.7:8080"),
            (&parent, "10.244.0.7:8080", Mirror, "10.244.0.7:8080"),
            (&other, v4, Service, "10.96.0.2:80"),
            (&other, v6, Service, "[fd00:96::2]:80"),
            (&other_v4, v6, Service, "10.96.0.2:80"),
            (&other, v4, Mirror, "endpoints"),
            (&headless_parent, pod, Service, "10.244.0.7:80"),
            (&headless_parent, pod, Mirror, "10.244.0.7:80"),
            (&headless, v4, Service, "endpoints"),
            (&headless, v4, Mirror, "endpoints"),
        ] {
            assert_eq!(to(backend, requested, choice), expected, "{backend:?} {choice:?}");
        }
    }

    /// Filters that change a request or respond to it.
    fn others() -> Vec<Filter> {
        let (scheme, port, path) = (None, None, None);
        let hostname = Some("a".to_owned());
        let status = http::StatusCode::FOUND;
        let redirect = Redirect { scheme, hostname, port, path, status };
        let rewrite = Rewrite { hostname: None, path: Some(PathModifier::full("/")) };
        let cors = Cors::default();
        vec![
            Filter::Redirect(Arc::new(redirect)),
            Filter::Rewrite(Arc::new(rewrite)),
            Filter::Cors(Arc::new(cors)),
        ]
    }

    #[test]
    fn routes_that_do_no_more_than_mirror_are_distinguished_from_others() {
        use crate::model::{ObjectName, RouteKind};
        use crate::route::{
            BackendRef, Backends, Fraction, HeaderModifier, Mirror, Retry, RouteTable, RuleEntry,
        };
        let own = backend("a", &["10.96.0.1:80"], &[]);
        let other = backend("b", &["10.96.0.2:80"], &[]);
        let entry = |backend: &Arc<Backend>, weight, filters| BackendRef {
            weight,
            filters,
            target: Ok(Arc::clone(backend)),
        };
        let mirror =
            || Filter::Mirror(Mirror { target: Ok(Arc::clone(&other)), share: Fraction::ALL });
        let headers = || Filter::RequestHeaders(HeaderModifier::default());
        let second = std::time::Duration::from_secs(1);
        let limit = (Timeouts { request: Some(second), backend: None }, None);
        let retry = Retry { codes: Arc::default(), attempts: 1, backoff: second };
        let retry = (Timeouts::default(), Some(retry));
        let none = (Timeouts::default(), None);
        let only = |filters, refs, of: &(Timeouts, Option<Retry>), matches, choice| {
            let route =
                RouteKind::Http.named(ObjectName { namespace: "d".into(), name: "r".into() });
            let backends = Backends::new(refs);
            let (route, name, (timeouts, retry)) = (route.into(), None, of.clone());
            let rule = Rule { route, index: 0, name, filters, backends, timeouts, retry };
            let table =
                RouteTable::new([RuleEntry { rule: Arc::new(rule), matches, created: None }]);
            let frontend = Frontend {
                id: crate::route::FrontendId(2),
                address: "10.96.0.1:80".parse().unwrap(),
                service: service("a"),
                producer: Some(table),
                consumers: std::collections::HashMap::new(),
                ahead: false,
                capture: FrontendCapture::default(),
                connection_ref: Arc::default(),
            };
            frontend.only_mirrors("d", choice)
        };
        let cluster = EndpointChoice::Service;
        let mine = || vec![entry(&own, 1, vec![])];
        assert!(only(vec![mirror()], mine(), &none, vec![], cluster));
        let unused = vec![entry(&own, 1, vec![]), entry(&other, 0, vec![])];
        assert!(only(vec![], unused, &none, vec![Matcher::default()], cluster));
        assert!(!only(vec![mirror()], mine(), &none, vec![], EndpointChoice::Mirror));
        assert!(!only(vec![mirror(), headers()], mine(), &none, vec![], cluster));
        assert!(only(vec![], vec![entry(&own, 1, vec![mirror()])], &none, vec![], cluster));
        assert!(!only(vec![], vec![entry(&own, 1, vec![headers()])], &none, vec![], cluster));
        for other in others() {
            assert!(!only(vec![other], mine(), &none, vec![], cluster));
        }
        for other in others() {
            assert!(!only(vec![], vec![entry(&own, 1, vec![other])], &none, vec![], cluster));
        }
        assert!(!only(vec![], vec![entry(&other, 1, vec![])], &none, vec![], cluster));
        assert!(!only(vec![], vec![], &none, vec![], cluster));
        assert!(!only(vec![], mine(), &limit, vec![], cluster));
        assert!(!only(vec![], mine(), &retry, vec![], cluster));
        let get = Matcher { method: Some(http::Method::GET), ..Matcher::default() };
        assert!(!only(vec![], mine(), &none, vec![get], cluster));
    }
}
