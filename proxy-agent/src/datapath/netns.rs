//! Network namespaces of this machine: found through the processes that run in them, entered by a thread of ours.
//!
//! Used by [`pods`](super::pods), which keeps `POD_ADDRS`, and by [`sockets`](super::sockets), which ends sockets to dead
//! backends. A namespace is never held open for longer than a visit: that would keep a Pod's devices alive after it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sched::{CloneFlags, setns},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, socket},
        statfs::{CGROUP2_SUPER_MAGIC, fstatfs},
    },
};
use proxy_ebpf::abi::PodAddrs;
use tracing::debug;

use super::bpf;

/// A namespace at the moment it was found, by a process in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot: tells it from a later one with its number.
    pub started: u64,
}

/// The cookie of the namespace the calling thread is in.
///
/// # Errors
/// The kernel's.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    bpf::netns_cookie(socket.as_fd())
}

/// The addresses the calling thread's namespace has: of each family the first that is of use to others.
///
/// # Errors
/// The kernel's.
pub fn addresses() -> io::Result<PodAddrs> {
    let mut found = PodAddrs::default();
    for interface in getifaddrs()? {
        if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in().map(SockaddrIn::ip) {
            set_first(&mut found.v4, usable_v4(v4).then(|| v4.into()));
        } else if let Some(v6) = address.as_sockaddr_in6().map(SockaddrIn6::ip) {
            set_first(&mut found.v6, usable_v6(v6).then(|| v6.into()));
        }
    }
    Ok(found)
}

fn set_first(slot: &mut proxy_ebpf::abi::Addr, address: Option<std::net::IpAddr>) {
    if let Some(address) = address
        && *slot == proxy_ebpf::abi::Addr::UNSPECIFIED
    {
        *slot = address.into();
    }
}

fn usable_v4(address: Ipv4Addr) -> bool {
    !address.is_loopback() && !address.is_link_local() && !address.is_unspecified()
}

fn usable_v6(address: Ipv6Addr) -> bool {
    !address.is_loopback() && !address.is_unicast_link_local() && !address.is_unspecified()
}

/// A thread that can look into other namespaces and always comes back.
pub struct Visitor {
    home: File,
    home_inode: u64,
    proc: PathBuf,
    cgroup: Option<String>,
}

impl Visitor {
    /// For the calling thread; it must stay on this thread. Only namespaces with a process in the cgroup at `cgroup`, or
    /// below it, are found; if its place in the hierarchy can't be told, all are.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn new(cgroup: &Path) -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let home_inode = home.metadata()?.ino();
        Ok(Self {
            home,
            home_inode,
            proc: "/proc".into(),
            cgroup: place_in_hierarchy(cgroup),
        })
    }

    /// The namespaces other than the thread's own, by inode, each with one process in it. An inode is used again soon
    /// after its namespace has gone; compare the [`Resident`] before taking it for the same.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn find(&self) -> io::Result<BTreeMap<u64, Resident>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.proc)? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.look_at(pid) {
                Ok(Some((inode, resident))) => _ = found.entry(inode).or_insert(resident),
                Ok(None) => {}
                // It ended while we looked, or is none of our business.
                Err(error) => debug!(pid, %error, "process skipped"),
            }
        }
        Ok(found)
    }

    fn look_at(&self, pid: u32) -> io::Result<Option<(u64, Resident)>> {
        let directory = self.proc.join(pid.to_string());
        let inode = fs::metadata(directory.join("ns/net"))?.ino();
        if inode == self.home_inode || !self.is_in_cgroup(&directory)? {
            return Ok(None);
        }
        let started = start_time(&fs::read_to_string(directory.join("stat"))?).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((inode, Resident { pid, started })))
    }

    fn is_in_cgroup(&self, process: &Path) -> io::Result<bool> {
        let Some(wanted) = &self.cgroup else { return Ok(true) };
        let text = fs::read_to_string(process.join("cgroup"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        Ok(is_below(path, wanted))
    }

    /// Whether the process is still there and in that namespace.
    pub fn is_current(&self, inode: u64, resident: &Resident) -> bool {
        matches!(self.look_at(resident.pid), Ok(Some((found, current))) if found == inode && current == *resident)
    }

    /// Runs `work` inside of the namespace of a process.
    ///
    /// # Errors
    /// It can't be entered (it is gone, or CAP_SYS_ADMIN is missing), or what `work` returns.
    ///
    /// # Panics
    /// If the thread can't come back: it must not go on in a foreign namespace.
    pub fn visit<T>(&self, resident: &Resident, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let there = File::open(self.proc.join(resident.pid.to_string()).join("ns/net"))?;
        setns(&there, CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(&self.home, CloneFlags::CLONE_NEWNET).expect("back to the agent's own network namespace");
        result
    }
}

fn is_below(path: &str, ancestor: &str) -> bool {
    let ancestor = ancestor.trim_end_matches('/');
    path.strip_prefix(ancestor)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The 22nd field of /proc/PID/stat; the name in the second may hold blanks and parentheses.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Whether an open directory is a cgroup of the v2 hierarchy.
pub fn is_cgroup2(directory: &File) -> bool {
    fstatfs(directory).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Where the v2 hierarchy is mounted, the shortest path if it is in several places.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let points = mounts.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        rest.starts_with("cgroup2 ")
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    });
    points.min_by_key(|point| point.as_os_str().len())
}

/// A cgroup directory's path within the v2 hierarchy, as /proc/PID/cgroup writes it.
fn place_in_hierarchy(directory: &Path) -> Option<String> {
    let directory = fs::canonicalize(directory).ok()?;
    place_by_mounts(&fs::read_to_string("/proc/self/mountinfo").ok()?, &directory)
}

fn place_by_mounts(mountinfo: &str, directory: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = directory.strip_prefix(point).ok()?;
        rest.starts_with("cgroup2 ")
            .then(|| (point.len(), Path::new(root).join(below)))
    });
    let (_, path) = mounts.max_by_key(|(length, _)| *length)?;
    Some(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_placed_by_the_innermost_mount() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n\
                      41 30 0:26 /lab /mnt/lab rw - cgroup2 none rw\n\
                      22 25 0:20 / /proc rw - proc proc rw\n";
        let place = |path: &str| place_by_mounts(mounts, Path::new(path));
        assert_eq!(place("/sys/fs/cgroup/kubepods").as_deref(), Some("/kubepods"));
        assert_eq!(place("/mnt/lab/node1").as_deref(), Some("/lab/node1"));
        assert_eq!(place("/proc/1"), None);
    }

    #[test]
    fn a_cgroup_with_a_longer_name_is_not_below() {
        assert!(is_below("/lab/node1/pod", "/lab/node1") && is_below("/lab/node1", "/lab/node1"));
        assert!(!is_below("/lab/node10", "/lab/node1"));
        assert!(is_below("/anything", "/"));
    }

    #[test]
    fn the_start_time_is_found_behind_a_name_with_blanks() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0";
        assert_eq!(start_time(stat), Some(1234));
    }

    #[test]
    fn a_namespace_has_one_cookie() {
        assert_eq!(cookie().unwrap(), cookie().unwrap());
        assert_ne!(cookie().unwrap(), 0);
    }
}
