//! Where the programs under test are: named by the environment (`cargo xtask` sets it), else beside this executable.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The `proxy-agent` binary (`WAGGLE_AGENT`).
///
/// # Errors
/// If it is nowhere; the message says how to build it.
pub fn agent() -> Result<PathBuf> {
    find("WAGGLE_AGENT", "proxy-agent")
}

/// The `control` binary (`WAGGLE_CONTROL`).
///
/// # Errors
/// If it is nowhere.
pub fn control() -> Result<PathBuf> {
    find("WAGGLE_CONTROL", "control")
}

/// The `lab` binary (`WAGGLE_LAB`).
///
/// # Errors
/// If it is nowhere.
pub fn lab() -> Result<PathBuf> {
    find("WAGGLE_LAB", "lab")
}

/// The BPF object (`WAGGLE_OBJECT`).
///
/// # Errors
/// If it is nowhere.
pub fn object() -> Result<PathBuf> {
    find("WAGGLE_OBJECT", "../bpf/proxy-ebpf.o")
}

fn find(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        return if path.exists() {
            Ok(path)
        } else {
            bail!("{variable} names {}, which doesn't exist", path.display())
        };
    }
    // A test executable lies in target/<profile>/deps, a binary in target/<profile>.
    let exe = std::env::current_exe()?;
    let dirs = exe.ancestors().skip(1).take(2);
    dirs.map(|dir| dir.join(name))
        .find(|path| path.exists())
        .with_context(|| {
            format!(
                "no {name} beside {}: run through `cargo xtask`, or set {variable}",
                exe.display()
            )
        })
}
