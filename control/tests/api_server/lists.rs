//! Lists: selectors, pages, and the revision they show.

use std::time::Duration;

use control::store::Options;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PATIENCE, Server, version_of};

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn with_five() -> Server {
    let server = Server::start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")] {
        server.config_map(name, json!({ "app": app })).await;
    }
    server
}

#[tokio::test]
async fn a_list_is_typed_ordered_and_of_one_revision() {
    let server = with_five().await;
    let list = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("ConfigMapList"), &json!("v1"))
    );
    assert_eq!(names(&list), ["a", "b", "c", "d", "e"]);
    assert_eq!(version_of(&list), server.registry.store().revision());
    let empty = server.get("/api/v1/namespaces/nowhere/configmaps").await.expect(200);
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn selectors_choose() {
    let server = with_five().await;
    for (query, expected) in [
        ("labelSelector=app%3Dx", vec!["a", "c", "e"]),
        ("labelSelector=app+in+%28y%29", vec!["b", "d"]),
        ("labelSelector=%21app", vec![]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
        (
            "fieldSelector=metadata.name%21%3Dc&labelSelector=app%3Dx",
            vec!["a", "e"],
        ),
    ] {
        let list = server.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    server
        .get(&format!("{CONFIG_MAPS}?fieldSelector=data.k%3Dv"))
        .await
        .refused(400, "BadRequest");
}

#[tokio::test]
async fn pages_show_the_state_of_the_first() {
    let server = with_five().await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a", "b"], &json!(3))
    );
    server.delete(&format!("{CONFIG_MAPS}/c")).await.expect(200);
    server.config_map("f", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(version_of(&second), version_of(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!((names(&third), third["metadata"].get("continue")), (vec!["e"], None));
}

#[tokio::test]
async fn pages_of_selected_objects_are_full() {
    let server = with_five().await;
    let first = server
        .get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=app%3Dx"))
        .await
        .expect(200);
    assert_eq!(
        (names(&first), first["metadata"].get("remainingItemCount")),
        (vec!["a", "c"], None)
    );
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server
        .get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=app%3Dx&continue={token}"))
        .await
        .expect(200);
    assert_eq!((names(&second), second["metadata"].get("continue")), (vec!["e"], None));
}

#[tokio::test]
async fn an_exact_revision_can_be_asked_for() {
    let server = with_five().await;
    let before = server.registry.store().revision();
    server.config_map("f", json!({})).await;
    let exact = format!("{CONFIG_MAPS}?resourceVersion={before}&resourceVersionMatch=Exact");
    let list = server.get(&exact).await.expect(200);
    assert_eq!((names(&list).len(), version_of(&list)), (5, before));
    let newest = server
        .get(&format!("{CONFIG_MAPS}?resourceVersion={before}"))
        .await
        .expect(200);
    assert_eq!(names(&newest).len(), 6);
    let future = server
        .get(&format!("{CONFIG_MAPS}?resourceVersion={}", before + 100))
        .await;
    assert!(future.refused(504, "Timeout").contains("Too large resource version"));
    assert_eq!(
        future.json()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[tokio::test]
async fn an_expired_page_says_how_to_go_on() {
    let short = Options {
        history: Duration::ZERO,
        history_min_events: 1,
        compact_every: Duration::from_millis(10),
        ..Options::default()
    };
    let server = Server::start_with(short).await;
    for name in ["a", "b", "c"] {
        server.config_map(name, json!({})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    let next = format!(
        "{CONFIG_MAPS}?limit=5&continue={}",
        first["metadata"]["continue"].as_str().unwrap()
    );
    let expired = tokio::time::timeout(PATIENCE, async {
        for number in 0.. {
            server.config_map(&format!("x{number}"), json!({})).await;
            let answer = server.get(&next).await;
            if answer.code != 200 {
                return answer;
            }
        }
        unreachable!("the loop has no other end")
    });
    let expired = expired.await.expect("history is compacted");
    expired.refused(410, "Expired");
    let token = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&rest), ["b", "c"]);
    let old = server
        .get(&format!("{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact"))
        .await;
    old.refused(410, "Expired");
}
