//! Node ports and load-balancer addresses from outside: native XDP, its TC twin alone, and generic XDP.

use anyhow::Result;

use crate::fixture::{Case, Shared, backend};

fn a_backend_on_this_node_sees_the_clients_own_address(case: &mut Case) -> Result<()> {
    case.backends("here", &[backend("here-1", 1)])?;
    case.service("here", "here", "rr", "  type: NodePort\n")?;
    let outside = case.cluster.outside.place().clone();
    for ipv6 in [false, true] {
        let to = case.node_port("here", 1, ipv6)?;
        case.wait_served(&outside, to, &["here-1"])?;
        let source = if ipv6 { "fd00:18::100:7" } else { "172.18.100.7" };
        for protocol in ["tcp", "keepalive"] {
            let report = case.request(
                &outside,
                to,
                &["--count=20", "--protocol", protocol, "--source", source],
            )?;
            assert_eq!(
                (report.from("here-1"), report.failed()),
                (20, 0),
                "{protocol} to {to}: {report:?}"
            );
            assert_eq!(report.peers.get(&source.parse()?), Some(&20), "{report:?}");
        }
    }
    Ok(())
}

fn a_backend_on_another_node_answers_through_this_one(case: &mut Case) -> Result<()> {
    case.backends("there", &[backend("there-1", 2)])?;
    case.service("there", "there", "rr", "  type: NodePort\n")?;
    let outside = case.cluster.outside.place().clone();
    for ipv6 in [false, true] {
        let to = case.node_port("there", 1, ipv6)?;
        case.wait_served(&outside, to, &["there-1"])?;
        let node = case.cluster.node(1);
        let masqueraded = if ipv6 { node.ipv6().into() } else { node.ipv4().into() };
        for protocol in ["tcp", "keepalive"] {
            let report = case.request(&outside, to, &["--count=20", "--protocol", protocol])?;
            assert_eq!(
                (report.from("there-1"), report.failed()),
                (20, 0),
                "{protocol} to {to}: {report:?}"
            );
            assert_eq!(
                report.peers.get(&masqueraded),
                Some(&20),
                "the first node is the client: {report:?}"
            );
        }
    }
    Ok(())
}

fn datagrams_reach_backends_on_both_nodes(case: &mut Case) -> Result<()> {
    case.backends("dns", &[backend("dns-1", 1), backend("dns-2", 2)])?;
    case.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: dns, namespace: {}}}\nspec:\n  type: NodePort\n  \
         ipFamilyPolicy: RequireDualStack\n  selector: {{app: dns}}\n  ports:\n  - {{port: 53, protocol: UDP, targetPort: 8080}}\n",
        case.namespace
    ))?;
    let outside = case.cluster.outside.place().clone();
    for ipv6 in [false, true] {
        let to = case.node_port("dns", 1, ipv6)?;
        lab::process::eventually(std::time::Duration::from_secs(5), || {
            let report = case.request(&outside, to, &["--protocol=udp", "--count=4", "--timeout-ms=300"])?;
            anyhow::ensure!(report.failed() == 0, "{report:?}");
            Ok(())
        })?;
        let report = case.request(&outside, to, &["--protocol=udp", "--count=40"])?;
        assert_eq!(
            (report.from("dns-1"), report.from("dns-2"), report.failed()),
            (20, 20, 0),
            "{to}: {report:?}"
        );
    }
    Ok(())
}

fn a_load_balancer_address_is_served_too(case: &mut Case) -> Result<()> {
    case.backends("lb", &[backend("lb-1", 1), backend("lb-2", 2)])?;
    case.service("lb", "lb", "rr", "  type: LoadBalancer\n")?;
    case.load_balancer_address("lb", "203.0.113.7")?;
    let outside = case.cluster.outside.place().clone();
    case.cluster
        .outside
        .route("203.0.113.7/32", case.cluster.node(1).ipv4().into())?;
    case.wait_served(&outside, "203.0.113.7:80".parse()?, &["lb-1", "lb-2"])?;
    let client = case.client("client", 2)?;
    case.wait_served(&client.place, "203.0.113.7:80".parse()?, &["lb-1", "lb-2"])
}

fn a_node_port_without_endpoints_is_refused(case: &mut Case) -> Result<()> {
    case.service("none", "none", "rr", "  type: NodePort\n")?;
    let outside = case.cluster.outside.place().clone();
    for ipv6 in [false, true] {
        let to = case.node_port("none", 1, ipv6)?;
        lab::process::eventually(std::time::Duration::from_secs(2), || {
            let report = case.request(&outside, to, &["--count=3", "--timeout-ms=300"])?;
            anyhow::ensure!(report.errors.get("refused") == Some(&3), "{to}: {report:?}");
            Ok(())
        })?;
        case.cluster.agents[0].metric("waggle_verdicts_total{reason=\"no_endpoints\"}")?;
    }
    Ok(())
}

/// Instantiates the tests above for one way of attaching.
macro_rules! attached {
    ($mode:ident, $flags:expr, $($test:ident: $namespace:literal,)*) => {
        mod $mode {
            static CLUSTER: super::Shared = super::Shared::new($flags);
            $(
                #[test]
                fn $test() {
                    CLUSTER.test($namespace, super::$test);
                }
            )*
        }
    };
}

attached! { native_xdp, &["--xdp=native"],
    a_backend_on_this_node_sees_the_clients_own_address: "here",
    a_backend_on_another_node_answers_through_this_one: "there",
    datagrams_reach_backends_on_both_nodes: "datagrams",
    a_load_balancer_address_is_served_too: "load-balancer",
    a_node_port_without_endpoints_is_refused: "none",
}

attached! { tc_only, &["--xdp=off"],
    a_backend_on_this_node_sees_the_clients_own_address: "here",
    a_backend_on_another_node_answers_through_this_one: "there",
    datagrams_reach_backends_on_both_nodes: "datagrams",
    a_load_balancer_address_is_served_too: "load-balancer",
    a_node_port_without_endpoints_is_refused: "none",
}

attached! { generic_xdp, &["--xdp=generic"],
    a_backend_on_another_node_answers_through_this_one: "there",
}

#[test]
fn the_nodes_own_loopback_reaches_a_node_port() {
    static CLUSTER: Shared = Shared::new(&[]);
    CLUSTER.test("loopback", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "  type: NodePort\n")?;
        let node = case.cluster.node(1).place();
        for ipv6 in [false, true] {
            let mut to = case.node_port("web", 1, ipv6)?;
            to.set_ip(if ipv6 {
                std::net::Ipv6Addr::LOCALHOST.into()
            } else {
                std::net::Ipv4Addr::LOCALHOST.into()
            });
            case.wait_served(&node, to, &["web-1", "web-2"])?;
        }
        Ok(())
    });
}
