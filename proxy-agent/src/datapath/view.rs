//! A look at the pinned maps, with or without a running agent: what `commands` print and [`serve`](crate::serve) counts.
//! Reads only, and never through a Service's names: those are in [`names`](crate::commands::names).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::AsFd,
};

use bytemuck::Pod;
use proxy_ebpf::{
    abi::{
        Addr, Affinity, AffinityKey, Backend, BackendExpired, BackendId, BackendLoad, FlowEntry, FlowKey, Frontend,
        FrontendKey, NodeConfig, PodAddrs, ReasonCounters, Service, ServiceCounters, ServiceId,
    },
    verdict::Reason,
};

use super::{
    bpf::{self, TypedMap},
    map,
    pins::Pins,
};
use crate::maps::{MapError, Maps, Table, kernel::KernelMaps};

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// There are no maps.
    #[error("no data path below {}: start `proxy-agent run`, or name its BPF file system with --bpffs", .0.display())]
    Nothing(std::path::PathBuf),
    /// A map of Services can't be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Another map can't be read.
    #[error("map {name} can't be read")]
    System {
        /// Name of the map.
        name: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A backend as the programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// Its id.
    pub id: BackendId,
    /// Address, port, state.
    pub backend: Backend,
    /// Flows opened since the maps were made, by whoever had the id.
    pub opened: u64,
    /// Flows open now.
    pub open: u64,
}

/// A service with what leads to it and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Its id.
    pub id: ServiceId,
    /// Runs, algorithm, flags.
    pub service: Service,
    /// Addresses and ports, in order.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Distinct backends of all its endpoints.
    pub backends: BTreeSet<BackendId>,
    /// Distinct backends on this node.
    pub local: BTreeSet<BackendId>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries it has room for.
    pub size: u64,
}

/// The pinned maps of a node.
pub struct View {
    pins: Pins,
    maps: KernelMaps,
}

