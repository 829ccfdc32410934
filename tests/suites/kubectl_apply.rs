//! From `kubectl apply` to the first connection, and from `kubectl delete` to the first refusal: a second at most, from a
//! Pod, from the node and from outside.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::process::eventually;

use crate::fixture::{Case, Shared, backend};

fn kubectl(case: &Case, arguments: &[&str], manifest: &Path) -> Result<()> {
    let output = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(case.cluster.control.kubeconfig())
        .args(arguments)
        .arg("-f")
        .arg(manifest)
        .output()
        .context("no kubectl on the PATH: install 1.32 or newer")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "kubectl {arguments:?}: {said}");
    Ok(())
}

#[test]
fn an_applied_service_answers_within_a_second_and_a_deleted_one_refuses_within_a_second() {
    static CLUSTER: Shared = Shared::new(&[]);
    CLUSTER.test("applied", |case| {
        let pods = case.backends("by-hand", &[backend("server", 2)])?;
        let client = case.client("client", 1)?;
        // No selector: the slice is written by hand, as by an operator of something outside the cluster.
        let manifest = case.cluster.scope().dir().join("applied.yaml");
        let yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: manual, namespace: applied}}\nspec:\n  type: NodePort\n  \
             clusterIP: 10.96.200.1\n  ports: [{{name: http, port: 80, targetPort: 8080, nodePort: 31234}}]\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: manual-1\n  namespace: applied\n  \
             labels: {{kubernetes.io/service-name: manual}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
             endpoints: [{{addresses: [{}], nodeName: node-2}}]\n",
            pods[0].ipv4
        );
        std::fs::write(&manifest, yaml)?;
        let node = case.cluster.node(1).place();
        let outside = case.cluster.outside.place().clone();
        let port = std::net::SocketAddr::new(case.cluster.node(1).ipv4().into(), 31234);
        let vip = "10.96.200.1:80".parse()?;
        let doors = [(&client.place, vip), (&node, vip), (&outside, port)];

        kubectl(case, &["apply"], &manifest)?;
        let applied = Instant::now();
        for (place, to) in doors {
            eventually(Duration::from_secs(1), || {
                let report = case.request(place, to, &["--timeout-ms=300"])?;
                anyhow::ensure!(report.from("server") == 1, "{to} doesn't answer: {report:?}");
                Ok(())
            })?;
        }
        let answered = applied.elapsed();
        assert!(answered < Duration::from_secs(1), "took {answered:?}");

        kubectl(case, &["delete"], &manifest)?;
        let deleted = Instant::now();
        for (place, to) in doors {
            eventually(Duration::from_secs(1), || {
                let report = case.request(place, to, &["--timeout-ms=300"])?;
                anyhow::ensure!(report.errors.contains_key("refused"), "{to} isn't refused: {report:?}");
                Ok(())
            })?;
        }
        let refused = deleted.elapsed();
        println!("all three answered {answered:?} after kubectl apply, all three refused {refused:?} after kubectl delete");
        assert!(refused < Duration::from_secs(1), "took {refused:?}");
        Ok(())
    });
}
