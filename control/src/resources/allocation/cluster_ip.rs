//! Cluster addresses: a range, and the choice of a free address in it.
//!
//! Called by the Service strategy's `allocate`. As upstream (KEP-3070), the lower band of a range is kept for addresses
//! that users choose themselves: dynamic ones come from above it until it is exhausted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Claim, RangeError, Taken, scan};

/// Upstream uses at most this many addresses of a large IPv6 range: 16 bits.
const MAX_HOST_BITS: u8 = 16;

/// An address range without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the range is of IPv6 addresses.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.base.is_ipv6()
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && mask(address, self.prefix) == self.base
    }

    /// The address `offset` after the base.
    #[must_use]
    pub fn nth(&self, offset: u128) -> IpAddr {
        match self.base {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "callers stay below 2^16 hosts or within the range"
            )]
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32))),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(offset))),
        }
    }

    fn bits(&self) -> u8 {
        if self.is_ipv6() { 128 } else { 32 }
    }

    /// Offsets that may be handed out: neither the base nor, in IPv4, the broadcast address.
    fn usable(&self) -> (u128, u128) {
        let host_bits = self.bits() - self.prefix;
        if self.is_ipv6() {
            (1, 1 << host_bits.min(MAX_HOST_BITS))
        } else {
            (1, (1 << host_bits) - 1)
        }
    }

    /// How many addresses at the start of the usable ones dynamic allocation leaves to static choice:
    /// a sixteenth of the range, at least 16 and at most 256; none in ranges of 16 and fewer.
    fn static_band(&self) -> u128 {
        let (from, to) = self.usable();
        match to - from {
            0..=16 => 0,
            size => (size / 16).clamp(16, 256),
        }
    }

    /// A free address: from the dynamic band, or from the static band when that is full.
    #[must_use]
    pub fn allocate(&self, taken: &dyn Taken) -> Option<IpAddr> {
        let (from, to) = self.usable();
        let boundary = from + self.static_band();
        let is_free = |offset: u128| !taken.is_taken(&Claim::cluster_ip(self.nth(offset)));
        scan(boundary, to, is_free)
            .or_else(|| scan(from, boundary, is_free))
            .map(|offset| self.nth(offset))
    }

    /// Whether the address may be held by a Service: inside the range and neither its first nor its broadcast address.
    #[must_use]
    pub fn is_usable(&self, address: IpAddr) -> bool {
        let last = !self.is_ipv6() && address == self.nth((1 << (self.bits() - self.prefix)) - 1);
        self.contains(address) && address != self.base && !last
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError::NotACidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv6() { 128 } else { 32 };
        if prefix > bits {
            return Err(bad());
        }
        let base = mask(address, prefix);
        if base != address {
            return Err(RangeError::HostBits {
                given: text.to_owned(),
                meant: format!("{base}/{prefix}"),
            });
        }
        if bits - prefix < 2 {
            return Err(RangeError::TooSmall(text.to_owned(), bits - 2));
        }
        Ok(Self { base, prefix })
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::*;

    #[derive(Default)]
    struct Set(RefCell<HashSet<Claim>>);

    impl Taken for Set {
        fn is_taken(&self, claim: &Claim) -> bool {
            self.0.borrow().contains(claim)
        }
    }

    fn fill(range: &str) -> Vec<IpAddr> {
        let range: Cidr = range.parse().unwrap();
        let set = Set::default();
        std::iter::from_fn(|| {
            let address = range.allocate(&set)?;
            assert!(range.is_usable(address), "{address} of {range}");
            assert!(
                set.0.borrow_mut().insert(Claim::cluster_ip(address)),
                "{address} given twice"
            );
            Some(address)
        })
        .collect()
    }

    #[test]
    fn a_range_gives_each_usable_address_once() {
        assert_eq!(fill("10.96.0.0/24").len(), 254);
        assert_eq!(fill("10.96.0.0/28").len(), 14);
        assert_eq!(fill("fd00::/120").len(), 255);
    }

    #[test]
    fn dynamic_addresses_leave_the_static_band_for_last() {
        let given = fill("10.96.0.0/24");
        let band = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[3] <= 16);
        assert!(given[..238].iter().all(|address| !band(address)));
        assert!(given[238..].iter().all(band));
    }

    #[test]
    fn base_and_broadcast_are_not_usable() {
        let range: Cidr = "10.96.0.0/24".parse().unwrap();
        for (address, usable) in [
            ("10.96.0.0", false),
            ("10.96.0.255", false),
            ("10.96.0.1", true),
            ("10.97.0.1", false),
        ] {
            assert_eq!(range.is_usable(address.parse().unwrap()), usable, "{address}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_right_spelling() {
        let error = "10.96.0.9/16".parse::<Cidr>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "10.96.0.9/16 has bits set beyond its prefix length; did you mean 10.96.0.0/16?"
        );
    }
}
