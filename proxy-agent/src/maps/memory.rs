//! The maps as ordinary collections: what tests program instead of a kernel. It keeps the promises of
//! [`contract`](super::contract), sizes included.

use std::collections::{BTreeMap, BTreeSet};

use proxy_ebpf::abi::{
    Addr, Backend, BackendExpired, BackendId, BackendLoad, Frontend, FrontendKey, Run, Service, ServiceId,
};

use super::{MapError, Maps, Table};

/// Maps in memory.
#[derive(Clone, Debug)]
pub struct MemoryMaps {
    sizes: BTreeMap<Table, u32>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    owned_addrs: BTreeSet<Addr>,
    services: BTreeMap<u32, Service>,
    slots: BTreeMap<u32, BackendId>,
    backends: BTreeMap<u32, Backend>,
    loads: BTreeMap<u32, BackendLoad>,
    expired: BTreeMap<u32, BackendExpired>,
}

impl Default for MemoryMaps {
    fn default() -> Self {
        Self::with_sizes(|table| table.spec().max_entries)
    }
}

impl MemoryMaps {
    /// Empty maps of sizes of one's own.
    pub fn with_sizes(size: impl Fn(Table) -> u32) -> Self {
        Self {
            sizes: Table::ALL.into_iter().map(|table| (table, size(table))).collect(),
            frontends: BTreeMap::new(),
            owned_addrs: BTreeSet::new(),
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            loads: BTreeMap::new(),
            expired: BTreeMap::new(),
        }
    }

    /// What a program would have counted.
    pub fn set_load(&mut self, backend: BackendId, load: BackendLoad) {
        self.loads.insert(backend.0, load);
    }

    /// One frontend, as a packet looks it up.
    pub fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    /// One service, as a packet looks it up.
    pub fn service(&self, id: ServiceId) -> Service {
        self.services.get(&id.0).copied().unwrap_or_default()
    }

    /// One backend, as a packet looks it up.
    pub fn backend(&self, id: BackendId) -> Backend {
        self.backends.get(&id.0).copied().unwrap_or_default()
    }

    fn check(&self, table: Table, index: u64) -> Result<(), MapError> {
        let size = self.size(table);
        if index < u64::from(size) {
            Ok(())
        } else {
            Err(MapError::OutOfRange { table, index, size })
        }
    }

    fn room(&self, table: Table, used: usize) -> Result<(), MapError> {
        let size = self.size(table);
        if used < size as usize {
            Ok(())
        } else {
            Err(MapError::Full { table, size })
        }
    }
}

impl Maps for MemoryMaps {
    fn size(&self, table: Table) -> u32 {
        self.sizes[&table]
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        Ok(self.frontends.iter().map(|(key, value)| (*key, *value)).collect())
    }

    fn owned_addrs(&self) -> Result<Vec<Addr>, MapError> {
        Ok(self.owned_addrs.iter().copied().collect())
    }

    fn services(&self) -> Result<Vec<(ServiceId, Service)>, MapError> {
        Ok(self
            .services
            .iter()
            .map(|(id, value)| (ServiceId(*id), *value))
            .collect())
    }

    fn slots(&self, run: Run) -> Result<Vec<BackendId>, MapError> {
        if run.len > 0 {
            self.check(Table::Slots, u64::from(run.base) + u64::from(run.len) - 1)?;
        }
        Ok((0..run.len)
            .map(|at| self.slots.get(&(run.base + at)).copied().unwrap_or_default())
            .collect())
    }

    fn backends(&self) -> Result<Vec<(BackendId, Backend)>, MapError> {
        Ok(self
            .backends
            .iter()
            .map(|(id, value)| (BackendId(*id), *value))
            .collect())
    }

    fn load(&self, backend: BackendId) -> Result<BackendLoad, MapError> {
        self.check(Table::BackendLoads, backend.0.into())?;
        Ok(self.loads.get(&backend.0).copied().unwrap_or_default())
    }

    fn expired(&self, backend: BackendId) -> Result<BackendExpired, MapError> {
        self.check(Table::BackendExpired, backend.0.into())?;
        Ok(self.expired.get(&backend.0).copied().unwrap_or_default())
    }

    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        for (key, value) in entries {
            if !self.frontends.contains_key(key) {
                self.room(Table::Frontends, self.frontends.len())?;
            }
            self.frontends.insert(*key, *value);
        }
        Ok(())
    }

    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        for key in keys {
            self.frontends.remove(key);
        }
        Ok(())
    }

    fn put_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError> {
        for addr in addrs {
            if !self.owned_addrs.contains(addr) {
                self.room(Table::OwnedAddrs, self.owned_addrs.len())?;
            }
            self.owned_addrs.insert(*addr);
        }
        Ok(())
    }

    fn delete_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError> {
        for addr in addrs {
            self.owned_addrs.remove(addr);
        }
        Ok(())
    }

    fn put_services(&mut self, entries: &[(ServiceId, Service)]) -> Result<(), MapError> {
        for (id, value) in entries {
            self.check(Table::Services, id.0.into())?;
            put_array(&mut self.services, id.0, *value);
        }
        Ok(())
    }

    fn put_slots(&mut self, base: u32, slots: &[BackendId]) -> Result<(), MapError> {
        if let Some(last) = (slots.len() as u64).checked_sub(1) {
            self.check(Table::Slots, u64::from(base) + last)?;
        }
        for (index, backend) in (base..).zip(slots) {
            put_array(&mut self.slots, index, *backend);
        }
        Ok(())
    }

    fn put_backends(&mut self, entries: &[(BackendId, Backend)]) -> Result<(), MapError> {
        for (id, value) in entries {
            self.check(Table::Backends, id.0.into())?;
            put_array(&mut self.backends, id.0, *value);
        }
        Ok(())
    }

    fn put_expired(&mut self, entries: &[(BackendId, BackendExpired)]) -> Result<(), MapError> {
        for (id, value) in entries {
            self.check(Table::BackendExpired, id.0.into())?;
            put_array(&mut self.expired, id.0, *value);
        }
        Ok(())
    }
}

/// An array has every index; here those that are all zero are left out.
fn put_array<V: Default + PartialEq>(array: &mut BTreeMap<u32, V>, index: u32, value: V) {
    if value == V::default() {
        array.remove(&index);
    } else {
        array.insert(index, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_maps_keep_the_contract() {
        crate::maps::contract::check(MemoryMaps::with_sizes);
    }
}
