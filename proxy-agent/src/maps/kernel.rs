//! [`Maps`] on the pinned BPF maps.
//!
//! Opened by `run` once [`datapath::load`](crate::datapath::load) has made or adopted the pins, and by `commands` to look
//! at them without a running agent; called by [`apply`](crate::apply). Long reads and writes go through
//! [`datapath::map`](crate::datapath::map) in batches.

use std::{io, path::Path};

use bytemuck::Pod;
use proxy_ebpf::abi::{
    Addr, Backend, BackendExpired, BackendId, BackendLoad, Frontend, FrontendKey, Run, Service, ServiceId,
};

use super::{MapError, Maps, Table};
use crate::datapath::{
    bpf::{self, TypedMap},
    map,
};

/// Value of `OWNED_ADDRS`: the key says it all.
const OWNED: u32 = 1;

/// The maps of Services, as pinned by name in one directory.
#[derive(Debug)]
pub struct KernelMaps {
    frontends: TypedMap<FrontendKey, Frontend>,
    owned_addrs: TypedMap<Addr, u32>,
    services: TypedMap<ServiceId, Service>,
    slots: TypedMap<u32, BackendId>,
    backends: TypedMap<BackendId, Backend>,
    loads: TypedMap<BackendId, BackendLoad>,
    expired: TypedMap<BackendId, BackendExpired>,
}

impl KernelMaps {
    /// Opens the maps pinned in `directory`.
    ///
    /// # Errors
    /// [`MapError::System`]: not there, no permission, or another layout (`InvalidData`).
    pub fn open(directory: &Path) -> Result<Self, MapError> {
        Ok(Self {
            frontends: open(directory, Table::Frontends)?,
            owned_addrs: open(directory, Table::OwnedAddrs)?,
            services: open(directory, Table::Services)?,
            slots: open(directory, Table::Slots)?,
            backends: open(directory, Table::Backends)?,
            loads: open(directory, Table::BackendLoads)?,
            expired: open(directory, Table::BackendExpired)?,
        })
    }

    /// Makes maps of their own that are pinned nowhere, each of the size that `size` says: for tests. What they hold is
    /// gone with the value.
    ///
    /// # Errors
    /// [`MapError::System`]: CAP_BPF is missing.
    pub fn fresh(size: impl Fn(Table) -> u32) -> Result<Self, MapError> {
        Ok(Self {
            frontends: create(Table::Frontends, bpf::TYPE_HASH, &size)?,
            owned_addrs: create(Table::OwnedAddrs, bpf::TYPE_HASH, &size)?,
            services: create(Table::Services, bpf::TYPE_ARRAY, &size)?,
            slots: create(Table::Slots, bpf::TYPE_ARRAY, &size)?,
            backends: create(Table::Backends, bpf::TYPE_ARRAY, &size)?,
            loads: create(Table::BackendLoads, bpf::TYPE_ARRAY, &size)?,
            expired: create(Table::BackendExpired, bpf::TYPE_ARRAY, &size)?,
        })
    }

    fn check_range(&self, table: Table, first: u32, len: u64) -> Result<(), MapError> {
        let size = self.size(table);
        let end = u64::from(first) + len;
        if end > u64::from(size) {
            return Err(MapError::OutOfRange {
                table,
                index: u64::from(first.max(size)),
                size,
            });
        }
        Ok(())
    }

    /// Writes entries of an array whose keys are ids; those before the first that is outside are written.
    fn put_array<K: Pod, V: Pod>(
        &self,
        table: Table,
        array: &TypedMap<K, V>,
        entries: &[(K, V)],
        index: impl Fn(&K) -> u32,
    ) -> Result<(), MapError> {
        let size = self.size(table);
        let outside = entries.iter().position(|(key, _)| index(key) >= size);
        write(table, array, &entries[..outside.unwrap_or(entries.len())])?;
        match outside {
            None => Ok(()),
            Some(at) => Err(MapError::OutOfRange {
                table,
                index: u64::from(index(&entries[at].0)),
                size,
            }),
        }
    }

    fn get<V: Pod>(&self, table: Table, array: &TypedMap<BackendId, V>, id: BackendId) -> Result<V, MapError> {
        self.check_range(table, id.0, 1)?;
        let value = array.get(&id).map_err(system(table, "BPF_MAP_LOOKUP_ELEM"))?;
        value.ok_or(MapError::OutOfRange {
            table,
            index: u64::from(id.0),
            size: self.size(table),
        })
    }
}

fn open<K: Pod, V: Pod>(directory: &Path, table: Table) -> Result<TypedMap<K, V>, MapError> {
    let opened = bpf::open_pinned(&directory.join(table.name())).and_then(TypedMap::new);
    opened.map_err(system(table, "BPF_OBJ_GET"))
}

