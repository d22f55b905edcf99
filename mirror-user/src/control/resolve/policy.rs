//! What is fixed at the start of a process: who writes the objects, which addresses are never used,
//! and how much one Namespace may have. In: flags and environment. Out: a policy, that
//! [`super::Resolver`] resolves by.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::control::publish::MAX_KNOWN;

/// Frontends of the Services of one Namespace, unless a flag says otherwise.
pub const NAMESPACE_FRONTENDS: u16 = 4096;

/// Who writes the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authors {
    /// The owner of the node (a folder of files): authors are not protected from one another.
    Owner,
    /// Tenants of a cluster, each in separate Namespaces: what one writes neither takes nor
    /// hurts what is another's.
    Tenants,
}

/// Rules of resolving that no object changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Who writes the objects.
    pub authors: Authors,
    /// Addresses of the API server (`KUBERNETES_SERVICE_HOST`), beside its endpoints.
    pub api_server: Vec<IpAddr>,
    /// Where no copy goes (`--deny-shadow`).
    pub deny_shadow: Vec<Cidr>,
    /// Most frontends of the Services of one Namespace.
    pub namespace_frontends: usize,
    /// Most frontends of all.
    pub frontends: usize,
}

impl Default for AddressPolicy {
    /// Of files: the owner of the node has written them.
    fn default() -> Self {
        Self {
            authors: Authors::Owner,
            api_server: Vec::new(),
            deny_shadow: Vec::new(),
            namespace_frontends: usize::MAX,
            frontends: usize::MAX,
        }
    }
}

impl AddressPolicy {
    /// Of a cluster.
    #[must_use]
    pub fn of_cluster() -> Self {
        // Of a pod's own environment (Pod, "Service environment variables").
        let host = std::env::var("KUBERNETES_SERVICE_HOST").ok();
        Self {
            authors: Authors::Tenants,
            api_server: host.and_then(|host| host.parse().ok()).into_iter().collect(),
            namespace_frontends: usize::from(NAMESPACE_FRONTENDS),
            frontends: MAX_KNOWN,
            ..Self::default()
        }
    }
}

/// A range of addresses, as `10.0.0.0/8` or `fd00::/8`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Its address is invalid.
    #[error("{0:?} is not an IP address: write a range as 10.0.0.0/8 or fd00::/8")]
    Address(String),
    /// Its prefix length is invalid.
    #[error("{text:?} is not a prefix length of an {family} address: 0 to {most}")]
    Length {
        /// Behind the slash.
        text: String,
        /// IPv4 or IPv6.
        family: &'static str,
        /// Bits of an address.
        most: u8,
    },
    /// The address has bits beyond the length: which range is meant is not clear.
    #[error("{0} has bits set beyond its prefix length; the range that begins there is {1}")]
    HostBits(String, Cidr),
}

impl Cidr {
    /// Whether the address is in the range; an IPv4-mapped one counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                (network.to_bits() ^ ip.to_bits()) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                (network.to_bits() ^ ip.to_bits()) & mask == 0
            }
            _ => false,
        }
    }

    /// The range without bits beyond its length.
    fn trimmed(self) -> Self {
        let network = match self.network {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Self { network, ..self }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError::Address(address.into()))?;
        let (family, most) = if network.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
        let length = match length {
            None => most,
            Some(text) => text
                .parse()
                .ok()
                .filter(|length| *length <= most)
                .ok_or_else(|| CidrError::Length { text: text.into(), family, most })?,
        };
        let cidr = Self { network, length };
        match cidr.trimmed() {
            trimmed if trimmed == cidr => Ok(cidr),
            trimmed => Err(CidrError::HostBits(text.into(), trimmed)),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.4/31", "::ffff:10.1.2.5", "10.1.2.6"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::/0", "fd00::1", "10.0.0.1"),
            ("fd00::1", "fd00::1", "fd00::2"),
        ] {
            let range = cidr(range);
            assert!(range.contains(inside.parse().unwrap()), "{range} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{range} {outside}");
        }
    }

    #[test]
    fn what_is_no_range_says_why() {
        for (text, why) in [
            ("10.0.0/8", "not an IP address"),
            ("", "not an IP address"),
            ("10.0.0.0/33", "0 to 32"),
            ("fd00::/129", "0 to 128"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.1/8", "begins there is 10.0.0.0/8"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
