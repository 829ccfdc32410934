//! Watches: where they start, what they show, how they end.

use std::time::Duration;

use control::store::Options;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PATIENCE, Server, version_of};

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn relabel(server: &Server, name: &str, label: Value) -> Value {
    let patch = json!({ "metadata": { "labels": { "app": label } } });
    server
        .patch(&format!("{CONFIG_MAPS}/{name}"), "merge", &patch)
        .await
        .expect(200)
}

#[tokio::test]
async fn changes_follow_the_revision_named() {
    let server = Server::start().await;
    let a = server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", version_of(&a));
    let mut events = server.watch(&path, JSON).await;
    assert_eq!(events.brief().await, "ADDED b");
    let changed = relabel(&server, "a", json!("x")).await;
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]), (&json!("MODIFIED"), &changed));
    server.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
    assert_eq!(events.brief().await, "DELETED b");
}

#[tokio::test]
async fn without_a_revision_the_state_comes_first() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    for start in ["", "&resourceVersion=0"] {
        let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=true{start}"), JSON).await;
        assert_eq!(
            (events.brief().await, events.brief().await),
            ("ADDED a".to_owned(), "ADDED b".to_owned())
        );
    }
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=true"), JSON).await;
    assert_eq!(
        (events.brief().await, events.brief().await),
        ("ADDED a".to_owned(), "ADDED b".to_owned())
    );
    server.config_map("c", json!({})).await;
    assert_eq!(events.brief().await, "ADDED c");
}

#[tokio::test]
async fn an_object_exists_while_it_is_selected() {
    let server = Server::start().await;
    server.config_map("a", json!({ "app": "x" })).await;
    server.config_map("b", json!({ "app": "y" })).await;
    let mut events = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=app%3Dx"), JSON)
        .await;
    assert_eq!(events.brief().await, "ADDED a");
    relabel(&server, "b", json!("x")).await;
    assert_eq!(events.brief().await, "ADDED b");
    let left = relabel(&server, "a", json!("y")).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["labels"]["app"]),
        (&json!("DELETED"), &json!("x"))
    );
    assert_eq!(version_of(&event["object"]), version_of(&left));
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    server.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
    assert_eq!(
        events.brief().await,
        "DELETED b",
        "what was not selected is not reported"
    );
}

#[tokio::test]
async fn one_object_can_be_watched_by_name() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server.config_map("aa", json!({})).await;
    let mut events = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Daa"), JSON)
        .await;
    assert_eq!(events.brief().await, "ADDED aa");
    relabel(&server, "a", json!("x")).await;
    relabel(&server, "aa", json!("x")).await;
    assert_eq!(events.brief().await, "MODIFIED aa");
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark_that_leads_on() {
    let server = Server::start().await;
    let a = server.config_map("a", json!({})).await;
    let query = format!(
        "watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={}",
        version_of(&a)
    );
    let mut events = server.watch(&format!("/api/v1/pods?{query}"), JSON).await;
    server.config_map("b", json!({})).await;
    let bookmark = events.next().await.unwrap();
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("Pod"))
    );
    assert_eq!(
        version_of(&bookmark["object"]),
        server.registry.store().revision(),
        "a quiet watch gets on too"
    );
    assert_eq!(events.next().await, None);
    let mut events = server
        .watch(
            &format!(
                "{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion={}",
                version_of(&a)
            ),
            JSON,
        )
        .await;
    assert_eq!(events.brief().await, "ADDED b");
    assert_eq!(events.next().await, None, "who did not ask for bookmarks gets none");
}

#[tokio::test]
async fn initial_events_end_with_a_mark() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let streaming = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = server.watch(&format!("{CONFIG_MAPS}?{streaming}"), JSON).await;
    assert_eq!(events.brief().await, "ADDED a");
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(version_of(&mark["object"]), server.registry.store().revision());
    server.config_map("b", json!({})).await;
    assert_eq!(events.brief().await, "ADDED b");
    let mut nothing = server.watch(&format!("/api/v1/pods?{streaming}"), JSON).await;
    assert_eq!(
        nothing.next().await.unwrap()["type"],
        "BOOKMARK",
        "also when there is nothing"
    );
    server
        .get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true"))
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn a_revision_that_is_gone_is_an_error_event() {
    let short = Options {
        history: Duration::ZERO,
        history_min_events: 1,
        compact_every: Duration::from_millis(10),
        ..Options::default()
    };
    let server = Server::start_with(short).await;
    let a = server.config_map("a", json!({})).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion={}",
        version_of(&a)
    );
    let expired = tokio::time::timeout(PATIENCE, async {
        for number in 0.. {
            server.config_map(&format!("x{number}"), json!({})).await;
            let event = server.watch(&path, JSON).await.next().await.unwrap();
            if event["type"] == "ERROR" {
                return event;
            }
        }
        unreachable!("the loop has no other end")
    });
    let expired = expired.await.expect("history is compacted");
    assert_eq!(
        (&expired["object"]["code"], &expired["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let message = expired["object"]["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("too old resource version: {} (", version_of(&a))),
        "{message}"
    );
}

#[tokio::test]
async fn a_revision_of_another_life_is_gone_too() {
    let server = Server::start().await;
    let mut events = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=1000000"), JSON)
        .await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tables_and_metadata_are_streamed_too() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let mut table = server.watch(&format!("{CONFIG_MAPS}?watch=true"), TABLE).await;
    let first = table.next().await.unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    server.config_map("b", json!({})).await;
    let second = table.next().await.unwrap();
    assert_eq!(
        (
            &second["object"]["columnDefinitions"],
            &second["object"]["rows"][0]["cells"][0]
        ),
        (&Value::Null, &json!("b"))
    );
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut metadata = server.watch(&format!("{CONFIG_MAPS}?watch=true"), accept).await;
    let event = metadata.next().await.unwrap();
    assert_eq!(
        (&event["object"]["kind"], event["object"].get("data")),
        (&json!("PartialObjectMetadata"), None)
    );
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let mut server = Server::start().await;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=true"), JSON).await;
    server.stop.cancel();
    assert_eq!(events.next().await, None);
    let task = server.task.take().unwrap();
    tokio::time::timeout(PATIENCE, task)
        .await
        .expect("the server stops soon")
        .unwrap()
        .unwrap();
}
