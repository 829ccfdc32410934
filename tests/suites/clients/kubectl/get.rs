//! What `kubectl get` prints, selects, pages and watches.

use anyhow::{Context, Result};

use crate::clients::Server;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.50
  externalIPs: [192.0.2.9]
  selector: {app: web}
  ports: [{name: http, port: 80, nodePort: 30080, targetPort: 8080}, {name: dns, port: 53, protocol: UDP, nodePort: 30053}]
---
{apiVersion: v1, kind: Service, metadata: {name: outside}, spec: {type: ExternalName, externalName: example.com}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: web}}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {node-role.kubernetes.io/worker: ''}}
spec: {unschedulable: true}
status:
  addresses: [{type: InternalIP, address: 172.18.0.2}]
  conditions: [{type: Ready, status: 'True'}]
  nodeInfo:
    {kubeletVersion: v1.33.0, osImage: Debian 12, kernelVersion: 6.1.0, containerRuntimeVersion: lab://1, architecture: amd64,
     bootID: b, kubeProxyVersion: v1.33.0, machineID: m, operatingSystem: linux, systemUUID: s}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: web, image: web}]}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {a: '1', b: '2'}}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader}, spec: {holderIdentity: me}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: own}
addressType: IPv6
endpoints: [{addresses: ['fd00::1']}, {addresses: ['fd00::2']}, {addresses: ['fd00::3']}, {addresses: ['fd00::4']}]
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Event
metadata: {name: web-1.1}
involvedObject: {apiVersion: v1, kind: Pod, name: web-1, namespace: default}
type: Warning
reason: Failed
message: no such image
source: {component: kubelet, host: node-1}
count: 4
";

fn with_objects() -> Result<Server> {
    let server = Server::start()?;
    server.apply(OBJECTS)?;
    Ok(server)
}

/// A table without its AGE column, whose cells nobody can predict.
fn ageless(mut table: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let age = table
        .first()
        .and_then(|header| header.iter().position(|cell| cell == "AGE"));
    if let Some(age) = age {
        table.iter_mut().for_each(|row| drop(row.remove(age)));
    }
    table
}

#[test]
fn services_show_type_addresses_ports_and_selector() -> Result<()> {
    let server = with_objects()?;
    let table = ageless(server.table(&["svc", "-o", "wide"])?);
    assert_eq!(
        table[0],
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "SELECTOR"]
    );
    assert_eq!(
        table[1],
        ["headless", "ClusterIP", "None", "<none>", "<none>", "app=web"]
    );
    assert_eq!(
        table[2],
        ["kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP", "<none>"]
    );
    assert_eq!(
        table[3],
        ["outside", "ExternalName", "<none>", "example.com", "<none>", "<none>"]
    );
    assert_eq!(
        table[4],
        [
            "web",
            "LoadBalancer",
            "10.96.0.50",
            "192.0.2.9",
            "80:30080/TCP,53:30053/UDP",
            "app=web"
        ]
    );
    let header = &server.table(&["svc"])?[0];
    assert_eq!(*header, ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    Ok(())
}

#[test]
fn pods_show_readiness_and_wide_their_place() -> Result<()> {
    let server = with_objects()?;
    assert_eq!(
        server.table(&["pods"])?[0],
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    );
    let status = r#"{"status": {"phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [{"name": "web", "ready": true,
        "image": "web", "imageID": "", "restartCount": 2, "state": {"running": {}}}]}}"#;
    server
        .kubectl(&[
            "patch",
            "pod",
            "web-1",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])?
        .ok()?;
    let table = ageless(server.table(&["pods", "-o", "wide"])?);
    assert_eq!(
        table[0],
        [
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "IP",
            "NODE",
            "NOMINATED NODE",
            "READINESS GATES"
        ]
    );
    assert_eq!(
        table[1],
        ["web-1", "1/1", "Running", "2", "10.1.2.3", "node-1", "<none>", "<none>"]
    );
    Ok(())
}

