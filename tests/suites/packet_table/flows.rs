//! Flows and their way through a node: from outside and from a Pod, to a backend here or elsewhere, there and back; what
//! conntrack holds of them meanwhile, and that both halves of a flow restore each other.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use proxy_ebpf::abi::{Algorithm, Backend, FlowEntry};
use proxy_ebpf::verdict::Reason;

use super::bench::{Dropped, Pass, Redirect, UPLINK, test};
use super::packets::{Spec, addr, key};

#[test]
fn kernel_matrix_udp_from_outside_reaches_a_local_backend_and_its_reply_comes_from_the_frontend() -> Result<()> {
    test(1, |bench, place| {
        let (service, ids) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), Backend::LOCAL)])?;
        bench.frontend(place.vip(), service, 0)?;
        for (port, program) in (4000..).zip(UPLINK) {
            let (client, vip, pod) = (place.client(port), place.vip(), place.pod(1));
            let packet = Spec::udp(client, vip);
            bench.check(program, &packet, Pass, &packet.between(client, pod), Reason::NEW_FLOW)?;
            bench.check(program, &packet, Pass, &packet.between(client, pod), Reason::FORWARDED)?;
            let reply = packet.between(pod, client);
            bench.check(
                "tc_uplink_egress",
                &reply,
                Pass,
                &packet.between(vip, client),
                Reason::REPLIED,
            )?;
            // On the Pod's own device neither direction is touched.
            bench.check("tc_pod_ingress", &reply, Pass, &reply, Reason::NOT_OURS)?;
            bench.check(
                "tc_pod_egress",
                &packet.between(client, pod),
                Pass,
                &packet.between(client, pod),
                Reason::NOT_OURS,
            )?;
            let entry = bench.conntrack.get(&key(&packet), 0)?;
            ensure!(
                entry.flags == FlowEntry::FROM_UPLINK | FlowEntry::REPLIED,
                "flags {:#x}",
                entry.flags
            );
        }
        ensure!(bench.open(ids[0])? == 2, "two flows are open");
        let counted = bench.counted(service)?;
        ensure!(
            (counted.connections, counted.packets, counted.refused) == (2, 6, 0),
            "{counted:?}"
        );
        ensure!(
            counted.bytes == 6 * (if place.v4 { 20 } else { 40 } + 8 + 10),
            "{counted:?}"
        );
        Ok(())
    })
}

#[test]
fn kernel_matrix_tcp_from_outside_to_another_node_goes_out_again_and_is_half_open_until_confirmed() -> Result<()> {
    test(2, |bench, place| {
        let (service, ids) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), 0)])?;
        bench.frontend(place.vip(), service, 0)?;
        for (n, program) in UPLINK.into_iter().enumerate() {
            let port = 30_000 + n as u16;
            let (client, vip, node, pod) = (place.client(port), place.vip(), place.node(port), place.pod(1));
            let packet = |flags| Spec::tcp(client, vip, flags);
            let sent = |flags| packet(flags).between(node, pod).routed();
            bench.check(program, &packet("S"), Redirect, &sent("S"), Reason::NEW_FLOW)?;
            ensure!(
                bench.half_open.get(&key(&packet("S")), 0).is_ok(),
                "the flow is half open"
            );
            ensure!(
                bench.conntrack.get(&key(&packet("S")), 0).is_err(),
                "and not established"
            );
            ensure!(bench.open(ids[0])? == n as u64, "a half-open flow doesn't count");
            bench.check(program, &packet("S"), Redirect, &sent("S"), Reason::FORWARDED)?;
            let answer = |flags| Spec::tcp(pod, node, flags);
            let back = |flags| answer(flags).between(vip, client).routed();
            bench.check(program, &answer("SA"), Redirect, &back("SA"), Reason::REPLIED)?;
            bench.check(program, &packet("A"), Redirect, &sent("A"), Reason::FORWARDED)?;
            ensure!(
                bench.half_open.get(&key(&packet("S")), 0).is_err(),
                "the flow is confirmed"
            );
            ensure!(bench.open(ids[0])? == n as u64 + 1, "and counts");
            bench.check(program, &answer("A"), Redirect, &back("A"), Reason::REPLIED)?;
            bench.check(program, &packet("FA"), Redirect, &sent("FA"), Reason::FORWARDED)?;
            ensure!(bench.open(ids[0])? == n as u64 + 1, "one FIN doesn't end it");
            bench.check(program, &answer("FA"), Redirect, &back("FA"), Reason::REPLIED)?;
            ensure!(bench.open(ids[0])? == n as u64, "two do");
            let entry = bench.conntrack.get(&key(&packet("S")), 0)?;
            ensure!(
                entry.flags & FlowEntry::CLOSED != 0 && entry.counted == 0,
                "flags {:#x}",
                entry.flags
            );
            bench.check(program, &packet("A"), Redirect, &sent("A"), Reason::FORWARDED)?;
            // The ports are used again, and the new connection ends by a reset.
            bench.check(program, &packet("S"), Redirect, &sent("S"), Reason::NEW_FLOW)?;
            bench.check(program, &packet("A"), Redirect, &sent("A"), Reason::FORWARDED)?;
            bench.check(program, &answer("R"), Redirect, &back("R"), Reason::REPLIED)?;
            ensure!(bench.open(ids[0])? == n as u64, "a reset ends it too");
            // Leave one open, so that the next program's count starts from it.
            bench.check(program, &packet("S"), Redirect, &sent("S"), Reason::NEW_FLOW)?;
            bench.check(program, &packet("A"), Redirect, &sent("A"), Reason::FORWARDED)?;
        }
        Ok(())
    })
}

