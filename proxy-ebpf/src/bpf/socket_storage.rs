//! The map `SOCKETS`: one value per socket, made on first use, freed with the socket by the kernel. Used by `socket`;
//! the iterator `recount` walks it.
//!
//! Socket storage needs type information, so the map is declared the BTF way: the kernel's loaders read its attributes
//! from the types of these fields, and nobody reads the fields themselves.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use core::ptr::null;
use proxy_ebpf::abi::SocketState;

/// `LIBBPF_PIN_BY_NAME`: shared with the next load of the object by its name.
const PIN_BY_NAME: usize = 1;

/// A map of socket storage.
#[repr(C)]
pub(super) struct SocketMap {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
    pinning: *const [i32; PIN_BY_NAME],
}

// SAFETY: the pointers are null in every copy and never followed; what the helpers get is the map the loader puts in
// the place of the static's address.
unsafe impl Sync for SocketMap {}

/// Socket storage; see `proxy_ebpf::abi::maps`.
// SAFETY: no other symbol has this name, and the section holds map definitions of just this form.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".maps")]
pub(super) static SOCKETS: SocketMap = SocketMap {
    r#type: null(),
    key: null(),
    value: null(),
    max_entries: null(),
    map_flags: null(),
    pinning: null(),
};
