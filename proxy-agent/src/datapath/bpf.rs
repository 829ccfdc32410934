//! The bpf(2) calls the BPF library has no safe form for: pinned links updated in place, iterators over a map, batches;
//! and two small calls beside them (a clock, a socket option).
//!
//! Called by [`links`](super::links), [`map`](super::map), [`expire`](super::expire) and [`recount`](super::recount);
//! below it is only the kernel. This file (objects, links, programs) and `typed_map` (maps) are all `unsafe` code of the
//! agent. Each call hands the kernel one of the structures below, which mirror the members of `union bpf_attr`
//! (include/uapi/linux/bpf.h) field by field, zeroed where unused.

mod typed_map;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

pub use typed_map::{ANY, BatchCursor, NO_EXIST, TYPE_ARRAY, TYPE_HASH, TypedMap};

const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const ITER_CREATE: u32 = 33;

/// `enum bpf_attach_type`: the hooks this agent attaches to.
pub mod attach {
    /// `BPF_CGROUP_SOCK_OPS`.
    pub const SOCK_OPS: u32 = 3;
    /// `BPF_CGROUP_INET4_CONNECT`.
    pub const CONNECT4: u32 = 10;
    /// `BPF_CGROUP_INET6_CONNECT`.
    pub const CONNECT6: u32 = 11;
    /// `BPF_CGROUP_UDP4_SENDMSG`.
    pub const SENDMSG4: u32 = 14;
    /// `BPF_CGROUP_UDP6_SENDMSG`.
    pub const SENDMSG6: u32 = 15;
    /// `BPF_CGROUP_UDP4_RECVMSG`.
    pub const RECVMSG4: u32 = 19;
    /// `BPF_CGROUP_UDP6_RECVMSG`.
    pub const RECVMSG6: u32 = 20;
    /// `BPF_TRACE_ITER`.
    pub const ITER: u32 = 28;
    /// `BPF_CGROUP_INET4_GETPEERNAME`.
    pub const GETPEERNAME4: u32 = 29;
    /// `BPF_CGROUP_INET6_GETPEERNAME`.
    pub const GETPEERNAME6: u32 = 30;
    /// `BPF_CGROUP_INET_SOCK_RELEASE`.
    pub const SOCK_RELEASE: u32 = 34;
    /// `BPF_XDP`.
    pub const XDP: u32 = 37;
    /// `BPF_TCX_INGRESS`.
    pub const TCX_INGRESS: u32 = 46;
    /// `BPF_TCX_EGRESS`.
    pub const TCX_EGRESS: u32 = 47;
}

/// `XDP_FLAGS_SKB_MODE`: generic XDP.
pub const XDP_SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: native XDP, refused where the driver has none.
pub const XDP_DRV_MODE: u32 = 1 << 2;
/// `BPF_F_BEFORE`: before all other TCX programs of the hook.
pub const TCX_FIRST: u32 = 1 << 3;

/// The head of the member for `BPF_PROG_LOAD`; the kernel takes a shorter structure for one whose rest is zero.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct CreateLink {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// `iter_info` of an iterator; zero for the other kinds (for TCX: no program to be relative to).
    iter_info: u64,
    /// `iter_info_len` and padding; `tcx.expected_revision`, where zero means any.
    iter_info_len: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct UpdateLink {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct CreateIter {
    link_fd: u32,
    flags: u32,
}

/// `struct bpf_map_info`, as far as it is read here.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, Pod, Zeroable)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// The kernel's number of the map.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Number of entries it was made for.
    pub max_entries: u32,
    /// Flags it was made with.
    pub flags: u32,
}

/// `struct bpf_link_info`: the head that all links share, and the union behind it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, Pod, Zeroable)]
pub struct LinkInfo {
    /// `enum bpf_link_type`.
    pub kind: u32,
    /// The kernel's number of the link.
    pub id: u32,
    /// The kernel's number of the program the link runs.
    pub prog_id: u32,
    pad: u32,
    detail: [u32; 12],
}

impl LinkInfo {
    /// Device of an XDP or TCX link; 0 once the device is gone.
    pub fn ifindex(&self) -> u32 {
        self.detail[0]
    }

    /// Whether it still hangs on anything: the kernel zeroes the target of a link whose device or cgroup is gone, or that
    /// was detached by force.
    pub fn is_attached(&self) -> bool {
        self.detail[0] != 0
    }

    /// Cgroup of a cgroup link (the inode of its directory); 0 once the cgroup is gone.
    pub fn cgroup_id(&self) -> u64 {
        bytemuck::cast([self.detail[0], self.detail[1]])
    }
}

