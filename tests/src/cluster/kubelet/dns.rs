//! Cluster DNS: the names of Services, served on the node's address, port 53 (UDP).
//!
//! In: the Services of the API server. Out: an A record for `NAME.NAMESPACE.svc.cluster.local`,
//! NXDOMAIN for everything else; nothing is asked outside. Headless Services have no response here.
//! Also the files that name the DNS server to a container, as kubelet writes them.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use tokio::sync::mpsc;

use super::{
    Context,
    follow::{Change, follow},
};
use crate::namespace::inside;

const DOMAIN: &str = "svc.cluster.local";
/// RFC 1035, 4.1.1: response, recursion desired and available.
const ANSWER: u16 = 0x8180;
const NXDOMAIN: u16 = ANSWER | 3;
const TYPE_A: u16 = 1;

/// /etc/hosts, /etc/hostname and /etc/resolv.conf of a pod.
pub(super) fn files(context: &Context, pod: &Pod, ip: Ipv4Addr) -> Vec<(PathBuf, String)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n{ip}\t{name}\n");
    let resolv = format!(
        "search {namespace}.{DOMAIN} {DOMAIN} cluster.local\nnameserver {}\noptions ndots:5\n",
        context.node_ip
    );
    [("/etc/hosts", hosts), ("/etc/hostname", format!("{name}\n")), ("/etc/resolv.conf", resolv)]
        .map(|(path, content)| (path.into(), content))
        .into()
}

/// Opens the socket.
pub(super) fn bind(context: &Context) -> Result<UdpSocket> {
    let address = (context.node_ip, 53);
    let socket = inside(&context.netns, || UdpSocket::bind(address))?.context("port 53 of DNS")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves forever.
pub(super) async fn serve(context: Arc<Context>, socket: UdpSocket) -> Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let (sender, mut changes) = mpsc::channel(64);
    let services: Api<Service> = Api::all(context.client.clone());
    tokio::spawn(follow(services, String::new(), sender));
    let mut names = HashMap::new();
    let mut query = [0; 512];
    loop {
        tokio::select! {
            Some(change) = changes.recv() => apply(&mut names, change),
            received = socket.recv_from(&mut query) => {
                let Ok((length, client)) = received else { continue };
                if let Some(response) = response(&query[..length], &names) {
                    let _ = socket.send_to(&response, client).await;
                }
            }
        }
    }
}

fn apply(names: &mut HashMap<String, Ipv4Addr>, change: Change<Service>) {
    let add = |service: &Service, names: &mut HashMap<String, Ipv4Addr>| {
        let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
        if let (Some(name), Some(Ok(address))) = (name(service), address.map(str::parse)) {
            names.insert(name, address);
        }
    };
    match change {
        Change::All(services) => {
            names.clear();
            services.iter().for_each(|service| add(service, names));
        }
        Change::Applied(service) => add(&service, names),
        Change::Deleted(service) => {
            name(&service).map(|name| names.remove(&name));
        }
    }
}

fn name(service: &Service) -> Option<String> {
    let metadata = &service.metadata;
    Some(format!("{}.{}.{DOMAIN}", metadata.name.as_ref()?, metadata.namespace.as_ref()?))
}

/// The response to a query of one question; None for what is none.
fn response(query: &[u8], names: &HashMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let address = names.get(&name);
    let found = address.filter(|_| kind == TYPE_A);
    let flags = if address.is_some() { ANSWER } else { NXDOMAIN };
    let mut response = query.get(..2)?.to_vec();
    for field in [flags, 1, u16::from(found.is_some()), 0, 0] {
        response.extend(field.to_be_bytes());
    }
    response.extend(query.get(12..end + 4)?);
    if let Some(address) = found {
        // The name of the question, A, IN, 5 s, 4 bytes.
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        response.extend(address.octets());
    }
    Some(response)
}

/// The name asked for, in lower case, and where its labels end.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).expect("a short label"));
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        query
    }

    #[test]
    fn a_service_has_an_address_and_nothing_else_has() {
        let name = "httpbin.default.svc.cluster.local";
        let names = HashMap::from([(name.to_owned(), Ipv4Addr::new(10, 96, 0, 9))]);
        let found = response(&query("HttpBin.default.svc.cluster.local", 1), &names).expect("one");
        assert_eq!(found[..8], [7, 9, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(found.ends_with(&[10, 96, 0, 9]));
        let ipv6 = response(&query(name, 28), &names).expect("an answer without a record");
        assert_eq!(ipv6[2..8], [0x81, 0x80, 0, 1, 0, 0]);
        let other = response(&query("example.com", 1), &names).expect("no such name");
        assert_eq!(other[2..4], [0x81, 0x83]);
        assert_eq!(response(&[0; 11], &names), None);
        assert_eq!(response(&query(name, 1)[..20], &names), None);
    }
}
