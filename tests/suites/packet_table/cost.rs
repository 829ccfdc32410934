//! What a packet of an established flow costs, by the kernel's own measure.

use anyhow::{Result, ensure};
use proxy_ebpf::abi::{Algorithm, Backend, FlowEntry};

use super::bench::test;
use super::packets::{Spec, key};

/// Not a test of speed, which belongs to benchmarks: prints what the kernel says a packet costs, beside a frame that is
/// only looked at.
#[test]
fn established_flows_take_well_under_a_microsecond() -> Result<()> {
    test(16, |bench, place| {
        let endpoints = [(place.pod(1), Backend::LOCAL), (place.pod(2), 0)];
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &endpoints)?;
        bench.frontend(place.vip(), service, 0)?;
        for (program, to) in [
            ("tc_pod_ingress", "local"),
            ("xdp_uplink", "remote"),
            ("tc_uplink_ingress", "remote"),
        ] {
            let first = Spec::udp(place.client(if to == "local" { 5000 } else { 30_000 }), place.vip());
            bench.run(program, &first.build())?;
            // The packet stays rewritten from one round to the next, so the flow is one that changes nothing.
            let own = FlowEntry {
                translated: key(&first),
                ..bench.conntrack.get(&key(&first), 0)?
            };
            bench.conntrack.insert(key(&first), own, 0)?;
            let mut ttl = first.clone();
            ttl.ttl = 255;
            let mut arp = first.build();
            arp[13] = 6;
            let measured = [if to == "local" { "xdp_uplink" } else { program }, program];
            for program in measured {
                // What is sent on may be sent no more often than its time to live says.
                let cost = bench.cost(program, &ttl.build(), if to == "local" { 10_000 } else { 200 })?;
                let arp = bench.cost(program, &arp, 10_000)?;
                println!(
                    "{program} IPv{} {to}: {cost} ns, ARP {arp} ns",
                    if place.v4 { 4 } else { 6 }
                );
                ensure!(cost < 1000, "{program} takes {cost} ns");
            }
        }
        Ok(())
    })
}
