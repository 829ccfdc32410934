//! The keys and values of the maps: the one definition that the programs, the agent and the tests share.
//!
//! Every type here is `repr(C)`, has no padding the compiler chose, holds no `bool`, `Option`, enum or `usize`, and is
//! declared through `shared!`, which asserts its size and grants the traits user space needs. Constants stand in for
//! enums, because the other side of a map may be older or newer than this build.

mod address;
mod affinity;
mod backend;
mod counters;
mod flow;
mod frontend;
mod ids;
pub mod maps;
mod node;
mod service;
mod socket;

pub use address::{Addr, PodAddrs};
pub use affinity::{Affinity, AffinityKey};
pub use backend::{Backend, BackendExpired, BackendLoad, StateGeneration};
pub use counters::{ReasonCounters, ServiceCounters};
pub use flow::{FlowEntry, FlowKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
pub use frontend::{Frontend, FrontendKey};
pub use ids::{BackendId, ServiceId};
pub use node::NodeConfig;
pub use service::{Algorithm, Run, Service};
pub use socket::{SocketState, UdpSlot};

/// Version of everything in this module. It is part of the pin path, so two layouts never meet in one map; raise it with
/// every change of a key or a value.
pub const LAYOUT_VERSION: u32 = 1;

/// Asserts that a shared type has exactly the size of its fields and the size written beside it, and lets user space
/// treat it as bytes.
macro_rules! shared {
    ($type:ty, $size:literal) => {
        const _: () = assert!(
            core::mem::size_of::<$type>() == $size,
            "the layout of a map type changed"
        );

        #[cfg(not(target_arch = "bpf"))]
        const _: fn() = || {
            fn plain<T: bytemuck::Pod>() {}
            plain::<$type>();
        };

        // SAFETY: the type derives `bytemuck::Pod`, whose derive proves what `aya::Pod` asks for: plain data, no padding.
        #[cfg(not(target_arch = "bpf"))]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use shared;
