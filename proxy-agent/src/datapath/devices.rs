//! Follows the node's network devices: a new one that is an uplink or a Pod's gets its programs within milliseconds, one
//! that is gone loses its pins.
//!
//! [`start`](super::start) calls [`Devices::sync`] once before it returns and then runs [`Devices::follow`] on a thread.
//! Attaching is [`links`](super::links)' work.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    net::if_::if_nameindex,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::{
    hooks::Role,
    links::{Device, LinkError, Links},
    stop::Stop,
};
use crate::config::{DeviceArgs, DevicePattern, XdpMode};

/// `RTMGRP_LINK`: devices that come, change and go.
const LINK_GROUP: u32 = 1;
/// How long to wait for an event before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often everything is looked at without an event: a lost event or a detached program is noticed by then.
const LOOK: Duration = Duration::from_secs(10);

/// A device with programs, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Name of the device.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `uplink` or `pod`.
    pub role: String,
    /// `native`, `generic`, `off`, or why XDP was refused.
    pub xdp: String,
    /// `attached`, or why not.
    pub tc: String,
}

/// The devices and what they are for.
pub struct Devices {
    uplinks: Vec<String>,
    pods: Vec<DevicePattern>,
    xdp: XdpMode,
    known: Mutex<BTreeMap<u32, DeviceStatus>>,
}

impl Devices {
    /// Devices as the flags name them.
    pub fn new(args: &DeviceArgs) -> Self {
        Self {
            uplinks: args.uplinks.clone(),
            pods: args.pod_devices.clone(),
            xdp: args.xdp,
            known: Mutex::default(),
        }
    }

    /// What a device of that name is for; an uplink is an uplink even if a pattern fits it.
    pub fn role(&self, name: &str) -> Option<Role> {
        if self.uplinks.iter().any(|uplink| uplink == name) {
            Some(Role::Uplink)
        } else {
            self.pods
                .iter()
                .any(|pattern| pattern.matches(name))
                .then_some(Role::Pod)
        }
    }

    /// The devices that have programs now.
    pub fn status(&self) -> Vec<DeviceStatus> {
        self.known().values().cloned().collect()
    }

    /// The uplinks asked for that don't exist.
    pub fn absent_uplinks(&self) -> Vec<String> {
        let known = self.known();
        let absent = self
            .uplinks
            .iter()
            .filter(|name| !known.values().any(|device| device.name == **name));
        absent.cloned().collect()
    }

    /// Gives programs to devices that are new, and forgets those that are gone. Returns whether anything changed.
    /// A device whose TC programs are refused is tried again the next time.
    ///
    /// # Errors
    /// The devices can't be listed.
    pub fn sync(&self, links: &Links) -> io::Result<bool> {
        let present = list()?;
        let mut known = self.known();
        let before = known.clone();
        self.drop_gone(links, &present, &mut known);
        for device in present {
            let Some(role) = self.role(&device.name) else {
                links.detach_filters(&device);
                continue;
            };
            if known.get(&device.index).is_some_and(|status| status.tc == ATTACHED) {
                continue;
            }
            let status = self.attach(links, &device, role, known.get(&device.index));
            known.insert(device.index, status);
        }
        Ok(*known != before)
    }

    fn drop_gone(&self, links: &Links, present: &[Device], known: &mut BTreeMap<u32, DeviceStatus>) {
        known.retain(|index, status| {
            let same = present
                .iter()
                .any(|device| device.index == *index && device.name == status.name);
            if !same {
                info!(device = status.name, "gone or renamed");
                links.forget(&Device {
                    index: *index,
                    name: status.name.clone(),
                });
            }
            same
        });
    }

    fn attach(&self, links: &Links, device: &Device, role: Role, before: Option<&DeviceStatus>) -> DeviceStatus {
        let tc = links.attach_tc(device, role);
        if let Err(error) = &tc {
            complain(before.is_none(), device, error);
        }
        DeviceStatus {
            name: device.name.clone(),
            index: device.index,
            role: if role == Role::Uplink { "uplink" } else { "pod" }.into(),
            xdp: if role == Role::Uplink {
                self.attach_xdp(links, device)
            } else {
                "off".into()
            },
            tc: tc.map_or_else(|error| explain(&error), |()| ATTACHED.into()),
        }
    }

    /// XDP is a gain, never a need: the TC program behind it does the same steps.
    fn attach_xdp(&self, links: &Links, device: &Device) -> String {
        let mode = match self.xdp {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Off => "off",
        };
        match links.attach_xdp(device, self.xdp) {
            Ok(()) => mode.into(),
            Err(error) => {
                let reason = explain(&error);
                warn!(device = device.name, reason, "no {mode} XDP: TC carries this uplink");
                format!("{mode} refused: {reason}")
            }
        }
    }

    /// Handles events until told to stop; `changed` is called after every round that changed something.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn follow(&self, links: &Links, stop: &Stop, changed: impl Fn(&[DeviceStatus])) -> io::Result<()> {
        let events = open_events()?;
        let mut looked = std::time::Instant::now();
        while !stop.is_set() {
            let event = wait_for_event(&events)?;
            let due = looked.elapsed() >= LOOK;
            if !event && !due {
                continue;
            }
            if due {
                looked = std::time::Instant::now();
                self.mend(links);
            }
            match self.sync(links) {
                Ok(true) => changed(&self.status()),
                Ok(false) => {}
                Err(error) => warn!(%error, "devices can't be listed"),
            }
        }
        Ok(())
    }

    /// Notices programs that somebody detached, and lets the round that follows attach them again.
    fn mend(&self, links: &Links) {
        match links.missing() {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                warn!(?missing, "detached by somebody else: attaching again");
                self.known().clear();
                if let Err(error) = links.attach_cgroup() {
                    warn!(reason = explain(&error), "the socket path can't be attached again");
                }
            }
            Err(error) => warn!(%error, "links can't be checked"),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, DeviceStatus>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`DeviceStatus::tc`] of a device that has what it needs.
pub const ATTACHED: &str = "attached";

fn complain(first: bool, device: &Device, error: &LinkError) {
    let reason = explain(error);
    if first {
        warn!(
            device = device.name,
            reason, "no programs on this device yet: trying again"
        );
    } else {
        debug!(device = device.name, reason, "still no programs on this device");
    }
}

/// An error with its causes in one line.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The devices of this network namespace.
///
/// # Errors
/// The kernel's.
pub fn list() -> io::Result<Vec<Device>> {
    let all = if_nameindex()?;
    let named = all.iter().map(|device| Device {
        index: device.index(),
        name: device.name().to_string_lossy().into(),
    });
    Ok(named.collect())
}

fn open_events() -> io::Result<OwnedFd> {
    let events = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, LINK_GROUP))?;
    setsockopt(
        &events,
        ReceiveTimeout,
        &TimeVal::milliseconds(PATIENCE.as_millis().try_into().unwrap_or(500)),
    )?;
    Ok(events)
}

/// Waits for an event and takes all that are there: what they say is read from the kernel afresh. `false` if none came.
fn wait_for_event(events: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let mut flags = MsgFlags::empty();
    let mut seen = false;
    loop {
        match recv(events.as_raw_fd(), &mut buffer, flags) {
            // Too many at once: some were lost, and the list will tell.
            Ok(_) | Err(Errno::ENOBUFS) => seen = true,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(seen),
            Err(error) => return Err(error.into()),
        }
        flags = MsgFlags::MSG_DONTWAIT;
    }
}
