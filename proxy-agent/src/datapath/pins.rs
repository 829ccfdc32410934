//! Where maps and links are pinned: what makes the data path outlive the agent.
//!
//! ```text
//! <bpffs>/waggle-v1/CONNTRACK          maps, by name; the number is the layout version of keys and values
//! <bpffs>/waggle-links/connect4        links, by program, and by device where there is one; any version's program
//! <bpffs>/waggle-links/tc_pod_ingress-7
//! ```
//!
//! Links lie outside of the version's directory on purpose: an upgrade that changes the layout switches the same links
//! from the old programs, with the old maps, to the new ones. Used by [`load`](super::load), [`links`](super::links),
//! [`cleanup`](super::cleanup) and `commands`.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use proxy_ebpf::abi::LAYOUT_VERSION;

const MAPS_PREFIX: &str = "waggle-v";
const LINKS: &str = "waggle-links";

/// Why the pin directories can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no bpffs at the given directory.
    #[error("{} is not a BPF file system: mount one there with `mount -t bpf bpf {}`, or name another with --bpffs", .0.display(), .0.display())]
    NoBpffs(PathBuf),
    /// A directory or pin could not be read, made or removed.
    #[error("{}: {call} failed", .path.display())]
    System {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl PinError {
    fn system(call: &'static str, path: &Path, source: io::Error) -> Self {
        Self::System {
            call,
            path: path.to_owned(),
            source,
        }
    }
}

/// The pin directories below one bpffs.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
}

impl Pins {
    /// The directories below `bpffs`; nothing is looked at yet.
    pub fn new(bpffs: &Path) -> Self {
        Self {
            bpffs: bpffs.to_owned(),
        }
    }

    /// Where maps are pinned, by name.
    pub fn maps(&self) -> PathBuf {
        self.bpffs.join(format!("{MAPS_PREFIX}{LAYOUT_VERSION}"))
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where links are pinned.
    pub fn links(&self) -> PathBuf {
        self.bpffs.join(LINKS)
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// [`PinError::NoBpffs`], or the kernel's refusal.
    pub fn create(&self) -> Result<(), PinError> {
        self.check()?;
        for directory in [self.maps(), self.links()] {
            match std::fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(PinError::system("mkdir", &directory, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that there is a bpffs.
    ///
    /// # Errors
    /// [`PinError::NoBpffs`].
    pub fn check(&self) -> Result<(), PinError> {
        match statfs(&self.bpffs) {
            Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => Ok(()),
            _ => Err(PinError::NoBpffs(self.bpffs.clone())),
        }
    }

    /// Names of the pinned links.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link_names(&self) -> Result<Vec<String>, PinError> {
        names(&self.links())
    }

    /// The maps' directories of other layout versions.
    ///
    /// # Errors
    /// The kernel's.
    pub fn other_versions(&self) -> Result<Vec<PathBuf>, PinError> {
        let ours = self.maps();
        let all = names(&self.bpffs)?
            .into_iter()
            .filter(|name| name.starts_with(MAPS_PREFIX));
        Ok(all
            .map(|name| self.bpffs.join(name))
            .filter(|path| *path != ours)
            .collect())
    }

    /// Removes the links' directory, which must be empty.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_links_directory(&self) -> Result<(), PinError> {
        remove_directory(&self.links())
    }
}

/// Removes a directory of maps with everything in it; none is no error.
///
/// # Errors
/// The kernel's.
pub fn remove_maps(directory: &Path) -> Result<(), PinError> {
    for name in names(directory)? {
        remove(&directory.join(name))?;
    }
    remove_directory(directory)
}

/// Removes a pin; none is no error.
///
/// # Errors
/// The kernel's.
pub fn remove(pin: &Path) -> Result<(), PinError> {
    absent_is_fine(std::fs::remove_file(pin)).map_err(|error| PinError::system("unlink", pin, error))
}

fn remove_directory(directory: &Path) -> Result<(), PinError> {
    absent_is_fine(std::fs::remove_dir(directory)).map_err(|error| PinError::system("rmdir", directory, error))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn names(directory: &Path) -> Result<Vec<String>, PinError> {
    let failed = |error| PinError::system("readdir", directory, error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}
