//! Create and update.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, SERVICES, Server, service, version_of};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

#[tokio::test]
async fn a_created_object_has_what_only_the_server_sets() {
    let server = Server::start().await;
    let mut object = service("web");
    object["metadata"]["uid"] = "mine".into();
    object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "1.2.3.4" }] } });
    let made = server.post(SERVICES, &object).await.expect(201);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().map(str::len), Some(36));
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    assert_eq!(made["status"], json!({ "loadBalancer": {} }));
    assert_eq!(server.get(&format!("{SERVICES}/web")).await.expect(200), made);
}

#[tokio::test]
async fn names_are_taken_once_and_can_be_made_up() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let again = server.post(CONFIG_MAPS, &json!({ "metadata": { "name": "a" } })).await;
    assert_eq!(again.refused(409, "AlreadyExists"), "configmaps \"a\" already exists");
    let unnamed = json!({ "metadata": { "generateName": "x-" } });
    let first = server.post(CONFIG_MAPS, &unnamed).await.expect(201);
    let second = server.post(CONFIG_MAPS, &unnamed).await.expect(201);
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("x-"));
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn an_invalid_object_is_refused_with_its_causes() {
    let server = Server::start().await;
    let mut object = service("web");
    object["spec"]["ports"][0]["port"] = 0.into();
    object["spec"]["ports"][0]["targetPort"] = 80.into();
    let answer = server.post(SERVICES, &object).await;
    let message = answer.refused(422, "Invalid");
    assert!(
        message.starts_with("Service \"web\" is invalid: spec.ports[0].port: Invalid value: 0: "),
        "{message}"
    );
    let details = &answer.json()["details"];
    assert_eq!((&details["name"], &details["kind"]), (&json!("web"), &json!("Service")));
    assert_eq!(details["causes"][0]["reason"], "FieldValueInvalid");
    assert_eq!(details["causes"][0]["field"], "spec.ports[0].port");
}

#[tokio::test]
async fn objects_go_where_their_namespace_is() {
    let server = Server::start().await;
    let nowhere = server
        .post(
            "/api/v1/namespaces/nowhere/configmaps",
            &json!({ "metadata": { "name": "a" } }),
        )
        .await;
    assert_eq!(nowhere.refused(404, "NotFound"), "namespaces \"nowhere\" not found");
    let other = json!({ "metadata": { "name": "a", "namespace": "other" } });
    server.post(CONFIG_MAPS, &other).await.refused(400, "BadRequest");
    server
        .post(CONFIG_MAPS, &json!({ "kind": "Pod", "metadata": { "name": "a" } }))
        .await
        .refused(400, "BadRequest");
}

#[tokio::test]
async fn an_update_of_an_old_version_conflicts() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut old = server.config_map("a", json!({})).await;
    let mut new = old.clone();
    new["data"]["k"] = "w".into();
    let new = server.put(&path, &new).await.expect(200);
    assert!(version_of(&new) > version_of(&old));
    old["data"]["k"] = "x".into();
    assert_eq!(
        server.put(&path, &old).await.refused(409, "Conflict"),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
         to the latest version and try again"
    );
    old["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(server.put(&path, &old).await.expect(200)["data"]["k"], "x");
    old["metadata"]["uid"] = "another".into();
    server.put(&path, &old).await.refused(409, "Conflict");
}

#[tokio::test]
async fn a_lease_is_only_updated_from_the_newest_version() {
    let server = Server::start().await;
    let lease =
        json!({ "metadata": { "name": "leader" }, "spec": { "holderIdentity": "a", "leaseDurationSeconds": 15 } });
    server.post(LEASES, &lease).await.expect(201);
    let message = server
        .put(&format!("{LEASES}/leader"), &lease)
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{message}"
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("web")).await.expect(201);
    let again = server.put(&format!("{SERVICES}/web"), &made).await.expect(200);
    assert_eq!(again, made);
    let patched = server
        .patch(
            &format!("{SERVICES}/web"),
            "merge",
            &json!({ "spec": { "type": "ClusterIP" } }),
        )
        .await;
    assert_eq!(patched.expect(200), made);
    assert_eq!(server.registry.store().revision(), version_of(&made));
}

