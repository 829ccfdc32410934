//! `cargo xtask setup`: installs what the other commands need, says what and why, and is silent and quick when
//! nothing is missing. Every command calls [`ensure`] with the [`Need`]s it has, so `up` never installs an emulator.

pub(crate) mod apt;
pub(crate) mod bpf_linker;
pub(crate) mod bpf_toolchain;
pub(crate) mod lint;
pub(crate) mod python;
mod system;

use anyhow::Result;

use crate::project::Project;
use crate::vm::kernel;

/// One group of things a command may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The compiler, library sources and linker for the BPF target.
    Bpf,
    /// Formatter and linter, for the host and for the BPF target.
    Lint,
    /// What the lab calls to make namespaces and links.
    Lab,
    /// Stock Kubernetes clients.
    Clients,
    /// The emulator and the kernels of the matrix.
    Matrix,
}

const EVERYTHING: &[Need] = &[Need::Bpf, Need::Lint, Need::Lab, Need::Clients, Need::Matrix];

/// The command: installs everything, and says so when there was nothing to do.
pub(crate) fn command(project: &Project) -> Result<()> {
    ensure(project, EVERYTHING)?;
    println!("setup: everything is in place");
    Ok(())
}

/// Makes sure that all of `needs` is there.
pub(crate) fn ensure(project: &Project, needs: &[Need]) -> Result<()> {
    let wants = |need| needs.contains(&need);
    // The linker is compiled from crates.io while packages are fetched: neither waits for the other.
    std::thread::scope(|scope| {
        let linker = scope.spawn(|| {
            if wants(Need::Bpf) {
                bpf_linker::ensure(project)
            } else {
                Ok(())
            }
        });
        let packages = ensure_packages(project, wants);
        linker.join().expect("the thread only returns errors").and(packages)
    })
}

fn ensure_packages(project: &Project, wants: impl Fn(Need) -> bool) -> Result<()> {
    if wants(Need::Bpf) {
        bpf_toolchain::ensure()?;
    }
    if wants(Need::Lint) {
        lint::ensure()?;
    }
    if wants(Need::Lab) {
        system::ensure_lab()?;
    }
    if wants(Need::Clients) {
        python::ensure(project)?;
        system::mention_kubectl();
    }
    if wants(Need::Matrix) {
        system::ensure_matrix()?;
        kernel::ensure(project)?;
    }
    Ok(())
}
