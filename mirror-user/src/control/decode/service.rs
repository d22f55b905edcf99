//! Services and EndpointSlices. The conversions are public: a typed watch needs only them.

use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::{Service as TypedService, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice as TypedSlice},
};
use serde_json::Value;

use super::{DecodeError, Decoded, Fault, WithSpec, fault::fail, object_name, port, strict};
use crate::{
    control::objects::{EndpointSlice, Object, Port, Service, ServiceAddress},
    enrol::Wish,
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn decode(document: Value) -> Decoded<Object> {
    let WithSpec { metadata, spec } = strict(document)?;
    convert(&TypedService { metadata, spec: Some(spec), status: None }).map(Object::Service)
}

pub(super) fn slice(document: Value) -> Decoded<Object> {
    convert_slice(&strict(document)?).map(Object::Slice)
}

/// A Service of a typed watch.
///
/// # Errors
/// When it could not have come from an API server: no name, an address that is none, a port out
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
        return fail("spec", Fault::Missing("every Service"));
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
        capture: Wish::of(typed.metadata.labels.as_ref()),
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
                return fail("spec.clusterIP", Fault::Invalid(reason));
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
        ready: ready(typed)?,
    })
}

/// The first address of an endpoint stands for it (EndpointSlice, `addresses`); `ready` unset
/// counts as true.
fn ready(typed: &TypedSlice) -> Decoded<Vec<IpAddr>> {
    let (family, is_family): (_, fn(&IpAddr) -> bool) = match typed.address_type.as_str() {
        "IPv4" => ("IPv4", IpAddr::is_ipv4),
        "IPv6" => ("IPv6", IpAddr::is_ipv6),
        "FQDN" => return Ok(Vec::new()),
        other => {
            let reason = format!("{other:?} is none of IPv4, IPv6 and FQDN");
            return fail("addressType", Fault::Invalid(reason));
        }
    };
    let is_ready = |endpoint: &Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let endpoints = typed.endpoints.iter().enumerate().filter(|(_, endpoint)| is_ready(endpoint));
    let first = endpoints.map(|(at, endpoint)| {
        let text = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
        text.parse().ok().filter(is_family).map_or_else(
            || {
                let path = format!("endpoints[{at}].addresses[0]");
                fail(path, Fault::Invalid(format!("{text:?} is not an {family} address")))
            },
            Ok,
        )
    });
    first.collect()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}
