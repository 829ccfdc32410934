//! `kill -9` under writes: a child writes as fast as it can and prints each revision it was given; this process kills it
//! at a random moment, opens the store and checks what the child was promised. Several rounds on one store.
//!
//! No acknowledged synced write is lost; no revision is given out twice; a watch goes on where it was before the crash;
//! a revision that was seen but lost is refused, never taken for the present.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use control::store::{Durability, Options, Store, StoreError, Write};
use futures::FutureExt;

const NAME: &str = "acknowledged_writes_survive_kill";
const ROUNDS: u32 = 10;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, word, dir, round] = &arguments[..]
        && word == "write"
    {
        write_until_killed(Path::new(dir), round);
    }
    // As a test binary it is also asked for its list of tests, and given filters; it answers in libtest's form.
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments[1..]
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter.as_str()));
    let started = Instant::now();
    println!("\nrunning {} test", u8::from(wanted));
    if wanted {
        let (synced, lazy, lost) = acknowledged_writes_survive_kill();
        println!(
            "{ROUNDS} kills, {synced} synced and {lazy} lazy writes acknowledged, {lost} of them lost and refused"
        );
        println!("test {NAME} ... ok");
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        u8::from(wanted),
        u8::from(!wanted),
        started.elapsed().as_secs_f32()
    );
    ExitCode::SUCCESS
}

/// The child: sixteen writers, half of them lazy, all in odd rounds; one line per acknowledgement.
fn write_until_killed(dir: &Path, round: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = Store::open(dir, options()).unwrap();
    let all_lazy = round.parse::<u32>().unwrap() % 2 == 1;
    let writers =
        (0..16).map(|writer| endless(store.clone(), format!("/{round}/{writer}"), writer % 2 == 1 || all_lazy));
    runtime.block_on(futures::future::join_all(writers));
    unreachable!("the writers never end");
}

async fn endless(store: Store, prefix: String, lazy: bool) {
    let (word, durability) = if lazy {
        ("lazy", Durability::Lazy)
    } else {
        ("synced", Durability::Synced)
    };
    for number in 0.. {
        let key = format!("{prefix}/{number}");
        let writes = vec![Write::Create {
            key: key.clone(),
            value: Bytes::from(key.clone()),
        }];
        let revision = store.write(writes, durability).await.unwrap();
        println!("{word} {revision} {key}");
        if lazy {
            // Leave room for moments in which only lazy writes are under way.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// All history is kept, so that every event can be compared; lazy writes stay unsynced for long.
fn options() -> Options {
    Options {
        history_min_events: 1_000_000,
        log_events: 100,
        lazy_sync: Duration::from_secs(60),
        ..Options::default()
    }
}

/// One acknowledged write.
struct Acknowledged {
    synced: bool,
    revision: u64,
    key: String,
}

fn acknowledged_writes_survive_kill() -> (usize, usize, usize) {
    let dir = tempfile::TempDir::new().unwrap();
    let (mut seen, mut promised, mut lost, mut lazy) = (HashSet::new(), BTreeMap::new(), 0, 0);
    for round in 0..ROUNDS {
        let before = promised.last_key_value().map_or(1, |(revision, _)| *revision);
        let newest = seen.iter().copied().max().unwrap_or(1);
        let mut acknowledged = run_child(dir.path(), round);
        assert!(
            !acknowledged.is_empty(),
            "the child was killed before it wrote anything"
        );
        for write in &acknowledged {
            assert!(
                seen.insert(write.revision),
                "revision {} was given out twice",
                write.revision
            );
        }
        acknowledged.sort_by_key(|write| write.revision);
        assert!(acknowledged[0].revision > newest, "revisions went back");
        let store = Store::open(dir.path(), options()).unwrap();
        for write in acknowledged {
            lazy += usize::from(!write.synced);
            if write.synced {
                promised.insert(write.revision, write.key);
            } else if store.get(&write.key).unwrap().is_none() {
                let watch = store.watch("", write.revision);
                assert!(
                    matches!(watch.err(), Some(StoreError::Compacted { .. })),
                    "a lost revision was accepted"
                );
                lost += 1;
            }
        }
        check_state(&store, &promised);
        check_watch(&store, before, &promised);
    }
    assert!(lost > 0, "no lazy tail was lost: the test does not see what it should");
    (promised.len(), lazy, lost)
}

/// Lets a child write for a random time after its first acknowledgement, kills it, and returns what it was told.
fn run_child(dir: &Path, round: u32) -> Vec<Acknowledged> {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program)
        .arg("write")
        .arg(dir)
        .arg(round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(RandomState::new().hash_one(round) % 300));
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    killer.join().unwrap();
    std::iter::once(first)
        .chain(rest)
        .filter_map(|line| parse(&line))
        .collect()
}

/// A line; none when the kill cut it short.
fn parse(line: &str) -> Option<Acknowledged> {
    let mut words = line.split(' ');
    let (synced, revision, key) = (
        words.next()? == "synced",
        words.next()?.parse().ok()?,
        words.next()?.into(),
    );
    Some(Acknowledged { synced, revision, key })
}

fn check_state(store: &Store, promised: &BTreeMap<u64, String>) {
    for (revision, key) in promised {
        let record = store
            .get(key)
            .unwrap()
            .unwrap_or_else(|| panic!("{key}, acknowledged at {revision}, is lost"));
        assert_eq!((record.modified, record.value), (*revision, Bytes::from(key.clone())));
    }
}

/// A watcher from before the crash gets every promised event, each once and in order.
fn check_watch(store: &Store, after: u64, promised: &BTreeMap<u64, String>) {
    let mut watch = store.watch("", after).unwrap();
    let mut events = Vec::new();
    while watch.position() < store.revision() {
        if let Some(event) = watch.next().now_or_never() {
            let event = event.unwrap().unwrap();
            events.push((event.revision, event.key.clone()));
        }
    }
    assert!(events.is_sorted_by(|one, next| one.0 < next.0), "out of order");
    let events: HashSet<_> = events.into_iter().collect();
    for (revision, key) in promised.range(after + 1..) {
        assert!(
            events.contains(&(*revision, key.clone())),
            "the watch missed {key} at {revision}"
        );
    }
}
