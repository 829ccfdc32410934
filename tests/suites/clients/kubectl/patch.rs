//! Changes in place: the three kinds of patch, the status subresource, labels, replacement.

use anyhow::Result;
use serde_json::json;

use crate::clients::Server;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{name: a, port: 80}, {name: b, port: 81}]
";

fn with_service() -> Result<Server> {
    let server = Server::start()?;
    server.kubectl_with(&["create", "-f", "-"], WEB)?.ok()?;
    Ok(server)
}

#[test]
fn a_strategic_patch_merges_ports_by_number() -> Result<()> {
    let server = with_service()?;
    let patch = r#"{"spec": {"ports": [{"port": 81, "targetPort": 9000}, {"name": "c", "port": 82}]}}"#;
    server.kubectl(&["patch", "svc", "web", "-p", patch])?.ok()?;
    let service = server.json(&["svc", "web"])?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let mut seen: Vec<_> = ports
        .iter()
        .map(|port| (port["port"].clone(), port["name"].clone(), port["targetPort"].clone()))
        .collect();
    seen.sort_by_key(|(port, ..)| port.as_i64());
    assert_eq!(
        seen,
        [
            (json!(80), json!("a"), json!(80)),
            (json!(81), json!("b"), json!(9000)),
            (json!(82), json!("c"), json!(82)),
        ]
    );
    let delete = r#"{"spec": {"ports": [{"$patch": "delete", "port": 80}]}}"#;
    server.kubectl(&["patch", "svc", "web", "-p", delete])?.ok()?;
    assert_eq!(
        server.json(&["svc", "web"])?["spec"]["ports"].as_array().map(Vec::len),
        Some(2)
    );
    Ok(())
}

#[test]
fn a_merge_patch_replaces_lists_and_null_removes() -> Result<()> {
    let server = with_service()?;
    let patch = r#"{"metadata": {"labels": {"x": "y"}}, "spec": {"ports": [{"port": 90}]}}"#;
    server
        .kubectl(&["patch", "svc", "web", "--type=merge", "-p", patch])?
        .ok()?;
    let service = server.json(&["svc", "web"])?;
    assert_eq!(
        service["spec"]["ports"],
        json!([{"port": 90, "protocol": "TCP", "targetPort": 90}])
    );
    assert_eq!(service["metadata"]["labels"], json!({"x": "y"}));
    server
        .kubectl(&[
            "patch",
            "svc",
            "web",
            "--type=merge",
            "-p",
            r#"{"metadata": {"labels": {"x": null}}}"#,
        ])?
        .ok()?;
    assert_eq!(
        server.json(&["svc", "web"])?["metadata"]
            .get("labels")
            .filter(|labels| **labels != json!({})),
        None
    );
    Ok(())
}

#[test]
fn a_json_patch_tests_and_replaces() -> Result<()> {
    let server = with_service()?;
    let patch = r#"[{"op": "test", "path": "/spec/ports/0/port", "value": 80}, {"op": "replace", "path": "/spec/ports/0/port", "value": 8080}]"#;
    server
        .kubectl(&["patch", "svc", "web", "--type=json", "-p", patch])?
        .ok()?;
    assert_eq!(server.json(&["svc", "web"])?["spec"]["ports"][0]["port"], 8080);
    let again = server
        .kubectl(&["patch", "svc", "web", "--type=json", "-p", patch])?
        .error()?;
    assert!(
        again.contains("/spec/ports/0/port"),
        "the failed operation must be named: {again}"
    );
    Ok(())
}