#[test]
fn the_other_kinds_have_their_columns() -> Result<()> {
    let server = with_objects()?;
    let first = |arguments: &[&str]| -> Result<Vec<Vec<String>>> { Ok(ageless(server.table(arguments)?)) };
    let nodes = first(&["nodes", "-o", "wide"])?;
    assert_eq!(
        nodes[0],
        [
            "NAME",
            "STATUS",
            "ROLES",
            "VERSION",
            "INTERNAL-IP",
            "EXTERNAL-IP",
            "OS-IMAGE",
            "KERNEL-VERSION",
            "CONTAINER-RUNTIME"
        ]
    );
    assert_eq!(
        nodes[1],
        [
            "node-1",
            "Ready,SchedulingDisabled",
            "worker",
            "v1.33.0",
            "172.18.0.2",
            "<none>",
            "Debian 12",
            "6.1.0",
            "lab://1"
        ]
    );
    assert_eq!(
        first(&["ns", "default"])?,
        [vec!["NAME", "STATUS"], vec!["default", "Active"]]
    );
    assert_eq!(
        first(&["cm", "settings"])?,
        [vec!["NAME", "DATA"], vec!["settings", "2"]]
    );
    assert_eq!(
        first(&["leases", "leader"])?,
        [vec!["NAME", "HOLDER"], vec!["leader", "me"]]
    );
    let slices = first(&["endpointslices", "own"])?;
    assert_eq!(slices[0], ["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS"]);
    assert_eq!(
        slices[1],
        ["own", "IPv6", "8080", "fd00::1,fd00::2,fd00::3 + 1 more..."]
    );
    let events = first(&["events"])?;
    assert_eq!(events[0], ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert_eq!(
        events[1],
        ["<unknown>", "Warning", "Failed", "pod/web-1", "no such image"]
    );
    Ok(())
}

#[test]
fn a_service_with_a_selector_gets_its_slice_from_the_controller() -> Result<()> {
    let server = with_objects()?;
    let status =
        r#"{"status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]}}"#;
    server
        .kubectl(&[
            "patch",
            "pod",
            "web-1",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])?
        .ok()?;
    let slices = server.kubectl_lines(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-w"])?;
    let line = slices.wait_for("the Pod's address", |line| line.contains("10.1.2.3"))?;
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[1..4], ["IPv4", "8080,53", "10.1.2.3"], "{line}");
    Ok(())
}

#[test]
fn lists_are_typed_and_items_too() -> Result<()> {
    let server = with_objects()?;
    let raw = server
        .kubectl(&["get", "--raw", "/api/v1/namespaces/default/services"])?
        .ok()?;
    let list: serde_json::Value = serde_json::from_str(&raw)?;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&"ServiceList".into(), &"v1".into())
    );
    assert!(
        list["metadata"]["resourceVersion"]
            .as_str()
            .is_some_and(|version| version.parse::<u64>().is_ok()),
        "{list}"
    );
    let json = server.json(&["svc", "web"])?;
    assert_eq!((&json["kind"], &json["apiVersion"]), (&"Service".into(), &"v1".into()));
    Ok(())
}

#[test]
fn labels_and_fields_select() -> Result<()> {
    let server = with_objects()?;
    let names = |arguments: &[&str]| -> Result<String> {
        let mut all = vec!["get", "-o", "name"];
        all.extend(arguments);
        Ok(server.kubectl(&all)?.ok()?.lines().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&["svc", "-l", "tier=front"])?, "service/web");
    assert_eq!(names(&["svc", "-l", "tier in (front, back)"])?, "service/web");
    assert_eq!(
        names(&["svc", "-l", "!tier,!component"])?,
        "service/headless service/outside"
    );
    assert_eq!(
        names(&["pods", "--field-selector", "spec.nodeName=node-1,status.phase!=Running"])?,
        "pod/web-1"
    );
    assert_eq!(names(&["pods", "--field-selector", "spec.nodeName=node-2"])?, "");
    assert_eq!(
        names(&["nodes", "--field-selector", "spec.unschedulable=true"])?,
        "node/node-1"
    );
    assert_eq!(
        names(&["events", "--field-selector", "involvedObject.name=web-1,type=Warning"])?,
        "event/web-1.1"
    );
    assert_eq!(
        names(&["cm", "--field-selector", "metadata.name=settings"])?,
        "configmap/settings"
    );
    let error = server
        .kubectl(&["get", "pods", "--field-selector", "spec.color=red"])?
        .error()?;
    assert!(error.contains("field label not supported: spec.color"), "{error}");
    Ok(())
}

#[test]
fn pages_add_up_to_the_whole() -> Result<()> {
    let server = Server::start()?;
    let manifests: Vec<String> = (0..7)
        .map(|index| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c{index}, labels: {{a: b}}}}}}"))
        .collect();
    server.apply(&manifests.join("\n---\n"))?;
    let names = server
        .kubectl(&["get", "cm", "-l", "a=b", "--chunk-size=2", "-o", "name"])?
        .ok()?;
    assert_eq!(names.lines().count(), 7, "{names}");
    let page = server
        .kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps?limit=2"])?
        .ok()?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(page["metadata"]["remainingItemCount"], 5);
    let token = page["metadata"]["continue"].as_str().context("no continue token")?;
    let rest = server.kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/namespaces/default/configmaps?limit=9&continue={token}"),
    ])?;
    let rest: serde_json::Value = serde_json::from_str(&rest.ok()?)?;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(5));
    assert_eq!(rest["metadata"]["resourceVersion"], page["metadata"]["resourceVersion"]);
    Ok(())
}

#[test]
fn a_watch_prints_rows_as_things_change() -> Result<()> {
    let server = Server::start()?;
    let watch = server.kubectl_lines(&["get", "svc", "-w", "--output-watch-events"])?;
    watch.wait_for("the first row", |line| line.contains("kubernetes"))?;
    let manifest = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}";
    server.apply(manifest)?;
    watch.wait_for("ADDED web", |line| line.starts_with("ADDED") && line.contains(" web "))?;
    server.apply(&manifest.replace("port: 80", "port: 81"))?;
    watch.wait_for("MODIFIED web", |line| {
        line.starts_with("MODIFIED") && line.contains(" 81/TCP ")
    })?;
    server.kubectl(&["delete", "svc", "web"])?.ok()?;
    watch.wait_for("DELETED web", |line| {
        line.starts_with("DELETED") && line.contains(" web ")
    })?;
    Ok(())
}

#[test]
fn describe_shows_a_service_with_its_endpoints() -> Result<()> {
    let server = with_objects()?;
    let text = server.kubectl(&["describe", "service", "web"])?.ok()?;
    let line = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(line("IP:").ends_with(" 10.96.0.50"), "{text}");
    assert!(line("Type:").ends_with(" LoadBalancer"), "{text}");
    assert!(line("IP Family Policy:").ends_with(" SingleStack"), "{text}");
    Ok(())
}