/// One bpf(2) call.
///
/// # Safety
/// `attr` must be the structure that belongs to `command`, and every address in it must be valid for what the kernel
/// reads or writes there during the call.
unsafe fn call<T: Pod>(command: u32, attr: &mut T) -> io::Result<i32> {
    let size = u32::try_from(size_of::<T>()).expect("a few dozen bytes");
    // SAFETY: the kernel reads and writes `size` bytes at `attr`, which is exclusively borrowed and plain data; the
    // caller vouches for the addresses inside.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).unwrap_or(i32::MAX))
    }
}

/// Takes ownership of a descriptor that a call of [`call`] returned.
///
/// # Safety
/// `fd` must be a new descriptor that nothing else owns.
unsafe fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("a borrowed descriptor is not negative")
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: the clock the programs stamp flows with (`bpf_ktime_get_coarse_ns`).
pub fn coarse_clock() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec` at `now`, which is exclusively ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    assert_eq!(result, 0, "every kernel has this clock");
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The kernel's number of a socket's network namespace, never used twice (`SO_NETNS_COOKIE`).
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut size = libc::socklen_t::try_from(size_of::<u64>()).expect("eight");
    let (value, room) = (std::ptr::from_mut(&mut cookie).cast(), std::ptr::from_mut(&mut size));
    // SAFETY: the kernel writes at most `size` bytes at `cookie` and the length at `size`, both exclusively ours.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, room) };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Loads a program that only returns `action`, to find out whether one can be attached somewhere. `kind` is of
/// `enum bpf_prog_type`.
pub fn load_probe(kind: u32, expected_attach_type: u32, action: i32) -> io::Result<OwnedFd> {
    let immediate = u64::from(action.cast_unsigned()) << 32;
    // mov32 r0, action; exit
    let code = [immediate | 0xb4, 0x95_u64];
    let license = c"Dual MIT/GPL";
    let mut attr = LoadProgram {
        kind,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type,
        ..LoadProgram::default()
    };
    // SAFETY: `code` holds two instructions of 8 bytes and `license` is zero-terminated; both outlive the call, which
    // returns a new descriptor.
    unsafe { call(PROG_LOAD, &mut attr).map(|fd| owned(fd)) }
}

/// Opens what is pinned at `path`: a map, a program or a link. `NotFound` if nothing is.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        ..Object::default()
    };
    // SAFETY: OBJ_GET reads a zero-terminated string, which `path` keeps alive; it returns a new descriptor.
    unsafe { call(OBJ_GET, &mut attr).map(|fd| owned(fd)) }
}

/// Pins a map, a program or a link at `path` on a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        bpf_fd: number(object),
        file_flags: 0,
    };
    // SAFETY: OBJ_PIN reads a zero-terminated string, which `path` keeps alive.
    unsafe { call(OBJ_PIN, &mut attr).map(|_| ()) }
}

fn info<T: Pod + Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let info_len = u32::try_from(size_of::<T>()).expect("a few dozen bytes");
    let mut attr = InfoByFd {
        bpf_fd: number(object),
        info_len,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes of plain numbers at `info`, which is exclusively ours.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

/// What the kernel says of a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(map)
}

/// What the kernel says of a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(link)
}

/// Attaches a program to a device or a cgroup. It is detached when the descriptor is closed, unless it was pinned.
/// `target` is a device's index or the descriptor of a cgroup's directory.
pub fn create_link(program: BorrowedFd<'_>, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = CreateLink {
        prog_fd: number(program),
        target,
        attach_type,
        flags,
        ..CreateLink::default()
    };
    // SAFETY: no addresses; LINK_CREATE returns a new descriptor.
    unsafe { call(LINK_CREATE, &mut attr).map(|fd| owned(fd)) }
}

/// Makes a link run another program from the next packet or call on, without a gap.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = UpdateLink {
        link_fd: number(link),
        new_prog_fd: number(program),
        ..UpdateLink::default()
    };
    // SAFETY: no addresses.
    unsafe { call(LINK_UPDATE, &mut attr).map(|_| ()) }
}

/// Runs an iterator program over the elements of one map; reading the file drives it.
pub fn iterate(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<std::fs::File> {
    let iter_info = number(map);
    let mut attr = CreateLink {
        prog_fd: number(program),
        attach_type: attach::ITER,
        iter_info: address(&iter_info),
        iter_info_len: size_of::<u32>() as u64,
        ..CreateLink::default()
    };
    // SAFETY: `iter_info` is the `map.map_fd` member of `union bpf_iter_link_info` and outlives the call, its length is
    // given (little-endian: the low half of the word, the high half is the zero padding); a new descriptor comes back.
    let link = unsafe { call(LINK_CREATE, &mut attr).map(|fd| owned(fd))? };
    let mut attr = CreateIter {
        link_fd: number(link.as_fd()),
        flags: 0,
    };
    // SAFETY: no addresses; ITER_CREATE returns a new descriptor, which holds the link.
    let file = unsafe { call(ITER_CREATE, &mut attr).map(|fd| owned(fd))? };
    Ok(file.into())
}
