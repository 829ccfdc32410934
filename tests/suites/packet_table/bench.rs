//! The programs and maps of the packet table, loaded once, and the namespaces they ask for routes.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use lab::programs;
use nix::mount::{MsFlags, umount};
use nix::sched::{CloneFlags, unshare};
use proxy_ebpf::abi::{
    Addr, Algorithm, Backend, BackendId, BackendLoad, FlowEntry, FlowKey, Frontend, FrontendKey, NodeConfig, PROTO_TCP,
    PROTO_UDP, ReasonCounters, Run, Service, ServiceCounters, ServiceId, StateGeneration, maps,
};
use proxy_ebpf::verdict::{Reason, TC_DROP, TC_NEXT, TC_REDIRECT, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use proxy_ebpf::wire::Be16;

use super::packets::{GATEWAY_MAC, HAIRPIN4, HAIRPIN6, NODE4, NODE6, OUT_MAC, Place, Spec, addr};

pub(super) const PROGRAMS: &[&str] = &[
    "xdp_uplink",
    "tc_uplink_ingress",
    "tc_uplink_egress",
    "tc_pod_ingress",
    "tc_pod_egress",
];
/// The programs that do the uplink's work, which must agree.
pub(super) const UPLINK: [&str; 2] = ["xdp_uplink", "tc_uplink_ingress"];

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Pass,
    Drop,
    Redirect,
}
pub(super) use Did::{Drop as Dropped, Pass, Redirect};

/// Programs and maps.
pub(super) struct Bench {
    pub(super) ebpf: Ebpf,
    pub(super) frontends: HashMap<MapData, FrontendKey, Frontend>,
    pub(super) owned: HashMap<MapData, Addr, u32>,
    pub(super) services: Array<MapData, Service>,
    pub(super) slots: Array<MapData, BackendId>,
    pub(super) backends: Array<MapData, Backend>,
    pub(super) loads: Array<MapData, BackendLoad>,
    pub(super) conntrack: HashMap<MapData, FlowKey, FlowEntry>,
    pub(super) half_open: HashMap<MapData, FlowKey, FlowEntry>,
    pub(super) reasons: PerCpuArray<MapData, ReasonCounters>,
    pub(super) counters: PerCpuArray<MapData, ServiceCounters>,
    node: Array<MapData, NodeConfig>,
    next_service: u32,
    next_backend: u32,
    next_slot: u32,
}

