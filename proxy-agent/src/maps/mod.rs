//! The maps a Service is programmed into, as the agent writes them.
//!
//! [`apply`](crate::apply) calls [`Maps`] and nobody else writes these maps. There are two of them: [`kernel`] on the
//! pinned BPF maps, [`memory`] on ordinary collections for tests; [`contract`] is the list of promises both keep.

pub mod contract;
pub mod kernel;
pub mod memory;

use std::io;

use proxy_ebpf::abi::{
    Addr, Backend, BackendExpired, BackendId, BackendLoad, Frontend, FrontendKey, Run, Service, ServiceId,
    maps as specs,
};

/// A map that holds Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `FRONTENDS`
    Frontends,
    /// `OWNED_ADDRS`
    OwnedAddrs,
    /// `SERVICES`
    Services,
    /// `SLOTS`
    Slots,
    /// `BACKENDS`
    Backends,
    /// `BACKEND_LOADS`
    BackendLoads,
    /// `BACKEND_EXPIRED`
    BackendExpired,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Frontends,
        Self::OwnedAddrs,
        Self::Services,
        Self::Slots,
        Self::Backends,
        Self::BackendLoads,
        Self::BackendExpired,
    ];

    /// Name and default size.
    pub const fn spec(self) -> specs::MapSpec {
        match self {
            Self::Frontends => specs::FRONTENDS,
            Self::OwnedAddrs => specs::OWNED_ADDRS,
            Self::Services => specs::SERVICES,
            Self::Slots => specs::SLOTS,
            Self::Backends => specs::BACKENDS,
            Self::BackendLoads => specs::BACKEND_LOADS,
            Self::BackendExpired => specs::BACKEND_EXPIRED,
        }
    }

    /// Name of the map, as in the pin directory.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The flag of `proxy-agent run` that sets its size.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Frontends => "--max-frontends",
            Self::OwnedAddrs => "--max-owned-addresses",
            Self::Services => "--max-services",
            Self::Slots => "--max-slots",
            Self::Backends | Self::BackendLoads | Self::BackendExpired => "--max-endpoints",
        }
    }
}

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A hash map has no room. The entries before the first that did not fit are written.
    #[error("map {} is full at {size} entries: raise {}", .table.name(), .table.flag())]
    Full {
        /// The map.
        table: Table,
        /// Its size in entries.
        size: u32,
    },
    /// An index at or beyond the end of an array.
    #[error("index {index} is outside of map {} with {size} entries: raise {}", .table.name(), .table.flag())]
    OutOfRange {
        /// The map.
        table: Table,
        /// The first index that is outside.
        index: u64,
        /// Its size in entries.
        size: u32,
    },
    /// The kernel refused. Trying again may help; a read-back of the maps says what was written.
    #[error("map {}: {call} failed", .table.name())]
    System {
        /// The map.
        table: Table,
        /// What was tried, as the kernel calls it.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl MapError {
    /// The map that refused.
    pub const fn table(&self) -> Table {
        match self {
            Self::Full { table, .. } | Self::OutOfRange { table, .. } | Self::System { table, .. } => *table,
        }
    }
}

/// What [`apply`](crate::apply) needs of the maps. Every method takes a batch: an implementation uses the kernel's batch
/// calls where it can. A method that fails may have written the entries before the one that failed, never one after it.
/// Writing or deleting an empty batch succeeds and does nothing.
pub trait Maps {
    /// Size of a map in entries, as the kernel made it (flags may have asked for another size than a pinned map has).
    fn size(&self, table: Table) -> u32;

    /// Everything in `FRONTENDS`, in no particular order.
    ///
    /// # Errors
    /// [`MapError::System`], here and in every other read.
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError>;

    /// Everything in `OWNED_ADDRS`, in no particular order.
    ///
    /// # Errors
    /// As [`Maps::frontends`].
    fn owned_addrs(&self) -> Result<Vec<Addr>, MapError>;

    /// Every entry of `SERVICES` that is not all zero, by rising id.
    ///
    /// # Errors
    /// As [`Maps::frontends`].
    fn services(&self) -> Result<Vec<(ServiceId, Service)>, MapError>;

    /// The slots of a run, `run.len` of them.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`] if the run does not lie within the map, and as [`Maps::frontends`].
    fn slots(&self, run: Run) -> Result<Vec<BackendId>, MapError>;

    /// Every entry of `BACKENDS` that is not all zero, by rising id. A dead backend keeps its generation, so it is here.
    ///
    /// # Errors
    /// As [`Maps::frontends`].
    fn backends(&self) -> Result<Vec<(BackendId, Backend)>, MapError>;

    /// What the programs counted for a backend.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`], and as [`Maps::frontends`].
    fn load(&self, backend: BackendId) -> Result<BackendLoad, MapError>;

    /// What the agent counted out for a backend.
    ///
    /// # Errors
    /// As [`Maps::load`].
    fn expired(&self, backend: BackendId) -> Result<BackendExpired, MapError>;

    /// Adds or replaces frontends.
    ///
    /// # Errors
    /// [`MapError::Full`]; replacing never fails for want of room.
    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError>;

    /// Removes frontends; one that isn't there is no error.
    ///
    /// # Errors
    /// [`MapError::System`].
    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError>;

    /// Adds addresses to `OWNED_ADDRS`; one that is there already is no error.
    ///
    /// # Errors
    /// [`MapError::Full`].
    fn put_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError>;

    /// Removes addresses from `OWNED_ADDRS`; one that isn't there is no error.
    ///
    /// # Errors
    /// [`MapError::System`].
    fn delete_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError>;

    /// Replaces services; `Service::default()` clears an id.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`].
    fn put_services(&mut self, entries: &[(ServiceId, Service)]) -> Result<(), MapError>;

    /// Writes consecutive slots from `base` on.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`], and then nothing is written.
    fn put_slots(&mut self, base: u32, slots: &[BackendId]) -> Result<(), MapError>;

    /// Replaces backends.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`].
    fn put_backends(&mut self, entries: &[(BackendId, Backend)]) -> Result<(), MapError>;

    /// Replaces what the agent counted out.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`].
    fn put_expired(&mut self, entries: &[(BackendId, BackendExpired)]) -> Result<(), MapError>;
}
