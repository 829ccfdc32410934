//! Formatter and linters for `check`: rustup's components for the toolchain in use, and the clippy that belongs to the
//! BPF toolchain, where that is Debian's.

use anyhow::{Result, bail};
use std::path::Path;

use super::{apt, bpf_toolchain};
use crate::process;

/// Installs what can be, and names what cannot.
pub(crate) fn ensure() -> Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        let beside = process::rustc().with_file_name(program);
        if !beside.is_file() && process::find(program).is_none() {
            bail!("{component} is missing: run `rustup component add {component}`");
        }
    }
    let rustc = bpf_toolchain::ensure()?.rustc;
    if rustc.with_file_name("clippy-driver").is_file() {
        return Ok(());
    }
    if rustc != Path::new(bpf_toolchain::DEBIAN_RUSTC) {
        bail!(
            "clippy is missing beside {}: run `rustup component add clippy`",
            rustc.display()
        );
    }
    apt::install(&["rust-web-clippy"], "clippy for the BPF target")
}
