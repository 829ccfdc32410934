//! A watch on one resource: the state it starts from, then every change, as its selectors see them.
//!
//! Made by [`Registry::watch`]; [`super::handlers`] writes its items to clients, [`crate::controllers`] may read them
//! directly.
//!
//! ```text
//! [initial ADDED ...] -> [bookmark "initial events end"] -> changes and bookmarks ... -> last bookmark -> end
//!                                                              \-> one ERROR item -> end
//! ```
//!
//! To a watcher with selectors an object exists while it is selected: a change that makes it fit is ADDED, one that
//! makes it no longer fit is DELETED.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::registry::{ListOptions, Registry, place_of};
use super::selector::Selection;
use super::status::Status;
use super::wire::Object;
use crate::resources::Resource;
use crate::store::{self, Event, EventKind, StoreError};

/// A bookmark goes out at least this often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(55);

/// Where a watch starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the present state as ADDED items, then changes.
    #[default]
    State,
    /// The same, and a marked bookmark between the two; the state must be at least this revision.
    MarkedState(u64),
    /// With the changes from now on.
    Now,
    /// With the changes after this revision.
    After(u64),
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Which objects.
    pub selection: Selection,
    /// Where to start.
    pub start: Start,
    /// The watcher understands bookmarks.
    pub bookmarks: bool,
    /// When to end; none for never.
    pub timeout: Option<Duration>,
}

/// What a watch delivers.
pub enum Item {
    /// The object exists now.
    Added(Object),
    /// It changed.
    Modified(Object),
    /// It is gone; the object is what it was last.
    Deleted(Object),
    /// Nothing up to this revision is left to deliver.
    Bookmark {
        /// Where a next watch may start.
        revision: u64,
        /// All of the initial state has been delivered.
        initial_end: bool,
    },
    /// The watch failed and is over: start again with a list.
    Failed(Status),
}

/// A watch in progress.
pub struct Watch {
    resource: &'static Resource,
    selection: Selection,
    initial: VecDeque<Object>,
    mark: Option<u64>,
    events: store::Watch,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    ended: bool,
}

impl Registry {
    /// Follows the objects of a namespace, or of all with `None`. Fails with 410 when the start is too far back.
    pub fn watch(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<Watch, Status> {
        let (initial, after) = match options.start {
            Start::State | Start::MarkedState(_) => {
                if let Start::MarkedState(at_least) = options.start {
                    self.check_reached(at_least)?;
                }
                let all = ListOptions {
                    selection: options.selection.clone(),
                    ..ListOptions::default()
                };
                let page = self.list(resource, namespace, &all)?;
                (VecDeque::from(page.objects), page.revision)
            }
            Start::Now => (VecDeque::new(), self.store().revision()),
            Start::After(revision) => (VecDeque::new(), revision),
        };
        let events = self
            .store()
            .watch(&resource.prefix(namespace), after)
            .map_err(unwatchable)?;
        let marked = matches!(options.start, Start::MarkedState(_));
        Ok(Watch {
            resource,
            selection: options.selection,
            initial,
            mark: (marked && options.bookmarks).then_some(after),
            events,
            bookmarks: options.bookmarks,
            next_bookmark: Instant::now() + BOOKMARK_EVERY,
            deadline: options.timeout.map(|timeout| Instant::now() + timeout),
            ended: false,
        })
    }
}

/// A start that cannot be served is "too old" either way: a revision that was never given out belongs to another
/// life of the store, and only a new list helps.
fn unwatchable(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { requested, oldest } => Status::too_old(requested, oldest),
        StoreError::Future { requested, current } => Status::too_old(requested, current),
        other => other.into(),
    }
}

impl Watch {
    /// The next item; none when the watch is over. Loses nothing when dropped before it is ready.
    pub async fn next(&mut self) -> Option<Item> {
        if let Some(object) = self.initial.pop_front() {
            return Some(Item::Added(object));
        }
        if let Some(revision) = self.mark.take() {
            return Some(Item::Bookmark {
                revision,
                initial_end: true,
            });
        }
        while !self.ended {
            let deadline = self.deadline;
            tokio::select! {
                event = self.events.next() => {
                    if let Some(item) = self.take(event) {
                        return Some(item);
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => return Some(self.bookmark()),
                () = tokio::time::sleep_until(deadline.unwrap_or(self.next_bookmark)), if deadline.is_some() => {
                    self.ended = true;
                    return self.bookmarks.then(|| self.bookmark());
                }
            }
        }
        None
    }

    fn bookmark(&mut self) -> Item {
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        Item::Bookmark {
            revision: self.events.position(),
            initial_end: false,
        }
    }

    fn take(&mut self, event: Option<Result<std::sync::Arc<Event>, StoreError>>) -> Option<Item> {
        match event {
            Some(Ok(event)) => self.see(&event).unwrap_or_else(|status| {
                self.ended = true;
                Some(Item::Failed(status))
            }),
            Some(Err(StoreError::Closed)) | None => {
                self.ended = true;
                None
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Item::Failed(error.into()))
            }
        }
    }

    /// The event as this watch sees it.
    fn see(&self, event: &Event) -> Result<Option<Item>, Status> {
        let (namespace, name) = place_of(self.resource, &event.key);
        if !self.selection.fields.may_match(namespace, name) {
            return Ok(None);
        }
        let object = Object::at(self.resource, event.value.clone(), event.revision);
        let before = event
            .previous
            .as_ref()
            .map(|bytes| Object::at(self.resource, bytes.clone(), event.revision));
        if event.kind == EventKind::Deleted {
            return Ok(self.selects(&object)?.then_some(Item::Deleted(object)));
        }
        let was = before.as_ref().map_or(Ok(false), |before| self.selects(before))?;
        let is = self.selects(&object)?;
        Ok(match (was, is) {
            (true, true) => Some(Item::Modified(object)),
            (false, true) => Some(Item::Added(object)),
            (true, false) => before.map(Item::Deleted),
            (false, false) => None,
        })
    }

    fn selects(&self, object: &Object) -> Result<bool, Status> {
        if !self.selection.needs_object() {
            return Ok(true);
        }
        Ok(self.selection.matches(self.resource, &object.to_value()?))
    }
}
