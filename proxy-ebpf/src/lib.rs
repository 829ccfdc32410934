//! The data path: one source for the programs in the kernel and for the host, where it is tested.
//!
//! A packet's walk, in the order to read:
//!
//! 1. [`parse`]: bytes become a [`FlowKey`](abi::FlowKey).
//! 2. [`conntrack`]: a flow that is known needs nothing but its entry.
//! 3. [`lookup`]: else its destination is looked up: frontend, service, run of slots.
//! 4. [`select`](mod@select): session affinity, then the algorithm picks a backend; the flow is written down.
//! 5. [`rewrite`]: addresses, ports and checksums ([`csum`]) are changed.
//! 6. [`forward`]: up to the stack, out again, back to the sender, or answered ([`reject`]).
//!
//! [`paths`] holds the programs as lists of these steps. The steps see packets through [`packet::Packet`] and maps through
//! [`maps::Maps`]; the binary of this package implements both over the kernel, and the tests over ordinary memory. What
//! is shared with user space is in [`abi`], byte order in [`wire`], every way to end in [`verdict`].
#![cfg_attr(target_arch = "bpf", no_std)]
// Shifts and masks bind tighter than `|`, as in every header description.
#![allow(clippy::precedence)]

pub mod abi;
pub mod conntrack;
pub mod csum;
pub mod family;
pub mod forward;
pub mod hash;
#[cfg(test)]
mod host;
pub mod lookup;
pub mod maps;
pub mod packet;
pub mod parse;
pub mod paths;
pub mod reject;
pub mod rewrite;
pub mod select;
pub mod steps;
pub mod verdict;
pub mod wire;
