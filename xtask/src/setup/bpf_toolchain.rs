//! The compiler for the BPF target, for `setup` and `build-ebpf`.
//!
//! The target has no prebuilt library, so the sources of `core` must belong to the compiler in use. Two ways lead
//! there, and the first that works is taken: the toolchain that runs us with rustup's `rust-src` component, or
//! Debian's `rustc-web` with `rust-web-src` (for machines that only reach a distribution's mirror).

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::apt;
use crate::process;

pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Edition 2024 and what the data path uses of `core`.
const OLDEST: (u32, u32) = (1, 95);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(60);

/// A compiler whose library sources are at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The compiler to run as `RUSTC`.
    pub(crate) rustc: PathBuf,
    /// Where the sources of `core` came from, for messages.
    pub(crate) origin: &'static str,
}

/// The toolchain to use, installed if there is none.
pub(crate) fn ensure() -> Result<Toolchain> {
    if let Some(found) = locate() {
        return Ok(found);
    }
    if install_rust_src().is_err() {
        apt::install(
            &["rustc-web", "rust-web-src"],
            "a compiler with library sources, for the BPF target",
        )
        .context("the BPF target needs the sources of `core`: `rustup component add rust-src`, or Debian's packages")?;
    }
    match locate() {
        Some(found) => {
            eprintln!("setup: BPF programs are compiled with {}", found.origin);
            Ok(found)
        }
        None => bail!(
            "no compiler from {}.{} on has its library sources installed: run `rustup component add rust-src`",
            OLDEST.0,
            OLDEST.1
        ),
    }
}

/// The toolchain to use, if one is complete.
pub(crate) fn locate() -> Option<Toolchain> {
    let own = process::rustc();
    if has_sources(&own) {
        return Some(Toolchain {
            rustc: own,
            origin: "the toolchain in use and its rust-src",
        });
    }
    let debian = PathBuf::from(DEBIAN_RUSTC);
    // The packages can be older than the project's minimum on an outdated index; then they do not count.
    let recent = version(&debian).is_some_and(|version| version >= OLDEST);
    (recent && has_sources(&debian)).then_some(Toolchain {
        rustc: debian,
        origin: "Debian's rustc-web",
    })
}

fn has_sources(rustc: &Path) -> bool {
    process::capture(Command::new(rustc).args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    })
}

fn version(rustc: &Path) -> Option<(u32, u32)> {
    parse_version(&process::capture(Command::new(rustc).arg("--version")).ok()?)
}

/// `rustc 1.96.0 (...)` as `(1, 96)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("rustc ")?.split(['.', '-', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Asks rustup for the sources; a machine that cannot reach its server gives up soon and takes Debian's way.
fn install_rust_src() -> Result<()> {
    let rustup = process::find("rustup").context("no rustup")?;
    eprintln!("setup: rustup component add rust-src (sources of `core`, for the BPF target)");
    let mut command = Command::new(rustup);
    command
        .args(["component", "add", "rust-src"])
        .env("RUSTUP_MAX_RETRIES", "1");
    let result = process::run_quietly_within(&mut command, DOWNLOAD_LIMIT);
    if result.is_err() {
        eprintln!("setup: rust-src cannot be had from rustup here, trying Debian's packages");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_rustc_prints() {
        assert_eq!(
            parse_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some((1, 96))
        );
        assert_eq!(parse_version("rustc 1.98.0-nightly (abc)"), Some((1, 98)));
        assert_eq!(parse_version("clang version 19"), None);
    }

    #[test]
    fn an_old_compiler_does_not_count() {
        assert!(parse_version("rustc 1.85.0 (x)").expect("a version") < OLDEST);
    }
}
