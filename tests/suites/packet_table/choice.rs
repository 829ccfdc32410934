//! Which backend a new flow gets: each algorithm, and session affinity.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use proxy_ebpf::abi::{Algorithm, Backend, BackendId, BackendLoad, Service, StateGeneration};

use super::bench::{Bench, test};
use super::packets::{Spec, key};

#[test]
fn kernel_matrix_algorithms_choose_as_they_promise() -> Result<()> {
    test(14, |bench, place| {
        let endpoints: Vec<(SocketAddr, u16)> = (1..=4).map(|host| (place.pod(host), Backend::LOCAL)).collect();
        let chosen = |bench: &Bench, port: u16, host: u8| -> Result<BackendId> {
            let packet = Spec::udp(SocketAddr::new(place.ip(1, host), port), place.vip());
            bench.run("tc_pod_ingress", &packet.build())?;
            Ok(bench.conntrack.get(&key(&packet), 0)?.backend)
        };
        let (service, ids) = bench.service(Algorithm::ROUND_ROBIN, &endpoints)?;
        bench.frontend(place.vip(), service, 0)?;
        for port in 1000..1400 {
            chosen(bench, port, 9)?;
        }
        for id in &ids {
            ensure!(
                bench.open(*id)? == 100,
                "round robin gave {id:?} {} flows of 400",
                bench.open(*id)?
            );
        }
        // Least connections fills up whoever has fewer.
        let (service, ids) = bench.service(Algorithm::LEAST_CONN, &endpoints)?;
        bench.loads.set(ids[0].0, BackendLoad { opened: 30, closed: 0 }, 0)?;
        bench.loads.set(ids[1].0, BackendLoad { opened: 30, closed: 10 }, 0)?;
        bench.frontend(place.vip(), service, 0)?;
        for port in 1400..1470 {
            chosen(bench, port, 9)?;
        }
        for id in &ids {
            ensure!(
                bench.open(*id)? == 30,
                "least connections left {id:?} with {}",
                bench.open(*id)?
            );
        }
        // Source hash keeps to one backend per client, and knows more than one.
        let (service, _) = bench.service(Algorithm::SOURCE_HASH, &endpoints)?;
        bench.frontend(place.vip(), service, 0)?;
        let mut seen = std::collections::BTreeSet::new();
        for host in 10..60 {
            let first = chosen(bench, 2000, host)?;
            for port in 2001..2004 {
                ensure!(chosen(bench, port, host)? == first, "client {host} changed its backend");
            }
            seen.insert(first);
        }
        ensure!(seen.len() == 4, "50 clients use {} of 4 backends", seen.len());
        Ok(())
    })
}

#[test]
fn kernel_matrix_session_affinity_keeps_a_client() -> Result<()> {
    test(15, |bench, place| {
        let endpoints: Vec<(SocketAddr, u16)> = (1..=3).map(|host| (place.pod(host), Backend::LOCAL)).collect();
        let (id, ids) = bench.service(Algorithm::ROUND_ROBIN, &endpoints)?;
        let service = Service {
            affinity_secs: 600,
            generation: 2,
            ..bench.services.get(&id.0, 0)?
        };
        bench.services.set(id.0, service.sealed(), 0)?;
        bench.frontend(place.vip(), id, 0)?;
        let chosen = |bench: &Bench, port| -> Result<BackendId> {
            let packet = Spec::tcp(place.client(port), place.vip(), "S");
            bench.run("tc_pod_ingress", &packet.build())?;
            Ok(bench.conntrack.get(&key(&packet), 0)?.backend)
        };
        let first = chosen(bench, 5000)?;
        for port in 5001..5010 {
            ensure!(chosen(bench, port)? == first, "the client changed its backend");
        }
        bench.set_state(first, StateGeneration::DEAD)?;
        let second = chosen(bench, 5010)?;
        ensure!(
            second != first && ids.contains(&second),
            "its backend is gone: {second:?}"
        );
        ensure!(chosen(bench, 5011)? == second, "the new one is kept, too");
        Ok(())
    })
}
