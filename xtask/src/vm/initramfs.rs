//! The file system of a machine of the matrix: our programs and the lab's tools with their libraries, a static shell,
//! kernel modules, and an init that runs the tests. Everything is at the path it has here, so nothing must be told
//! where it is.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::kernel::{self, Files};
use super::modules::{self, Module};
use crate::process;
use crate::project::Project;

/// Programs that the lab calls; a machine without one simply lacks it, as the lab's errors will say.
const TOOLS: &[&str] = &["ip", "ethtool"];
const PROGRAMS: &[&str] = &["proxy-agent", "control", "lab"];
const MODULES: &str = "/lib/modules";

type Target = Archive<BufWriter<File>>;

/// Builds the archive for one kernel and these tests; gives its path.
pub(crate) fn build(project: &Project, files: &Files, suites: &Path, names: &[String]) -> Result<PathBuf> {
    let directory = project.target.join("vm");
    let path = directory.join(format!("initramfs-{}.cpio", files.release));
    let mut archive = Archive::new(BufWriter::new(File::create(&path)?));
    for place in ["/proc", "/sys", "/dev", "/tmp", "/run", "/etc", "/root", "/var/tmp"] {
        archive.directory(place)?;
    }
    archive.device("/dev/console", 5, 1)?;
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    archive.file("/bin/busybox", 0o755, &fs::read(kernel::shell(project))?)?;
    let mut programs: Vec<PathBuf> = PROGRAMS.iter().map(|name| project.binary(name)).collect();
    programs.push(suites.to_path_buf());
    for program in &programs {
        add_program(&mut archive, program, &stripped(program, &directory)?)?;
    }
    for tool in TOOLS.iter().filter_map(|name| process::find(name)) {
        add_program(&mut archive, &tool, &tool)?;
    }
    add_file(&mut archive, &project.object())?;
    add_tree(&mut archive, &project.root.join("deploy"))?;
    archive.directory(&project.root.join("tests").to_string_lossy())?;
    let modules = modules::collect(&files.modules)?;
    for (name, contents) in &modules {
        archive.file(&format!("{MODULES}/{name}.ko"), 0o644, contents)?;
    }
    archive.file("/init", 0o755, init(project, &modules, suites, names).as_bytes())?;
    archive.finish()?.flush()?;
    Ok(path)
}

/// What runs as process 1. Nothing is mounted over `/tmp` or `/run`: the project itself may lie there. Lines that start with `@waggle` are for the runner.
fn init(project: &Project, modules: &[Module], suites: &Path, names: &[String]) -> String {
    let loads: String = modules
        .iter()
        .map(|(name, _)| format!("insmod {MODULES}/{name}.ko\n"))
        .collect();
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let [object, agent, control, lab] = [
        project.object(),
        project.binary("proxy-agent"),
        project.binary("control"),
        project.binary("lab"),
    ]
    .map(|path| path.display().to_string());
    let directory = project.root.join("tests");
    format!(
        "#!/bin/busybox sh
/bin/busybox mkdir -p /usr/bin /usr/sbin /sbin
/bin/busybox --install -s /bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
hostname waggle
ulimit -l unlimited
echo 1 > /proc/sys/net/core/bpf_jit_enable
{loads}ip link set lo up
export WAGGLE_OBJECT='{object}' WAGGLE_AGENT='{agent}' WAGGLE_CONTROL='{control}' WAGGLE_LAB='{lab}'
export CARGO_MANIFEST_DIR='{directory}' RUST_BACKTRACE=1
cd \"$CARGO_MANIFEST_DIR\"
read -r up rest < /proc/uptime
echo \"@waggle booted $(uname -r) $up\"
'{suites}' --exact {names}
echo \"@waggle exit $?\"
poweroff -f
",
        directory = directory.display(),
        suites = suites.display(),
        names = quoted.join(" "),
    )
}

/// Adds a program (read from `contents`) at its path, with the libraries it is linked to.
fn add_program(archive: &mut Target, path: &Path, contents: &Path) -> Result<()> {
    let bytes = fs::read(contents).with_context(|| format!("cannot read {}", contents.display()))?;
    archive.file(&path.to_string_lossy(), 0o755, &bytes)?;
    let listing = process::capture(Command::new("ldd").arg(contents))?;
    for library in libraries(&listing) {
        add_file(archive, Path::new(library))?;
    }
    Ok(())
}

fn add_file(archive: &mut Target, path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(archive.file(&path.to_string_lossy(), 0o755, &bytes)?)
}

fn add_tree(archive: &mut Target, directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            add_tree(archive, &path)?;
        } else {
            add_file(archive, &path)?;
        }
    }
    Ok(())
}

/// A copy without debug information, made once per build: a machine has it all in memory.
fn stripped(program: &Path, directory: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("a program has no name")?;
    let copy = directory.join("stripped").join(name);
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let fresh = modified(&copy).is_ok_and(|made| modified(program).is_ok_and(|built| made >= built));
    if fresh {
        return Ok(copy);
    }
    fs::create_dir_all(directory.join("stripped"))?;
    let strip = process::run_quietly(
        Command::new("strip")
            .args(["--strip-debug", "-o"])
            .arg(&copy)
            .arg(program),
    );
    // Without binutils the machine needs more memory, no more.
    Ok(if strip.is_ok() { copy } else { program.to_path_buf() })
}

/// The paths in what `ldd` prints: `libc.so.6 => /lib/libc.so.6 (0x...)`, and the loader on a line of its own.
fn libraries(listing: &str) -> Vec<&str> {
    let words = |line: &str| line.split_whitespace().any(|word| word.starts_with('/'));
    let lines = listing.lines().filter(|line| words(line));
    lines
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            libraries(listing),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert_eq!(libraries("\tstatically linked\n"), Vec::<&str>::new());
    }

    #[test]
    fn init_loads_modules_in_order_and_runs_exactly_these_tests() {
        let project = Project {
            root: "/w".into(),
            target: "/t".into(),
        };
        let modules = [("stp".to_owned(), vec![]), ("bridge".to_owned(), vec![])];
        let names = ["a::kernel_matrix_x".to_owned(), "b".to_owned()];
        let script = init(&project, &modules, Path::new("/t/suites"), &names);
        assert!(script.find("stp.ko") < script.find("bridge.ko"));
        assert!(script.contains("\n'/t/suites' --exact 'a::kernel_matrix_x' 'b'\n"));
    }
}
