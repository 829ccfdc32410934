//! The store against a plain model: random calls are made to both, and everything that can be asked is compared.

mod store_common;

use std::collections::BTreeMap;

use bytes::Bytes;
use control::store::{Durability, Event, EventKind, Listing, Record, Store, Write};
use futures::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use store_common::{drain, name, small};

/// The state after each revision, and what changed; revision 1 is the empty state.
struct Model {
    states: Vec<BTreeMap<String, Record>>,
    events: Vec<Event>,
}

impl Model {
    fn new() -> Self {
        Self {
            states: vec![BTreeMap::new(); 2],
            events: Vec::new(),
        }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &BTreeMap<String, Record> {
        &self.states[self.states.len() - 1]
    }

    /// What a call must lead to: its revision, or the name of the error.
    fn write(&mut self, writes: &[Write]) -> Result<u64, &'static str> {
        let (before, revision) = (self.now().clone(), self.revision() + 1);
        let (mut after, mut events) = (before.clone(), Vec::new());
        for write in writes {
            let key = write.key().to_owned();
            let found = before.get(&key);
            let created = found.map_or(revision, |found| found.created);
            let (kind, value, expect) = match write {
                Write::Create { value, .. } if found.is_none() => (EventKind::Created, value.clone(), None),
                Write::Create { .. } => return Err("exists"),
                Write::Update { value, expect, .. } => (EventKind::Updated, value.clone(), Some(*expect)),
                Write::Delete { expect, .. } => (
                    EventKind::Deleted,
                    found.map_or_else(Bytes::new, |found| found.value.clone()),
                    *expect,
                ),
            };
            match found {
                None if kind != EventKind::Created => return Err("missing"),
                Some(found) if expect.is_some_and(|expect| expect != found.modified) => return Err("conflict"),
                _ => {}
            }
            match kind {
                EventKind::Deleted => drop(after.remove(&key)),
                _ => {
                    let record = Record {
                        key: key.clone(),
                        value: value.clone(),
                        created,
                        modified: revision,
                    };
                    after.insert(key.clone(), record);
                }
            }
            let previous = found.map(|found| found.value.clone());
            events.push(Event {
                revision,
                key,
                kind,
                value,
                previous,
                created,
            });
        }
        self.states.push(after);
        self.events.extend(events);
        Ok(revision)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: Option<usize>, at: u64) -> Listing {
        let state = &self.states[usize::try_from(at).unwrap()];
        let matching = state.values().filter(|row| row.key.starts_with(prefix));
        let matching: Vec<_> = matching
            .filter(|row| after.is_none_or(|after| row.key.as_str() > after))
            .collect();
        let taken = matching.len().min(limit.unwrap_or(usize::MAX));
        let rest = (matching.len() - taken) as u64;
        let records = matching[..taken].iter().map(|&record| record.clone()).collect();
        Listing {
            records,
            revision: at,
            more: rest > 0,
            remaining: (rest > 0).then_some(rest),
        }
    }
}

/// A change with small numbers in place of keys and revisions, so that they often meet.
#[derive(Clone, Debug)]
struct Change {
    kind: u8,
    key: u8,
    stale: bool,
    value: u8,
}

#[derive(Clone, Debug)]
enum Step {
    /// Calls that are made at the same time.
    Write(Vec<(Vec<Change>, bool)>),
    List {
        prefix: u8,
        after: Option<u8>,
        limit: Option<usize>,
        back: u64,
    },
    Watch {
        prefix: u8,
        back: u64,
    },
    Reopen,
}

const PREFIXES: [&str; 4] = ["", "/a/", "/a/x/", "/b/"];

fn key(number: u8) -> String {
    format!(
        "/{}/{}/{}",
        ["a", "b"][usize::from(number % 2)],
        ["x", "xy"][usize::from(number / 2 % 2)],
        number / 4
    )
}

