//! What the suite stands on: a cgroup, the programs attached to it, their maps to fill and to read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{CgroupAttachMode, Iter, Program};
use aya::{Btf, Ebpf, EbpfLoader};
use lab::programs;
use nix::mount::{MsFlags, umount};
use proxy_ebpf::abi::{
    Addr, Algorithm, Backend, BackendExpired, BackendId, BackendLoad, Frontend, FrontendKey, NodeConfig, PROTO_TCP,
    PROTO_UDP, PodAddrs, ReasonCounters, Run, Service, ServiceId, StateGeneration, maps,
};
use proxy_ebpf::verdict::Reason;
use proxy_ebpf::wire::Be16;

/// A cgroup v2 directory, removed when dropped.
pub(super) struct Cgroup(pub(super) PathBuf);

impl Cgroup {
    pub(super) fn new(test: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(path)
        });
        let root = root.context("no cgroup2 file system is mounted")?;
        let path = Path::new(root).join(format!("waggle-sockets-{}-{test}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just killed may take a moment to leave.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} can't be removed", self.0.display());
    }
}

/// A bpffs for the pins of one load, unmounted when dropped.
struct Pins(tempfile::TempDir);

impl Pins {
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let none: Option<&str> = None;
        nix::mount::mount(none, dir.path(), Some("bpf"), MsFlags::empty(), none).context("can't mount a bpffs")?;
        Ok(Self(dir))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = umount(self.0.path()) {
            eprintln!("{} can't be unmounted: {error}", self.0.path().display());
        }
    }
}

/// The programs, attached, and their maps.
pub(super) struct Bench {
    ebpf: Ebpf,
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    owned: HashMap<MapData, Addr, u32>,
    pub(super) pods: HashMap<MapData, u64, PodAddrs>,
    services: Array<MapData, Service>,
    slots: Array<MapData, BackendId>,
    backends: Array<MapData, Backend>,
    loads: Array<MapData, BackendLoad>,
    expired: Array<MapData, BackendExpired>,
    pub(super) node: Array<MapData, NodeConfig>,
    reasons: PerCpuArray<MapData, ReasonCounters>,
    sockets: MapData,
    next_slot: u32,
    next_backend: u32,
    _pins: Pins,
}

/// Programs in the order they have to be attached in: what ends a connection before what begins one.
const PROGRAMS: &[&str] = &[
    "socket_release",
    "socket_ops",
    "socket_getpeername4",
    "socket_getpeername6",
    "socket_recvmsg4",
    "socket_recvmsg6",
    "socket_connect4",
    "socket_connect6",
    "socket_sendmsg4",
    "socket_sendmsg6",
];

impl Bench {
    pub(super) fn new(cgroup: &Path) -> Result<Self> {
        let pins = Pins::new()?;
        let mut loader = EbpfLoader::new();
        loader.default_map_pin_directory(pins.0.path());
        for spec in maps::ALL.iter().filter(|spec| spec.max_entries > 4096) {
            loader.map_max_entries(spec.name, 4096);
        }
        let mut ebpf = loader.load_file(programs::object()?).context("can't load the object")?;
        let cgroup = File::open(cgroup)?;
        for name in PROGRAMS {
            attach(&mut ebpf, name, &cgroup).with_context(|| format!("program {name}"))?;
        }
        let recount: &mut Iter = ebpf.program_mut("recount").context("no program recount")?.try_into()?;
        recount.load("bpf_sk_storage_map", &Btf::from_sys_fs()?)?;
        let mut take = |spec: maps::MapSpec| {
            ebpf.take_map(spec.name)
                .with_context(|| format!("no map {}", spec.name))
        };
        let Map::SkStorage(sockets) = take(maps::SOCKETS)? else {
            bail!("SOCKETS is no socket storage")
        };
        Ok(Self {
            frontends: take(maps::FRONTENDS)?.try_into()?,
            owned: take(maps::OWNED_ADDRS)?.try_into()?,
            pods: take(maps::POD_ADDRS)?.try_into()?,
            services: take(maps::SERVICES)?.try_into()?,
            slots: take(maps::SLOTS)?.try_into()?,
            backends: take(maps::BACKENDS)?.try_into()?,
            loads: take(maps::BACKEND_LOADS)?.try_into()?,
            expired: take(maps::BACKEND_EXPIRED)?.try_into()?,
            node: take(maps::NODE_CONFIG)?.try_into()?,
            reasons: take(maps::REASON_COUNTERS)?.try_into()?,
            sockets,
            next_slot: 0,
            next_backend: 1,
            ebpf,
            _pins: pins,
        })
    }

    /// Makes a service of these endpoints; returns their backends' ids.
    pub(super) fn service(
        &mut self,
        id: u32,
        algorithm: Algorithm,
        endpoints: &[SocketAddr],
    ) -> Result<Vec<BackendId>> {
        let first = self.next_backend;
        let ids: Vec<BackendId> = (first..).map(BackendId).take(endpoints.len()).collect();
        for (id, endpoint) in ids.iter().zip(endpoints) {
            let state = StateGeneration::new(StateGeneration::ACTIVE, 1);
            let backend = Backend {
                addr: endpoint.ip().into(),
                port: Be16::new(endpoint.port()),
                flags: 0,
                state,
            };
            self.backends.set(id.0, backend, 0)?;
        }
        self.next_backend += endpoints.len() as u32;
        self.run_of(id, algorithm, &ids)?;
        Ok(ids)
    }

    /// Points a service at these backends.
    pub(super) fn run_of(&mut self, id: u32, algorithm: Algorithm, backends: &[BackendId]) -> Result<()> {
        let run = Run {
            base: self.next_slot,
            len: backends.len() as u32,
        };
        for (slot, backend) in (self.next_slot..).zip(backends) {
            self.slots.set(slot, *backend, 0)?;
        }
        self.next_slot += run.len;
        let service = Service {
            all: run,
            generation: run.base + 1,
            algorithm,
            ..Service::default()
        };
        Ok(self.services.set(id, service.sealed(), 0)?)
    }

