//! What isn't forwarded: Services without endpoints or without local ones, unknown ports, and flows whose backend is
//! dead.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use proxy_ebpf::abi::{Algorithm, Backend, Frontend, StateGeneration};
use proxy_ebpf::verdict::Reason;

use super::bench::{Dropped, Pass, Redirect, UPLINK, test};
use super::packets::{Spec, reset, unreachable};

#[test]
fn kernel_matrix_a_service_without_endpoints_and_an_unknown_port_are_rejected() -> Result<()> {
    test(7, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[])?;
        bench.frontend(place.vip(), service, 0)?;
        let nobody = SocketAddr::new(place.vip().ip(), 81);
        for program in ["xdp_uplink", "tc_uplink_ingress", "tc_pod_ingress"] {
            for (to, reason) in [(place.vip(), Reason::NO_ENDPOINTS), (nobody, Reason::UNKNOWN_PORT)] {
                let mut syn = Spec::tcp(place.client(5000), to, "S");
                syn.payload = b"fast open".to_vec();
                bench.check_bytes(program, &syn.build(), Redirect, &reset(&syn), reason)?;
                let datagram = Spec::udp(place.client(5000), to);
                bench.check_bytes(program, &datagram.build(), Redirect, &unreachable(&datagram), reason)?;
            }
            let mut mid_flow = Spec::tcp(place.client(5000), nobody, "A");
            mid_flow.payload = vec![7; 500];
            bench.check_bytes(
                program,
                &mid_flow.build(),
                Redirect,
                &reset(&mid_flow),
                Reason::UNKNOWN_PORT,
            )?;
            let own_reset = Spec::tcp(place.client(5000), nobody, "R");
            bench.check(program, &own_reset, Dropped, &own_reset, Reason::UNKNOWN_PORT)?;
        }
        ensure!(bench.counted(service)?.refused == 6, "{:?}", bench.counted(service)?);
        Ok(())
    })
}

#[test]
fn kernel_matrix_a_local_policy_without_a_local_endpoint_drops() -> Result<()> {
    test(8, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), 0)])?;
        bench.frontend(place.vip(), service, Frontend::EXTERNAL_LOCAL)?;
        let packet = Spec::udp(place.client(5000), place.vip());
        for program in UPLINK {
            bench.check(program, &packet, Dropped, &packet, Reason::NO_LOCAL_ENDPOINTS)?;
        }
        // The policy for Pods is another.
        let sent = packet.between(packet.src, place.pod(1));
        bench.check("tc_pod_ingress", &packet, Pass, &sent, Reason::NEW_FLOW)
    })
}

#[test]
fn kernel_matrix_a_dead_backend_resets_tcp_and_moves_udp() -> Result<()> {
    test(9, |bench, place| {
        let endpoints = [(place.pod(1), Backend::LOCAL), (place.pod(2), Backend::LOCAL)];
        let (service, ids) = bench.service(Algorithm::ROUND_ROBIN, &endpoints)?;
        bench.frontend(place.vip(), service, 0)?;
        let (client, vip) = (place.client(5000), place.vip());
        let packet = |flags| Spec::tcp(client, vip, flags);
        bench.check(
            "tc_pod_ingress",
            &packet("S"),
            Pass,
            &packet("S").between(client, place.pod(1)),
            Reason::NEW_FLOW,
        )?;
        let other = Spec::udp(client, vip);
        bench.check(
            "tc_pod_ingress",
            &other,
            Pass,
            &other.between(client, place.pod(2)),
            Reason::NEW_FLOW,
        )?;
        bench.set_state(ids[0], StateGeneration::DRAINING)?;
        bench.check(
            "tc_pod_ingress",
            &packet("A"),
            Pass,
            &packet("A").between(client, place.pod(1)),
            Reason::FORWARDED,
        )?;
        bench.set_state(ids[0], StateGeneration::DEAD)?;
        bench.check_bytes(
            "tc_pod_ingress",
            &packet("A").build(),
            Redirect,
            &reset(&packet("A")),
            Reason::BACKEND_GONE,
        )?;
        ensure!(bench.open(ids[0])? == 0, "the flow is counted out");
        bench.check("tc_pod_ingress", &packet("A"), Pass, &packet("A"), Reason::UNKNOWN_FLOW)?;
        bench.check(
            "tc_pod_ingress",
            &packet("S"),
            Pass,
            &packet("S").between(client, place.pod(2)),
            Reason::NEW_FLOW,
        )?;
        bench.set_state(ids[0], StateGeneration::ACTIVE)?;
        bench.set_state(ids[1], StateGeneration::DEAD)?;
        bench.check(
            "tc_pod_ingress",
            &other,
            Pass,
            &other.between(client, place.pod(1)),
            Reason::BACKEND_MOVED,
        )?;
        bench.check(
            "tc_pod_ingress",
            &other,
            Pass,
            &other.between(client, place.pod(1)),
            Reason::FORWARDED,
        )?;
        ensure!(
            (bench.open(ids[0])?, bench.open(ids[1])?) == (1, 1),
            "UDP moved, TCP's second try is still counted"
        );
        Ok(())
    })
}
