//! Addresses: 128 bits for both families, IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), so that one map serves both.

use super::shared;
use crate::wire::Be32;

/// An IPv6 address, or an IPv4 address in its mapped form `::ffff:a.b.c.d`, in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable, PartialOrd, Ord))]
pub struct Addr {
    /// The four 32-bit words, first the most significant.
    pub words: [Be32; 4],
}

impl Addr {
    /// The unspecified address `::`.
    pub const UNSPECIFIED: Self = Self { words: [Be32::ZERO; 4] };

    /// The mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn v4(word: Be32) -> Self {
        Self {
            words: [Be32::ZERO, Be32::ZERO, Be32::new(0xffff), word],
        }
    }

    /// Whether this is the mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        // One test instead of three: each would double what the verifier has to follow behind it.
        let [a, b, c, _] = self.words;
        a.raw() | b.raw() | (c.raw() ^ Be32::new(0xffff).raw()) == 0
    }

    /// Whether this is `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.words;
        a.raw() | b.raw() | c.raw() | d.raw() == 0
    }

    /// Whether the two are equal, by one comparison: the verifier follows both ways of each.
    #[inline(always)]
    #[must_use]
    pub const fn same(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.words;
        let [e, f, g, h] = other.words;
        (a.raw() ^ e.raw()) | (b.raw() ^ f.raw()) | (c.raw() ^ g.raw()) | (d.raw() ^ h.raw()) == 0
    }

    /// The IPv4 part of a mapped address: its last word.
    #[inline(always)]
    pub const fn v4_word(&self) -> Be32 {
        self.words[3]
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<core::net::IpAddr> for Addr {
    fn from(address: core::net::IpAddr) -> Self {
        let octets = match address {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        bytemuck::cast(octets)
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<Addr> for core::net::IpAddr {
    fn from(address: Addr) -> Self {
        let octets: [u8; 16] = bytemuck::cast(address);
        core::net::Ipv6Addr::from(octets).to_canonical()
    }
}

#[cfg(not(target_arch = "bpf"))]
impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::IpAddr::from(*self), f)
    }
}

/// Value of `POD_ADDRS`, by network namespace cookie: who a socket without a source address belongs to.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct PodAddrs {
    /// The Pod's IPv4 address in mapped form, or unspecified.
    pub v4: Addr,
    /// The Pod's IPv6 address, or unspecified.
    pub v6: Addr,
    /// Bits of [`PodAddrs::OPT_OUT`].
    pub flags: u32,
    /// Always 0.
    pub pad: u32,
}

impl PodAddrs {
    /// The socket path leaves this namespace alone; the packet path serves it.
    pub const OPT_OUT: u32 = 1;
}

shared!(Addr, 16);
shared!(PodAddrs, 40);
