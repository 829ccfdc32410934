//! Kernel modules for a machine of the matrix: which ones, what they depend on, and in what order they are loaded.
//!
//! Debian's package has no dependency index (it is made when a kernel is installed), so dependencies are read from the
//! modules themselves: section `.modinfo` holds `depends=a,b`.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::elf::Elf;

/// What the lab's links, the programs' attachment on old kernels, and looking into sockets need.
const WANTED: &[&str] = &[
    "veth",
    "bridge",
    "vxlan",
    "macvlan",
    "dummy",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

/// A module's name and its contents, decompressed.
pub(crate) type Module = (String, Vec<u8>);

/// The wanted modules and those they depend on, in the order of loading. What is built into the kernel is left out.
pub(crate) fn collect(directory: &Path) -> Result<Vec<Module>> {
    let mut paths = BTreeMap::new();
    index(directory, &mut paths)?;
    let builtin = fs::read_to_string(directory.join("modules.builtin"))?;
    let mut ordered = Vec::new();
    for name in WANTED {
        let is_builtin = builtin
            .lines()
            .any(|line| module_name(Path::new(line)).as_deref() == Some(name));
        if !is_builtin {
            add(name, &paths, &mut ordered)?;
        }
    }
    Ok(ordered)
}

fn add(name: &str, paths: &BTreeMap<String, PathBuf>, ordered: &mut Vec<Module>) -> Result<()> {
    if ordered.iter().any(|(present, _)| present == name) {
        return Ok(());
    }
    let path = paths
        .get(name)
        .with_context(|| format!("the kernel has no module {name}"))?;
    let contents = read(path)?;
    for dependency in dependencies(&contents)? {
        add(&dependency, paths, ordered)?;
    }
    ordered.push((name.to_owned(), contents));
    Ok(())
}

fn index(directory: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, into)?;
        } else if let Some(name) = module_name(&path) {
            into.insert(name, path);
        }
    }
    Ok(())
}

/// `kernel/net/ipv4/tcp_diag.ko.xz` as `tcp_diag`; names are written with `-` and `_` alike.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("xz")
        .args(["-dc"])
        .arg(path)
        .output()
        .context("cannot run xz")?;
    if !output.status.success() {
        bail!("xz cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let elf = Elf::parse(module)?;
    let information = elf
        .section(".modinfo")
        .context("a module says nothing about itself")?
        .data;
    Ok(depends(information))
}

/// The names after `depends=` in NUL-separated `key=value` pairs.
fn depends(information: &[u8]) -> Vec<String> {
    let pairs = information.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let names = pairs
        .filter_map(|pair| pair.strip_prefix("depends=").map(str::to_owned))
        .collect::<Vec<_>>()
        .join(",");
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(
            depends(b"license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0retpoline=Y\0"),
            ["udp_tunnel", "ip6_udp_tunnel"]
        );
        assert_eq!(depends(b"license=GPL\0depends=\0"), Vec::<String>::new());
    }

    #[test]
    fn names_are_those_the_kernel_uses() {
        assert_eq!(
            module_name(Path::new("kernel/net/x/nf-a.ko.xz")).as_deref(),
            Some("nf_a")
        );
        assert_eq!(module_name(Path::new("modules.order")), None);
    }
}
