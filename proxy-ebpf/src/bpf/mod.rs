//! The kernel side: entry points of a few lines, and the only `unsafe` code of the data path.
//!
//! `entries_packet` and `entries_socket` name the programs; `steps` holds what several of them share; `packet`, `maps` and
//! `socket` implement for BPF what the library asks for; `atomic` is what the language has no other word for.

mod atomic;
mod entries_packet;
mod entries_socket;
mod maps;
mod packet;
mod socket;
mod socket_recount;
mod socket_storage;
mod steps;

/// Helpers marked GPL-only need a licence that says so.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The language wants one; nothing in the object can reach it, which `build-ebpf` checks.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
