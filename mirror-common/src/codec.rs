//! The id of a frontend in an address of the pod's own loopback: 127.64.0.0 + id, a /10, or an id
//! in the last bits of a private IPv6 /96. In: an id or an address. Out: the other. The connect
//! hooks encode; the agent decodes from its accepted socket's own local address, so that no state
//! in the kernel links the two.
//!
//! An IPv6 address is four words in network byte order here, as the kernel's contexts hold it.

use core::net::{Ipv4Addr, Ipv6Addr};

/// Names a frontend in an address of the loopback: 22 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FrontendId(pub u32);

/// 127.64.0.0 as a number.
const BASE: u32 = 0x7f40_0000;
/// fd6d:6972:726f:7200::/96 as the words before the id: `fd` of a unique local address (RFC 4193)
/// and "mirror" in ASCII, so that whoever reads it in `ip -6 route` knows whose it is. IPv6 has
/// only one loopback address, so that a /96 that nobody else uses stands in for 127/8. It is local
/// to each pod, never announced, and no packet with it leaves `lo`.
const PREFIX_V6: [u32; 3] = [0xfd6d_6972_u32.to_be(), 0x726f_7200_u32.to_be(), 0];
/// The words of ::ffff:0:0/96 before the IPv4 address (RFC 4291, 2.5.5.2).
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

impl FrontendId {
    /// The listeners' own address, 127.64.0.0. Never issued.
    pub const LISTENER: Self = Self(0);
    /// What the agent's own canary connects to. Never issued.
    pub const CANARY: Self = Self(1);
    /// The first id that a frontend may have.
    pub const FIRST: Self = Self(2);
    /// The last id: 22 bits.
    pub const MAX: Self = Self((1 << 22) - 1);

    /// The address that carries the id. Bits beyond the 22nd are lost: ids go up to
    /// [`FrontendId::MAX`].
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.bits())
    }

    /// The id that `address` carries; None when it lies outside 127.64.0.0/10. The reserved ids
    /// are decoded as well.
    #[must_use]
    pub const fn from_address(address: Ipv4Addr) -> Option<Self> {
        Self::from_bits(address.to_bits())
    }

    /// [`FrontendId::address`] as the kernel's contexts hold it: network byte order in memory.
    #[inline(always)]
    #[must_use]
    pub const fn to_net(self) -> u32 {
        self.bits().to_be()
    }

    /// [`FrontendId::from_address`] of an address in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_net(address: u32) -> Option<Self> {
        Self::from_bits(u32::from_be(address))
    }

    /// The length of the prefix of all IPv6 addresses that carry an id, [`FrontendId::LISTENER`]'s
    /// first.
    pub const PREFIX_V6_LENGTH: u8 = 96;

    /// The IPv6 address that carries the id. Bits beyond the 22nd are lost.
    #[must_use]
    pub const fn address_v6(self) -> Ipv6Addr {
        let [a, b, c, d] = self.to_net_v6();
        let high = ((u32::from_be(a) as u64) << 32) | u32::from_be(b) as u64;
        let low = ((u32::from_be(c) as u64) << 32) | u32::from_be(d) as u64;
        Ipv6Addr::from_bits(((high as u128) << 64) | low as u128)
    }

    /// The id that `address` carries; None when it lies outside the /96, or no id is that large.
    #[must_use]
    pub fn from_address_v6(address: Ipv6Addr) -> Option<Self> {
        Self::from_net_v6(words(address))
    }

    /// [`FrontendId::address_v6`] as the kernel's contexts hold it.
    #[inline(always)]
    #[must_use]
    pub const fn to_net_v6(self) -> [u32; 4] {
        [PREFIX_V6[0], PREFIX_V6[1], PREFIX_V6[2], (self.0 & Self::MAX.0).to_be()]
    }

    /// [`FrontendId::from_address_v6`] of an address as the kernel's contexts hold it.
    #[inline(always)]
    #[must_use]
    pub const fn from_net_v6(address: [u32; 4]) -> Option<Self> {
        let id = u32::from_be(address[3]);
        if in_prefix(address, PREFIX_V6) && id <= Self::MAX.0 { Some(Self(id)) } else { None }
    }

    #[inline(always)]
    const fn bits(self) -> u32 {
        BASE | (self.0 & Self::MAX.0)
    }

    #[inline(always)]
    const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !Self::MAX.0 == BASE { Some(Self(bits & Self::MAX.0)) } else { None }
    }
}

/// An address as the kernel's contexts hold it.
#[must_use]
pub fn words(address: Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    [96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be())
}

/// The IPv4 address (network byte order) of a v4-mapped one, ::ffff:a.b.c.d.
#[inline(always)]
#[must_use]
pub const fn mapped_v4(address: [u32; 4]) -> Option<u32> {
    if in_prefix(address, MAPPED) { Some(address[3]) } else { None }
}