impl Bench {
    pub(super) fn load() -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "loading BPF programs needs root");
        // The maps are pinned by name; the pins go again at once, the maps stay with this process.
        let dir = tempfile::tempdir()?;
        let none: Option<&str> = None;
        nix::mount::mount(none, dir.path(), Some("bpf"), MsFlags::empty(), none).context("can't mount a bpffs")?;
        let loaded = Self::load_pinned_at(dir.path());
        umount(dir.path())?;
        loaded
    }

    pub(super) fn load_pinned_at(dir: &std::path::Path) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.default_map_pin_directory(dir);
        for spec in maps::ALL.iter().filter(|spec| spec.max_entries > 8192) {
            loader.map_max_entries(spec.name, 8192);
        }
        let mut ebpf = loader.load_file(programs::object()?).context("can't load the object")?;
        for name in PROGRAMS {
            match ebpf.program_mut(name).with_context(|| format!("no program {name}"))? {
                Program::Xdp(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                other => bail!("{name} is a {:?}", other.prog_type()),
            }
            .with_context(|| format!("the kernel refuses {name}"))?;
        }
        let mut take = |spec: maps::MapSpec| -> Result<Map> {
            ebpf.take_map(spec.name)
                .with_context(|| format!("no map {}", spec.name))
        };
        let mut bench = Self {
            frontends: take(maps::FRONTENDS)?.try_into()?,
            owned: take(maps::OWNED_ADDRS)?.try_into()?,
            services: take(maps::SERVICES)?.try_into()?,
            slots: take(maps::SLOTS)?.try_into()?,
            backends: take(maps::BACKENDS)?.try_into()?,
            loads: take(maps::BACKEND_LOADS)?.try_into()?,
            conntrack: take(maps::CONNTRACK)?.try_into()?,
            half_open: take(maps::HALF_OPEN)?.try_into()?,
            reasons: take(maps::REASON_COUNTERS)?.try_into()?,
            counters: take(maps::SERVICE_COUNTERS)?.try_into()?,
            node: take(maps::NODE_CONFIG)?.try_into()?,
            next_service: 1,
            next_backend: 1,
            next_slot: 0,
            ebpf,
        };
        let node = NodeConfig {
            snat_v4: addr(NODE4),
            snat_v6: addr(NODE6),
            hairpin_v4: addr(HAIRPIN4),
            hairpin_v6: addr(HAIRPIN6),
            snat_port_min: 20_000,
            snat_port_max: 59_999,
            ..NodeConfig::default()
        };
        bench.node.set(0, node, 0)?;
        Ok(bench)
    }

    /// Runs a program on a packet.
    pub(super) fn run(&self, program: &str, packet: &[u8]) -> Result<(Did, Vec<u8>)> {
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let (action, length) = match self.ebpf.program(program).context("no such program")? {
            Program::Xdp(program) => {
                let result = program.test_run(options)?;
                let action = match result.return_value {
                    XDP_PASS => Pass,
                    XDP_DROP => Dropped,
                    XDP_REDIRECT => Redirect,
                    other => bail!("XDP action {other}"),
                };
                (action, result.data_size_out)
            }
            Program::SchedClassifier(program) => {
                let result = program.test_run(options)?;
                let action = match result.return_value as i32 {
                    TC_NEXT => Pass,
                    TC_DROP => Dropped,
                    TC_REDIRECT => Redirect,
                    other => bail!("TC action {other}"),
                };
                (action, result.data_size_out)
            }
            _ => bail!("no packet program"),
        };
        out.truncate(length as usize);
        Ok((action, out))
    }

    /// Runs a program on a packet and checks what becomes of it, and why.
    pub(super) fn check(&self, program: &str, packet: &Spec, did: Did, becomes: &Spec, reason: Reason) -> Result<()> {
        self.check_bytes(program, &packet.build(), did, &becomes.build(), reason)
    }

    pub(super) fn check_bytes(
        &self,
        program: &str,
        packet: &[u8],
        did: Did,
        becomes: &[u8],
        reason: Reason,
    ) -> Result<()> {
        let before = self.reason(reason)?;
        let (action, out) = self.run(program, packet)?;
        ensure!(
            self.reason(reason)? == before + 1 && action == did,
            "{program}: {action:?} for {}, not {did:?} for {}",
            self.reasons_text()?,
            label(reason)
        );
        if did != Dropped {
            ensure!(
                out == becomes,
                "{program}: the packet is wrong\n  sent     {}\n  expected {}\n  got      {}",
                hex(packet),
                hex(becomes),
                hex(&out)
            );
        }
        Ok(())
    }

    /// Nanoseconds a packet takes: the best of some runs, because other work disturbs them.
    pub(super) fn cost(&self, program: &str, packet: &[u8], repeat: u32) -> Result<u128> {
        let mut out = vec![0; 4096];
        let mut best = u128::MAX;
        for _ in 0..20 {
            let (data_in, data_out) = (Some(packet), Some(out.as_mut_slice()));
            let options = TestRunOptions {
                data_in,
                data_out,
                repeat,
                ..TestRunOptions::new()
            };
            let result = match self.ebpf.program(program).context("no such program")? {
                Program::Xdp(program) => program.test_run(options)?,
                Program::SchedClassifier(program) => program.test_run(options)?,
                _ => bail!("no packet program"),
            };
            best = best.min(result.duration.as_nanos());
        }
        Ok(best)
    }

    pub(super) fn reason(&self, reason: Reason) -> Result<u64> {
        Ok(self
            .reasons
            .get(&reason.0, 0)?
            .iter()
            .map(|counters| counters.packets)
            .sum())
    }

    pub(super) fn reasons_text(&self) -> Result<String> {
        let mut text = String::new();
        for (reason, label) in Reason::ALL {
            let count = self.reason(*reason)?;
            if count > 0 {
                text += &format!("{label}={count} ");
            }
        }
        Ok(text)
    }

    /// A service with one run for both policies; returns its id and its backends'.
    pub(super) fn service(
        &mut self,
        algorithm: Algorithm,
        endpoints: &[(SocketAddr, u16)],
    ) -> Result<(ServiceId, Vec<BackendId>)> {
        let id = ServiceId(self.next_service);
        self.next_service += 1;
        let mut ids = Vec::new();
        for (endpoint, flags) in endpoints {
            let state = StateGeneration::new(StateGeneration::ACTIVE, 1);
            let backend = Backend {
                addr: addr(endpoint.ip()),
                port: Be16::new(endpoint.port()),
                flags: *flags,
                state,
            };
            self.backends.set(self.next_backend, backend, 0)?;
            ids.push(BackendId(self.next_backend));
            self.next_backend += 1;
        }
        let run = self.extent(&ids)?;
        let service = Service {
            all: run,
            algorithm,
            generation: 1,
            ..Service::default()
        };
        self.services.set(id.0, service.sealed(), 0)?;
        Ok((id, ids))
    }

    pub(super) fn extent(&mut self, ids: &[BackendId]) -> Result<Run> {
        let run = Run {
            base: self.next_slot,
            len: ids.len() as u32,
        };
        for (slot, id) in (run.base..).zip(ids) {
            self.slots.set(slot, *id, 0)?;
        }
        self.next_slot += run.len;
        Ok(run)
    }

    pub(super) fn frontend(&mut self, vip: SocketAddr, service: ServiceId, flags: u8) -> Result<()> {
        for proto in [PROTO_TCP, PROTO_UDP] {
            let key = FrontendKey {
                addr: addr(vip.ip()),
                port: Be16::new(vip.port()),
                proto,
                pad: 0,
            };
            self.frontends.insert(
                key,
                Frontend {
                    service,
                    kind: Frontend::CLUSTER_IP,
                    flags,
                    pad: 0,
                },
                0,
            )?;
        }
        Ok(self.owned.insert(addr(vip.ip()), 1, 0)?)
    }

    pub(super) fn set_state(&mut self, id: BackendId, state: u8) -> Result<()> {
        let backend = self.backends.get(&id.0, 0)?;
        let state = StateGeneration::new(state, backend.state.generation());
        Ok(self.backends.set(id.0, Backend { state, ..backend }, 0)?)
    }

    pub(super) fn open(&self, id: BackendId) -> Result<u64> {
        let load = self.loads.get(&id.0, 0)?;
        Ok(load.opened - load.closed)
    }

    pub(super) fn counted(&self, id: ServiceId) -> Result<ServiceCounters> {
        let mut sum = ServiceCounters::default();
        for counters in self.counters.get(&id.0, 0)?.iter() {
            sum.connections += counters.connections;
            sum.packets += counters.packets;
            sum.bytes += counters.bytes;
            sum.refused += counters.refused;
        }
        Ok(sum)
    }
}

