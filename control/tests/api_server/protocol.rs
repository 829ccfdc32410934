//! Everything around objects: credentials, media types, discovery, health, limits, HTTP/2.

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, SERVICES, Server, TOKEN, Who, service};

#[tokio::test]
async fn credentials_are_asked_for() {
    let server = Server::start().await;
    let stranger = server.send_as(Who::Nobody, Method::GET, CONFIG_MAPS, &[], "").await;
    assert_eq!(stranger.refused(401, "Unauthorized"), "Unauthorized");
    let wrong = server
        .send_as(
            Who::Nobody,
            Method::GET,
            CONFIG_MAPS,
            &[("authorization", "Bearer x")],
            "",
        )
        .await;
    wrong.refused(401, "Unauthorized");
    let bearer = format!("Bearer {TOKEN}");
    server
        .send_as(Who::Nobody, Method::GET, CONFIG_MAPS, &[("authorization", &bearer)], "")
        .await
        .expect(200);
    let posing = server
        .send(Method::GET, CONFIG_MAPS, &[("impersonate-user", "bob")], "")
        .await;
    assert!(posing.refused(403, "Forbidden").contains("bob"));
}

#[tokio::test]
async fn health_and_version_need_none() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = server.send_as(Who::Nobody, Method::GET, path, &[], "").await;
        assert_eq!((answer.code, &answer.bytes[..]), (200, &b"ok"[..]), "{path}");
    }
    let verbose = server
        .send_as(Who::Nobody, Method::GET, "/readyz?verbose", &[], "")
        .await;
    assert!(
        String::from_utf8_lossy(&verbose.bytes).contains("[+]store ok"),
        "{verbose:?}"
    );
    let version = server
        .send_as(Who::Nobody, Method::GET, "/version", &[], "")
        .await
        .expect(200);
    assert_eq!(version["major"], "1");
}

#[tokio::test]
async fn paths_and_methods_nobody_serves() {
    let server = Server::start().await;
    for path in [
        "/api/v1/namespaces/default/foos",
        "/apis/nobody.example/v1/foos",
        "/api/v1/services/a",
        "/nonsense",
        "/api/v2",
    ] {
        let message = server.get(path).await.refused(404, "NotFound");
        assert_eq!(message, "the server could not find the requested resource", "{path}");
    }
    for (method, path) in [
        (Method::PUT, SERVICES),
        (Method::POST, "/api/v1/namespaces/default/services/a"),
        (Method::POST, "/api/v1/services"),
        (Method::DELETE, "/api/v1/namespaces/default/services/a/status"),
        (Method::PATCH, "/api/v1"),
    ] {
        let body = service("a").to_string();
        server
            .send(method, path, &[("content-type", "application/json")], body)
            .await
            .refused(405, "MethodNotAllowed");
    }
    assert_eq!(
        server.get(&format!("{SERVICES}/a")).await.refused(404, "NotFound"),
        "services \"a\" not found"
    );
}

#[tokio::test]
async fn bodies_may_be_yaml_but_not_endless() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: 'yes'\n";
    let made = server
        .send(Method::POST, CONFIG_MAPS, &[("content-type", "application/yaml")], yaml)
        .await
        .expect(201);
    assert_eq!(made["data"]["k"], "yes");
    let shown = server
        .send(
            Method::GET,
            &format!("{CONFIG_MAPS}/a"),
            &[("accept", "application/yaml")],
            "",
        )
        .await;
    assert_eq!(shown.headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&shown.bytes).contains("kind: ConfigMap"));
    let long = json!({ "metadata": { "name": "b" }, "data": { "k": "x".repeat(3 << 20) } });
    server
        .post(CONFIG_MAPS, &long)
        .await
        .refused(413, "RequestEntityTooLarge");
    server
        .send(Method::POST, CONFIG_MAPS, &[("content-type", "application/json")], "{")
        .await
        .refused(400, "BadRequest");
}

#[tokio::test]
async fn answers_come_in_a_form_the_client_accepts() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.expect(201);
    let list = async |accept: &str| {
        server
            .send(Method::GET, SERVICES, &[("accept", accept)], "")
            .await
            .expect(200)
    };
    let table = list("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "web");
    assert_eq!(
        list("application/vnd.kubernetes.protobuf,application/json").await["kind"],
        "ServiceList"
    );
    let metadata = list("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await;
    assert_eq!(
        (&metadata["kind"], metadata["items"][0].get("spec")),
        (&json!("PartialObjectMetadataList"), None)
    );
    let refused = server
        .send(
            Method::GET,
            SERVICES,
            &[("accept", "application/vnd.kubernetes.protobuf")],
            "",
        )
        .await;
    refused.refused(406, "NotAcceptable");
}

#[tokio::test]
async fn discovery_comes_plain_and_aggregated() {
    let server = Server::start().await;
    assert_eq!(server.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    let slices = server.get("/apis/discovery.k8s.io/v1").await.expect(200);
    assert_eq!(slices["resources"][0]["name"], "endpointslices");
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for path in ["/api", "/apis"] {
        let answer = server
            .send(Method::GET, path, &[("accept", &format!("{v2},application/json"))], "")
            .await;
        assert_eq!(answer.headers["content-type"], v2);
        assert_eq!(answer.expect(200)["kind"], "APIGroupDiscoveryList");
    }
    let index = server.get("/openapi/v3").await.expect(200);
    let core = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(server.get(core).await.expect(200)["components"]["schemas"].is_object());
    // What kubectl asks for before it patches; only 404 makes it go on without.
    let v2 = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    server
        .send(Method::GET, "/openapi/v2", &v2, "")
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let server = Server::start().await;
    let request = server.build(
        Method::POST,
        SERVICES,
        &[("content-type", "application/json")],
        service("web").to_string(),
    );
    let response = server.request(Who::Admin, true, request).await;
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (http::Version::HTTP_2, 201)
    );
    let made: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(made["metadata"]["name"], "web");
}
