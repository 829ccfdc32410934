//! Keeps `POD_ADDRS`: which Pod a network namespace is. A socket that connects has no source address yet, so on the socket
//! path the client is known by its namespace's cookie, and this map turns that into the address the packet path would
//! have seen; source hashing and affinity then agree on both paths.
//!
//! [`start`](super::start) runs [`Pods::follow`] on a thread. Where a Pod's processes can't be seen or entered, its clients
//! are told apart by the cookie alone.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use proxy_ebpf::abi::PodAddrs;
use tracing::{debug, info, warn};

use super::{
    bpf::{self, TypedMap},
    map,
    netns::{self, Resident, Visitor},
    sockets,
    stop::Stop,
};

/// How often namespaces are looked for without an event: some Pods have no device on the host (macvlan).
const LOOK: Duration = Duration::from_secs(10);
/// A new Pod's device comes before its addresses and its processes: look again after each of these.
const AFTER_CHANGE: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// How old a namespace is when its addresses are taken for final.
const SETTLING: Duration = Duration::from_secs(15);

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Devices came or went: there may be new Pods.
    DevicesChanged,
    /// No new flow goes to these backends any more: end the UDP sockets that are connected to them.
    BackendsGone(Vec<SocketAddr>),
}

#[derive(Clone, Debug)]
struct Pod {
    resident: Resident,
    cookie: u64,
    addrs: PodAddrs,
    found: Instant,
}

impl Pod {
    /// Addresses come one after the other, IPv6 last: a young namespace is looked at again.
    fn is_settled(&self) -> bool {
        self.addrs != PodAddrs::default() && self.found.elapsed() > SETTLING
    }
}

/// The Pods of this node by the inode of their namespace.
pub struct Pods {
    map: TypedMap<u64, PodAddrs>,
    visitor: Visitor,
    known: BTreeMap<u64, Pod>,
}

impl Pods {
    /// For the calling thread, which must also call the other methods.
    ///
    /// # Errors
    /// The map is not pinned, or there is no /proc.
    pub fn new(map: &Path, cgroup: &Path) -> io::Result<Self> {
        let map = TypedMap::new(bpf::open_pinned(map)?)?;
        Ok(Self {
            map,
            visitor: Visitor::new(cgroup)?,
            known: BTreeMap::new(),
        })
    }

    /// Serves requests and looks around from time to time, until told to stop or nobody can ask any more.
    pub fn follow(&mut self, requests: &Receiver<Request>, stop: &Stop) {
        self.look();
        let mut again: Vec<Duration> = Vec::new();
        while !stop.is_set() {
            let wait = again.pop().unwrap_or(LOOK);
            match requests.recv_timeout(wait) {
                Ok(Request::DevicesChanged) => again = AFTER_CHANGE.into_iter().rev().collect(),
                Ok(Request::BackendsGone(backends)) => self.end_sockets(&backends),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        if let Err(error) = self.refresh() {
            warn!(%error, "the namespaces of Pods can't be looked at");
        }
    }

    /// Brings map and namespaces into step.
    ///
    /// # Errors
    /// /proc or the map can't be read or written.
    pub fn refresh(&mut self) -> io::Result<()> {
        let found = self.visitor.find()?;
        let visitor = &self.visitor;
        self.known
            .retain(|inode, pod| found.contains_key(inode) && visitor.is_current(*inode, &pod.resident));
        for (inode, resident) in found {
            let known = self.known.get(&inode);
            if known.is_some_and(Pod::is_settled) {
                continue;
            }
            let found = known.map_or_else(Instant::now, |pod| pod.found);
            match self
                .visitor
                .visit(&resident, || Ok((netns::cookie()?, netns::addresses()?)))
            {
                Ok((cookie, addrs)) => {
                    self.known.insert(
                        inode,
                        Pod {
                            resident,
                            cookie,
                            addrs,
                            found,
                        },
                    );
                }
                Err(error) => debug!(pid = resident.pid, %error, "namespace skipped"),
            }
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let addressed = self.known.values().filter(|pod| pod.addrs != PodAddrs::default());
        let wanted: BTreeMap<u64, PodAddrs> = addressed.map(|pod| (pod.cookie, pod.addrs)).collect();
        let present: BTreeMap<u64, PodAddrs> = map::read_all(&self.map)?.into_iter().collect();
        for cookie in present.keys().filter(|cookie| !wanted.contains_key(cookie)) {
            self.map.delete(cookie)?;
        }
        for (cookie, addrs) in wanted
            .iter()
            .filter(|(cookie, addrs)| present.get(cookie) != Some(addrs))
        {
            debug!(cookie, ?addrs, "Pod found");
            if let Err(error) = self.map.set(cookie, addrs, bpf::ANY) {
                warn!(%error, "map POD_ADDRS takes no more Pods: raise --max-pods");
                break;
            }
        }
        Ok(())
    }

    /// Ends connected UDP sockets to dead backends, in every Pod's namespace and in the agent's own.
    fn end_sockets(&mut self, backends: &[SocketAddr]) {
        // A Pod that came a moment ago may be unknown yet, and one that is known may have gone.
        self.look();
        let mut ended = report(sockets::end_connected_udp(backends));
        for pod in self.known.values() {
            ended += report(
                self.visitor
                    .visit(&pod.resident, || sockets::end_connected_udp(backends)),
            );
        }
        if ended > 0 {
            info!(
                sockets = ended,
                ?backends,
                "ended connected UDP sockets to backends that are gone"
            );
        }
    }
}

fn report(ended: io::Result<usize>) -> usize {
    ended.unwrap_or_else(|error| {
        debug!(%error, "sockets of a namespace can't be ended");
        0
    })
}
