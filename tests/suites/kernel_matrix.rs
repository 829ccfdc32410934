//! The whole way in small, for every kernel of the matrix: what differs between them is how programs are attached (TCX, or
//! netlink filters below 6.6), which the packet tables don't see.

use std::time::Duration;

use crate::fixture::{Shared, backend, finish};

#[test]
fn kernel_matrix_a_cluster_serves_every_door_and_survives_its_agents() {
    static CLUSTER: Shared = Shared::new(&[]);
    CLUSTER.test("matrix", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "  type: NodePort\n")?;
        let client = case.client("client", 1)?;
        let outside = case.cluster.outside.place().clone();
        // A process outside the node's cgroup: no socket hook sees it, so its packets take the TC programs.
        let mut unhooked = client.place.clone();
        unhooked.cgroup = case.cluster.scope().cgroup().join("unhooked");
        for ipv6 in [false, true] {
            let (vip, port) = (case.vip("web", ipv6)?, case.node_port("web", 1, ipv6)?);
            for (place, to) in [(&client.place, vip), (&unhooked, vip), (&outside, port)] {
                lab::process::eventually(Duration::from_secs(30), || {
                    let report = case.request(place, to, &["--count=4"])?;
                    anyhow::ensure!(
                        report.from("web-1") == 2 && report.from("web-2") == 2,
                        "{to}: {report:?}"
                    );
                    Ok(())
                })?;
                if to == vip {
                    let report = case.request(place, to, &["--count=20", "--protocol=udp"])?;
                    assert_eq!(report.failed(), 0, "UDP to {to}: {report:?}");
                }
            }
        }
        let vip = case.vip("web", false)?;
        let endless = ["--count=100000000", "--duration-ms=20000", "--interval-ms=20"];
        let kept = [&endless[..], &["--protocol=keepalive"]].concat();
        let mut kept = case.flow("kept", &unhooked, vip, &kept)?;
        let mut new = case.flow("new", &outside, case.node_port("web", 1, false)?, &endless)?;
        std::thread::sleep(Duration::from_secs(1));
        case.cluster.agents[0].kill()?;
        case.cluster.agents[0].start()?;
        case.cluster.agents[0].wait_ready()?;
        let (kept, new) = (finish(&mut kept)?, finish(&mut new)?);
        assert_eq!((kept.failed(), new.failed()), (0, 0), "{kept:?} {new:?}");
        assert!(
            kept.ok > 50 && new.ok > 50,
            "too little traffic to tell: {kept:?} {new:?}"
        );
        Ok(())
    });
}
