//! Everything one lab makes on this machine: namespaces, cgroups, mounts, processes, files, one veth in the root
//! namespace. All of it carries the lab's id, so [`sweep`] finds and removes it even if the maker was killed.
//!
//! | thing | name |
//! | --- | --- |
//! | directory, with the owner's pid in `owner` | `/run/waggle-lab/<id>` |
//! | namespaces | `/run/netns/wg<id>-<name>` |
//! | cgroup subtree; every process of the lab is in it | `<cgroup2>/waggle-lab-<id>` |
//! | veth to the root namespace | `wgl<id>` |
//!
//! A warden process waits for its standard input to close, which happens however the owner ends, and sweeps then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::programs;

const RUN: &str = "/run/waggle-lab";
const NETNS: &str = "/run/netns";

/// One lab's claim on this machine; dropping it sweeps.
#[derive(Debug)]
pub struct Scope {
    id: u32,
    cgroup_root: PathBuf,
    warden: Child,
}

impl Scope {
    /// Claims a free id, makes the lab's directory and cgroup, and starts the warden.
    ///
    /// # Errors
    /// Without root, without cgroup v2, or without the `lab` binary.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab makes network namespaces and loads BPF programs: run it as root");
        }
        let cgroup_root = cgroup2_mount()?;
        fs::create_dir_all(RUN).with_context(|| format!("can't create {RUN}"))?;
        let id = claim_id()?;
        fs::write(dir_of(id).join("owner"), std::process::id().to_string())?;
        fs::create_dir_all(cgroup_of(&cgroup_root, id)).context("can't create the lab's cgroup")?;
        let warden = Command::new(programs::lab()?)
            .args(["warden", "--id", &id.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start the lab's warden")?;
        Ok(Self {
            id,
            cgroup_root,
            warden,
        })
    }

    /// The lab's id, unique on this machine while the lab lives.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The lab's directory for logs, kubeconfigs, databases and bpffs mounts.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        dir_of(self.id)
    }

    /// The lab's cgroup.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        cgroup_of(&self.cgroup_root, self.id)
    }

    /// Name of a namespace of this lab, as in `/run/netns`.
    #[must_use]
    pub fn netns_name(&self, name: &str) -> String {
        format!("wg{}-{name}", self.id)
    }

    /// Name of the lab's device in the root namespace.
    #[must_use]
    pub fn root_device(&self) -> String {
        format!("wgl{}", self.id)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Err(error) = sweep(self.id) {
            eprintln!("lab {}: {error:#}", self.id);
        }
        drop(self.warden.stdin.take());
        if let Err(error) = self.warden.wait() {
            eprintln!("lab {}: warden: {error}", self.id);
        }
    }
}

/// Removes everything that carries the id. Ids that were never used or are swept already are no error.
///
/// # Errors
/// Names what could not be removed; what can be removed is.
pub fn sweep(id: u32) -> Result<()> {
    let mut failures = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => failures.push(format!("{what}: {error}")),
        _ => {}
    };
    if let Ok(root) = cgroup2_mount() {
        note("cgroup", remove_cgroup(&cgroup_of(&root, id)));
    }
    for path in mounts_below(&dir_of(id)) {
        note(
            "mount",
            nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).map_err(io::Error::from),
        );
    }
    for path in namespaces_of(id) {
        note(
            "namespace",
            nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).map_err(io::Error::from),
        );
        note("namespace", fs::remove_file(&path));
    }
    // The root namespace's end goes with its peer's namespace, but only some time after the last user of it is gone.
    let device = format!("wgl{id}");
    if Path::new("/sys/class/net").join(&device).exists() {
        Command::new("ip")
            .args(["link", "del", &device])
            .stderr(Stdio::null())
            .status()
            .ok();
    }
    note("directory", fs::remove_dir_all(dir_of(id)));
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("not all of lab {id} could be removed: {}", failures.join("; "))
    }
}

/// Sweeps every lab whose owner no longer runs; returns their ids.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_orphans() -> Result<Vec<u32>> {
    let mut swept = Vec::new();
    for id in known_ids() {
        let owner = fs::read_to_string(dir_of(id).join("owner")).unwrap_or_default();
        if owner.trim().is_empty() || !Path::new("/proc").join(owner.trim()).exists() {
            sweep(id)?;
            swept.push(id);
        }
    }
    Ok(swept)
}

/// Ids of all labs on this machine.
#[must_use]
pub fn known_ids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir(RUN) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Where cgroup v2 is mounted.
///
/// # Errors
/// If it isn't.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .context("no cgroup v2 in /proc/mounts: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified)")
}

fn claim_id() -> Result<u32> {
    for id in 1..4000 {
        match fs::create_dir(dir_of(id)) {
            Ok(()) => return Ok(id),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("can't claim a lab id"),
        }
    }
    bail!("{RUN} is full of labs: run `lab sweep`")
}

fn dir_of(id: u32) -> PathBuf {
    Path::new(RUN).join(id.to_string())
}

fn cgroup_of(root: &Path, id: u32) -> PathBuf {
    root.join(format!("waggle-lab-{id}"))
}

fn namespaces_of(id: u32) -> Vec<PathBuf> {
    let prefix = format!("wg{id}-");
    let Ok(entries) = fs::read_dir(NETNS) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = |line: &str| {
        line.split(' ')
            .nth(1)
            .map(PathBuf::from)
            .filter(|path| path.starts_with(dir))
    };
    mounts.lines().rev().filter_map(below).collect()
}

/// Kills what is left in a cgroup subtree and removes it, leaves first.
fn remove_cgroup(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    fs::write(dir.join("cgroup.kill"), "1")?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match remove_tree(dir) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
            Ok(()) => return Ok(()),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