fn label(reason: Reason) -> &'static str {
    Reason::ALL
        .iter()
        .find(|(known, _)| *known == reason)
        .map_or("?", |(_, label)| label)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a test for both families in a network namespace of its own, alone on the shared programs.
pub(super) fn test(case: u8, body: impl Fn(&mut Bench, Place) -> Result<()>) -> Result<()> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    let bench = BENCH.get_or_init(|| Mutex::new(Bench::load().unwrap_or_else(|error| panic!("{error:?}"))));
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    // Of this thread alone, which ends with the test.
    unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
    routes()?;
    for v4 in [true, false] {
        body(&mut bench, Place { v4, case }).with_context(|| if v4 { "IPv4" } else { "IPv6" })?;
    }
    Ok(())
}

/// Everything is behind one neighbour, whose address is known; but 10.99/16 and `fd00:63::/32` are behind one whose address is not.
pub(super) fn routes() -> Result<()> {
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let lines = format!(
        "link set lo up\nlink add u0 address {} type veth peer name u1\nlink set u1 up\nlink set u0 up\n\
         address add 192.0.2.1/24 dev u0\naddress add 2001:db8::1/64 dev u0 nodad\n\
         neighbour add 192.0.2.254 lladdr {gateway} dev u0 nud permanent\n\
         neighbour add 2001:db8::fe lladdr {gateway} dev u0 nud permanent\n\
         route add 10.0.0.0/8 via 192.0.2.254\nroute add fd00::/16 via 2001:db8::fe\n\
         route add 10.99.0.0/16 via 192.0.2.253\nroute add fd00:63::/32 via 2001:db8::fd\n",
        mac(OUT_MAC),
        gateway = mac(GATEWAY_MAC)
    );
    for path in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/thread-self/net/../../sys/net/{path}"), "1")
            .or_else(|_| fs::write(format!("/proc/sys/net/{path}"), "1"))
            .with_context(|| format!("sysctl net/{path}"))?;
    }
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("can't run ip")?;
    ip.stdin.take().context("no pipe to ip")?.write_all(lines.as_bytes())?;
    ensure!(ip.wait()?.success(), "ip failed");
    Ok(())
}