/// Whether an IPv6 address never leaves the pod: ::1, 127/8 as a v4-mapped one, and all of the
/// prefix that ids are in (another agent has rewritten the destination).
#[inline(always)]
#[must_use]
pub const fn is_loopback_v6(address: [u32; 4]) -> bool {
    if in_prefix(address, [0, 0, 0]) {
        return address[3] == 1_u32.to_be();
    }
    if let Some(v4) = mapped_v4(address) {
        return crate::is_loopback(v4);
    }
    in_prefix(address, PREFIX_V6)
}

#[inline(always)]
const fn in_prefix(address: [u32; 4], prefix: [u32; 3]) -> bool {
    address[0] == prefix[0] && address[1] == prefix[1] && address[2] == prefix[2]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corners_are_the_corners_of_the_slash_ten() {
        assert_eq!(FrontendId::LISTENER.address(), Ipv4Addr::new(127, 64, 0, 0));
        assert_eq!(FrontendId::CANARY.address(), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(FrontendId::MAX.address(), Ipv4Addr::new(127, 127, 255, 255));
        assert_eq!(FrontendId::from_address(Ipv4Addr::new(127, 63, 255, 255)), None);
        assert_eq!(FrontendId::from_address(Ipv4Addr::new(127, 128, 0, 0)), None);
        assert_eq!(FrontendId::from_address(Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn network_order_is_the_order_of_the_octets_in_memory() {
        assert_eq!(FrontendId(0x01_02_03).to_net().to_ne_bytes(), [127, 65, 2, 3]);
    }

    #[test]
    fn the_corners_are_the_corners_of_what_the_slash_96_has_room_for() {
        let at = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        assert_eq!(FrontendId::LISTENER.address_v6(), at("fd6d:6972:726f:7200::"));
        assert_eq!(FrontendId::CANARY.address_v6(), at("fd6d:6972:726f:7200::1"));
        assert_eq!(FrontendId::MAX.address_v6(), at("fd6d:6972:726f:7200::3f:ffff"));
        for outside in [
            "fd6d:6972:726f:7200::40:0",
            "fd6d:6972:726f:7200::ffff:ffff",
            "::1",
            "fd6d:6972:726f:7200:0:1::",
            "fd6d:6972:726f:7201::2",
            "fd6d:6972:726e:7200::2",
        ] {
            assert_eq!(FrontendId::from_address_v6(at(outside)), None, "{outside}");
        }
    }

    #[test]
    fn loopback_is_told_from_what_leaves_the_pod() {
        let is = |text: &str| is_loopback_v6(words(text.parse().unwrap()));
        for inside in [
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:127.64.0.2",
            "fd6d:6972:726f:7200::2",
            "fd6d:6972:726f:7200::ffff:ffff",
        ] {
            assert!(is(inside), "{inside}");
        }
        for outside in ["::", "::2", "1::1", "::ffff:10.0.0.1", "::ffff:128.0.0.1", "fd00::1"] {
            assert!(!is(outside), "{outside}");
        }
        let mapped = |text: &str| mapped_v4(words(text.parse().unwrap())).map(u32::to_ne_bytes);
        assert_eq!(mapped("::ffff:10.1.2.3"), Some([10, 1, 2, 3]));
        assert_eq!(mapped("::10.1.2.3"), None);
    }

    proptest! {
        #[test]
        fn every_id_survives_the_way_through_ipv6(id in 0..=FrontendId::MAX.0) {
            let id = FrontendId(id);
            prop_assert_eq!(FrontendId::from_address_v6(id.address_v6()), Some(id));
            prop_assert_eq!(words(id.address_v6()), id.to_net_v6());
            prop_assert!(is_loopback_v6(id.to_net_v6()));
        }

        #[test]
        fn words_are_octets_in_memory(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            prop_assert!(words(address).into_iter().flat_map(u32::to_ne_bytes).eq(address.octets()));
        }

        #[test]
        fn every_id_survives_the_way_there_and_back(id in 0..=FrontendId::MAX.0) {
            let id = FrontendId(id);
            prop_assert_eq!(FrontendId::from_address(id.address()), Some(id));
            prop_assert_eq!(FrontendId::from_net(id.to_net()), Some(id));
            prop_assert_eq!(id.to_net().to_ne_bytes(), id.address().octets());
        }

        #[test]
        fn an_address_carries_an_id_only_within_the_slash_ten(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let [a, b, ..] = address.octets();
            let inside = a == 127 && (64..128).contains(&b);
            prop_assert_eq!(FrontendId::from_address(address).is_some(), inside);
        }
    }
}
