//! The kernel's side of the agent: programs loaded, maps and links pinned, and what has to be looked after while they run.
//!
//! [`run`](crate::run) calls [`start`] before it watches anything, because an upgrade must switch programs even with the
//! API server away, and hands the maps ([`Datapath::maps`]) to [`apply`](crate::apply).
//!
//! 1. [`load`]: the object; its maps are made, or adopted from their pins ([`pins`]).
//! 2. [`links`]: programs ([`hooks`]) are attached by pinned links, or switched in place ([`netlink_tc`] before TCX).
//! 3. [`devices`]: follows network devices, and attaches to those that come.
//! 4. [`pods`]: which Pod a network namespace is ([`netns`]), and sockets to dead backends ([`sockets`]).
//! 5. [`expire`]: ends silent flows; [`recount`] checks the counts of open ones.
//!
//! The agent may be killed at any moment and nothing stops: everything runs from the pins. [`cleanup`] takes it all away,
//! [`preflight`] says beforehand what will work, [`view`] what is there. [`bpf`] holds the raw calls, [`map`] whole-map
//! reads and writes.

pub mod bpf;
pub mod cleanup;
pub mod devices;
pub mod expire;
pub mod hooks;
pub mod links;
pub mod load;
pub mod map;
pub mod netlink_tc;
pub mod netns;
pub mod node;
pub mod pins;
pub mod pods;
pub mod preflight;
pub mod recount;
pub mod sockets;
pub mod stop;
pub mod usage;
pub mod view;

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use proxy_ebpf::abi::NodeConfig;
use tracing::{info, warn};

use crate::{
    config::{DeviceArgs, PlaceArgs, SizeArgs, TimeoutArgs, XdpMode},
    maps::{MapError, kernel::KernelMaps},
};
use devices::{DeviceStatus, Devices};
use expire::Sweeper;
use links::{LinkError, Links};
use load::{LoadError, RECOUNT};
use pins::{PinError, Pins};
use pods::{Pods, Request};
use recount::Recount;
use stop::Stop;
use usage::UsageHandle;

/// File in the state directory that says what each device has.
pub(crate) const DEVICES_FILE: &str = "devices.json";

