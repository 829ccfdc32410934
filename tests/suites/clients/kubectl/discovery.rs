//! What the server says it can do: resources, versions, documentation.

use anyhow::Result;

use crate::clients::Server;

#[test]
fn api_resources_lists_every_kind_with_its_short_names() -> Result<()> {
    let server = Server::start()?;
    let text = server.kubectl(&["api-resources", "--no-headers"])?.ok()?;
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        vec!["services", "svc", "v1", "true", "Service"],
        vec!["namespaces", "ns", "v1", "false", "Namespace"],
        vec!["nodes", "no", "v1", "false", "Node"],
        vec!["pods", "po", "v1", "true", "Pod"],
        vec!["configmaps", "cm", "v1", "true", "ConfigMap"],
        vec!["events", "ev", "v1", "true", "Event"],
        vec!["endpointslices", "discovery.k8s.io/v1", "true", "EndpointSlice"],
        vec!["leases", "coordination.k8s.io/v1", "true", "Lease"],
    ] {
        assert!(rows.contains(&row), "no {row:?} in {text}");
    }
    let groups = server.kubectl(&["api-versions"])?.ok()?;
    assert_eq!(
        groups.lines().collect::<Vec<_>>(),
        ["coordination.k8s.io/v1", "discovery.k8s.io/v1", "v1"]
    );
    let all = server.kubectl(&["get", "all", "-o", "name"])?.ok()?;
    assert_eq!(all, "service/kubernetes\n");
    Ok(())
}

#[test]
fn explain_walks_into_fields() -> Result<()> {
    let server = Server::start()?;
    let text = server.kubectl(&["explain", "service.spec.ports"])?.ok()?;
    assert!(
        text.contains("KIND:       Service") && text.contains("FIELD: ports <[]ServicePort>"),
        "{text}"
    );
    assert!(
        text.contains("  nodePort\t<integer>") && text.contains("  targetPort\t<IntOrString>"),
        "{text}"
    );
    let text = server
        .kubectl(&["explain", "endpointslices.endpoints.conditions.ready"])?
        .ok()?;
    assert!(
        text.contains("GROUP:      discovery.k8s.io") && text.contains("FIELD: ready <boolean>"),
        "{text}"
    );
    let error = server.kubectl(&["explain", "service.spec.prots"])?.error()?;
    assert_eq!(error, "error: field \"prots\" does not exist");
    Ok(())
}

#[test]
fn the_version_is_one_that_clients_can_read() -> Result<()> {
    let server = Server::start()?;
    let version: serde_json::Value = serde_json::from_str(&server.kubectl(&["version", "-o", "json"])?.ok()?)?;
    assert_eq!(version["serverVersion"]["major"], "1", "{version}");
    let git = version["serverVersion"]["gitVersion"].as_str().unwrap_or_default();
    assert!(git.starts_with("v1."), "{version}");
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.kubectl(&["get", "--raw", path])?.ok()?, "ok", "{path}");
    }
    Ok(())
}
