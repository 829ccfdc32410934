//! What the machine must offer before programs are loaded: privilege, kernel, BTF, cgroup v2, bpffs.
//!
//! Called by `up` and `test` before anything is built. All that is missing is said at once, each with its remedy. The
//! agent has a finer check of its own (`proxy-agent check`) for what it finds on a node.

use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// The oldest kernel the data path is made for.
const KERNEL: (u32, u32) = (6, 1);
/// The capabilities a lab needs, by number (linux/capability.h).
const CAPABILITIES: &[(u32, &str)] = &[
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// What was found on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    /// `std::env::consts::OS`.
    system: &'static str,
    /// As `uname -r` prints it.
    release: String,
    /// The bits of `CapEff`.
    capabilities: u64,
    /// Whether the kernel shows its own types.
    btf: bool,
    /// `/proc/mounts`.
    mounts: String,
    /// `/proc/filesystems`.
    filesystems: String,
}

/// Checks this machine.
///
/// # Errors
/// All that is missing, and how to mend each.
pub(crate) fn check() -> Result<()> {
    let problems = problems(&Facts::gather());
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine cannot run eBPF programs as it is:\n  - {}",
        problems.join("\n  - ")
    )
}

impl Facts {
    fn gather() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            system: std::env::consts::OS,
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            capabilities: effective(&read("/proc/self/status")),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            mounts: read("/proc/mounts"),
            filesystems: read("/proc/filesystems"),
        }
    }
}

fn problems(facts: &Facts) -> Vec<String> {
    if facts.system != "linux" {
        return vec![format!(
            "this is {}: eBPF needs Linux, a virtual machine will do",
            facts.system
        )];
    }
    let checks = [
        capabilities(facts),
        kernel(facts),
        types(facts),
        cgroup(facts),
        bpffs(facts),
    ];
    checks.into_iter().flatten().collect()
}

fn capabilities(facts: &Facts) -> Option<String> {
    let lacks = |bit: &u32| facts.capabilities & (1 << bit) == 0;
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| lacks(bit))
        .map(|(_, name)| *name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "missing privilege ({}): run it as root (`sudo -E env \"PATH=$PATH\" cargo xtask ...`), in a container with `--privileged`",
            missing.join(", ")
        )
    })
}

fn kernel(facts: &Facts) -> Option<String> {
    let old = version(&facts.release).is_none_or(|version| version < KERNEL);
    old.then(|| {
        format!(
            "the kernel is {}, at least {}.{} is needed: upgrade it",
            facts.release, KERNEL.0, KERNEL.1
        )
    })
}

fn types(facts: &Facts) -> Option<String> {
    (!facts.btf).then(|| {
        "/sys/kernel/btf/vmlinux is missing: use a kernel built with CONFIG_DEBUG_INFO_BTF=y (the distributions' are)".to_owned()
    })
}

fn cgroup(facts: &Facts) -> Option<String> {
    let mounted = facts
        .mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    (!mounted).then(|| {
        "no cgroup v2 is mounted, the socket programs attach there: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`".to_owned()
    })
}

fn bpffs(facts: &Facts) -> Option<String> {
    let known = facts
        .filesystems
        .lines()
        .any(|line| line.split('\t').next_back() == Some("bpf"));
    (!known).then(|| {
        "the kernel has no bpf file system, which keeps maps and links: use one with CONFIG_BPF_SYSCALL=y".to_owned()
    })
}

/// `6.1.0-56-cloud-amd64` as `(6, 1)`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The effective capabilities in `/proc/<pid>/status`; none when the line is absent.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            system: "linux",
            release: "6.1.0-56-cloud-amd64".to_owned(),
            capabilities: effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            btf: true,
            mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n".to_owned(),
            filesystems: "nodev\tcgroup2\nnodev\tbpf\n\text4\n".to_owned(),
        }
    }

    #[test]
    fn a_good_machine_has_no_problems() {
        assert_eq!(problems(&good()), Vec::<String>::new());
    }

    #[test]
    fn each_problem_is_named_with_its_remedy() {
        let user = Facts {
            capabilities: 0,
            ..good()
        };
        assert!(problems(&user)[0].contains("CAP_BPF") && problems(&user)[0].contains("as root"));
        let old = Facts {
            release: "5.15.0-1-amd64".to_owned(),
            ..good()
        };
        assert!(problems(&old)[0].contains("5.15.0-1-amd64") && problems(&old)[0].contains("6.1"));
        let typeless = Facts { btf: false, ..good() };
        assert!(problems(&typeless)[0].contains("CONFIG_DEBUG_INFO_BTF"));
        let legacy = Facts {
            mounts: "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n".to_owned(),
            ..good()
        };
        assert!(problems(&legacy)[0].contains("mount -t cgroup2"));
        let plain = Facts {
            filesystems: "nodev\tcgroup2\n".to_owned(),
            ..good()
        };
        assert!(problems(&plain)[0].contains("CONFIG_BPF_SYSCALL"));
        let other = Facts {
            system: "macos",
            ..good()
        };
        assert!(problems(&other)[0].contains("needs Linux"));
    }

    #[test]
    fn all_problems_are_said_at_once() {
        let bare = Facts {
            capabilities: 0,
            release: String::new(),
            btf: false,
            mounts: String::new(),
            filesystems: String::new(),
            ..good()
        };
        assert_eq!(problems(&bare).len(), 5);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("6.12.117+deb12-cloud-amd64") > version("6.2.0"));
        assert_eq!(version("6.18.44-fc-v509"), Some((6, 18)));
    }
}