/// Why the data path could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nowhere to pin.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The object can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The socket path can't be attached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A map, a device list or a thread can't be had.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// A running data path. Dropping it ends the agent's upkeep; programs and maps stay.
pub struct Datapath {
    pins: Pins,
    devices: Arc<Devices>,
    usage: UsageHandle,
    requests: mpsc::Sender<Request>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

/// Loads and attaches the data path of this node, or takes over the one that is there, and starts its upkeep. Blocks for
/// as long as the verifier takes. When it returns, this build's programs serve what the maps hold.
///
/// # Errors
/// [`StartError`]. A device that refuses programs is no error: it is logged, shown in `status` and tried again.
pub fn start(
    place: &PlaceArgs,
    devices: &DeviceArgs,
    sizes: &SizeArgs,
    timeouts: &TimeoutArgs,
) -> Result<Datapath, StartError> {
    let pins = Pins::new(&place.bpffs);
    pins.create()?;
    let xdp = devices.xdp != XdpMode::Off;
    let names = hooks::programs(
        !devices.no_socket_path,
        !devices.uplinks.is_empty(),
        !devices.pod_devices.is_empty(),
        xdp,
    );
    let programs = load::load(&load::find_object(devices.object.as_deref())?, &pins, sizes, &names)?;
    let cgroup = (!devices.no_socket_path).then(|| place.cgroup.clone());
    let links = Arc::new(Links::new(pins.clone(), programs, cgroup));

    node::ensure(&pins).map_err(system("the node's configuration can't be written to map NODE_CONFIG"))?;
    links.attach_cgroup()?;
    let known = Arc::new(Devices::new(devices));
    known.sync(&links).map_err(system("network devices can't be listed"))?;
    for name in known.absent_uplinks() {
        warn!(
            device = name,
            "this uplink doesn't exist yet: its programs are attached when it comes"
        );
    }
    links.prune()?;
    remove_other_versions(&pins)?;
    write_devices(&place.state_dir.join(DEVICES_FILE), &known.status());
    upkeep(place, timeouts, pins, links, known)
}

/// After an upgrade with another layout, nothing uses the old maps any more.
fn remove_other_versions(pins: &Pins) -> Result<(), StartError> {
    for directory in pins.other_versions()? {
        info!(directory = %directory.display(), "removing the maps of another layout version");
        pins::remove_maps(&directory)?;
    }
    Ok(())
}

fn upkeep(
    place: &PlaceArgs,
    timeouts: &TimeoutArgs,
    pins: Pins,
    links: Arc<Links>,
    devices: Arc<Devices>,
) -> Result<Datapath, StartError> {
    let (requests, asked) = mpsc::channel();
    let stop = Stop::default();
    let usage = UsageHandle::default();

    let open = system("the maps of flows can't be opened");
    let sweeper = Sweeper::new(&pins, timeouts).map_err(&open)?;
    let mut recount = recounter(&pins, &links).map_err(&open)?;
    let (until, seen) = (stop.clone(), usage.clone());
    let sweeping = spawn("expire", move || sweeper.follow(&mut recount, &seen, &until))?;

    let (until, known) = (stop.clone(), Arc::clone(&devices));
    let (notify, file) = (requests.clone(), place.state_dir.join(DEVICES_FILE));
    let following = spawn("devices", move || {
        let changed = |status: &[DeviceStatus]| {
            write_devices(&file, status);
            // Nobody listens only when the agent is ending.
            _ = notify.send(Request::DevicesChanged);
        };
        if let Err(error) = known.follow(&links, &until, changed) {
            warn!(%error, "network devices can't be followed: restart the agent for new ones");
        }
    })?;

    let (until, map, cgroup) = (stop.clone(), pins.map("POD_ADDRS"), place.cgroup.clone());
    let looking = spawn("pods", move || match Pods::new(&map, &cgroup) {
        Ok(mut pods) => pods.follow(&asked, &until),
        Err(error) => warn!(%error, "Pods can't be told apart on the socket path"),
    })?;

    Ok(Datapath {
        pins,
        devices,
        usage,
        requests,
        stop,
        threads: vec![sweeping, following, looking],
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(system("no thread can be started"))
}

/// `None` if sockets are counted but can't be listed: comparing flows alone would then undo right counts.
fn recounter(pins: &Pins, links: &Links) -> io::Result<Option<Recount>> {
    let iterator: Option<OwnedFd> = match links.programs().get(RECOUNT) {
        Ok(program) => Some(program.try_clone_to_owned()?),
        Err(_) if links.has_socket_path() => return Ok(None),
        Err(_) => None,
    };
    Recount::new(pins, iterator).map(Some)
}

fn write_devices(file: &PathBuf, status: &[DeviceStatus]) {
    let directory = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    let text = serde_json::to_vec_pretty(status).unwrap_or_default();
    if let Err(error) = directory.and_then(|()| std::fs::write(file, text)) {
        warn!(%error, file = %file.display(), "`proxy-agent status` won't know the state of devices");
    }
}

impl Datapath {
    /// The maps of Services, for [`apply`](crate::apply).
    ///
    /// # Errors
    /// Somebody removed a pin meanwhile.
    pub fn maps(&self) -> Result<KernelMaps, MapError> {
        KernelMaps::open(&self.pins.maps())
    }

    /// Where the maps are pinned, for [`serve`](crate::serve).
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Tells the programs of the node; its namespace's cookie is filled in here.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_node(&self, config: NodeConfig) -> io::Result<()> {
        node::set(&self.pins, config)
    }

    /// Backends no flow may go to any more: connected UDP sockets to them are ended in every Pod. Returns at once.
    pub fn backends_gone(&self, backends: Vec<SocketAddr>) {
        // The thread only ends with the agent, or where Pods can't be looked at, which was logged.
        _ = self.requests.send(Request::BackendsGone(backends));
    }

    /// The devices that have programs.
    pub fn devices(&self) -> Vec<DeviceStatus> {
        self.devices.status()
    }

    /// What the sweeps saw.
    pub fn usage(&self) -> UsageHandle {
        self.usage.clone()
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.stop.set();
        // Wakes the thread that waits for requests.
        _ = self.requests.send(Request::DevicesChanged);
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
    }
}
