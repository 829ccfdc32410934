//! The maps by name: key, value, who writes and reads, how large, what a full map means.
//!
//! | map | type | key -> value | writer | reader | when full |
//! | --- | --- | --- | --- | --- | --- |
//! | `FRONTENDS` | hash | [`FrontendKey`](super::FrontendKey) -> [`Frontend`](super::Frontend) | agent | all | the Service is not programmed; error, Event |
//! | `OWNED_ADDRS` | hash | [`Addr`](super::Addr) -> `u32` (always 1) | agent | packet path | the same |
//! | `SERVICES` | array | [`ServiceId`](super::ServiceId) -> [`Service`](super::Service) | agent | all | the same |
//! | `SLOTS` | array | slot -> [`BackendId`](super::BackendId) | agent | all | the same |
//! | `BACKENDS` | array | [`BackendId`](super::BackendId) -> [`Backend`](super::Backend) | agent | all | the same |
//! | `CURSORS` | array | service -> `u64` | programs | programs | - |
//! | `BACKEND_LOADS` | array | backend -> [`BackendLoad`](super::BackendLoad) | programs | all | - |
//! | `BACKEND_EXPIRED` | array | backend -> [`BackendExpired`](super::BackendExpired) | agent | all | - |
//! | `CONNTRACK` | LRU hash | [`FlowKey`](super::FlowKey) -> [`FlowEntry`](super::FlowEntry) | programs; the agent deletes | all | the least recently used goes, its other half rebuilds it |
//! | `HALF_OPEN` | LRU hash | the same, TCP from outside before the client's second packet | programs; the agent deletes | programs | the least recently used goes: what a SYN flood fills |
//! | `AFFINITY` | LRU hash | [`AffinityKey`](super::AffinityKey) -> [`Affinity`](super::Affinity) | programs; the agent deletes | programs | the least recently used client chooses anew |
//! | `SOCKETS` | socket storage | socket -> [`SocketState`](super::SocketState) | programs | programs, recount | the socket goes uncounted |
//! | `POD_ADDRS` | hash | netns cookie (`u64`) -> [`PodAddrs`](super::PodAddrs) | agent | socket path | the client is known by its cookie only |
//! | `NODE_CONFIG` | array of 1 | 0 -> [`NodeConfig`](super::NodeConfig) | agent | programs | - |
//! | `REASON_COUNTERS` | per-CPU array | reason -> [`ReasonCounters`](super::ReasonCounters) | programs | agent | - |
//! | `SERVICE_COUNTERS` | per-CPU array | service -> [`ServiceCounters`](super::ServiceCounters) | programs | agent | - |
//!
//! All are pinned by name under the agent's pin directory.

/// A map's name, as in the object and in the pin directory, and its size unless a flag says otherwise.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, PartialEq, Eq))]
pub struct MapSpec {
    /// Name of the map.
    pub name: &'static str,
    /// Default number of entries: 10,000 Services of two ports and 250,000 endpoints with room to spare.
    pub max_entries: u32,
}

macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident: $max:literal,)*) => {
        $($(#[$doc])* pub const $name: MapSpec = MapSpec { name: stringify!($name), max_entries: $max };)*
        /// Every map of the data path.
        pub const ALL: &[MapSpec] = &[$($name,)*];
    };
}

maps! {
    /// Frontends of all services.
    FRONTENDS: 131_072,
    /// Addresses only Services use: an unknown port on them is rejected.
    OWNED_ADDRS: 65_536,
    /// Services by id.
    SERVICES: 65_536,
    /// Runs of backend ids.
    SLOTS: 2_097_152,
    /// Backends by id.
    BACKENDS: 524_288,
    /// Round-robin cursors by service id.
    CURSORS: 65_536,
    /// Flows counted by the programs.
    BACKEND_LOADS: 524_288,
    /// Flows counted out by the agent.
    BACKEND_EXPIRED: 524_288,
    /// Tracked flows, two entries each.
    CONNTRACK: 524_288,
    /// TCP flows from outside that the client has not confirmed.
    HALF_OPEN: 65_536,
    /// Session affinity.
    AFFINITY: 131_072,
    /// Socket storage (the kernel wants 0 here: memory is each socket's own).
    SOCKETS: 0,
    /// Pods by network namespace.
    POD_ADDRS: 16_384,
    /// The node.
    NODE_CONFIG: 1,
    /// Verdicts by reason.
    REASON_COUNTERS: 64,
    /// Traffic by service.
    SERVICE_COUNTERS: 65_536,
}