fn change() -> impl Strategy<Value = Change> {
    (0..5u8, 0..12u8, prop::bool::weighted(0.1), any::<u8>()).prop_map(|(kind, key, stale, value)| Change {
        kind,
        key,
        stale,
        value,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let call = (prop::collection::vec(change(), 1..4), any::<bool>());
    prop_oneof![
        10 => prop::collection::vec(call, 1..6).prop_map(Step::Write),
        4 => (0..4u8, prop::option::of(0..12u8), prop::option::of(1..5usize), 0..40u64)
            .prop_map(|(prefix, after, limit, back)| Step::List { prefix, after, limit, back }),
        2 => (0..4u8, 0..40u64).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => Just(Step::Reopen),
    ]
}

/// The call a change stands for in the present state; a key only once.
fn writes(changes: &[Change], model: &Model) -> Vec<Write> {
    let mut writes = BTreeMap::new();
    for change in changes {
        let key = key(change.key);
        let modified = model.now().get(&key).map_or(1, |record| record.modified);
        let expect = if change.stale {
            modified.saturating_sub(1)
        } else {
            modified
        };
        let value = Bytes::from(vec![change.value; usize::from(change.value)]);
        let write = match change.kind {
            0 | 1 => Write::Create {
                key: key.clone(),
                value,
            },
            2 | 3 => Write::Update {
                key: key.clone(),
                value,
                expect,
            },
            _ => Write::Delete {
                key: key.clone(),
                expect: change.stale.then_some(expect),
            },
        };
        writes.insert(key, write);
    }
    writes.into_values().collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_as_its_model(steps in prop::collection::vec(step(), 1..60)) {
        runtime().block_on(run(steps))?;
    }
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let dir = TempDir::new().unwrap();
    let (mut store, mut model) = (Store::open(dir.path(), small()).unwrap(), Model::new());
    let mut live = store.watch("", 1).unwrap();
    let (mut seen, mut first) = (Vec::new(), 0);
    for step in steps {
        match step {
            Step::Write(calls) => {
                let calls: Vec<_> = calls
                    .iter()
                    .map(|(changes, lazy)| (writes(changes, &model), *lazy))
                    .collect();
                let durability = |lazy| if lazy { Durability::Lazy } else { Durability::Synced };
                let made = calls
                    .iter()
                    .map(|(writes, lazy)| store.write(writes.clone(), durability(*lazy)));
                let answers = join_all(made).await;
                for ((writes, _), answer) in calls.iter().zip(answers) {
                    prop_assert_eq!(answer.as_ref().map_err(name).copied(), model.write(writes));
                }
                prop_assert_eq!(store.revision(), model.revision());
            }
            Step::List {
                prefix,
                after,
                limit,
                back,
            } => {
                let (prefix, after) = (PREFIXES[usize::from(prefix)], after.map(key));
                let at = model.revision().saturating_sub(back).max(1);
                let listed = store.list(prefix, after.as_deref(), limit, Some(at)).unwrap();
                prop_assert_eq!(listed, model.list(prefix, after.as_deref(), limit, at));
                let now = store.list(prefix, after.as_deref(), limit, None).unwrap();
                prop_assert_eq!(now, model.list(prefix, after.as_deref(), limit, model.revision()));
            }
            Step::Watch { prefix, back } => {
                let prefix = PREFIXES[usize::from(prefix)];
                let after = model.revision().saturating_sub(back).max(1);
                let replayed = drain(&mut store.watch(prefix, after).unwrap());
                let expected = model.events.iter().filter(|event| event.revision > after);
                let expected: Vec<_> = expected.filter(|event| event.key.starts_with(prefix)).collect();
                prop_assert_eq!(replayed.iter().map(|event| &**event).collect::<Vec<_>>(), expected);
            }
            Step::Reopen => {
                seen.extend(drain(&mut live));
                drop((store, live));
                store = Store::open(dir.path(), small()).unwrap();
                prop_assert_eq!(store.revision(), model.revision());
                live = store.watch("", model.revision()).unwrap();
            }
        }
        for key in (0..12).map(key) {
            prop_assert_eq!(store.get(&key).unwrap(), model.now().get(&key).cloned());
        }
        // The live watch is read now and then only, so that it falls behind the log in memory.
        first += 1;
        if first % 3 == 0 {
            seen.extend(drain(&mut live));
        }
    }
    seen.extend(drain(&mut live));
    prop_assert_eq!(
        seen.iter().map(|event| &**event).collect::<Vec<_>>(),
        model.events.iter().collect::<Vec<_>>()
    );
    Ok(())
}
