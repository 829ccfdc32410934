//! Cluster addresses and node ports: what they are chosen from, and how they are held.
//!
//! A claim is a key in the store that is created in the same write as the Service that holds it, so two Services can
//! never have one address, whatever crashes when. Called by the Service strategy; the claims go to `api`, which writes
//! them.

pub mod cluster_ip;
pub mod node_port;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

pub use cluster_ip::Cidr;
pub use node_port::PortRange;

/// A key that exists in the store as long as somebody holds the address or port it stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The store key, such as `/allocations/clusterip/10.96.0.10` or `/allocations/nodeport/30080`.
    pub key: String,
}

impl Claim {
    /// What all claims' keys begin with.
    pub const PREFIX: &'static str = "/allocations/";

    /// The claim on a cluster address.
    #[must_use]
    pub fn cluster_ip(address: IpAddr) -> Self {
        Self {
            key: format!("{}clusterip/{address}", Self::PREFIX),
        }
    }

    /// The claim on a node port. A port number is held once for all protocols; within one Service it may be used
    /// for several.
    #[must_use]
    pub fn node_port(port: u16) -> Self {
        Self {
            key: format!("{}nodeport/{port}", Self::PREFIX),
        }
    }
}

/// Knows which claims exist.
pub trait Taken {
    /// Whether somebody else holds the claim.
    fn is_taken(&self, claim: &Claim) -> bool;
}

/// What the cluster allocates from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// One range for a single-stack cluster, two of different families for dual stack. The first is the default family.
    pub cluster_ips: Vec<Cidr>,
    /// Ports for NodePort and LoadBalancer Services.
    pub node_ports: PortRange,
}

/// Why a range cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// Not an address and a prefix length.
    #[error("{0:?} is not a CIDR; write an address and a prefix length such as 10.96.0.0/16")]
    NotACidr(String),
    /// Host bits are set.
    #[error("{given} has bits set beyond its prefix length; did you mean {meant}?")]
    HostBits {
        /// As given.
        given: String,
        /// With the host bits cleared.
        meant: String,
    },
    /// Too few or far too many addresses.
    #[error("{0} is too small to allocate cluster addresses from; use a prefix of at most /{1}")]
    TooSmall(String, u8),
    /// Neither one range nor one of each family.
    #[error("cluster address ranges must be one CIDR, or one IPv4 and one IPv6 CIDR separated by a comma; got {0:?}")]
    Families(String),
    /// Not two ports with a dash between.
    #[error("{0:?} is not a port range; write two ports such as 30000-32767")]
    NotAPortRange(String),
}

impl Ranges {
    /// Parses `10.96.0.0/16,fd00:96::/112` and `30000-32767`.
    ///
    /// # Errors
    /// Text that is not a CIDR or a port range, or two ranges of the same family.
    pub fn parse(cluster_ips: &str, node_ports: &str) -> Result<Self, RangeError> {
        let ranges = cluster_ips
            .split(',')
            .map(|text| text.trim().parse())
            .collect::<Result<Vec<Cidr>, _>>()?;
        match ranges.as_slice() {
            [_] => {}
            [first, second] if first.is_ipv6() != second.is_ipv6() => {}
            _ => return Err(RangeError::Families(cluster_ips.to_owned())),
        }
        Ok(Self {
            cluster_ips: ranges,
            node_ports: node_ports.trim().parse()?,
        })
    }

    /// The range that holds addresses of a family.
    #[must_use]
    pub fn of_family(&self, ipv6: bool) -> Option<&Cidr> {
        self.cluster_ips.iter().find(|range| range.is_ipv6() == ipv6)
    }

    /// The address the API server's own Service `default/kubernetes` gets: the first of the first range.
    #[must_use]
    pub fn kubernetes_service_ip(&self) -> Option<IpAddr> {
        self.cluster_ips.first().map(|range| range.nth(1))
    }
}

/// A number below `bound` that is different from call to call. Not for secrets.
fn pseudo_random(bound: u128) -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0u8));
    if bound == 0 { 0 } else { (half() << 64 | half()) % bound }
}

/// The first candidate that is free, scanning the offsets `from..to` from a random one and wrapping around.
fn scan(from: u128, to: u128, mut is_free: impl FnMut(u128) -> bool) -> Option<u128> {
    let length = to.checked_sub(from).filter(|length| *length > 0)?;
    let start = pseudo_random(length);
    (0..length)
        .map(|step| from + (start + step) % length)
        .find(|offset| is_free(*offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_one_cidr_or_one_of_each_family() {
        let ranges = Ranges::parse("10.96.0.0/16,fd00:96::/112", "30000-32767").unwrap();
        assert_eq!(ranges.kubernetes_service_ip(), Some("10.96.0.1".parse().unwrap()));
        assert!(ranges.of_family(true).is_some());
        assert!(matches!(
            Ranges::parse("10.96.0.0/16,10.97.0.0/16", "1-2"),
            Err(RangeError::Families(_))
        ));
        assert!(matches!(
            Ranges::parse("10.96.0.0", "1-2"),
            Err(RangeError::NotACidr(_))
        ));
        assert!(matches!(
            Ranges::parse("10.96.0.0/16", "9-2"),
            Err(RangeError::NotAPortRange(_))
        ));
    }

    #[test]
    fn a_scan_reaches_the_only_free_offset_and_ends_when_there_is_none() {
        assert_eq!(scan(10, 50, |offset| offset == 33), Some(33));
        assert_eq!(scan(10, 50, |_| false), None);
        assert_eq!(scan(10, 10, |_| true), None);
    }
}
