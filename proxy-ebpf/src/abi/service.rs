//! A service port: a run of slots and the way to pick one of them.

use super::shared;

/// A run of entries in `SLOTS`. A run is immutable once a service refers to it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash, bytemuck::Pod, bytemuck::Zeroable))]
pub struct Run {
    /// Index of the first slot.
    pub base: u32,
    /// Number of slots. With [`Algorithm::SOURCE_HASH`] the size of the Maglev table, a prime.
    pub len: u32,
}

/// How an index into a run is chosen. An open set: a number this build doesn't know is treated as round robin.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash, bytemuck::Pod, bytemuck::Zeroable))]
pub struct Algorithm(pub u8);

impl Algorithm {
    /// The service's cursor modulo the run's length; weights are repeated slots.
    pub const ROUND_ROBIN: Self = Self(0);
    /// The backend with the fewest open flows.
    pub const LEAST_CONN: Self = Self(1);
    /// The client's address into a Maglev table.
    pub const SOURCE_HASH: Self = Self(2);
    /// The destination address into a Maglev table.
    pub const DEST_HASH: Self = Self(3);
    /// The 5-tuple into a Maglev table.
    pub const MAGLEV: Self = Self(4);
    /// A random number.
    pub const RANDOM: Self = Self(5);
}

/// Value of `SERVICES`, by [`ServiceId`](super::ServiceId). User space replaces it while packets read it, and an array
/// update is a plain copy: a reader accepts a value only if [`Service::is_whole`], else reads again.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash, bytemuck::Pod, bytemuck::Zeroable))]
pub struct Service {
    /// The endpoints of the Cluster policy.
    pub all: Run,
    /// The endpoints on this node, for the Local policies.
    pub local: Run,
    /// Raised with every change, so that two values with the same runs differ.
    pub generation: u32,
    /// `sessionAffinity: ClientIP` timeout in seconds; 0 is no affinity.
    pub affinity_secs: u32,
    /// How to choose within a run.
    pub algorithm: Algorithm,
    /// Bits of the flag constants of this type.
    pub flags: u8,
    /// Always 0.
    pub pad: u16,
    /// [`Service::digest`] of all fields above.
    pub check: u32,
}

impl Service {
    /// Traffic from outside is masqueraded even where the client's address could be kept (`masqueradeAll`).
    pub const MASQUERADE: u8 = 1;

    /// A digest of every field but `check`. Never 0, so that a zeroed array entry isn't whole.
    #[inline(always)]
    pub const fn digest(&self) -> u32 {
        let words = [
            self.all.base,
            self.all.len,
            self.local.base,
            self.local.len,
            self.generation,
            self.affinity_secs,
            (self.algorithm.0 as u32) | (self.flags as u32) << 8,
        ];
        let mut digest: u32 = 0x811c_9dc5;
        let mut i = 0;
        while i < 7 {
            digest = (digest ^ words[i]).wrapping_mul(0x0100_0193).rotate_left(13);
            i += 1;
        }
        digest | 1
    }

    /// The same value with `check` filled in.
    #[must_use]
    pub const fn sealed(mut self) -> Self {
        self.check = self.digest();
        self
    }

    /// Whether the value was read in one piece.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.check == self.digest()
    }
}

shared!(Run, 8);
shared!(Algorithm, 1);
shared!(Service, 32);
