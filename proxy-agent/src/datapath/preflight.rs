//! Finds out what this kernel and this node offer, and so what the data path will use. Called by the command `check`;
//! nothing it tries outlives the call.

use std::{fs, os::fd::AsFd, path::Path};

use proxy_ebpf::verdict::{TC_NEXT, XDP_PASS};
use serde::Serialize;

use super::{
    bpf::{self, attach},
    devices::{self, Devices},
    hooks::Role,
    links::Device,
    load, netns,
    pins::Pins,
    sockets,
};
use crate::config::{DeviceArgs, PlaceArgs, XdpMode};

/// The oldest kernel the programs are made for.
const KERNEL_FLOOR: (u32, u32) = (6, 1);
const PROGRAM_XDP: u32 = 6;
const PROGRAM_CLASSIFIER: u32 = 3;
/// An index no device has.
const NO_DEVICE: u32 = i32::MAX.cast_unsigned();

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works with less, or more slowly.
    Limited,
    /// The data path won't start, or won't serve.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub item: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, and so what will be used.
    pub found: String,
    /// What would mend it; empty if nothing has to be.
    pub remedy: String,
}

fn finding(item: &str, verdict: Verdict, found: impl Into<String>, remedy: &str) -> Finding {
    let remedy = if verdict == Verdict::Ok {
        String::new()
    } else {
        remedy.to_owned()
    };
    Finding {
        item: item.to_owned(),
        verdict,
        found: found.into(),
        remedy,
    }
}

fn yes_no(item: &str, ok: bool, otherwise: Verdict, found: [&str; 2], remedy: &str) -> Finding {
    finding(
        item,
        if ok { Verdict::Ok } else { otherwise },
        found[usize::from(!ok)],
        remedy,
    )
}

/// Looks at everything that [`start`](super::start) with the same flags would need.
pub fn look(place: &PlaceArgs, devices: &DeviceArgs) -> Vec<Finding> {
    let mut findings = vec![kernel(), btf(), bpffs(place), object(devices)];
    findings.extend(capabilities(
        &fs::read_to_string("/proc/self/status").unwrap_or_default(),
    ));
    if devices.no_socket_path {
        findings.push(finding("socket path", Verdict::Ok, "off by --no-socket-path", ""));
    } else {
        findings.extend([cgroup(&place.cgroup), socket_diag()]);
    }
    if !(devices.uplinks.is_empty() && devices.pod_devices.is_empty()) {
        findings.extend([
            tcx(),
            forwarding("ipv4/ip_forward"),
            forwarding("ipv6/conf/all/forwarding"),
        ]);
    }
    findings.extend(look_at_devices(devices));
    findings
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let new_enough = version(release).is_some_and(|found| found >= KERNEL_FLOOR);
    let verdict = if new_enough { Verdict::Ok } else { Verdict::Missing };
    finding("kernel", verdict, release, "boot a kernel of 6.1 or later")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf() -> Finding {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    let remedy = "boot a kernel with CONFIG_DEBUG_INFO_BTF; without it the counts of open connections can't be checked";
    yes_no(
        "kernel BTF",
        there,
        Verdict::Limited,
        ["/sys/kernel/btf/vmlinux", "none"],
        remedy,
    )
}

fn bpffs(place: &PlaceArgs) -> Finding {
    match Pins::new(&place.bpffs).check() {
        Ok(()) => finding("BPF file system", Verdict::Ok, place.bpffs.display().to_string(), ""),
        Err(error) => finding("BPF file system", Verdict::Missing, "none", &error.to_string()),
    }
}

fn object(devices: &DeviceArgs) -> Finding {
    match load::find_object(devices.object.as_deref()) {
        Ok(path) => finding("BPF object", Verdict::Ok, path.display().to_string(), ""),
        Err(error) => finding("BPF object", Verdict::Missing, "none", &error.to_string()),
    }
}

/// The capabilities the agent needs: `CAP_SYS_ADMIN` only to enter the namespaces of Pods.
fn capabilities(status: &str) -> Vec<Finding> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let needed = [
        ("CAP_BPF", 39, Verdict::Missing, "give the agent CAP_BPF"),
        ("CAP_NET_ADMIN", 12, Verdict::Missing, "give the agent CAP_NET_ADMIN"),
        ("CAP_PERFMON", 38, Verdict::Missing, "give the agent CAP_PERFMON"),
        (
            "CAP_SYS_ADMIN",
            21,
            Verdict::Limited,
            "with CAP_SYS_ADMIN source hashing knows Pods by address on the socket path, and UDP sockets to dead backends are ended",
        ),
    ];
    let found = needed.into_iter().map(|(name, bit, otherwise, remedy)| {
        yes_no(name, effective >> bit & 1 == 1, otherwise, ["held", "not held"], remedy)
    });
    found.collect()
}

