//! The contract of the store, case by case; what holds in any order of calls is in `store_model.rs`.

mod store_common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::store::{Durability, Options, Store, StoreError, Write};
use futures::future::join_all;
use redb::{ReadableDatabase, ReadableTableMetadata};
use tempfile::TempDir;

use store_common::{drain, name, small};

fn create(key: &str) -> Vec<Write> {
    vec![Write::Create {
        key: key.into(),
        value: Bytes::from_static(b"value"),
    }]
}

fn update(key: &str, expect: u64) -> Vec<Write> {
    vec![Write::Update {
        key: key.into(),
        value: Bytes::from_static(b"other"),
        expect,
    }]
}

async fn fill(store: &Store, count: u64) -> u64 {
    let mut expect = store.write(create("/full"), Durability::Lazy).await.unwrap();
    for _ in 1..count {
        expect = store.write(update("/full", expect), Durability::Lazy).await.unwrap();
    }
    expect
}

#[tokio::test]
async fn a_call_is_all_or_nothing() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.write(create("/b"), Durability::Synced).await.unwrap();
    let both = [create("/a"), create("/b")].concat();
    assert_eq!(
        name(&store.write(both, Durability::Synced).await.unwrap_err()),
        "exists"
    );
    assert_eq!(store.get("/a").unwrap(), None);
    assert_eq!(store.revision(), 2, "a refused call takes no revision");
}

#[tokio::test]
async fn one_key_twice_or_no_key_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let twice = [create("/a"), create("/a")].concat();
    assert_eq!(
        name(&store.write(twice, Durability::Synced).await.unwrap_err()),
        "invalid"
    );
    assert_eq!(
        name(&store.write(vec![], Durability::Synced).await.unwrap_err()),
        "invalid"
    );
}

#[tokio::test]
async fn what_has_not_happened_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(name(&store.list("", None, None, Some(2)).unwrap_err()), "future");
    assert_eq!(store.watch("", 2).err().as_ref().map(name), Some("future"));
}

#[tokio::test]
async fn history_is_forgotten_in_steps_and_the_newest_state_never() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        history: Duration::ZERO,
        history_min_events: 100,
        compact_every: Duration::from_millis(20),
        ..small()
    };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    store.write(create("/old"), Durability::Synced).await.unwrap();
    let newest = fill(&store, 2000).await;
    let oldest = loop {
        match store.list("", None, None, Some(2)) {
            Err(StoreError::Compacted { oldest, .. }) if oldest == newest - 100 => break oldest,
            Err(StoreError::Compacted { .. }) | Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(store.watch("", oldest - 1).err().as_ref().map(name), Some("compacted"));
    assert_eq!(drain(&mut store.watch("", oldest).unwrap()).len(), 100);
    assert_eq!(store.list("", None, None, Some(oldest)).unwrap().records.len(), 2);
    assert!(
        store.get("/old").unwrap().is_some(),
        "old, but the newest version of its key"
    );
    drop(store);
    assert_eq!(versions_on_disk(&dir), 100, "versions nobody can ask for are gone");
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(drain(&mut store.watch("", oldest).unwrap()).len(), 100);
    assert_eq!(store.watch("", oldest - 1).err().as_ref().map(name), Some("compacted"));
}

fn versions_on_disk(dir: &TempDir) -> u64 {
    type History = redb::TableDefinition<'static, (&'static str, u64), (u64, u64, &'static [u8])>;
    let database = redb::Database::open(dir.path().join("store.redb")).unwrap();
    let snapshot = database.begin_read().unwrap();
    snapshot.open_table(History::new("history")).unwrap().len().unwrap()
}

#[tokio::test]
async fn young_history_is_kept() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        history_min_events: 1,
        compact_every: Duration::from_millis(5),
        ..small()
    };
    let store = Store::open(dir.path(), options).unwrap();
    fill(&store, 200).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(drain(&mut store.watch("", 1).unwrap()).len(), 200);
}

#[tokio::test]
async fn a_watch_that_was_overtaken_by_the_compaction_says_so_and_ends() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        history: Duration::ZERO,
        history_min_events: 10,
        compact_every: Duration::from_millis(5),
        ..small()
    };
    let store = Store::open(dir.path(), options).unwrap();
    let mut watch = store.watch("", 1).unwrap();
    fill(&store, 1000).await;
    while !matches!(store.watch("", 500), Err(StoreError::Compacted { .. })) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(watch.next().await.unwrap().as_ref().map_err(name).err(), Some("lagged"));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_waiting_watch_wakes_and_ends_with_the_store() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let mut watch = store.watch("/a", 1).unwrap();
    let waiting = tokio::spawn(async move {
        let event = watch.next().await.unwrap().unwrap();
        (event.key.clone(), watch.next().await.is_none())
    });
    tokio::task::yield_now().await;
    store.write(create("/b"), Durability::Lazy).await.unwrap();
    store.write(create("/a"), Durability::Lazy).await.unwrap();
    drop(store);
    assert_eq!(waiting.await.unwrap(), (String::from("/a"), true));
}

#[tokio::test]
async fn watches_share_an_event() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let (mut one, mut two) = (store.watch("", 1).unwrap(), store.watch("/a", 1).unwrap());
    store.write(create("/a"), Durability::Lazy).await.unwrap();
    assert!(Arc::ptr_eq(
        &one.next().await.unwrap().unwrap(),
        &two.next().await.unwrap().unwrap()
    ));
}

#[tokio::test]
async fn writers_at_the_same_time_share_commits_but_no_revision() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let calls = (0..500).map(|number| store.write(create(&format!("/{number:03}")), Durability::Synced));
    let mut revisions: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..502).collect::<Vec<_>>());
}

#[test]
fn a_second_opening_is_refused_until_the_first_ends() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(
        Store::open(dir.path(), small()).err().as_ref().map(name),
        Some("in use")
    );
    drop(store);
    Store::open(dir.path(), small()).unwrap();
}

#[test]
fn a_file_of_others_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.redb");
    for content in [&b"SQLite format 3\0 and then some"[..], b""] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(
            Store::open(dir.path(), small()).err().as_ref().map(name),
            Some("foreign"),
            "{content:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::remove_file(&path).unwrap();
    drop(redb::Database::create(&path).unwrap());
    assert_eq!(
        Store::open(dir.path(), small()).err().as_ref().map(name),
        Some("foreign")
    );
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path(), small()).unwrap());
    let database = redb::Database::open(dir.path().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("format", 99)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(dir.path(), small()).err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::Format {
                found: 99,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
}