fn create<K: Pod, V: Pod>(table: Table, kind: u32, size: impl Fn(Table) -> u32) -> Result<TypedMap<K, V>, MapError> {
    TypedMap::create(kind, size(table)).map_err(system(table, "BPF_MAP_CREATE"))
}

fn system(table: Table, call: &'static str) -> impl Fn(io::Error) -> MapError {
    move |source| MapError::System { table, call, source }
}

fn write<K: Pod, V: Pod>(table: Table, map: &TypedMap<K, V>, entries: &[(K, V)]) -> Result<(), MapError> {
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    map::write_all(map, &keys, &values).map_err(|(_, error)| match error.raw_os_error() {
        // A hash map without room says E2BIG; ENOMEM would be the kernel's own, and is worth trying again.
        Some(libc::E2BIG | libc::ENOSPC) => MapError::Full {
            table,
            size: map.max_entries(),
        },
        _ => MapError::System {
            table,
            call: "BPF_MAP_UPDATE_BATCH",
            source: error,
        },
    })
}

fn delete<K: Pod, V: Pod>(table: Table, map: &TypedMap<K, V>, keys: &[K]) -> Result<(), MapError> {
    map::delete_all(map, keys).map_err(system(table, "BPF_MAP_DELETE_BATCH"))
}

impl Maps for KernelMaps {
    fn size(&self, table: Table) -> u32 {
        match table {
            Table::Frontends => self.frontends.max_entries(),
            Table::OwnedAddrs => self.owned_addrs.max_entries(),
            Table::Services => self.services.max_entries(),
            Table::Slots => self.slots.max_entries(),
            Table::Backends => self.backends.max_entries(),
            Table::BackendLoads => self.loads.max_entries(),
            Table::BackendExpired => self.expired.max_entries(),
        }
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        map::read_all(&self.frontends).map_err(system(Table::Frontends, "BPF_MAP_LOOKUP_BATCH"))
    }

    fn owned_addrs(&self) -> Result<Vec<Addr>, MapError> {
        let entries = map::read_all(&self.owned_addrs).map_err(system(Table::OwnedAddrs, "BPF_MAP_LOOKUP_BATCH"))?;
        Ok(entries.into_iter().map(|(addr, _)| addr).collect())
    }

    fn services(&self) -> Result<Vec<(ServiceId, Service)>, MapError> {
        map::read_set(&self.services).map_err(system(Table::Services, "BPF_MAP_LOOKUP_BATCH"))
    }

    fn slots(&self, run: Run) -> Result<Vec<BackendId>, MapError> {
        self.check_range(Table::Slots, run.base, u64::from(run.len))?;
        map::read_range(&self.slots, run.base, run.len).map_err(system(Table::Slots, "BPF_MAP_LOOKUP_BATCH"))
    }

    fn backends(&self) -> Result<Vec<(BackendId, Backend)>, MapError> {
        map::read_set(&self.backends).map_err(system(Table::Backends, "BPF_MAP_LOOKUP_BATCH"))
    }

    fn load(&self, backend: BackendId) -> Result<BackendLoad, MapError> {
        self.get(Table::BackendLoads, &self.loads, backend)
    }

    fn expired(&self, backend: BackendId) -> Result<BackendExpired, MapError> {
        self.get(Table::BackendExpired, &self.expired, backend)
    }

    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        write(Table::Frontends, &self.frontends, entries)
    }

    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        delete(Table::Frontends, &self.frontends, keys)
    }

    fn put_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError> {
        let entries: Vec<_> = addrs.iter().map(|addr| (*addr, OWNED)).collect();
        write(Table::OwnedAddrs, &self.owned_addrs, &entries)
    }

    fn delete_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError> {
        delete(Table::OwnedAddrs, &self.owned_addrs, addrs)
    }

    fn put_services(&mut self, entries: &[(ServiceId, Service)]) -> Result<(), MapError> {
        self.put_array(Table::Services, &self.services, entries, |id| id.0)
    }

    fn put_slots(&mut self, base: u32, slots: &[BackendId]) -> Result<(), MapError> {
        self.check_range(Table::Slots, base, slots.len() as u64)?;
        let entries: Vec<_> = (base..).zip(slots.iter().copied()).collect();
        write(Table::Slots, &self.slots, &entries)
    }

    fn put_backends(&mut self, entries: &[(BackendId, Backend)]) -> Result<(), MapError> {
        self.put_array(Table::Backends, &self.backends, entries, |id| id.0)
    }

    fn put_expired(&mut self, entries: &[(BackendId, BackendExpired)]) -> Result<(), MapError> {
        self.put_array(Table::BackendExpired, &self.expired, entries, |id| id.0)
    }
}
