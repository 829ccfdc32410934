//! Debian's kernels for the matrix: downloaded as packages, unpacked under the target directory, never installed.
//!
//! A series is found through Debian's meta package for it, so the newest security update is what is tested. The
//! machine's own package index is asked first, then one of Debian 12, kept under the target directory as well: the
//! machine's sources are not changed.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::project::Project;

/// A series of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// `6.1`.
    pub(crate) series: &'static str,
    /// The package that depends on the newest build of the series. Cloud kernels lack drivers, not networking.
    meta: &'static str,
}

impl Kernel {
    /// The floor, and the one after which the programs attach differently (TCX).
    pub(crate) const ALL: &'static [Self] = &[
        Self {
            series: "6.1",
            meta: "linux-image-cloud-amd64",
        },
        Self {
            series: "6.12",
            meta: "linux-image-6.12-cloud-amd64",
        },
    ];
}

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// `6.1.0-56-cloud-amd64`.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// The directory with its modules.
    pub(crate) modules: PathBuf,
}

const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
";
const SHELL: &str = "busybox-static";

/// Downloads what is missing: all kernels, and a static shell for their init.
pub(crate) fn ensure(project: &Project) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernel matrix is for x86_64 only: use `cargo xtask test --no-vm` here");
    }
    let directory = directory(project);
    for kernel in Kernel::ALL {
        if locate(project, kernel).is_err() {
            eprintln!(
                "setup: kernel {} from Debian (kernel matrix; unpacked, not installed)",
                kernel.series
            );
            let unpacked = directory.join(kernel.series);
            fetch(&directory, &unpacked, |index| newest(index, kernel)).with_context(|| {
                format!(
                    "kernel {} cannot be had; `--no-vm` leaves the matrix out",
                    kernel.series
                )
            })?;
            locate(project, kernel)?;
        }
    }
    if !shell(project).is_file() {
        eprintln!("setup: {SHELL} from Debian (init of the kernel matrix; unpacked, not installed)");
        fetch(&directory, &directory.join(SHELL), |_| Some(SHELL.to_owned()))?;
    }
    Ok(())
}

/// The static shell for init.
pub(crate) fn shell(project: &Project) -> PathBuf {
    directory(project).join(SHELL).join("bin/busybox")
}

/// The files of a kernel that [`ensure`] unpacked.
pub(crate) fn locate(project: &Project, kernel: &Kernel) -> Result<Files> {
    let unpacked = directory(project).join(kernel.series);
    let boot = unpacked.join("boot");
    let names = fs::read_dir(&boot).with_context(|| format!("kernel {} is missing: run setup", kernel.series))?;
    for name in names {
        let name = name?.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path).join(release));
            let modules = modules
                .into_iter()
                .find(|path| path.is_dir())
                .context("the kernel has no modules")?;
            return Ok(Files {
                release: release.to_owned(),
                image: boot.join(&name),
                modules,
            });
        }
    }
    bail!("{} holds no kernel", boot.display())
}

fn directory(project: &Project) -> PathBuf {
    project.target.join("vm")
}

/// Options for apt's tools that select a package index.
type Index = Vec<String>;

/// Downloads the package that `name` finds in an index and unpacks it; the machine's own index first.
fn fetch(directory: &Path, unpacked: &Path, name: impl Fn(&Index) -> Option<String>) -> Result<()> {
    let own = Index::new();
    let debian = private_index(directory)?;
    let download = |index: &Index| -> Result<()> {
        let name = name(index).context("no such package in the index")?;
        unpack(index, directory, &name, unpacked)
    };
    if download(&own).is_ok() {
        return Ok(());
    }
    process::run_quietly(Command::new("apt-get").args(["-q", "update"]).args(&debian))
        .context("Debian's package index cannot be fetched: is deb.debian.org reachable?")?;
    download(&debian)
}

fn unpack(index: &Index, directory: &Path, name: &str, unpacked: &Path) -> Result<()> {
    let packages = directory.join("packages").join(name);
    fs::create_dir_all(&packages)?;
    process::run_quietly(
        Command::new("apt-get")
            .current_dir(&packages)
            .args(["-q", "download", name])
            .args(index),
    )?;
    let mut files = fs::read_dir(&packages)?;
    let package = files.next().context("apt-get downloaded nothing")??.path();
    // Unpacked beside and renamed, so that an interrupted run leaves no half of a kernel.
    let partial = unpacked.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    process::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&partial))?;
    fs::rename(&partial, unpacked).with_context(|| format!("cannot write {}", unpacked.display()))?;
    Ok(fs::remove_dir_all(&packages)?)
}

/// The newest build of a series in an index; meta packages of other releases may be of another series.
fn newest(index: &Index, kernel: &Kernel) -> Option<String> {
    let output = process::capture(Command::new("apt-cache").args(["depends", kernel.meta]).args(index)).ok()?;
    dependency(&output, kernel.series)
}

fn dependency(output: &str, series: &str) -> Option<String> {
    let names = output.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names
        .map(str::trim)
        .find(|name| name.starts_with(&format!("linux-image-{series}.")))
        .map(str::to_owned)
}

/// An index of Debian 12 that lives in `directory` alone.
fn private_index(directory: &Path) -> Result<Index> {
    let apt = directory.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part))?;
    }
    let sources = apt.join("sources.list");
    fs::write(&sources, SOURCES)?;
    let options = [
        format!("Dir::Etc::sourcelist={}", sources.display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", apt.join("lists").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
    ];
    Ok(options
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_build_is_what_the_meta_package_depends_on() {
        let output = "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(
            dependency(output, "6.12").as_deref(),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
    }

    #[test]
    fn a_meta_package_of_another_series_is_refused() {
        let output = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.117+deb13-cloud-amd64\n";
        assert_eq!(dependency(output, "6.1"), None);
    }
}
