//! Unusual packets: protocols and fragments the proxy leaves alone, truncated headers, options, extension headers and
//! missing checksums.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use proxy_ebpf::abi::{Algorithm, Backend};
use proxy_ebpf::verdict::Reason;

use super::bench::{PROGRAMS, Pass, test};
use super::packets::{Spec, extended};

#[test]
fn kernel_matrix_packets_that_are_none_of_ours_stay_as_they_are() -> Result<()> {
    test(11, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), Backend::LOCAL)])?;
        bench.frontend(place.vip(), service, 0)?;
        let elsewhere = SocketAddr::new(place.ip(50, 1), 80);
        let syn = Spec::tcp(place.client(5000), place.vip(), "S").build();
        for program in PROGRAMS {
            let stranger = Spec::tcp(place.client(5000), elsewhere, "S");
            bench.check(program, &stranger, Pass, &stranger, Reason::NOT_OURS)?;
            let mut arp = syn.clone();
            arp[12..14].copy_from_slice(&[8, 6]);
            bench.check_bytes(program, &arp, Pass, &arp, Reason::NOT_BALANCED)?;
            let mut icmp = syn.clone();
            icmp[if place.v4 { 23 } else { 20 }] = if place.v4 { 1 } else { 58 };
            bench.check_bytes(program, &icmp, Pass, &icmp, Reason::NOT_BALANCED)?;
        }
        for program in ["xdp_uplink", "tc_uplink_ingress", "tc_pod_ingress"] {
            let mid_flow = Spec::tcp(place.client(5000), place.vip(), "A");
            bench.check(program, &mid_flow, Pass, &mid_flow, Reason::UNKNOWN_FLOW)?;
            if place.v4 {
                let mut fragment = syn.clone();
                fragment[20] = 0x20;
                bench.check_bytes(program, &fragment, Pass, &fragment, Reason::NOT_BALANCED)?;
            }
        }
        Ok(())
    })
}

#[test]
fn kernel_matrix_a_truncated_packet_is_never_half_rewritten() -> Result<()> {
    test(12, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), Backend::LOCAL)])?;
        bench.frontend(place.vip(), service, 0)?;
        for program in ["xdp_uplink", "tc_uplink_ingress", "tc_pod_ingress"] {
            for packet in [
                Spec::udp(place.client(5000), place.vip()),
                Spec::tcp(place.client(5000), place.vip(), "S"),
            ] {
                let mut packet = packet;
                packet.payload.clear();
                let bytes = packet.build();
                // Newer kernels take no test packet without a whole IP header.
                for length in 15..bytes.len() {
                    let cut = &bytes[..length];
                    if length < 14 + if place.v4 { 20 } else { 40 } && bench.run(program, cut).is_err() {
                        continue;
                    }
                    bench
                        .check_bytes(program, cut, Pass, cut, Reason::MALFORMED)
                        .with_context(|| format!("{length}"))?;
                }
                let whole = packet.between(packet.src, place.pod(1));
                let (action, out) = bench.run(program, &bytes)?;
                ensure!(
                    action == Pass && out == whole.build(),
                    "{program}: the whole packet is not forwarded"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn kernel_matrix_options_and_missing_checksums_survive() -> Result<()> {
    test(13, |bench, place| {
        let (service, _) = bench.service(Algorithm::ROUND_ROBIN, &[(place.pod(1), Backend::LOCAL)])?;
        bench.frontend(place.vip(), service, 0)?;
        for (port, program) in (5000..).zip(["xdp_uplink", "tc_uplink_ingress", "tc_pod_ingress"]) {
            let (client, pod) = (place.client(port), place.pod(1));
            let mut packet = Spec::udp(client, place.vip());
            packet.options = true;
            bench.check(program, &packet, Pass, &packet.between(client, pod), Reason::NEW_FLOW)?;
            packet.options = false;
            let (mut sent, mut expected) = (packet.build(), packet.between(client, pod).build());
            let checksum = 14 + if place.v4 { 20 } else { 40 } + 6;
            sent[checksum..checksum + 2].fill(0);
            expected[checksum..checksum + 2].fill(0);
            bench.check_bytes(program, &sent, Pass, &expected, Reason::FORWARDED)?;
            if !place.v4 {
                let (sent, expected) = (extended(&packet), extended(&packet.between(client, pod)));
                bench.check_bytes(program, &sent, Pass, &expected, Reason::FORWARDED)?;
            }
        }
        Ok(())
    })
}
