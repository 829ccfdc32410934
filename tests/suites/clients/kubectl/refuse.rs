//! What the server refuses, in the words users know and search for.

use anyhow::Result;

use crate::clients::Server;

fn service(name: &str, spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {spec}}}")
}

fn error(server: &Server, manifest: &str) -> Result<String> {
    server.kubectl_with(&["create", "-f", "-"], manifest)?.error()
}

#[test]
fn invalid_services_get_upstreams_messages() -> Result<()> {
    let server = Server::start()?;
    let cases = [
        ("{}", "spec.ports: Required value"),
        (
            "{ports: [{port: 0, targetPort: 80}]}",
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "{ports: [{port: 80}, {port: 81}]}",
            "\n* spec.ports[0].name: Required value\n* spec.ports[1].name: Required value",
        ),
        (
            "{ports: [{name: a, port: 80}, {name: a, port: 81}]}",
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            "{ports: [{port: 80, protocol: ICMP}]}",
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "{ports: [{port: 80, nodePort: 30000}]}",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            "{type: NodePort, ports: [{port: 80, nodePort: 80}]}",
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            "{type: Cluster, ports: [{port: 80}]}",
            "spec.type: Unsupported value: \"Cluster\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        ("{type: ExternalName}", "spec.externalName: Required value"),
        (
            "{clusterIP: 192.0.2.1, ports: [{port: 80}]}",
            "spec.clusterIPs: Invalid value: [\"192.0.2.1\"]: failed to allocate IP 192.0.2.1: the provided IP (192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}, ports: [{port: 80}]}",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
        ),
        (
            "{ports: [{port: 80}], loadBalancerSourceRanges: [10.0.0.0/8]}",
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
    ];
    for (spec, message) in cases {
        assert_eq!(
            error(&server, &service("web", spec))?,
            format!("The Service \"web\" is invalid: {message}")
        );
    }
    let name = error(&server, &service("1web", "{ports: [{port: 80}]}"))?;
    assert!(
        name.starts_with(
            "The Service \"1web\" is invalid: metadata.name: Invalid value: \"1web\": a DNS-1035 label must consist of"
        ),
        "{name}"
    );
    Ok(())
}

#[test]
fn invalid_objects_of_other_kinds_get_upstreams_messages() -> Result<()> {
    let server = Server::start()?;
    let cases = [
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}",
            "The Pod \"p\" is invalid: spec.containers: Required value",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c}]}}",
            "The Pod \"p\" is invalid: spec.containers[0].image: Required value",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e}, addressType: IPv4, endpoints: [{addresses: ['fd00::1']}]}",
            "The EndpointSlice \"e\" is invalid: endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
        ),
        (
            "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: l}, spec: {leaseDurationSeconds: 0}}",
            "The Lease \"l\" is invalid: spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
    ];
    for (manifest, message) in cases {
        assert_eq!(error(&server, manifest)?, message);
    }
    Ok(())
}

#[test]
fn a_typo_and_a_wrong_type_are_told_by_field() -> Result<()> {
    let server = Server::start()?;
    let typo = error(
        &server,
        &service("web", "{prots: [{port: 80}], ports: [{port: 80, nodeport: 30000}]}"),
    )?;
    assert_eq!(
        typo,
        "Error from server (BadRequest): error when creating \"STDIN\": Service in version \"v1\" cannot be handled as a Service: strict decoding error: unknown field \"spec.ports[0].nodeport\", unknown field \"spec.prots\""
    );
    let wrong = error(&server, &service("web", "{ports: [{port: eighty}]}"))?;
    assert_eq!(
        wrong,
        "Error from server (BadRequest): error when creating \"STDIN\": Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"
    );
    let warned = server.kubectl_with(
        &["apply", "--validate=warn", "-f", "-"],
        &service("web", "{prots: 1, ports: [{port: 80}]}"),
    )?;
    assert!(
        warned.success && warned.err.contains("Warning: unknown field \"spec.prots\""),
        "{warned:?}"
    );
    assert_eq!(server.json(&["svc", "web"])?["spec"].get("prots"), None);
    Ok(())
}

#[test]
fn an_address_and_a_port_belong_to_one_service() -> Result<()> {
    let server = Server::start()?;
    let spec = "{type: NodePort, clusterIP: 10.96.0.77, ports: [{port: 80, nodePort: 30777}]}";
    server.apply(&service("first", spec))?;
    assert_eq!(
        error(
            &server,
            &service("second", "{clusterIP: 10.96.0.77, ports: [{port: 80}]}")
        )?,
        "The Service \"second\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.77\"]: failed to allocate IP 10.96.0.77: provided IP is already allocated"
    );
    assert_eq!(
        error(
            &server,
            &service("second", "{type: NodePort, ports: [{port: 80, nodePort: 30777}]}")
        )?,
        "The Service \"second\" is invalid: spec.ports[0].nodePort: Invalid value: 30777: provided port is already allocated"
    );
    server.kubectl(&["delete", "svc", "first"])?.ok()?;
    server.apply(&service("second", spec))?;
    Ok(())
}

#[test]
fn what_may_not_change_is_kept() -> Result<()> {
    let server = Server::start()?;
    server.apply(&service("web", "{clusterIP: 10.96.0.77, ports: [{port: 80}]}"))?;
    let patch = |kind: &str, name: &str, patch: &str| {
        server
            .kubectl(&["patch", kind, name, "--type=merge", "-p", patch])?
            .error()
    };
    assert_eq!(
        patch("svc", "web", r#"{"spec": {"clusterIP": "10.96.0.78"}}"#)?,
        "The Service \"web\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.96.0.78\"]: may not change once set"
    );
    server.apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}")?;
    let error = patch("pod", "p", r#"{"spec": {"hostNetwork": true}}"#)?;
    assert!(
        error.starts_with("The Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than"),
        "{error}"
    );
    server.apply("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e}, addressType: IPv4}")?;
    let error = patch("endpointslice", "e", r#"{"addressType": "IPv6"}"#)?;
    assert_eq!(
        error,
        "The EndpointSlice \"e\" is invalid: addressType: Invalid value: \"IPv6\": field is immutable"
    );
    Ok(())
}

#[test]
fn missing_and_existing_objects_are_named() -> Result<()> {
    let server = Server::start()?;
    server.apply(&service("web", "{ports: [{port: 80}]}"))?;
    assert_eq!(
        error(&server, &service("web", "{ports: [{port: 80}]}"))?,
        "Error from server (AlreadyExists): error when creating \"STDIN\": services \"web\" already exists"
    );
    assert_eq!(
        server.kubectl(&["get", "svc", "nothing"])?.error()?,
        "Error from server (NotFound): services \"nothing\" not found"
    );
    assert_eq!(
        error(
            &server,
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}"
        )?,
        "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nowhere\" not found"
    );
    let unknown = server.kubectl(&["get", "gizmos"])?.error()?;
    assert_eq!(unknown, "error: the server doesn't have a resource type \"gizmos\"");
    Ok(())
}

#[test]
fn a_body_in_protobuf_is_refused_with_a_remedy() -> Result<()> {
    let server = Server::start()?;
    let error = server.kubectl(&["create", "namespace", "shop"])?.error()?;
    assert!(
        error.contains("application/vnd.kubernetes.protobuf"),
        "the refused media type must be named: {error}"
    );
    assert!(
        error.contains("application/json"),
        "the accepted media type must be named: {error}"
    );
    Ok(())
}
