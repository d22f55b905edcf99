//! Whose addresses are whose: ClusterIPs of Services, addresses of Nodes and of the Pods that are
//! known. In: objects as they come and go. Out: what an address is. IPv4-mapped IPv6 addresses
//! count as the IPv4 addresses that they are.

use std::{collections::HashMap, net::IpAddr};

use super::{NodeRow, Service, ServiceAddress};
use crate::model::{ObjectName, PodRow};

/// An index of addresses by what they belong to.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// How many Services have it.
    cluster_ips: HashMap<IpAddr, u32>,
    /// How many Nodes have it.
    nodes: HashMap<IpAddr, u32>,
    /// Which Pods have it; without those of a Node's own network, and those that have ended.
    pods: HashMap<IpAddr, Vec<ObjectName>>,
}

impl Addresses {
    /// Whether it is the ClusterIP of any Service.
    #[must_use]
    pub fn is_cluster_ip(&self, ip: IpAddr) -> bool {
        self.cluster_ips.contains_key(&ip.to_canonical())
    }

    /// Whether it is an address of any Node.
    #[must_use]
    pub fn is_node(&self, ip: IpAddr) -> bool {
        self.nodes.contains_key(&ip.to_canonical())
    }

    /// The known Pods that have it: one, but for the moment in which an address changes hands.
    #[must_use]
    pub fn pods(&self, ip: IpAddr) -> &[ObjectName] {
        self.pods.get(&ip.to_canonical()).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add_service(&mut self, service: &Service) {
        cluster_ips(service).for_each(|ip| count(&mut self.cluster_ips, ip));
    }

    pub(super) fn remove_service(&mut self, service: &Service) {
        cluster_ips(service).for_each(|ip| discount(&mut self.cluster_ips, ip));
    }

    pub(super) fn add_node(&mut self, node: &NodeRow) {
        node.addresses.iter().for_each(|ip| count(&mut self.nodes, ip.to_canonical()));
    }

    pub(super) fn remove_node(&mut self, node: &NodeRow) {
        node.addresses.iter().for_each(|ip| discount(&mut self.nodes, ip.to_canonical()));
    }

    pub(super) fn add_pod(&mut self, pod: &PodRow) {
        for ip in pod_ips(pod) {
            self.pods.entry(ip).or_default().push(pod.name.clone());
        }
    }

    pub(super) fn remove_pod(&mut self, pod: &PodRow) {
        for ip in pod_ips(pod) {
            if let Some(names) = self.pods.get_mut(&ip) {
                names.retain(|name| *name != pod.name);
                if names.is_empty() {
                    self.pods.remove(&ip);
                }
            }
        }
    }
}

/// The ClusterIPs of a Service, in canonical form.
pub(super) fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let ips: &[IpAddr] = match &service.address {
        ServiceAddress::ClusterIps(ips) => ips,
        ServiceAddress::Headless | ServiceAddress::Missing | ServiceAddress::Unsupported(_) => &[],
    };
    ips.iter().map(IpAddr::to_canonical)
}

/// The addresses that are a Pod's own. One in its Node's network has the Node's; one that has ended
/// has given its own back.
pub(super) fn pod_ips(pod: &PodRow) -> impl Iterator<Item = IpAddr> {
    let own = if pod.host_network || pod.ended { &[][..] } else { &pod.ips };
    own.iter().map(IpAddr::to_canonical)
}

fn count(counts: &mut HashMap<IpAddr, u32>, ip: IpAddr) {
    *counts.entry(ip).or_default() += 1;
}

fn discount(counts: &mut HashMap<IpAddr, u32>, ip: IpAddr) {
    if let Some(count) = counts.get_mut(&ip) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&ip);
        }
    }
}
