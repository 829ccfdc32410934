//! The iterator `recount`: which backends have how many sockets open, in truth. The agent reads it to check the
//! counters of `BACKEND_LOADS` (a crash between two of its writes, a recycled id) and heals them through
//! `BACKEND_EXPIRED`.
//!
//! Reading its file gives one record per socket that holds a count, in every network namespace: the backend's id and
//! generation, two `u32` in the byte order of the machine.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use proxy_ebpf::abi::SocketState;

/// `struct bpf_iter_meta` of the kernel, as far as it is used.
#[repr(C)]
struct IterMeta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__bpf_sk_storage_map` of the kernel.
#[repr(C)]
pub(super) struct IterContext {
    meta: *mut IterMeta,
    map: *mut c_void,
    socket: *mut c_void,
    /// Null when the walk is over.
    value: *mut SocketState,
}

/// Called for each socket with a value in the map that the link names.
// SAFETY: no other symbol has this name; the section says what the loader makes of the function.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn recount(ctx: *mut IterContext) -> i32 {
    // SAFETY: the context is the kernel's, with the layout above; the value is checked before it is read, and read
    // while other programs may change it: both words are whole, and a count moves with its backend under the socket's
    // lock, so the worst is a socket seen just before or after its connect.
    unsafe {
        let value = read_volatile(&raw const (*ctx).value);
        if value.is_null() || read_volatile(&raw const (*value).counted) != 1 {
            return 0;
        }
        let record = [(*value).backend.0, (*value).generation];
        let seq = read_volatile(&raw const (*read_volatile(&raw const (*ctx).meta)).seq);
        bpf_seq_write(seq, record.as_ptr().cast(), size_of_val(&record) as u32);
    }
    0
}