#[test]
fn kernel_matrix_without_a_neighbour_xdp_leaves_the_packet_to_tc() -> Result<()> {
    test(3, |bench, place| {
        let pod = SocketAddr::new(place.ip(99, 7), 8080);
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(pod, 0)])?;
        bench.frontend(place.vip(), service, 0)?;
        let packet = Spec::udp(place.client(31_000), place.vip());
        bench.check("xdp_uplink", &packet, Pass, &packet, Reason::NO_NEIGHBOUR)?;
        ensure!(bench.counted(service)?.packets == 0, "whoever sends it on counts it");
        let mut sent = packet.between(place.node(31_000), pod);
        sent.ttl -= 1;
        bench.check("tc_uplink_ingress", &packet, Redirect, &sent, Reason::FORWARDED)?;
        let mut last = packet.clone();
        last.ttl = 1;
        bench.check("tc_uplink_ingress", &last, Dropped, &last, Reason::TTL)
    })
}

#[test]
fn kernel_matrix_source_ports_are_unique_behind_the_node() -> Result<()> {
    test(4, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), 0)])?;
        bench.frontend(place.vip(), service, 0)?;
        let mut ports = std::collections::BTreeSet::new();
        for host in 1..=40 {
            for (port, program) in [(40_000, UPLINK[0]), (100, UPLINK[1])] {
                let client = SocketAddr::new(place.ip(1, host), port);
                let packet = Spec::udp(client, place.vip());
                let (action, _) = bench.run(program, &packet.build())?;
                ensure!(action == Redirect, "{action:?}: {}", bench.reasons_text()?);
                let source = bench.conntrack.get(&key(&packet), 0)?.translated.sport.get();
                ensure!((20_000..60_000).contains(&source), "source port {source} for {client}");
                ensure!(ports.insert(source), "source port {source} twice");
                let reply = packet.between(place.pod(1), place.node(source));
                bench.check(
                    program,
                    &reply,
                    Redirect,
                    &packet.between(place.vip(), client).routed(),
                    Reason::REPLIED,
                )?;
            }
        }
        ensure!(ports.contains(&40_000), "the first client keeps its port");
        Ok(())
    })
}

