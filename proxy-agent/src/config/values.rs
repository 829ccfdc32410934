//! The values of flags as types: what they accept, and messages that say what would be accepted.
//!
//! [`super`] uses them as clap's value parsers; the rest of the agent gets them parsed.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use proxy_ebpf::abi::Algorithm;

/// A range of addresses in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether an address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => same_prefix(
                u128::from(network.to_bits()) << 96,
                u128::from(address.to_bits()) << 96,
                self.prefix,
            ),
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_prefix(network.to_bits(), address.to_bits(), self.prefix)
            }
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, prefix: u8) -> bool {
    prefix == 0 || (a ^ b) >> (128 - u32::from(prefix)) == 0
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a range of addresses like 10.0.0.0/8 or fd00::/64");
        let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let network: IpAddr = network.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            Err(wrong())
        } else {
            Ok(Self { network, prefix })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Which of the node's addresses answer on node ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The primary address of each family of the Node object.
    Primary,
    /// The addresses of the node's interfaces that lie in one of the ranges.
    Ranges(Vec<Cidr>),
}

impl FromStr for NodePortAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "primary" {
            return Ok(Self::Primary);
        }
        text.split(',')
            .map(str::trim)
            .map(Cidr::from_str)
            .collect::<Result<_, _>>()
            .map(Self::Ranges)
            .map_err(|why| format!("{why}; the value is a list of ranges with commas between, or the word 'primary'"))
    }
}

/// A pattern over interface names: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePattern(String);

impl DevicePattern {
    /// Whether an interface name fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        fits(self.0.as_bytes(), name.as_bytes())
    }
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => fits(rest, name) || name.split_first().is_some_and(|(_, tail)| fits(pattern, tail)),
        (Some((b'?', rest)), Some((_, tail))) => fits(rest, tail),
        (Some((p, rest)), Some((n, tail))) => p == n && fits(rest, tail),
        _ => false,
    }
}

impl FromStr for DevicePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name_like = |c: char| c.is_ascii_graphic() && c != '/';
        if text.is_empty() || text.len() > 64 || !text.chars().all(name_like) {
            return Err(format!("'{text}' is not a pattern over interface names like 'veth*'"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A range of source ports for masquerading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port, at least 1.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text
            .split_once('-')
            .and_then(|(first, last)| {
                Some(Self {
                    first: first.parse().ok()?,
                    last: last.parse().ok()?,
                })
            })
            .filter(|range| range.first > 0 && range.first <= range.last);
        range.ok_or_else(|| format!("'{text}' is not a range of ports like 1024-29999"))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The names of the algorithms, as in flags, in the annotation and in tables.
const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("rr", Algorithm::ROUND_ROBIN),
    ("lc", Algorithm::LEAST_CONN),
    ("sh", Algorithm::SOURCE_HASH),
    ("dh", Algorithm::DEST_HASH),
    ("maglev", Algorithm::MAGLEV),
    ("random", Algorithm::RANDOM),
];

/// The algorithm a name stands for.
///
/// # Errors
/// A message that lists the names.
pub fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    ALGORITHMS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, algorithm)| *algorithm)
        .ok_or_else(|| {
            let names: Vec<_> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
            format!("'{text}' is not an algorithm; known are {}", names.join(", "))
        })
}

/// The name of an algorithm; a number this build doesn't know reads as `rr`, as the programs take it.
pub fn algorithm_name(algorithm: Algorithm) -> &'static str {
    ALGORITHMS
        .iter()
        .find(|(_, known)| *known == algorithm)
        .map_or("rr", |(name, _)| name)
}

/// A duration as Kubernetes writes them: `90s`, `1h30m`, `500ms`.
///
/// # Errors
/// A message with an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration like 30s, 2m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if text == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|&at| at > 0)
            .ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis: u64 = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(number.checked_mul(millis).ok_or_else(wrong)?);
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_its_own_family_only() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains("10.1.255.1".parse().unwrap()));
        assert!(!range.contains("10.2.0.1".parse().unwrap()));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("192.0.2.1".parse().unwrap()));
        assert!(!all.contains("fd00::1".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "1y", "1h3"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let pattern: DevicePattern = "veth*".parse().unwrap();
        assert!(pattern.matches("veth0a1") && pattern.matches("veth") && !pattern.matches("xveth0"));
        let pattern: DevicePattern = "p?-*0".parse().unwrap();
        assert!(pattern.matches("p1-a0") && !pattern.matches("p1-a1"));
    }

    #[test]
    fn every_algorithm_is_known_by_its_name() {
        for (name, algorithm) in ALGORITHMS {
            assert_eq!(parse_algorithm(name), Ok(algorithm));
            assert_eq!(algorithm_name(algorithm), name);
        }
        assert!(parse_algorithm("wlc").unwrap_err().contains("rr, lc, sh"));
    }
}
