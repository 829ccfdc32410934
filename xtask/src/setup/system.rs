//! Programs of the system that the lab and the kernel matrix call, for `setup`: looked up by name, and installed by
//! the Debian package that brings them.

use anyhow::Result;

use super::apt;
use crate::process;

/// A program, its package, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const LAB: &[Tool] = &[
    Tool {
        program: "ip",
        package: "iproute2",
        why: "namespaces, links and routes of the lab",
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
        why: "offloads of the lab's links",
    },
];

const MATRIX: &[Tool] = &[
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "boots the kernel matrix",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        why: "unpacks kernel modules",
    },
];

/// What nodes and Pods of the lab are made with.
pub(crate) fn ensure_lab() -> Result<()> {
    ensure(LAB)
}

/// What boots other kernels.
pub(crate) fn ensure_matrix() -> Result<()> {
    ensure(MATRIX)
}

/// Says what to do when there is no kubectl: no registry has it, and all but its own tests work without.
pub(crate) fn mention_kubectl() {
    if process::find("kubectl").is_none() {
        eprintln!(
            "setup: kubectl is not installed, and no package registry has it. `up` works without; the tests with it need \
             any kubectl from 1.32 on in PATH: https://kubernetes.io/docs/tasks/tools/"
        );
    }
}

fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools
        .iter()
        .filter(|tool| process::find(tool.program).is_none())
        .collect();
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let why: Vec<String> = missing
        .iter()
        .map(|tool| format!("{}: {}", tool.program, tool.why))
        .collect();
    apt::install(&packages, &why.join("; "))
}
