//! Manifests: applied, applied again, changed, tried out, deleted, waited for.

use anyhow::Result;

use crate::clients::Server;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {app: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: dns, port: 53, protocol: UDP}
";

#[test]
fn a_manifest_is_created_then_unchanged_then_configured() -> Result<()> {
    let server = Server::start()?;
    assert_eq!(server.apply(WEB)?, "service/web created\n");
    let before = server.json(&["service", "web"])?;
    assert_eq!(server.apply(WEB)?, "service/web unchanged\n");
    assert_eq!(
        server.json(&["service", "web"])?,
        before,
        "an unchanged manifest must not be written"
    );
    let changed = WEB.replace("port: 80, targetPort: 8080", "port: 80, targetPort: 9090");
    assert_eq!(server.apply(&changed)?, "service/web configured\n");
    let after = server.json(&["service", "web"])?;
    assert_eq!(after["spec"]["ports"][0]["targetPort"], 9090);
    assert_eq!(after["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    assert_eq!(
        after["spec"]["ports"][0]["nodePort"],
        before["spec"]["ports"][0]["nodePort"]
    );
    Ok(())
}

#[test]
fn a_port_that_leaves_the_manifest_leaves_the_service_and_the_other_keeps_its_node_port() -> Result<()> {
    let server = Server::start()?;
    server.apply(WEB)?;
    let before = server.json(&["service", "web"])?;
    let without: String = WEB
        .lines()
        .filter(|line| !line.contains("name: http"))
        .map(|line| format!("{line}\n"))
        .collect();
    server.apply(&without)?;
    let after = server.json(&["service", "web"])?;
    assert_eq!(after["spec"]["ports"].as_array().map(Vec::len), Some(1));
    assert_eq!(after["spec"]["ports"][0], before["spec"]["ports"][1]);
    Ok(())
}

#[test]
fn a_dry_run_answers_and_writes_nothing() -> Result<()> {
    let server = Server::start()?;
    let tried = server
        .kubectl_with(&["apply", "--dry-run=server", "-f", "-"], WEB)?
        .ok()?;
    assert_eq!(tried, "service/web created (server dry run)\n");
    let error = server.kubectl(&["get", "service", "web"])?.error()?;
    assert_eq!(error, "Error from server (NotFound): services \"web\" not found");
    server.apply(WEB)?;
    let changed = WEB.replace("8080", "9090");
    server
        .kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &changed)?
        .ok()?;
    server
        .kubectl(&["delete", "service", "web", "--dry-run=server"])?
        .ok()?;
    assert_eq!(
        server.json(&["service", "web"])?["spec"]["ports"][0]["targetPort"],
        8080
    );
    Ok(())
}

#[test]
fn many_kinds_come_in_one_file() -> Result<()> {
    let server = Server::start()?;
    let manifest = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop}, data: {a: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: web, image: web}]}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1}}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader, namespace: shop}, spec: {holderIdentity: me}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.2.3]}]
ports: [{name: '', port: 80, protocol: TCP}]
";
    let created = server.apply(manifest)?;
    assert_eq!(
        created.lines().collect::<Vec<_>>(),
        [
            "namespace/shop created",
            "configmap/settings created",
            "pod/web-1 created",
            "node/node-1 created",
            "lease.coordination.k8s.io/leader created",
            "endpointslice.discovery.k8s.io/web-a created",
        ]
    );
    let again = server.apply(manifest)?;
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    assert_eq!(
        server.json(&["pod", "web-1", "-n", "shop"])?["status"]["phase"],
        "Pending"
    );
    Ok(())
}

#[test]
fn delete_waits_until_the_object_is_gone() -> Result<()> {
    let server = Server::start()?;
    server.apply(WEB)?;
    assert_eq!(
        server
            .kubectl(&["delete", "service", "web", "--timeout=20s"])?
            .ok()?
            .trim(),
        "service \"web\" deleted"
    );
    assert!(
        server
            .kubectl(&["get", "service", "web"])?
            .error()?
            .contains("(NotFound)")
    );
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
    server.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}")?;
    server
        .kubectl(&["delete", "namespace", "shop", "--timeout=20s"])?
        .ok()?;
    assert!(
        server
            .kubectl(&["get", "configmap", "a", "-n", "shop"])?
            .error()?
            .contains("(NotFound)")
    );
    Ok(())
}

#[test]
fn wait_sees_a_condition_come_true() -> Result<()> {
    let server = Server::start()?;
    server.apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}")?;
    let waiting = server.kubectl_lines(&["wait", "--for=condition=Ready", "pod/p", "--timeout=20s"])?;
    let status =
        r#"{"status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]}}"#;
    server
        .kubectl(&[
            "patch",
            "pod",
            "p",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])?
        .ok()?;
    waiting.wait_for("condition met", |line| line == "pod/p condition met")?;
    server
        .kubectl(&[
            "wait",
            "--for=jsonpath={.status.podIPs[0].ip}=10.1.2.3",
            "pod/p",
            "--timeout=20s",
        ])?
        .ok()?;
    Ok(())
}

#[test]
fn a_finalizer_holds_an_object_until_it_is_taken_off() -> Result<()> {
    let server = Server::start()?;
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, finalizers: [example.com/hold]}, spec: {containers: [{name: c, image: i}]}}";
    server.apply(pod)?;
    server.kubectl(&["delete", "pod", "p", "--wait=false"])?.ok()?;
    assert!(server.json(&["pod", "p"])?["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.table(&["pods"])?[1][2], "Terminating");
    server
        .kubectl(&[
            "patch",
            "pod",
            "p",
            "--type=merge",
            "-p",
            r#"{"metadata": {"finalizers": null}}"#,
        ])?
        .ok()?;
    assert!(server.kubectl(&["get", "pod", "p"])?.error()?.contains("(NotFound)"));
    Ok(())
}

#[test]
fn what_was_applied_survives_a_crash() -> Result<()> {
    let mut server = Server::start()?;
    server.apply(WEB)?;
    let before = server.json(&["service", "web"])?;
    server.crash_and_restart()?;
    assert_eq!(server.json(&["service", "web"])?, before);
    assert_eq!(server.apply(WEB)?, "service/web unchanged\n");
    Ok(())
}
