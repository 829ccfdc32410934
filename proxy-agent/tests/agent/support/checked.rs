//! Maps that write one entry at a time and, after each, look at everything a packet could reach.

use proxy_agent::maps::{MapError, Maps, Table, memory::MemoryMaps};
use proxy_ebpf::abi::{
    Addr, Backend, BackendExpired, BackendId, BackendLoad, Frontend, FrontendKey, Run, Service, ServiceId,
    StateGeneration,
};

/// Memory maps, watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) maps: MemoryMaps,
    /// Whether a run may hold a dead backend: only where a map is full and a Service could not be changed.
    pub(crate) lenient: bool,
    /// Entries written or removed since this was set to 0.
    pub(crate) writes: usize,
}

impl Checked {
    /// Every frontend leads to a whole service, whose runs lie within `SLOTS`, whose backends have an address and live.
    pub(crate) fn check(&self) {
        for (key, frontend) in self.maps.frontends().expect("read") {
            let service = self.maps.service(frontend.service);
            assert!(
                service.is_whole(),
                "{key:?} refers to a service that isn't whole: {service:?}"
            );
            for run in [service.all, service.local] {
                for slot in self.maps.slots(run).expect("a run within the map") {
                    self.check_backend(&key, slot);
                }
            }
        }
    }

    fn check_backend(&self, key: &FrontendKey, id: BackendId) {
        assert_ne!(id, BackendId(0), "{key:?} reaches an empty slot");
        let backend = self.maps.backend(id);
        assert_ne!(
            backend.addr,
            Addr::UNSPECIFIED,
            "{key:?} reaches backend {id:?} without an address"
        );
        let dead = backend.state.state() == StateGeneration::DEAD;
        assert!(self.lenient || !dead, "{key:?} reaches the dead backend {backend:?}");
    }

    fn each<T: Copy>(
        &mut self,
        entries: &[T],
        write: impl Fn(&mut MemoryMaps, &[T]) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        for entry in entries {
            write(&mut self.maps, &[*entry])?;
            self.writes += 1;
            self.check();
        }
        Ok(())
    }
}

impl Maps for Checked {
    fn size(&self, table: Table) -> u32 {
        self.maps.size(table)
    }
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.maps.frontends()
    }
    fn owned_addrs(&self) -> Result<Vec<Addr>, MapError> {
        self.maps.owned_addrs()
    }
    fn services(&self) -> Result<Vec<(ServiceId, Service)>, MapError> {
        self.maps.services()
    }
    fn slots(&self, run: Run) -> Result<Vec<BackendId>, MapError> {
        self.maps.slots(run)
    }
    fn backends(&self) -> Result<Vec<(BackendId, Backend)>, MapError> {
        self.maps.backends()
    }
    fn load(&self, backend: BackendId) -> Result<BackendLoad, MapError> {
        self.maps.load(backend)
    }
    fn expired(&self, backend: BackendId) -> Result<BackendExpired, MapError> {
        self.maps.expired(backend)
    }
    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        self.each(entries, MemoryMaps::put_frontends)
    }
    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        self.each(keys, MemoryMaps::delete_frontends)
    }
    fn put_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError> {
        self.each(addrs, MemoryMaps::put_owned_addrs)
    }
    fn delete_owned_addrs(&mut self, addrs: &[Addr]) -> Result<(), MapError> {
        self.each(addrs, MemoryMaps::delete_owned_addrs)
    }
    fn put_services(&mut self, entries: &[(ServiceId, Service)]) -> Result<(), MapError> {
        self.each(entries, MemoryMaps::put_services)
    }
    fn put_slots(&mut self, base: u32, slots: &[BackendId]) -> Result<(), MapError> {
        // A run is immutable once a service refers to it, so the moments within are seen by nobody; the last is checked.
        self.maps.put_slots(base, slots)?;
        self.writes += slots.len();
        self.check();
        Ok(())
    }
    fn put_backends(&mut self, entries: &[(BackendId, Backend)]) -> Result<(), MapError> {
        self.each(entries, MemoryMaps::put_backends)
    }
    fn put_expired(&mut self, entries: &[(BackendId, BackendExpired)]) -> Result<(), MapError> {
        self.each(entries, MemoryMaps::put_expired)
    }
}
