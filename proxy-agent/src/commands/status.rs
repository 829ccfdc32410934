//! `proxy-agent status`: whether programs and maps are in place, how full the maps are, and how packets ended. Called by
//! `main`.

use std::{fs, net::IpAddr, os::fd::AsFd};

use serde_json::{Value, json};

use super::table;
use crate::{
    config::{Output, PlaceArgs, ShowArgs},
    datapath::{
        DEVICES_FILE, bpf,
        devices::DeviceStatus,
        hooks,
        pins::Pins,
        view::{Fill, View},
    },
};

/// Prints the state of the data path.
///
/// # Errors
/// There are no maps, or they can't be read.
pub fn run(args: ShowArgs) -> anyhow::Result<()> {
    let pins = Pins::new(&args.place.bpffs);
    let view = View::open(&pins)?;
    let links = links(&pins)?;
    let devices = devices(&args.place);
    let fill = view.fill()?;
    let reasons = view.reasons()?;
    if args.output == Output::Json {
        return table::print_json(&json!({
            "maps": fill.iter().map(describe).collect::<Vec<_>>(),
            "links": links.iter().map(Link::describe).collect::<Vec<_>>(),
            "devices": devices,
            "pods": view.pods()?.iter().map(|(cookie, addrs)| json!({
                "cookie": cookie, "addresses": addrs.map(IpAddr::from).iter().filter(|a| !a.is_unspecified()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "node": node(&view)?,
            "verdicts": reasons.iter().map(|(reason, n)| ((*reason).to_owned(), json!(n))).collect::<serde_json::Map<_, _>>(),
        }));
    }
    let socket_path = hooks::SOCKET_PATH.len();
    let sockets = links.iter().filter(|link| link.attached && link.is_of_cgroup()).count();
    let node = node(&view)?;
    table::write(&format!(
        "maps         {}\nsocket path  {sockets} of {socket_path} programs attached\nPods known   {}\nmasquerade   {} {}\n\n",
        pins.maps().display(),
        view.pods()?.len(),
        node["snatV4"].as_str().unwrap_or(""),
        node["snatV6"].as_str().unwrap_or(""),
    ))?;
    table::write(&table::columns(
        ["DEVICE", "INDEX", "ROLE", "TC", "XDP"],
        &device_rows(&devices),
    ))?;
    let dead: Vec<_> = links
        .iter()
        .filter(|link| !link.attached)
        .map(|link| [link.name.clone()])
        .collect();
    if !dead.is_empty() {
        table::write(&format!("\n{}", table::columns(["DETACHED LINKS"], &dead)))?;
    }
    table::write(&format!(
        "\n{}",
        table::columns(["MAP", "USED", "SIZE", "FULL"], &fill_rows(&fill))
    ))?;
    let counted = reasons
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| [(*reason).to_owned(), n.to_string()]);
    table::write(&format!(
        "\n{}",
        table::columns(["VERDICT", "COUNT"], &counted.collect::<Vec<_>>())
    ))
}

/// A pinned link.
struct Link {
    name: String,
    program_id: u32,
    attached: bool,
}

impl Link {
    fn is_of_cgroup(&self) -> bool {
        hooks::SOCKET_PATH.iter().any(|hook| hook.program == self.name)
    }

    fn describe(&self) -> Value {
        json!({ "name": self.name, "programId": self.program_id, "attached": self.attached })
    }
}

fn links(pins: &Pins) -> anyhow::Result<Vec<Link>> {
    let mut names = pins.link_names()?;
    names.sort();
    let link = |name: String| {
        let info = bpf::open_pinned(&pins.links().join(&name)).and_then(|link| bpf::link_info(link.as_fd()));
        let attached = info.as_ref().is_ok_and(bpf::LinkInfo::is_attached);
        Link {
            name,
            program_id: info.map_or(0, |info| info.prog_id),
            attached,
        }
    };
    Ok(names.into_iter().map(link).collect())
}

/// What the agent wrote of devices when one last changed; nothing if it never ran with this state directory.
fn devices(place: &PlaceArgs) -> Vec<DeviceStatus> {
    let text = fs::read(place.state_dir.join(DEVICES_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn device_rows(devices: &[DeviceStatus]) -> Vec<[String; 5]> {
    let row = |device: &DeviceStatus| {
        let DeviceStatus {
            name,
            index,
            role,
            tc,
            xdp,
        } = device.clone();
        [name, index.to_string(), role, tc, xdp]
    };
    devices.iter().map(row).collect()
}

fn fill_rows(fill: &[Fill]) -> Vec<[String; 4]> {
    let row = |fill: &Fill| {
        let percent = fill.used * 100 / fill.size.max(1);
        [
            fill.map.to_owned(),
            fill.used.to_string(),
            fill.size.to_string(),
            format!("{percent}%"),
        ]
    };
    fill.iter().map(row).collect()
}

fn describe(fill: &Fill) -> Value {
    json!({ "name": fill.map, "used": fill.used, "size": fill.size })
}

fn node(view: &View) -> anyhow::Result<Value> {
    let node = view.node()?;
    let show = |addr| {
        let address = IpAddr::from(addr);
        (!address.is_unspecified()).then(|| address.to_string())
    };
    Ok(json!({
        "snatV4": show(node.snat_v4),
        "snatV6": show(node.snat_v6),
        "hairpinV4": show(node.hairpin_v4),
        "hairpinV6": show(node.hairpin_v6),
        "snatPorts": [node.snat_port_min, node.snat_port_max],
        "netnsCookie": node.host_netns_cookie,
    }))
}
