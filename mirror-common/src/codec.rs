//! The id of a frontend in a loopback address: 127.64.0.0 + id, a /10. In: an id or an address.
//! Out: the other. The connect hook encodes; the agent decodes from its accepted socket's own
//! local address, so that no state in the kernel links the two.

use core::net::Ipv4Addr;

/// Names a frontend in a loopback address: 127.64.0.0 + id, 22 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FrontendId(pub u32);

/// 127.64.0.0 as a number.
const BASE: u32 = 0x7f40_0000;

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

    #[inline(always)]
    const fn bits(self) -> u32 {
        BASE | (self.0 & Self::MAX.0)
    }

    #[inline(always)]
    const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !Self::MAX.0 == BASE { Some(Self(bits & Self::MAX.0)) } else { None }
    }
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

    proptest! {
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
