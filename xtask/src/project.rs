//! Where things are: the workspace, its target directory, and the files the commands leave in it.
//!
//! Made once by `main` and handed to every command. Nothing outside the target directory is written, except by the
//! system's package manager.

use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};

/// The workspace and its target directory, both absolute.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// `CARGO_TARGET_DIR` if the caller set it, else `target` in the workspace.
    pub(crate) target: PathBuf,
}

impl Project {
    /// Finds the workspace from the environment cargo gives to what it runs, or from where xtask was compiled.
    pub(crate) fn locate() -> Result<Self> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package
            .parent()
            .context("xtask's directory has no parent")?
            .to_path_buf();
        if !root.join("Cargo.lock").is_file() {
            bail!(
                "{} is not the workspace: run this as `cargo xtask` inside it",
                root.display()
            );
        }
        let given = env::var_os("CARGO_TARGET_DIR").or_else(|| env::var_os("CARGO_BUILD_TARGET_DIR"));
        let target = match given {
            Some(directory) => std::path::absolute(directory)?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The checked BPF object that the agent and the tests load.
    pub(crate) fn object(&self) -> PathBuf {
        self.target.join("bpf/proxy-ebpf.o")
    }

    /// The target directory of BPF builds: another compiler writes there, so it shares nothing with the host's.
    pub(crate) fn bpf_build(&self) -> PathBuf {
        self.target.join("bpf-build")
    }

    /// Tools installed by `setup`: `tools/bin`, `tools/python`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A tool in `tools/bin` of this target directory, or in that of the workspace's own one when the caller chose
    /// another: tools are the same for both, and take minutes to build.
    pub(crate) fn tool(&self, path: &str) -> Option<PathBuf> {
        [self.tools(), self.root.join("target/tools")]
            .iter()
            .map(|directory| directory.join(path))
            .find(|path| path.is_file())
    }

    /// A binary of the dev profile.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// `path` as seen from the workspace, for messages.
    pub(crate) fn show<'p>(&self, path: &'p Path) -> std::path::Display<'p> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
