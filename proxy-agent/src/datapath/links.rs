//! Attaches programs by links that are pinned, so that they run on when the agent doesn't; on a restart switches the
//! pinned links to the newly loaded programs in place, without a packet or a call between that sees none.
//!
//! Called by [`start`](super::start) for the cgroup and by [`devices`](super::devices) for each device as it comes;
//! [`netlink_tc`] stands in for TCX links on kernels below 6.6.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{debug, info, warn};

use super::{
    bpf::{self, LinkInfo, attach},
    hooks::{self, Direction, Role, TcHook},
    load::{LoadError, Programs},
    netlink_tc, netns,
    pins::{self, PinError, Pins},
};
use crate::config::XdpMode;

/// Why a program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The cgroup's directory can't be opened.
    #[error("the cgroup {} can't be opened: name a directory of the cgroup v2 hierarchy with --cgroup", .path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The directory is not one of the v2 hierarchy.
    #[error("{} is not a cgroup v2: {}", .path.display(), suggestion())]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else's program holds the hook alone.
    #[error(
        "{program} may not attach to {target}: another program is attached there, or further up, exclusively; `bpftool cgroup tree` names it"
    )]
    Exclusive {
        /// Our program.
        program: &'static str,
        /// Where.
        target: String,
    },
    /// The kernel refused.
    #[error("{program} can't be attached to {target}")]
    Refused {
        /// Our program.
        program: &'static str,
        /// Where.
        target: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The program isn't there, or the library could not attach it.
    #[error(transparent)]
    Program(#[from] LoadError),
    /// The pins could not be read or changed.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// A network device as the kernel knows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index; never given to another device while it exists.
    pub index: u32,
    /// Its name; it can change, and return with another index.
    pub name: String,
}

/// What a link hangs on.
#[derive(Clone, Copy)]
enum Target<'a> {
    Device(&'a Device),
    Cgroup(&'a File, &'a Path),
}

impl Target<'_> {
    /// Whether a pinned link still hangs on it: not on a namesake that has gone, and not on nothing.
    fn is_of(self, link: &LinkInfo) -> io::Result<bool> {
        Ok(match self {
            Self::Device(device) => link.ifindex() == device.index,
            Self::Cgroup(directory, _) => link.cgroup_id() == directory.metadata()?.ino(),
        })
    }

    fn number(self) -> u32 {
        match self {
            Self::Device(device) => device.index,
            Self::Cgroup(directory, _) => u32::try_from(directory.as_raw_fd()).expect("an open file's descriptor"),
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Device(device) => device.name.clone(),
            Self::Cgroup(_, path) => path.display().to_string(),
        }
    }
}

/// The links of this node's data path.
pub struct Links {
    pins: Pins,
    programs: Programs,
    /// The cgroup of the socket path, unless that is off.
    cgroup: Option<PathBuf>,
    /// Names of the pins this run made or took over; the rest is left from another configuration.
    wanted: Mutex<BTreeSet<String>>,
    /// This kernel has no TCX: TC programs are filters.
    without_tcx: AtomicBool,
}

impl Links {
    /// Links below `pins` to `programs`; the socket path is for `cgroup`, `None` is no socket path.
    pub fn new(pins: Pins, programs: Programs, cgroup: Option<PathBuf>) -> Self {
        Self {
            pins,
            programs,
            cgroup,
            wanted: Mutex::default(),
            without_tcx: AtomicBool::new(false),
        }
    }

    /// The loaded programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Whether the socket path is on.
    pub fn has_socket_path(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Attaches the socket path, if it is on.
    ///
    /// # Errors
    /// [`LinkError`]; the hooks before the one that failed stay attached.
    pub fn attach_cgroup(&self) -> Result<(), LinkError> {
        let Some(path) = &self.cgroup else { return Ok(()) };
        let directory = File::open(path).map_err(|source| LinkError::Cgroup {
            path: path.clone(),
            source,
        })?;
        if !netns::is_cgroup2(&directory) {
            return Err(LinkError::NotCgroup2 { path: path.clone() });
        }
        for hook in hooks::SOCKET_PATH {
            let target = Target::Cgroup(&directory, path);
            self.ensure(hook.program, hook.program, target, hook.attach_type, 0)?;
        }
        Ok(())
    }

    /// Attaches a device's TC programs.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn attach_tc(&self, device: &Device, role: Role) -> Result<(), LinkError> {
        for hook in role.hooks() {
            self.ensure_tc(device, *hook)?;
        }
        Ok(())
    }

    fn ensure_tc(&self, device: &Device, hook: TcHook) -> Result<(), LinkError> {
        let attach_type = match hook.direction {
            Direction::Ingress => attach::TCX_INGRESS,
            Direction::Egress => attach::TCX_EGRESS,
        };
        let name = format!("{}-{}", hook.program, device.index);
        match self.ensure(&name, hook.program, Target::Device(device), attach_type, bpf::TCX_FIRST) {
            // No TCX before 6.6.
            Err(LinkError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                self.without_tcx.store(true, Ordering::Relaxed);
                Ok(netlink_tc::ensure(&self.programs, device, hook)?)
            }
            other => other,
        }
    }