    /// Lets a service answer at an address, for TCP and UDP.
    pub(super) fn frontend(&mut self, vip: SocketAddr, service: u32, flags: u8) -> Result<()> {
        for proto in [PROTO_TCP, PROTO_UDP] {
            let key = FrontendKey {
                addr: vip.ip().into(),
                port: Be16::new(vip.port()),
                proto,
                pad: 0,
            };
            let frontend = Frontend {
                service: ServiceId(service),
                kind: Frontend::CLUSTER_IP,
                flags,
                pad: 0,
            };
            self.frontends.insert(key, frontend, 0)?;
        }
        self.owned.insert(Addr::from(vip.ip()), 1, 0)?;
        Ok(())
    }

    pub(super) fn set_state(&mut self, id: BackendId, state: u8, generation: u32) -> Result<()> {
        let backend = Backend {
            state: StateGeneration::new(state, generation),
            ..self.backends.get(&id.0, 0)?
        };
        Ok(self.backends.set(id.0, backend, 0)?)
    }

    /// Open sockets of a backend, by the counters.
    pub(super) fn open(&self, id: BackendId) -> Result<u64> {
        Ok(self.loads.get(&id.0, 0)?.open_flows(self.expired.get(&id.0, 0)?))
    }

    /// Connects of a backend ever counted in.
    pub(super) fn opened(&self, id: BackendId) -> Result<u64> {
        Ok(self.loads.get(&id.0, 0)?.opened)
    }

    pub(super) fn reason(&self, reason: Reason) -> Result<u64> {
        Ok(self
            .reasons
            .get(&reason.0, 0)?
            .iter()
            .map(|counters| counters.packets)
            .sum())
    }

    /// Waits until the counters say that these backends have so many open sockets, and checks that they stay there.
    pub(super) fn settled(&self, ids: &[BackendId], expected: &[u64]) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let open = ids.iter().map(|id| self.open(*id)).collect::<Result<Vec<_>>>()?;
            if open == expected {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "open sockets are {open:?}, not {expected:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Open sockets by backend id, as the iterator finds them.
    pub(super) fn recount(&self) -> Result<BTreeMap<u32, u64>> {
        let program: &Iter = self.ebpf.program("recount").context("no program recount")?.try_into()?;
        let mut bytes = Vec::new();
        walk(program.fd()?.as_fd().as_raw_fd(), self.sockets.fd().as_fd().as_raw_fd())?.read_to_end(&mut bytes)?;
        let (records, rest) = bytes.as_chunks::<8>();
        ensure!(
            rest.is_empty(),
            "the iterator wrote {} bytes, no whole number of records",
            bytes.len()
        );
        let mut counts = BTreeMap::new();
        for [a, b, c, d, ..] in records {
            *counts.entry(u32::from_ne_bytes([*a, *b, *c, *d])).or_default() += 1;
        }
        Ok(counts)
    }
}

fn attach(ebpf: &mut Ebpf, name: &str, cgroup: &File) -> Result<()> {
    match ebpf.program_mut(name).context("not in the object")? {
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.attach(cgroup, CgroupAttachMode::Single)?;
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.attach(cgroup, CgroupAttachMode::Single)?;
        }
        Program::SockOps(program) => {
            program.load()?;
            program.attach(cgroup, CgroupAttachMode::Single)?;
        }
        other => bail!("is a {:?}", other.prog_type()),
    }
    Ok(())
}

/// Links an iterator to a map and opens a file that reads it. aya can't name the map.
fn walk(program: i32, map: i32) -> Result<File> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_ITER_CREATE: libc::c_long = 33;
    const BPF_TRACE_ITER: u32 = 28;
    let info: [u32; 4] = [map as u32, 0, 0, 0];
    let pointer = (&raw const info) as u64;
    // struct bpf_attr: prog_fd, target_fd, attach_type, flags, iter_info, iter_info_len.
    let link: [u32; 8] = [
        program as u32,
        0,
        BPF_TRACE_ITER,
        0,
        pointer as u32,
        (pointer >> 32) as u32,
        size_of_val(&info) as u32,
        0,
    ];
    let link = bpf(BPF_LINK_CREATE, &link).context("can't link the iterator")?;
    let iter: [u32; 8] = [link.as_raw_fd() as u32, 0, 0, 0, 0, 0, 0, 0];
    Ok(bpf(BPF_ITER_CREATE, &iter).context("can't open the iterator")?.into())
}

/// bpf(2) with a command that returns a file descriptor.
fn bpf(command: libc::c_long, attributes: &[u32; 8]) -> Result<OwnedFd> {
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads `size` bytes of attributes, which live longer than the call, as does what they point to.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) };
    ensure!(fd >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: the kernel just made the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The cookie of this thread's network namespace.
pub(super) fn netns_cookie() -> Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to the cookie, and the size itself.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    ensure!(result == 0, "SO_NETNS_COOKIE: {}", std::io::Error::last_os_error());
    Ok(cookie)
}

/// A socket that speaks MPTCP, or `None` where the kernel doesn't.
pub(super) fn mptcp_socket() -> Result<Option<OwnedFd>> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            libc::IPPROTO_MPTCP,
        )
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        let absent = [libc::EPROTONOSUPPORT, libc::ENOPROTOOPT]
            .map(Some)
            .contains(&error.raw_os_error());
        return if absent {
            Ok(None)
        } else {
            Err(error).context("MPTCP socket")
        };
    }
    // SAFETY: the kernel just made the descriptor, and nobody else knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
