//! Finding the frontend: a host and port as a client in a namespace gives them in; the resolved
//! frontend out, or why there is none.

use std::net::{IpAddr, SocketAddr};

use super::args::UrlTarget;
use crate::{
    control::{
        objects::{Objects, ParentRef, ServiceAddress},
        resolve::{AddressPolicy, Resolved, ResolvedFrontend, unattachable},
    },
    model::ObjectName,
};

/// The domain of clusters, unless theirs was changed.
const CLUSTER_DOMAIN: [&str; 3] = ["svc", "cluster", "local"];

/// No frontend: the connection goes direct.
pub(super) struct NotFound {
    /// The Service that was meant, if one is known.
    pub(super) service: Option<ObjectName>,
    pub(super) why: String,
}

/// The frontends that the client may mean: more than one only for the name of a headless Service,
/// and those have the same routes.
pub(super) fn find<'r>(
    objects: &Objects,
    resolved: &'r Resolved,
    target: &UrlTarget,
    namespace: &str,
) -> Result<Vec<&'r ResolvedFrontend>, NotFound> {
    let service = match target.host.parse::<IpAddr>() {
        Ok(address) => {
            let wanted = SocketAddr::new(address, target.port);
            let mut frontends = resolved.frontends.iter();
            match frontends.find(|frontend| frontend.address == wanted) {
                Some(frontend) => return Ok(vec![frontend]),
                None => by_address(objects, address)?,
            }
        }
        Err(_) => by_name(&target.host, namespace)?,
    };
    let frontends = resolved.frontends.iter().filter(|frontend| {
        let at = &frontend.service;
        (at.namespace.as_str(), at.name.as_str(), at.port)
            == (service.namespace.as_str(), service.name.as_str(), target.port)
    });
    let frontends: Vec<_> = frontends.collect();
    if frontends.is_empty() {
        return Err(none(objects, service, target.port));
    }
    Ok(frontends)
}

/// As the search list of a pod completes it (pods' /etc/resolv.conf, ndots:5).
fn by_name(host: &str, namespace: &str) -> Result<ObjectName, NotFound> {
    let host = host.to_ascii_lowercase();
    let labels: Vec<_> = host.strip_suffix('.').unwrap_or(&host).split('.').collect();
    let absolute = host.ends_with('.');
    let named = |namespace: &str, name: &str| {
        Ok(ObjectName { namespace: namespace.to_owned(), name: name.to_owned() })
    };
    match labels.as_slice() {
        [name] if !absolute => named(namespace, name),
        [name, namespace] | [name, namespace, "svc"] if !absolute => named(namespace, name),
        [name, namespace, domain @ ..] if domain == CLUSTER_DOMAIN => named(namespace, name),
        _ => Err(NotFound {
            service: None,
            why: format!(
                "{host} is not the name of a Service: NAME, NAME.NAMESPACE, NAME.NAMESPACE.svc or \
                 NAME.NAMESPACE.{}",
                CLUSTER_DOMAIN.join(".")
            ),
        }),
    }
}

fn by_address(objects: &Objects, address: IpAddr) -> Result<ObjectName, NotFound> {
    let mut services = objects.services.values();
    let found = services.find(
        |service| matches!(&service.address, ServiceAddress::ClusterIps(own) if own.contains(&address)),
    );
    found.map(|service| service.name.clone()).ok_or_else(|| NotFound {
        service: None,
        why: format!("no Service of the folder has the address {address}"),
    })
}

/// The Service, or its port, has no frontend.
fn none(objects: &Objects, service: ObjectName, port: u16) -> NotFound {
    let parent = ParentRef { service, port: Some(port), section: None };
    let why = unattachable(&AddressPolicy::default(), objects, &parent).unwrap_or_else(|| {
        let service = &parent.service;
        let attached = objects.routes.values().flat_map(|route| &route.parents);
        let attached = attached.filter(|other| other.service == *service);
        match objects.services.get(service).map(|service| &service.address) {
            Some(ServiceAddress::Headless) if attached.count() > 0 => {
                format!("Service {service} is headless, and no ready endpoint has port {port}")
            }
            _ => format!("no route is attached to port {port} of Service {service}"),
        }
    });
    NotFound { service: Some(parent.service), why }
}