#[test]
fn a_patch_that_changes_nothing_is_no_write() -> Result<()> {
    let server = with_service()?;
    let before = server.json(&["svc", "web"])?;
    let text = server
        .kubectl(&["patch", "svc", "web", "-p", r#"{"spec": {"type": "ClusterIP"}}"#])?
        .ok()?;
    assert_eq!(text, "service/web patched (no change)\n");
    assert_eq!(server.json(&["svc", "web"])?, before);
    Ok(())
}

#[test]
fn status_and_spec_change_only_through_their_own_path() -> Result<()> {
    let server = with_service()?;
    let both =
        r#"{"spec": {"sessionAffinity": "ClientIP"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}"#;
    server
        .kubectl(&["patch", "svc", "web", "--type=merge", "-p", both])?
        .ok()?;
    let service = server.json(&["svc", "web"])?;
    assert_eq!(
        (&service["spec"]["sessionAffinity"], &service["status"]),
        (&json!("ClientIP"), &json!({"loadBalancer": {}}))
    );
    let both = both.replace("ClientIP", "None");
    server
        .kubectl(&[
            "patch",
            "svc",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            &both,
        ])?
        .ok()?;
    let service = server.json(&["svc", "web"])?;
    assert_eq!(service["spec"]["sessionAffinity"], "ClientIP");
    assert_eq!(
        service["status"]["loadBalancer"]["ingress"][0],
        json!({"ip": "192.0.2.1", "ipMode": "VIP"})
    );
    assert_eq!(
        server.json(&["svc", "web", "--subresource=status"])?["status"],
        service["status"]
    );
    Ok(())
}

#[test]
fn labels_annotations_and_taints_are_set_and_removed() -> Result<()> {
    let server = with_service()?;
    server.kubectl(&["label", "svc", "web", "a=b"])?.ok()?;
    server.kubectl(&["annotate", "svc", "web", "example.com/x=y"])?.ok()?;
    let metadata = server.json(&["svc", "web"])?["metadata"].clone();
    assert_eq!(
        (&metadata["labels"]["a"], &metadata["annotations"]["example.com/x"]),
        (&json!("b"), &json!("y"))
    );
    server.kubectl(&["label", "svc", "web", "a-"])?.ok()?;
    assert_eq!(server.json(&["svc", "web"])?["metadata"]["labels"].get("a"), None);
    server.apply("{apiVersion: v1, kind: Node, metadata: {name: n1}}")?;
    server.kubectl(&["taint", "node", "n1", "k=v:NoSchedule"])?.ok()?;
    assert_eq!(
        server.json(&["node", "n1"])?["spec"]["taints"][0]["effect"],
        "NoSchedule"
    );
    server.kubectl(&["cordon", "n1"])?.ok()?;
    assert_eq!(server.json(&["node", "n1"])?["spec"]["unschedulable"], true);
    Ok(())
}

#[test]
fn a_replacement_keeps_what_was_allocated_and_a_stale_one_is_refused() -> Result<()> {
    let server = Server::start()?;
    let manifest = WEB.replace("spec:", "spec:\n  type: NodePort");
    server.apply(&manifest)?;
    let before = server.json(&["svc", "web"])?;
    server
        .kubectl_with(&["replace", "-f", "-"], &manifest.replace("port: 80", "port: 88"))?
        .ok()?;
    let after = server.json(&["svc", "web"])?;
    assert_eq!(after["spec"]["ports"][0]["port"], 88);
    assert_eq!(after["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    for index in 0..2 {
        assert_eq!(
            after["spec"]["ports"][index]["nodePort"],
            before["spec"]["ports"][index]["nodePort"]
        );
    }
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let error = server
        .kubectl_with(&["replace", "-f", "-"], &before.to_string())?
        .error()?;
    assert!(
        error.contains("Operation cannot be fulfilled on services \"web\": the object has been modified; please apply your changes to the latest version and try again"),
        "{error}"
    );
    Ok(())
}

#[test]
fn changing_the_type_claims_and_releases() -> Result<()> {
    let server = with_service()?;
    let address = server.json(&["svc", "web"])?["spec"]["clusterIP"].clone();
    let to = |spec: &str| {
        server
            .kubectl(&[
                "patch",
                "svc",
                "web",
                "--type=merge",
                "-p",
                &format!("{{\"spec\": {spec}}}"),
            ])?
            .ok()
    };
    to(r#"{"type": "NodePort"}"#)?;
    let service = server.json(&["svc", "web"])?;
    let port = service["spec"]["ports"][0]["nodePort"].as_i64().unwrap_or_default();
    assert!((30000..=32767).contains(&port), "{service}");
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["externalTrafficPolicy"]),
        (&address, &json!("Cluster"))
    );
    to(r#"{"type": "ClusterIP"}"#)?;
    let service = server.json(&["svc", "web"])?;
    assert_eq!(service["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(service["spec"]["clusterIP"], address);
    to(r#"{"type": "ExternalName", "externalName": "example.com"}"#)?;
    let service = server.json(&["svc", "web"])?;
    assert_eq!(
        (service["spec"].get("clusterIP"), service["spec"].get("ipFamilies")),
        (None, None)
    );
    // Both the port and the address are free for another Service now.
    server.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: next}}, spec: {{type: NodePort, clusterIP: {address}, ports: [{{port: 80, nodePort: {port}}}]}}}}"
    ))?;
    Ok(())
}
