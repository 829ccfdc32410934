//! Byte order as types: a number from the wire can't be used as one of ours by accident. The only file that converts.

macro_rules! big_endian {
    ($name:ident, $native:ty, $bytes:literal, $doc:literal) => {
        #[doc = $doc]
        #[repr(transparent)]
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        #[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
        pub struct $name($native);

        impl $name {
            /// Zero, in either order.
            pub const ZERO: Self = Self(0);

            /// From a number in host order.
            #[inline(always)]
            pub const fn new(native: $native) -> Self {
                Self(native.to_be())
            }

            /// The number in host order.
            #[inline(always)]
            pub const fn get(self) -> $native {
                <$native>::from_be(self.0)
            }

            /// The bytes as they lie in memory, read as a number: for checksums and hashes, which don't mind the order,
            /// and for kernel structures that hold network order in plain integers.
            #[inline(always)]
            pub const fn raw(self) -> $native {
                self.0
            }

            /// From bytes as they lie in memory.
            #[inline(always)]
            pub const fn from_raw(raw: $native) -> Self {
                Self(raw)
            }

            /// From bytes in the order in which they lie on the wire.
            #[cfg(not(target_arch = "bpf"))]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(<$native>::from_ne_bytes(bytes))
            }

            /// The bytes in the order in which they lie on the wire.
            #[cfg(not(target_arch = "bpf"))]
            pub const fn to_bytes(self) -> [u8; $bytes] {
                self.0.to_ne_bytes()
            }

            /// Whether it is zero.
            #[inline(always)]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        #[cfg(not(target_arch = "bpf"))]
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        #[cfg(not(target_arch = "bpf"))]
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                self.get().cmp(&other.get())
            }
        }

        #[cfg(not(target_arch = "bpf"))]
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(&self.get(), f)
            }
        }
    };
}

big_endian!(
    Be16,
    u16,
    2,
    "A 16-bit number in network byte order: a port, a checksum, an EtherType."
);
big_endian!(
    Be32,
    u32,
    4,
    "A 32-bit number in network byte order: a word of an address, a sequence number."
);