    /// Attaches XDP to an uplink, in the mode asked for and no other.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the driver's or the kernel's reason: the TC program then does the work alone.
    pub fn attach_xdp(&self, device: &Device, mode: XdpMode) -> Result<(), LinkError> {
        let flags = match mode {
            XdpMode::Native => bpf::XDP_DRV_MODE,
            XdpMode::Generic => bpf::XDP_SKB_MODE,
            XdpMode::Off => 0,
        };
        // A device runs one XDP program: what another mode left must go first.
        for other in [XdpMode::Native, XdpMode::Generic] {
            if other != mode {
                pins::remove(&self.pins.links().join(xdp_pin(other, device)))?;
            }
        }
        if mode == XdpMode::Off {
            return Ok(());
        }
        self.ensure(
            &xdp_pin(mode, device),
            hooks::XDP_UPLINK,
            Target::Device(device),
            attach::XDP,
            flags,
        )
    }

    /// Switches the pinned link of that name to the program, or makes and pins one.
    fn ensure(
        &self,
        name: &str,
        program: &'static str,
        target: Target<'_>,
        attach_type: u32,
        flags: u32,
    ) -> Result<(), LinkError> {
        let descriptor = self.programs.get(program)?;
        let pin = self.pins.links().join(name);
        if self.switch(&pin, descriptor, target)? {
            debug!(program, target = target.describe(), "switched in place");
        } else {
            let refused = |source| refusal(program, target, source);
            let link = bpf::create_link(descriptor, target.number(), attach_type, flags).map_err(refused)?;
            bpf::pin(link.as_fd(), &pin).map_err(refused)?;
            info!(program, target = target.describe(), "attached");
        }
        self.wanted().insert(name.to_owned());
        Ok(())
    }

    /// `false` if there is no pinned link, or one whose target is gone, which is removed.
    fn switch(&self, pin: &Path, program: BorrowedFd<'_>, target: Target<'_>) -> Result<bool, LinkError> {
        let Ok(link) = bpf::open_pinned(pin) else {
            return Ok(false);
        };
        let alive = bpf::link_info(link.as_fd()).and_then(|info| target.is_of(&info));
        let switched = match alive {
            Ok(true) => bpf::update_link(link.as_fd(), program),
            Ok(false) => Err(io::Error::other("its device or cgroup is gone")),
            Err(error) => Err(error),
        };
        if let Err(error) = switched {
            info!(pin = %pin.display(), %error, "a pinned link is of no more use: making a new one");
            pins::remove(pin)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Removes the pins of a device that has gone.
    pub fn forget(&self, device: &Device) {
        let suffix = format!("-{}", device.index);
        let mut wanted = self.wanted();
        let gone: Vec<_> = wanted.iter().filter(|name| name.ends_with(&suffix)).cloned().collect();
        for name in gone {
            if let Err(error) = pins::remove(&self.pins.links().join(&name)) {
                warn!(%error, "a pin of a device that is gone stays behind");
            }
            wanted.remove(&name);
        }
    }

    /// Detaches the TC filters of a device that has no role; on kernels with TCX there are none.
    pub fn detach_filters(&self, device: &Device) {
        if self.without_tcx.load(Ordering::Relaxed) {
            netlink_tc::remove(&device.name);
        }
    }

    /// Detaches what another configuration left: pinned links that nothing in this run made or took over.
    ///
    /// # Errors
    /// The pins can't be read or removed.
    pub fn prune(&self) -> Result<(), LinkError> {
        for name in self.pins.link_names()? {
            if !self.wanted().contains(&name) {
                info!(link = name, "detached: no longer asked for");
                pins::remove(&self.pins.links().join(name))?;
            }
        }
        Ok(())
    }

    /// Names of the links that somebody removed or detached, though this run attached them.
    ///
    /// # Errors
    /// The pins can't be read.
    pub fn missing(&self) -> Result<Vec<String>, LinkError> {
        let mut missing = Vec::new();
        for name in self.wanted().iter() {
            let link = bpf::open_pinned(&self.pins.links().join(name));
            match link.and_then(|link| bpf::link_info(link.as_fd())) {
                Ok(info) if info.is_attached() => {}
                _ => missing.push(name.clone()),
            }
        }
        Ok(missing)
    }

    fn wanted(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn suggestion() -> String {
    match netns::cgroup2_mount() {
        Some(mount) => format!("name {} or a directory below it with --cgroup", mount.display()),
        None => "mount one with `mount -t cgroup2 cgroup2 DIR` and name it with --cgroup".into(),
    }
}

fn xdp_pin(mode: XdpMode, device: &Device) -> String {
    let mode = if mode == XdpMode::Generic { "generic" } else { "native" };
    format!("{}-{mode}-{}", hooks::XDP_UPLINK, device.index)
}

fn refusal(program: &'static str, target: Target<'_>, source: io::Error) -> LinkError {
    match (target, source.raw_os_error()) {
        (Target::Cgroup(..), Some(libc::EPERM)) => LinkError::Exclusive {
            program,
            target: target.describe(),
        },
        _ => LinkError::Refused {
            program,
            target: target.describe(),
            source,
        },
    }
}