#[test]
fn kernel_matrix_a_pod_reaches_a_cluster_ip_and_itself() -> Result<()> {
    test(5, |bench, place| {
        let (pod, own) = (place.pod(1), SocketAddr::new(place.client(0).ip(), 8080));
        let (service, ids) = bench.service(Algorithm::ROUND_ROBIN, &[(pod, 0), (own, Backend::LOCAL)])?;
        bench.frontend(place.vip(), service, 0)?;
        let (client, vip) = (place.client(5000), place.vip());
        let packet = |flags| Spec::tcp(client, vip, flags);
        bench.check(
            "tc_pod_ingress",
            &packet("S"),
            Pass,
            &packet("S").between(client, pod),
            Reason::NEW_FLOW,
        )?;
        ensure!(bench.open(ids[0])? == 1, "a Pod's connection counts at once");
        let reply = packet("SA").between(pod, client);
        for program in UPLINK {
            bench.check(program, &reply, Pass, &reply, Reason::NOT_OURS)?;
        }
        bench.check(
            "tc_pod_egress",
            &reply,
            Pass,
            &packet("SA").between(vip, client),
            Reason::REPLIED,
        )?;
        bench.check("tc_uplink_egress", &reply, Pass, &reply, Reason::NOT_OURS)?;
        // The next one is for itself: it must see the hairpin address.
        let (client, hairpin) = (place.client(5001), place.hairpin(5001));
        let packet = |flags| Spec::tcp(client, vip, flags);
        let turned = packet("S").between(hairpin, own).turned();
        bench.check("tc_pod_ingress", &packet("S"), Redirect, &turned, Reason::NEW_FLOW)?;
        let reply = packet("SA").between(own, hairpin);
        bench.check("tc_pod_egress", &reply, Pass, &reply, Reason::NOT_OURS)?;
        let turned = packet("SA").between(vip, client).turned();
        bench.check("tc_pod_ingress", &reply, Redirect, &turned, Reason::REPLIED)
    })
}

#[test]
fn kernel_matrix_two_flows_that_become_one_get_ports_of_their_own() -> Result<()> {
    test(6, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), 0)])?;
        let other = SocketAddr::new(place.ip(96, 11), 80);
        bench.frontend(place.vip(), service, 0)?;
        bench.frontend(other, service, 0)?;
        let (client, pod) = (place.client(5000), place.pod(1));
        let first = Spec::udp(client, place.vip());
        bench.check(
            "tc_pod_ingress",
            &first,
            Pass,
            &first.between(client, pod),
            Reason::NEW_FLOW,
        )?;
        let second = Spec::udp(client, other);
        bench.run("tc_pod_ingress", &second.build())?;
        let translated = bench.conntrack.get(&key(&second), 0)?.translated;
        ensure!(
            translated.sport.get() != 5000 && translated.src == addr(client.ip()),
            "{translated:?}"
        );
        let moved = SocketAddr::new(client.ip(), translated.sport.get());
        for (seen, vip) in [(client, place.vip()), (moved, other)] {
            let reply = first.between(pod, seen);
            bench.check(
                "tc_pod_egress",
                &reply,
                Pass,
                &first.between(vip, client),
                Reason::REPLIED,
            )?;
        }
        Ok(())
    })
}

#[test]
fn kernel_matrix_either_half_of_a_flow_rebuilds_the_other() -> Result<()> {
    test(10, |bench, place| {
        let (service, ids) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), 0)])?;
        bench.frontend(place.vip(), service, 0)?;
        let (client, vip, pod) = (place.client(5000), place.vip(), place.pod(1));
        let packet = Spec::udp(client, vip);
        let reply = packet.between(pod, client);
        bench.check(
            "tc_pod_ingress",
            &packet,
            Pass,
            &packet.between(client, pod),
            Reason::NEW_FLOW,
        )?;
        bench.check(
            "tc_pod_egress",
            &reply,
            Pass,
            &packet.between(vip, client),
            Reason::REPLIED,
        )?;
        for (lost, kept, program) in [(&reply, &packet, "tc_pod_ingress"), (&packet, &reply, "tc_pod_egress")] {
            let whole = bench.conntrack.get(&key(lost), 0)?;
            bench.conntrack.remove(&key(lost))?;
            let stale = FlowEntry {
                last_seen: 0,
                ..bench.conntrack.get(&key(kept), 0)?
            };
            bench.conntrack.insert(key(kept), stale, 0)?;
            let before = bench.reason(Reason::REPAIRED)?;
            bench.run(program, &kept.build())?;
            ensure!(bench.reason(Reason::REPAIRED)? == before + 1, "nothing was rebuilt");
            let rebuilt = bench.conntrack.get(&key(lost), 0)?;
            ensure!(
                FlowEntry {
                    last_seen: whole.last_seen,
                    ..rebuilt
                } == whole,
                "{rebuilt:?}, not {whole:?}"
            );
            bench.run(program, &kept.build())?;
            ensure!(bench.reason(Reason::REPAIRED)? == before + 1, "and nothing twice");
        }
        ensure!(bench.open(ids[0])? == 1, "the flow is counted once");
        Ok(())
    })
}