fn cgroup(path: &Path) -> Finding {
    let is_cgroup2 = fs::File::open(path).is_ok_and(|directory| netns::is_cgroup2(&directory));
    let remedy = match netns::cgroup2_mount() {
        Some(mount) => format!("name {} or a directory below it with --cgroup", mount.display()),
        None => {
            "mount one with `mount -t cgroup2 cgroup2 DIR` and name it with --cgroup, or use --no-socket-path".into()
        }
    };
    let verdict = if is_cgroup2 { Verdict::Ok } else { Verdict::Missing };
    let what = if is_cgroup2 { "is" } else { "is not" };
    finding("cgroup v2", verdict, format!("{} {what} one", path.display()), &remedy)
}

fn socket_diag() -> Finding {
    let works = sockets::end_connected_udp(&[]).is_ok();
    let remedy =
        "load module udp_diag; without it a UDP socket connected to a dead backend stays so until it is closed";
    yes_no(
        "UDP socket diagnosis",
        works,
        Verdict::Limited,
        ["available", "not available"],
        remedy,
    )
}

/// A kernel that knows TCX misses the device, one that doesn't misses the hook.
fn tcx() -> Finding {
    let probe = bpf::load_probe(PROGRAM_CLASSIFIER, 0, TC_NEXT)
        .and_then(|program| bpf::create_link(program.as_fd(), NO_DEVICE, attach::TCX_INGRESS, 0));
    match probe.map_err(|error| error.raw_os_error()) {
        Err(Some(libc::EINVAL)) => finding(
            "TC programs",
            Verdict::Ok,
            "filters of the clsact qdisc (TCX needs 6.6)",
            "",
        ),
        Err(Some(libc::EPERM)) => finding(
            "TC programs",
            Verdict::Missing,
            "not permitted",
            "give the agent CAP_BPF and CAP_NET_ADMIN",
        ),
        _ => finding("TC programs", Verdict::Ok, "TCX links", ""),
    }
}

fn forwarding(key: &str) -> Finding {
    let on = fs::read_to_string(format!("/proc/sys/net/{key}")).is_ok_and(|value| value.trim() != "0");
    let remedy = format!(
        "sysctl -w net.{}=1; without it only backends on this node are reached from outside",
        key.replace('/', ".")
    );
    let family = if key.starts_with("ipv4") {
        "IPv4 forwarding"
    } else {
        "IPv6 forwarding"
    };
    yes_no(family, on, Verdict::Limited, ["on", "off"], &remedy)
}

fn look_at_devices(args: &DeviceArgs) -> Vec<Finding> {
    let present = devices::list().unwrap_or_default();
    let roles = Devices::new(args);
    let mut findings: Vec<_> = args
        .uplinks
        .iter()
        .map(|name| uplink(name, &present, args.xdp))
        .collect();
    if !args.pod_devices.is_empty() {
        let pods = present
            .iter()
            .filter(|device| roles.role(&device.name) == Some(Role::Pod))
            .count();
        findings.push(finding(
            "Pod devices",
            Verdict::Ok,
            format!("{pods} now; others are taken as they come"),
            "",
        ));
    }
    findings
}

fn uplink(name: &str, present: &[Device], mode: XdpMode) -> Finding {
    let item = format!("uplink {name}");
    let Some(device) = present.iter().find(|device| device.name == name) else {
        return finding(
            &item,
            Verdict::Limited,
            "no such device",
            "its programs are attached when it comes",
        );
    };
    let flags = match mode {
        XdpMode::Off => return finding(&item, Verdict::Ok, "TC, XDP is off", ""),
        XdpMode::Native => bpf::XDP_DRV_MODE,
        XdpMode::Generic => bpf::XDP_SKB_MODE,
    };
    let attached = bpf::load_probe(PROGRAM_XDP, attach::XDP, XDP_PASS.cast_signed())
        .and_then(|program| bpf::create_link(program.as_fd(), device.index, attach::XDP, flags));
    let word = if mode == XdpMode::Native { "native" } else { "generic" };
    match attached {
        Ok(_) => finding(&item, Verdict::Ok, format!("{word} XDP, TC behind it"), ""),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => finding(
            &item,
            Verdict::Ok,
            "an XDP program is attached already; it is ours if the agent runs",
            "",
        ),
        Err(error) => finding(
            &item,
            Verdict::Limited,
            format!("TC alone: {word} XDP is refused ({error})"),
            "use a driver with XDP, or --xdp generic",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert!(version("6.12.3-amd64").unwrap() >= KERNEL_FLOOR);
        assert!(version("6.1.0-18-cloud-amd64").unwrap() >= KERNEL_FLOOR);
        assert!(version("5.15.0").unwrap() < KERNEL_FLOOR);
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn each_missing_capability_is_named() {
        let without = capabilities("Name:\tx\nCapEff:\t0000000000000000\n");
        assert_eq!(without.len(), 4);
        assert!(
            without
                .iter()
                .all(|found| found.verdict != Verdict::Ok && found.remedy.contains(&found.item))
        );
        let with = capabilities("CapEff:\t000001ffffffffff\n");
        assert!(
            with.iter()
                .all(|found| found.verdict == Verdict::Ok && found.remedy.is_empty())
        );
    }
}
