//! The pinned flow table of a node's agent, for tests that look into it or take half of a flow away.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use proxy_ebpf::abi::{Addr, FlowEntry, FlowKey, LAYOUT_VERSION, maps};

/// Which entry of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Client to backend.
    Forward,
    /// Backend to client.
    Reply,
}

/// The flow table.
pub struct Conntrack {
    map: std::cell::RefCell<HashMap<MapData, FlowKey, FlowEntry>>,
}

/// A flow as the table has it.
#[derive(Clone, Debug)]
pub struct Flow {
    forward: Option<FlowKey>,
    reply: Option<FlowKey>,
}

impl Flow {
    /// Whether both of its entries are there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.forward.is_some() && self.reply.is_some()
    }
}

impl Conntrack {
    /// Opens the pinned table below a node's bpffs.
    ///
    /// # Errors
    /// If it isn't pinned there.
    pub fn open(bpffs: &Path) -> Result<Self> {
        let path = bpffs
            .join(format!("waggle-v{LAYOUT_VERSION}"))
            .join(maps::CONNTRACK.name);
        let data = MapData::from_pin(&path).with_context(|| format!("no pinned map {}", path.display()))?;
        Ok(Self {
            map: HashMap::try_from(Map::LruHashMap(data))?.into(),
        })
    }

    /// The flows from a client address to a frontend that aren't closed, put together from whichever halves there are.
    ///
    /// # Errors
    /// If the table can't be read.
    pub fn flows_of(&self, client: IpAddr, frontend: SocketAddr) -> Result<Vec<Flow>> {
        let mut flows: std::collections::BTreeMap<FlowKey, Flow> = std::collections::BTreeMap::new();
        for entry in self.map.borrow().iter() {
            let Ok((key, value)) = entry else { continue };
            if value.flags & FlowEntry::CLOSED != 0 {
                continue;
            }
            let reply = value.flags & FlowEntry::REPLY != 0;
            let forward = if reply { value.translated.reversed() } else { key };
            if forward.src == Addr::from(client)
                && forward.dst == Addr::from(frontend.ip())
                && forward.dport.get() == frontend.port()
            {
                let flow = flows.entry(forward).or_insert(Flow {
                    forward: None,
                    reply: None,
                });
                let half = if reply { &mut flow.reply } else { &mut flow.forward };
                *half = Some(key);
            }
        }
        Ok(flows.into_values().collect())
    }

    /// Deletes one half of every flow from a client address to a frontend; returns how many.
    ///
    /// # Errors
    /// If an entry that is there can't be deleted.
    pub fn delete_half(&self, client: IpAddr, frontend: SocketAddr, half: Half) -> Result<usize> {
        let flows = self.flows_of(client, frontend)?;
        let keys = flows.iter().filter_map(|flow| {
            if half == Half::Forward {
                flow.forward
            } else {
                flow.reply
            }
        });
        let mut deleted = 0;
        for key in keys {
            self.map
                .borrow_mut()
                .remove(&key)
                .with_context(|| format!("can't delete {key:?}"))?;
            deleted += 1;
        }
        Ok(deleted)
    }
}
