//! The programs: entry points, and everything that touches the kernel. Built for the BPF target by
//! `cargo xtask build-ebpf`; elsewhere it is an empty binary, so that the package builds with the workspace.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(target_arch = "bpf", allow(internal_features))]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
