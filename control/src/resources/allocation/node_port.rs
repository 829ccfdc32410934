//! Node ports: the range, and the choice of a free port in it.
//!
//! Called by the Service strategy's `allocate`. As with addresses, the lower band is left to static choice (KEP-3668).

use std::fmt;
use std::str::FromStr;

use super::{Claim, RangeError, Taken, scan};

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Whether the port lies in the range.
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports at the start dynamic allocation leaves to static choice: a thirty-second of the range, at
    /// least 16 and at most 128; none in ranges of 16 and fewer.
    fn static_band(&self) -> u128 {
        match u128::from(self.last - self.first) + 1 {
            0..=16 => 0,
            size => (size / 32).clamp(16, 128),
        }
    }

    /// A free port that is not in `reserved`: from the dynamic band, or from the static band when that is full.
    #[must_use]
    pub fn allocate(&self, taken: &dyn Taken, reserved: &[u16]) -> Option<u16> {
        let (from, to) = (u128::from(self.first), u128::from(self.last) + 1);
        let boundary = from + self.static_band();
        let is_free = |port: u128| {
            u16::try_from(port).is_ok_and(|port| !reserved.contains(&port) && !taken.is_taken(&Claim::node_port(port)))
        };
        let port = scan(boundary, to, is_free).or_else(|| scan(from, boundary, is_free))?;
        u16::try_from(port).ok()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let ports = text.split_once('-').and_then(|(first, last)| {
            let range = Self {
                first: first.trim().parse().ok()?,
                last: last.trim().parse().ok()?,
            };
            (range.first > 0 && range.first <= range.last).then_some(range)
        });
        ports.ok_or_else(|| RangeError::NotAPortRange(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Below(u16);

    impl Taken for Below {
        fn is_taken(&self, claim: &Claim) -> bool {
            (30000..self.0).any(|port| Claim::node_port(port) == *claim)
        }
    }

    #[test]
    fn the_last_free_port_is_found_and_then_none() {
        let range: PortRange = "30000-30100".parse().unwrap();
        assert_eq!(range.allocate(&Below(30100), &[]), Some(30100));
        assert_eq!(range.allocate(&Below(30100), &[30100]), None);
    }

    #[test]
    fn dynamic_ports_leave_the_static_band_alone() {
        let range: PortRange = "30000-32767".parse().unwrap();
        for _ in 0..200 {
            let port = range.allocate(&Below(0), &[]).unwrap();
            assert!((30086..=32767).contains(&port), "{port}");
        }
    }
}
