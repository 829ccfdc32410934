//! Delete, finalizers, namespaces on their way out, collections.

use http::Method;
use serde_json::json;

use crate::harness::{CONFIG_MAPS, SERVICES, Server, service, version_of};

#[tokio::test]
async fn what_is_deleted_is_gone_and_its_address_free() {
    let server = Server::start().await;
    let mut first = service("a");
    first["spec"]["clusterIP"] = "10.96.0.77".into();
    server.post(SERVICES, &first).await.expect(201);
    let mut second = service("b");
    second["spec"]["clusterIP"] = "10.96.0.77".into();
    let message = server.post(SERVICES, &second).await.refused(422, "Invalid");
    assert!(message.contains("10.96.0.77"), "{message}");
    let gone = server.delete(&format!("{SERVICES}/a")).await.expect(200);
    assert_eq!(gone["kind"], "Service");
    server.post(SERVICES, &second).await.expect(201);
    server.delete(&format!("{SERVICES}/a")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn the_answer_names_what_went() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({})).await;
    let body = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
    let headers = [("content-type", "application/json")];
    let answer = server
        .send(Method::DELETE, &format!("{CONFIG_MAPS}/a"), &headers, body.to_string())
        .await
        .expect(200);
    assert_eq!(
        (&answer["kind"], &answer["status"]),
        (&json!("Status"), &json!("Success"))
    );
    assert_eq!(
        answer["details"],
        json!({ "name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"] })
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let object = json!({ "metadata": { "name": "a", "finalizers": ["example.com/one", "example.com/two"] } });
    server.post(CONFIG_MAPS, &object).await.expect(201);
    let marked = server.delete(&path).await.expect(200);
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(
        server.delete(&path).await.expect(200),
        marked,
        "a second deletion changes nothing"
    );
    let added = json!({ "metadata": { "finalizers": ["example.com/one", "example.com/two", "example.com/three"] } });
    server.patch(&path, "merge", &added).await.refused(422, "Invalid");
    let one = server
        .patch(
            &path,
            "merge",
            &json!({ "metadata": { "finalizers": ["example.com/two"] } }),
        )
        .await
        .expect(200);
    assert_eq!(
        one["metadata"]["deletionTimestamp"],
        marked["metadata"]["deletionTimestamp"]
    );
    server
        .patch(&path, "merge", &json!({ "metadata": { "finalizers": null } }))
        .await
        .expect(200);
    server.get(&path).await.refused(404, "NotFound");
}

#[tokio::test]
async fn preconditions_protect_the_wrong_object() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    for precondition in [json!({ "uid": "another" }), json!({ "resourceVersion": "1" })] {
        let body = json!({ "preconditions": precondition }).to_string();
        let message = server
            .send(Method::DELETE, &path, &[], body)
            .await
            .refused(409, "Conflict");
        assert!(message.contains("Precondition failed"), "{message}");
    }
    let body = json!({ "preconditions": { "uid": made["metadata"]["uid"] } }).to_string();
    server.send(Method::DELETE, &path, &[], body).await.expect(200);
}

#[tokio::test]
async fn a_dry_run_deletes_nothing() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server
        .send(
            Method::DELETE,
            &format!("{CONFIG_MAPS}/a"),
            &[],
            r#"{"dryRun":["All"]}"#,
        )
        .await
        .expect(200);
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
}

#[tokio::test]
async fn a_collection_goes_as_far_as_it_is_selected() {
    let server = Server::start().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        server.config_map(name, json!({ "app": app })).await;
    }
    let gone = server
        .delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx"))
        .await
        .expect(200);
    assert_eq!(
        (&gone["kind"], gone["items"].as_array().map(Vec::len)),
        (&json!("ConfigMapList"), Some(2))
    );
    let left = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}

#[tokio::test]
async fn a_namespace_takes_nothing_in_while_it_goes() {
    let server = Server::start().await;
    let namespaces = "/api/v1/namespaces";
    server
        .post(namespaces, &json!({ "metadata": { "name": "old" } }))
        .await
        .expect(201);
    let config_maps = "/api/v1/namespaces/old/configmaps";
    server
        .post(config_maps, &json!({ "metadata": { "name": "a" } }))
        .await
        .expect(201);
    let going = server.delete("/api/v1/namespaces/old").await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = server.post(config_maps, &json!({ "metadata": { "name": "b" } })).await;
    assert_eq!(
        refused.refused(403, "Forbidden"),
        "configmaps \"b\" is forbidden: unable to create new content in namespace old because it is being terminated"
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    server.delete(&format!("{config_maps}/a")).await.expect(200);
    let mut finalized = server.get("/api/v1/namespaces/old").await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    server
        .put("/api/v1/namespaces/old/finalize", &finalized)
        .await
        .expect(200);
    server.get("/api/v1/namespaces/old").await.refused(404, "NotFound");
}

#[tokio::test]
async fn the_last_event_shows_the_revision_of_the_deletion() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", version_of(&made));
    let mut events = server.watch(&path, "application/json").await;
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["data"]),
        (&json!("DELETED"), &made["data"])
    );
    assert!(version_of(&event["object"]) > version_of(&made));
}

#[tokio::test]
async fn the_first_namespaces_stay() {
    let server = Server::start().await;
    let message = server
        .delete("/api/v1/namespaces/default")
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}
