//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Called by [`rewrite`](crate::rewrite) with what changed, and by [`reject`](crate::reject), which writes new headers.
//! All words are taken as they lie in memory: the sum doesn't mind the byte order, as long as it is one.

use crate::abi::Addr;
use crate::wire::{Be16, Be32};

/// A one's complement sum in the making. As a difference it holds `!old + new` for every word that changed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub struct Sum(u64);

impl Sum {
    /// Nothing yet.
    pub const ZERO: Self = Self(0);

    /// With 16 bits more.
    #[inline(always)]
    #[must_use]
    pub const fn add16(self, word: Be16) -> Self {
        Self(self.0 + word.raw() as u64)
    }

    /// With 32 bits more.
    #[inline(always)]
    #[must_use]
    pub const fn add32(self, word: Be32) -> Self {
        Self(self.0 + word.raw() as u64)
    }

    /// With an address more; the mapped prefix of an IPv4 address does not count.
    #[inline(always)]
    #[must_use]
    pub const fn add_addr(self, addr: &Addr, v4: bool) -> Self {
        let [a, b, c, d] = addr.words;
        if v4 {
            self.add32(d)
        } else {
            self.add32(a).add32(b).add32(c).add32(d)
        }
    }

    /// The sums of two parts, each beginning at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// A word became another.
    #[inline(always)]
    #[must_use]
    pub const fn replace16(self, old: Be16, new: Be16) -> Self {
        Self(self.0 + (!old.raw()) as u64 + new.raw() as u64)
    }

    /// A word became another.
    #[inline(always)]
    #[must_use]
    pub const fn replace32(self, old: Be32, new: Be32) -> Self {
        Self(self.0 + (!old.raw()) as u64 + new.raw() as u64)
    }

    /// The sum in 32 bits, as the kernel's helpers take a difference.
    #[inline(always)]
    #[must_use]
    pub const fn folded32(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The sum in 16 bits: what a partial checksum holds of its pseudo-header.
    #[inline(always)]
    #[must_use]
    pub const fn folded(self) -> Be16 {
        let sum = self.folded32();
        let sum = (sum & 0xffff) + (sum >> 16);
        Be16::from_raw(((sum & 0xffff) + (sum >> 16)) as u16)
    }

    /// The checksum of what was summed.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> Be16 {
        Be16::from_raw(!self.folded().raw())
    }

    /// A checksum after this difference, RFC 1624 equation 3: `!(!old + difference)`.
    #[inline(always)]
    #[must_use]
    pub const fn update(self, old: Be16) -> Be16 {
        Self(self.0 + (!old.raw()) as u64).checksum()
    }

    /// A UDP checksum after this difference. 0 means that there is none, and stays; a sum that comes out as 0 is sent as
    /// all ones (RFC 768).
    #[inline(always)]
    #[must_use]
    pub const fn update_udp(self, old: Be16) -> Be16 {
        if old.is_zero() {
            return old;
        }
        let new = self.update(old);
        if new.is_zero() { Be16::new(0xffff) } else { new }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    fn sum_of(words: &[u16]) -> Sum {
        words.iter().fold(Sum::ZERO, |sum, word| sum.add16(Be16::new(*word)))
    }

    proptest! {
        #[test]
        fn sums_agree_with_another_implementation(words in prop::collection::vec(any::<u16>(), 1..40)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let theirs = Sum16BitWords::new().add_slice(&bytes).ones_complement();
            prop_assert_eq!(sum_of(&words).checksum(), Be16::from_raw(theirs));
        }

        #[test]
        fn an_update_gives_what_a_new_sum_would(
            words in prop::collection::vec(any::<u16>(), 2..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>()), 0..8),
        ) {
            // A real header is never all zeros, which is the one case where the two zeros of the sum differ.
            let mut words = words;
            words[0] |= 0x4000;
            let old = sum_of(&words).checksum();
            let mut difference = Sum::ZERO;
            for (index, new) in changes {
                let i = 1 + index.index(words.len() - 1);
                difference = difference.replace16(Be16::new(words[i]), Be16::new(new));
                words[i] = new;
            }
            prop_assert_eq!(difference.update(old), sum_of(&words).checksum());
            let folded = Sum(difference.folded32().into());
            prop_assert_eq!(folded.update(old), difference.update(old));
        }
    }

    #[test]
    fn udp_without_a_checksum_keeps_none_and_never_gets_one_by_accident() {
        let sum = Sum::ZERO.replace16(Be16::new(1), Be16::new(2));
        assert_eq!(sum.update_udp(Be16::ZERO), Be16::ZERO);
        let to_zero = Sum::ZERO.replace16(Be16::new(0), Be16::new(0x1234));
        assert_eq!(to_zero.update(Be16::new(0x1234)), Be16::ZERO);
        assert_eq!(to_zero.update_udp(Be16::new(0x1234)), Be16::new(0xffff));
    }
}