#[tokio::test]
async fn an_update_names_the_object_of_its_path() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({})).await;
    let answer = server.put(&format!("{CONFIG_MAPS}/b"), &made).await;
    answer.refused(404, "NotFound");
    server.config_map("b", json!({})).await;
    let message = server
        .put(&format!("{CONFIG_MAPS}/b"), &made)
        .await
        .refused(400, "BadRequest");
    assert_eq!(
        message,
        "the name of the object (a) does not match the name on the URL (b)"
    );
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start().await;
    let nodes = "/api/v1/nodes";
    let node = json!({ "metadata": { "name": "n" }, "spec": { "podCIDR": "10.1.0.0/24" } });
    server.post(nodes, &node).await.expect(201);
    let change = json!({ "spec": { "unschedulable": true }, "status": { "phase": "Running" } });
    let status = server
        .patch(&format!("{nodes}/n/status"), "merge", &change)
        .await
        .expect(200);
    assert_eq!(
        (&status["spec"]["unschedulable"], &status["status"]["phase"]),
        (&Value::Null, &json!("Running"))
    );
    let change = json!({ "spec": { "unschedulable": true }, "status": { "phase": "Terminated" } });
    let main = server.patch(&format!("{nodes}/n"), "merge", &change).await.expect(200);
    assert_eq!(
        (&main["spec"]["unschedulable"], &main["status"]["phase"]),
        (&json!(true), &json!("Running"))
    );
    assert_eq!(server.get(&format!("{nodes}/n/status")).await.expect(200), main);
}

#[tokio::test]
async fn generations_count_changes_of_content() {
    let server = Server::start().await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = json!({ "metadata": { "name": "s" }, "addressType": "IPv4", "endpoints": [], "ports": [] });
    assert_eq!(
        server.post(slices, &slice).await.expect(201)["metadata"]["generation"],
        1
    );
    let path = format!("{slices}/s");
    let labelled = server
        .patch(&path, "merge", &json!({ "metadata": { "labels": { "a": "b" } } }))
        .await
        .expect(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let grown = json!({ "endpoints": [{ "addresses": ["10.0.0.1"] }] });
    assert_eq!(
        server.patch(&path, "merge", &grown).await.expect(200)["metadata"]["generation"],
        2
    );
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let server = Server::start().await;
    let before = server.registry.store().revision();
    let made = server
        .post(&format!("{SERVICES}?dryRun=All"), &service("web"))
        .await
        .expect(201);
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    server.get(&format!("{SERVICES}/web")).await.refused(404, "NotFound");
    assert_eq!(server.registry.store().revision(), before);
    let mut wrong = service("web");
    wrong["spec"]["type"] = "Nonsense".into();
    server
        .post(&format!("{SERVICES}?dryRun=All"), &wrong)
        .await
        .refused(422, "Invalid");
    server
        .post(&format!("{SERVICES}?dryRun=Some"), &service("web"))
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn unknown_fields_are_refused_reported_or_dropped() {
    let server = Server::start().await;
    let mut object = service("web");
    object["spec"]["foo"] = 1.into();
    object["spec"]["ports"][0]["bar"] = "x".into();
    let strict = server
        .post(&format!("{SERVICES}?fieldValidation=Strict"), &object)
        .await;
    let message = strict.refused(400, "BadRequest");
    assert!(
        message.contains("strict decoding error: unknown field \"spec.foo\", unknown field \"spec.ports[0].bar\""),
        "{message}"
    );
    let warned = server.post(&format!("{SERVICES}?fieldValidation=Warn"), &object).await;
    assert_eq!(
        warned.headers.get("warning").unwrap(),
        "299 - \"unknown field \\\"spec.foo\\\"\""
    );
    assert!(warned.expect(201)["spec"].get("foo").is_none());
    object["metadata"]["name"] = "quiet".into();
    let ignored = server
        .post(&format!("{SERVICES}?fieldValidation=Ignore"), &object)
        .await;
    assert!(ignored.headers.get("warning").is_none() && ignored.expect(201)["spec"].get("foo").is_none());
    server
        .post(&format!("{SERVICES}?fieldValidation=Maybe"), &object)
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn wrong_types_are_bad_requests() {
    let server = Server::start().await;
    let mut object = service("web");
    object["spec"]["ports"][0]["port"] = "eighty".into();
    let message = server.post(SERVICES, &object).await.refused(400, "BadRequest");
    assert!(
        message.starts_with("Service in version \"v1\" cannot be handled as a Service: "),
        "{message}"
    );
}

#[tokio::test]
async fn repeated_fields_are_refused_or_reported() {
    let server = Server::start().await;
    let body = r#"{"metadata":{"name":"a"},"data":{"k":"one","k":"two"}}"#;
    let headers = [("content-type", "application/json")];
    let strict = server
        .send(
            Method::POST,
            &format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            &headers,
            body,
        )
        .await;
    let message = strict.refused(400, "BadRequest");
    assert!(
        message.ends_with("strict decoding error: duplicate field \"data.k\""),
        "{message}"
    );
    let warned = server.send(Method::POST, CONFIG_MAPS, &headers, body).await;
    assert_eq!(warned.headers["warning"], "299 - \"duplicate field \\\"data.k\\\"\"");
    assert_eq!(warned.expect(201)["data"]["k"], "two");
}
