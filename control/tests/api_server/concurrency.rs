//! Many clients at once: nothing is lost, nothing is given out twice.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, SERVICES, Server, service};

const CLIENTS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn every_service_gets_an_address_and_a_port_of_its_own() {
    let server = Arc::new(Server::start().await);
    let made = (0..CLIENTS).map(|number| {
        let server = Arc::clone(&server);
        async move {
            let mut object = service(&format!("s{number}"));
            object["spec"]["type"] = "NodePort".into();
            server.post(SERVICES, &object).await.expect(201)
        }
    });
    let made = future::join_all(made).await;
    let distinct = |path: &str| {
        made.iter()
            .map(|made| made.pointer(path).unwrap().to_string())
            .collect::<HashSet<_>>()
    };
    assert_eq!(distinct("/spec/clusterIP").len(), CLIENTS);
    assert_eq!(distinct("/spec/ports/0/nodePort").len(), CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_one_object_all_count() {
    let server = Arc::new(Server::start().await);
    server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..CLIENTS).map(|number| {
        let (server, path) = (Arc::clone(&server), path.clone());
        async move {
            let patch = json!({ "data": { format!("k{number}"): "v" } });
            server.patch(&path, "merge", &patch).await.expect(200)
        }
    });
    future::join_all(patches).await;
    let data = server.get(&path).await.expect(200)["data"].as_object().unwrap().len();
    assert_eq!(data, CLIENTS + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_to_one_of_many() {
    let server = Arc::new(Server::start().await);
    let codes = (0..CLIENTS).map(|_| {
        let server = Arc::clone(&server);
        async move { server.post(SERVICES, &service("one")).await.code }
    });
    let codes = future::join_all(codes).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), CLIENTS - 1);
    let list: Value = server.get(SERVICES).await.expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
}