impl View {
    /// Opens the maps.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn open(pins: &Pins) -> Result<Self, ViewError> {
        if !pins.maps().exists() {
            return Err(ViewError::Nothing(pins.maps()));
        }
        Ok(Self {
            pins: pins.clone(),
            maps: KernelMaps::open(&pins.maps())?,
        })
    }

    /// The maps of Services.
    pub fn maps(&self) -> &KernelMaps {
        &self.maps
    }

    /// Packets and socket calls by how they ended, summed over the CPUs, zero ones included.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn reasons(&self) -> Result<Vec<(&'static str, u64)>, ViewError> {
        let map: TypedMap<u32, ReasonCounters> = self.typed("REASON_COUNTERS")?;
        Reason::ALL
            .iter()
            .map(|(reason, label)| {
                let per_cpu = map
                    .get_all(&reason.0)
                    .map_err(system("REASON_COUNTERS"))?
                    .unwrap_or_default();
                Ok((*label, per_cpu.iter().map(|counters| counters.packets).sum()))
            })
            .collect()
    }

    /// Traffic of one service, summed over the CPUs.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn traffic(&self, services: &[ServiceId]) -> Result<Vec<ServiceCounters>, ViewError> {
        let map: TypedMap<ServiceId, ServiceCounters> = self.typed("SERVICE_COUNTERS")?;
        let sum = |id: &ServiceId| {
            let per_cpu = map.get_all(id).map_err(system("SERVICE_COUNTERS"))?.unwrap_or_default();
            Ok(per_cpu.iter().fold(ServiceCounters::default(), add))
        };
        services.iter().map(sum).collect()
    }

    /// The backends that are or were in use, by rising id, with their open flows.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn backends(&self) -> Result<Vec<BackendView>, ViewError> {
        let loads: TypedMap<BackendId, BackendLoad> = self.typed("BACKEND_LOADS")?;
        let expired: TypedMap<BackendId, BackendExpired> = self.typed("BACKEND_EXPIRED")?;
        let loads: HashMap<_, _> = map::read_set(&loads)
            .map_err(system("BACKEND_LOADS"))?
            .into_iter()
            .collect();
        let expired: HashMap<_, _> = map::read_set(&expired)
            .map_err(system("BACKEND_EXPIRED"))?
            .into_iter()
            .collect();
        let backends = self.maps.backends()?.into_iter().map(|(id, backend)| {
            let load = loads.get(&id).copied().unwrap_or_default();
            let open = load.open_flows(expired.get(&id).copied().unwrap_or_default());
            BackendView {
                id,
                backend,
                opened: load.opened,
                open,
            }
        });
        Ok(backends.collect())
    }

    /// The services by rising id.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn services(&self) -> Result<Vec<ServiceView>, ViewError> {
        let mut frontends: BTreeMap<ServiceId, Vec<(FrontendKey, Frontend)>> = BTreeMap::new();
        for (key, frontend) in self.maps.frontends()? {
            frontends.entry(frontend.service).or_default().push((key, frontend));
        }
        let view = |(id, service): (ServiceId, Service)| {
            let mut frontends = frontends.remove(&id).unwrap_or_default();
            frontends.sort_by_key(|(key, frontend)| (frontend.kind, *key));
            let backends = self
                .maps
                .slots(service.all)?
                .into_iter()
                .filter(|id| id.0 != 0)
                .collect();
            let local = self
                .maps
                .slots(service.local)?
                .into_iter()
                .filter(|id| id.0 != 0)
                .collect();
            Ok(ServiceView {
                id,
                service,
                frontends,
                backends,
                local,
            })
        };
        self.maps.services()?.into_iter().map(view).collect()
    }

    /// The tracked flows, both directions, in no order.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn flows(&self) -> Result<Vec<(FlowKey, FlowEntry)>, ViewError> {
        let map: TypedMap<FlowKey, FlowEntry> = self.typed("CONNTRACK")?;
        map::read_all(&map).map_err(system("CONNTRACK"))
    }

    /// The node's configuration.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn node(&self) -> Result<NodeConfig, ViewError> {
        let map: TypedMap<u32, NodeConfig> = self.typed("NODE_CONFIG")?;
        Ok(map.get(&0).map_err(system("NODE_CONFIG"))?.unwrap_or_default())
    }

    /// How full all maps are.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn fill(&self) -> Result<Vec<Fill>, ViewError> {
        let mut all = self.fill_of_services()?;
        all.extend([
            self.hash_fill::<FlowKey, FlowEntry>("CONNTRACK")?,
            self.hash_fill::<FlowKey, FlowEntry>("HALF_OPEN")?,
            self.hash_fill::<AffinityKey, Affinity>("AFFINITY")?,
            self.hash_fill::<u64, PodAddrs>("POD_ADDRS")?,
        ]);
        Ok(all)
    }

    /// How full the maps of Services are. Maps by id are as full as they have ids in use.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn fill_of_services(&self) -> Result<Vec<Fill>, ViewError> {
        let services = self.maps.services()?;
        let slots = services
            .iter()
            .map(|(_, service)| u64::from(service.all.len) + u64::from(service.local.len))
            .sum();
        let fill = |table: Table, used: u64| Fill {
            map: table.name(),
            used,
            size: self.maps.size(table).into(),
        };
        Ok(vec![
            fill(Table::Frontends, self.maps.frontends()?.len() as u64),
            fill(Table::OwnedAddrs, self.maps.owned_addrs()?.len() as u64),
            fill(Table::Services, services.len() as u64),
            fill(Table::Slots, slots),
            fill(Table::Backends, self.maps.backends()?.len() as u64),
        ])
    }

    /// Number of entries a map has room for.
    ///
    /// # Errors
    /// The map can't be looked at.
    pub fn size(&self, name: &'static str) -> Result<u64, ViewError> {
        let info = bpf::open_pinned(&self.pins.map(name)).and_then(|fd| bpf::map_info(fd.as_fd()));
        Ok(info.map_err(system(name))?.max_entries.into())
    }

    /// The Pods known by namespace cookie.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn pods(&self) -> Result<Vec<(u64, [Addr; 2])>, ViewError> {
        let map: TypedMap<u64, PodAddrs> = self.typed("POD_ADDRS")?;
        let pods = map::read_all(&map).map_err(system("POD_ADDRS"))?;
        Ok(pods
            .into_iter()
            .map(|(cookie, pod)| (cookie, [pod.v4, pod.v6]))
            .collect())
    }

    fn hash_fill<K: Pod, V: Pod>(&self, name: &'static str) -> Result<Fill, ViewError> {
        let map: TypedMap<K, V> = self.typed(name)?;
        let mut used = 0;
        map::for_each_chunk(&map, |keys, _| {
            used += keys.len() as u64;
            Ok(())
        })
        .map_err(system(name))?;
        Ok(Fill {
            map: name,
            used,
            size: map.max_entries().into(),
        })
    }

    fn typed<K: Pod, V: Pod>(&self, name: &'static str) -> Result<TypedMap<K, V>, ViewError> {
        bpf::open_pinned(&self.pins.map(name))
            .and_then(TypedMap::new)
            .map_err(system(name))
    }
}

fn system(name: &'static str) -> impl Fn(io::Error) -> ViewError {
    move |source| ViewError::System { name, source }
}

fn add(sum: ServiceCounters, more: &ServiceCounters) -> ServiceCounters {
    ServiceCounters {
        connections: sum.connections + more.connections,
        packets: sum.packets + more.packets,
        bytes: sum.bytes + more.bytes,
        refused: sum.refused + more.refused,
    }
}
