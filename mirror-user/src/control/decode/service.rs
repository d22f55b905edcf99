//! Services and EndpointSlices. The conversions are public: a typed watch needs only them.

use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::{Service as TypedService, ServiceSpec},
    discovery::v1::{Endpoint as TypedEndpoint, EndpointSlice as TypedSlice},
};
use serde_json::Value;

use super::{
    DecodeError, DecodeFault, Decoded, WithSpec, created, fault::fail, object_name, port, strict,
};
use crate::{
    control::objects::{Endpoint, EndpointSlice, Object, Port, Service, ServiceAddress},
    model::{CAPTURE_ENDPOINTS, CaptureLabel, Consent},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn decode(document: &Value) -> Decoded<Object> {
    let WithSpec { metadata, spec } = strict(document)?;
    convert(&TypedService { metadata, spec: Some(spec), status: None }).map(Object::Service)
}

pub(super) fn slice(document: &Value) -> Decoded<Object> {
    convert_slice(&strict(document)?).map(Object::Slice)
}

/// A Service of a typed watch.
///
/// # Errors
/// If it could not have come from an API server: no name, an invalid address, a port out
/// of range.
pub fn service(typed: &TypedService) -> Result<Service, DecodeError> {
    convert(typed).map_err(|(path, fault)| {
        let name = typed.metadata.name.as_deref().unwrap_or_default();
        DecodeError::new(&format!("Service {name}"), &path.0, fault)
    })
}

/// An EndpointSlice of a typed watch.
///
/// # Errors
/// As for [`service`].
pub fn endpoint_slice(typed: &TypedSlice) -> Result<EndpointSlice, DecodeError> {
    convert_slice(typed).map_err(|(path, fault)| {
        let name = typed.metadata.name.as_deref().unwrap_or_default();
        DecodeError::new(&format!("EndpointSlice {name}"), &path.0, fault)
    })
}

fn convert(typed: &TypedService) -> Decoded<Service> {
    let Some(spec) = &typed.spec else {
        return fail("spec", DecodeFault::Missing("every Service"));
    };
    let ports = spec.ports.iter().flatten().enumerate().map(|(at, typed)| {
        Ok(Port {
            name: typed.name.clone().unwrap_or_default(),
            port: port(&format!("spec.ports[{at}].port"), typed.port)?,
            tcp: is_tcp(typed.protocol.as_deref()),
            app_protocol: typed.app_protocol.clone(),
        })
    });
    Ok(Service {
        name: object_name(&typed.metadata)?,
        address: address(spec)?,
        ports: ports.collect::<Decoded<_>>()?,
        affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        capture: CaptureLabel::of(typed.metadata.labels.as_ref()),
        capture_endpoints: Consent::of(typed.metadata.labels.as_ref(), CAPTURE_ENDPOINTS),
        created: created(&typed.metadata),
    })
}

fn address(spec: &ServiceSpec) -> Decoded<ServiceAddress> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(ServiceAddress::Unsupported("it is of type ExternalName"));
    }
    // A cluster writes the first one in both fields.
    let all = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
    let mut addresses = Vec::new();
    for text in all.filter(|text| !text.is_empty()) {
        match text.parse::<IpAddr>() {
            _ if text == "None" => return Ok(ServiceAddress::Headless),
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_) => {
                let reason = format!("{text:?} is neither an IP address nor None");
                return fail("spec.clusterIP", DecodeFault::Invalid(reason));
            }
        }
    }
    Ok(if addresses.is_empty() {
        ServiceAddress::Missing
    } else {
        ServiceAddress::ClusterIps(addresses)
    })
}

fn convert_slice(typed: &TypedSlice) -> Decoded<EndpointSlice> {
    let ports = typed.ports.iter().flatten().enumerate();
    let ports =
        ports.filter(|(_, port)| is_tcp(port.protocol.as_deref())).filter_map(|(at, typed)| {
            let number = port(&format!("ports[{at}].port"), typed.port?);
            Some(number.map(|number| (typed.name.clone().unwrap_or_default(), number)))
        });
    let labels = typed.metadata.labels.as_ref();
    Ok(EndpointSlice {
        name: object_name(&typed.metadata)?,
        service: labels.and_then(|labels| labels.get(SERVICE_NAME)).cloned(),
        ports: ports.collect::<Decoded<_>>()?,
        ready: addresses(typed, is_ready)?,
        terminating: addresses(typed, is_terminating)?,
        unready: addresses(typed, |endpoint| !is_ready(endpoint) && !is_terminating(endpoint))?,
        created: created(&typed.metadata),
    })
}

/// `ready` unset counts as true (EndpointConditions).
fn is_ready(endpoint: &TypedEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// Terminating and still serving; both unset count as false here, since `ready` is false.
fn is_terminating(endpoint: &TypedEndpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let is = |condition: Option<bool>| condition.unwrap_or(false);
    !is_ready(endpoint) && conditions.is_some_and(|c| is(c.serving) && is(c.terminating))
}

/// The first address of an endpoint stands for it (EndpointSlice, `addresses`).
fn addresses(
    typed: &TypedSlice,
    wanted: impl Fn(&TypedEndpoint) -> bool,
) -> Decoded<Vec<Endpoint>> {
    let (family, is_family): (_, fn(&IpAddr) -> bool) = match typed.address_type.as_str() {
        "IPv4" => ("IPv4", IpAddr::is_ipv4),
        "IPv6" => ("IPv6", IpAddr::is_ipv6),
        "FQDN" => return Ok(Vec::new()),
        other => {
            let reason = format!("{other:?} is not IPv4, IPv6 or FQDN");
            return fail("addressType", DecodeFault::Invalid(reason));
        }
    };
    let endpoints = typed.endpoints.iter().enumerate().filter(|(_, endpoint)| wanted(endpoint));
    let first = endpoints.map(|(at, endpoint)| {
        let text = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
        text.parse().ok().filter(is_family).map_or_else(
            || {
                let path = format!("endpoints[{at}].addresses[0]");
                fail(path, DecodeFault::Invalid(format!("{text:?} is not an {family} address")))
            },
            |ip| Ok(Endpoint { ip, pod: pod(typed, endpoint) }),
        )
    });
    first.collect()
}

/// The Pod that an endpoint says it is; None for one of another namespace, which is no evidence
/// here, and for what is no Pod.
fn pod(slice: &TypedSlice, endpoint: &TypedEndpoint) -> Option<Box<str>> {
    let target = endpoint.target_ref.as_ref()?;
    let own = slice.metadata.namespace.as_deref().unwrap_or("default");
    let here = target.namespace.as_deref().is_none_or(|namespace| namespace == own);
    let name = target.name.as_deref().filter(|name| !name.is_empty())?;
    (here && target.kind.as_deref() == Some("Pod")).then(|| name.into())
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}
