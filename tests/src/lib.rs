//! Waggle's lab: network namespaces as nodes, Pods and hosts outside, with the real control plane and real agents.
//!
//! From the ground up:
//!
//! 1. [`scope`]: everything a lab makes on this machine carries its id, so that one call removes it all,
//! 2. [`netns`], [`ip`], [`process`]: namespaces, what is configured in them, what runs in them,
//! 3. [`topology`]: the wire, nodes, Pods and outside hosts made of those,
//! 4. [`control_plane`], [`agent`]: the programs under test, as processes,
//! 5. [`kubelet`]: Pod objects become namespaces with servers in them,
//! 6. [`cluster`]: all of it together, with an API client; what the suites and [`up`] start from,
//! 7. [`traffic`]: servers and clients that count who answered.

pub mod agent;
pub mod cluster;
pub mod control_plane;
pub mod ip;
pub mod kubelet;
pub mod maps;
pub mod netns;
pub mod objects;
pub mod process;
pub mod programs;
pub mod scope;
pub mod topology;
pub mod traffic;
pub mod up;
