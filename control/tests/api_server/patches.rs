//! Patches over HTTP: media types, conflicts, and what clients like kubectl send.

use http::Method;
use serde_json::json;

use crate::harness::{CONFIG_MAPS, SERVICES, Server, service, version_of};

#[tokio::test]
async fn the_three_kinds_of_patch() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.expect(201);
    let path = format!("{SERVICES}/web");
    let strategic = json!({ "spec": { "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }] } });
    let patched = server.patch(&path, "strategic-merge", &strategic).await.expect(200);
    assert_eq!(patched["spec"]["ports"].as_array().map(Vec::len), Some(2));
    let removing = json!({ "spec": { "$setElementOrder/ports": [{ "port": 53 }],
                                     "ports": [{ "$patch": "delete", "port": 80 }] } });
    let patched = server.patch(&path, "strategic-merge", &removing).await.expect(200);
    assert_eq!(patched["spec"]["ports"][0]["port"], 53);
    let merge = json!({ "spec": { "ports": [{ "port": 81 }] }, "metadata": { "labels": { "a": "b" } } });
    let patched = server.patch(&path, "merge", &merge).await.expect(200);
    assert_eq!(
        (
            &patched["spec"]["ports"][0]["port"],
            &patched["metadata"]["labels"]["a"]
        ),
        (&json!(81), &json!("b"))
    );
    let operations = json!([{ "op": "test", "path": "/spec/ports/0/port", "value": 81 },
                            { "op": "replace", "path": "/spec/ports/0/port", "value": 82 },
                            { "op": "remove", "path": "/metadata/labels/a" }]);
    let patched = server.patch(&path, "json", &operations).await.expect(200);
    assert_eq!(
        (
            &patched["spec"]["ports"][0]["port"],
            patched["metadata"]["labels"].get("a")
        ),
        (&json!(82), None)
    );
}

#[tokio::test]
async fn a_patch_is_validated_like_an_update() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.expect(201);
    let path = format!("{SERVICES}/web");
    server
        .patch(&path, "merge", &json!({ "spec": { "ports": [] } }))
        .await
        .refused(422, "Invalid");
    server
        .patch(&path, "merge", &json!({ "spec": { "ports": "x" } }))
        .await
        .refused(400, "BadRequest");
    server
        .patch(&path, "merge", &json!({ "metadata": { "name": "other" } }))
        .await
        .refused(400, "BadRequest");
    let strict = server
        .patch(
            &format!("{path}?fieldValidation=Strict"),
            "merge",
            &json!({ "spec": { "foo": 1 } }),
        )
        .await;
    assert!(strict.refused(400, "BadRequest").contains("unknown field \"spec.foo\""));
    server
        .patch(&format!("{SERVICES}/nobody"), "merge", &json!({}))
        .await
        .refused(404, "NotFound");
    let operations = json!([{ "op": "test", "path": "/kind", "value": "Pod" }]);
    server.patch(&path, "json", &operations).await.refused(422, "Invalid");
}

#[tokio::test]
async fn a_patch_that_names_a_version_must_name_the_newest() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    server
        .patch(&path, "merge", &json!({ "data": { "k": "w" } }))
        .await
        .expect(200);
    let stale = json!({ "metadata": { "resourceVersion": version_of(&made).to_string() }, "data": { "k": "x" } });
    let message = server.patch(&path, "merge", &stale).await.refused(409, "Conflict");
    assert!(message.contains("the object has been modified"), "{message}");
}

#[tokio::test]
async fn other_media_types_are_named_and_refused() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    for (media_type, method, path) in [
        ("application/json", Method::PATCH, path.as_str()),
        ("application/apply-patch+yaml", Method::PATCH, path.as_str()),
        ("application/vnd.kubernetes.protobuf", Method::POST, CONFIG_MAPS),
        ("application/vnd.kubernetes.protobuf", Method::PUT, path.as_str()),
    ] {
        let answer = server
            .send(method, path, &[("content-type", media_type)], "k8s\0")
            .await;
        let message = answer.refused(415, "UnsupportedMediaType");
        assert!(message.contains(media_type), "{message}");
    }
}
