//! A namespace's own addresses: what getsockname returns to the application, and whether there is IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use mirror_common::words;
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
};

use crate::sockets::{NetnsSockets, NetnsTarget};

/// The first address of each family on an interface that is up and not loopback; of IPv6, one that
/// is not of the link alone.
#[derive(Debug, Default)]
pub(super) struct PodAddresses {
    v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

impl PodAddresses {
    /// Those of the namespace; none where they cannot be read.
    pub(super) fn of(sockets: &NetnsSockets, netns: &NetnsTarget) -> Self {
        let Ok(Ok(addresses)) = sockets.run(netns, getifaddrs) else { return Self::default() };
        let addresses: Vec<_> = addresses.filter(is_usable).filter_map(|a| a.address).collect();
        let v4 = addresses.iter().find_map(|a| Some(a.as_sockaddr_in()?.ip()));
        let mut v6 = addresses.iter().filter_map(|a| Some(a.as_sockaddr_in6()?.ip()));
        Self { v4, v6: v6.find(|address| !address.is_unicast_link_local()) }
    }

    /// As a pod's entry holds them: in network byte order, 0 for none.
    pub(super) fn words(&self) -> (u32, [u32; 4]) {
        let v4 = self.v4.map_or(0, |address| address.to_bits().to_be());
        (v4, self.v6.map_or([0; 4], words))
    }
}

fn is_usable(address: &InterfaceAddress) -> bool {
    address.flags.contains(InterfaceFlags::IFF_UP)
        && !address.flags.contains(InterfaceFlags::IFF_LOOPBACK)
}
