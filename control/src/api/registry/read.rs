//! Get and list.

use serde_json::Value;

use super::{ListOptions, ReadAt, Registry};
use crate::api::page_token::PageToken;
use crate::api::status::Status;
use crate::api::wire::Object;
use crate::resources::Resource;
use crate::store::{Listing, Record, StoreError};

/// How many records a filtered list looks at in one step.
const STEP: usize = 1000;

/// Objects of one list, or a part of it.
pub struct Page {
    /// In the order of namespace and name.
    pub objects: Vec<Object>,
    /// The state the list shows.
    pub revision: u64,
    /// There is more: give this to the next list.
    pub continue_token: Option<String>,
    /// How much more; unknown when objects were selected.
    pub remaining: Option<u64>,
}

impl Page {
    /// The decoded objects.
    pub fn values(&self) -> Result<Vec<Value>, Status> {
        self.objects.iter().map(Object::to_value).collect()
    }
}

impl Registry {
    /// One object with its `resourceVersion`.
    pub fn get(&self, resource: &'static Resource, namespace: Option<&str>, name: &str) -> Result<Value, Status> {
        self.get_object(resource, namespace, name)?.to_value()
    }

    /// One object, not decoded.
    pub fn get_object(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Object, Status> {
        let record = self.store().get(&resource.key(namespace, name))?;
        record
            .map(|record| Object::new(resource, &record))
            .ok_or_else(|| Status::not_found(resource, name))
    }

    /// Objects of a namespace, or of all with `None`.
    pub fn list(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Status> {
        let prefix = resource.prefix(namespace);
        let (revision, after) = match &options.continue_token {
            Some(token) => {
                let token = PageToken::decode(token)?;
                (token.revision, Some(format!("{prefix}{}", token.after)))
            }
            None => (self.revision_of(options.read_at)?, None),
        };
        let mut scan = Scan {
            registry: self,
            resource,
            options,
            prefix,
            revision,
            page: Vec::new(),
        };
        let listing = scan.run(after)?;
        Ok(scan.into_page(&listing))
    }

    /// The store revision to read at; none for the newest.
    fn revision_of(&self, at: ReadAt) -> Result<Option<u64>, Status> {
        match at {
            ReadAt::Newest => Ok(None),
            ReadAt::Exact(revision) => Ok(Some(revision)),
            ReadAt::NotOlderThan(revision) => self.check_reached(revision).map(|()| None),
        }
    }

    /// Fails unless `revision` has been given out.
    pub fn check_reached(&self, revision: u64) -> Result<(), Status> {
        let current = self.store().revision();
        if revision > current {
            Err(Status::too_large(revision, current))
        } else {
            Ok(())
        }
    }
}

/// One list in the making.
struct Scan<'a> {
    registry: &'a Registry,
    resource: &'static Resource,
    options: &'a ListOptions,
    prefix: String,
    revision: Option<u64>,
    page: Vec<Record>,
}

impl Scan<'_> {
    /// Reads until the page is full or there is no more, and returns the last step's listing, with `more` and
    /// `remaining` as they are behind the page's last object.
    fn run(&mut self, mut after: Option<String>) -> Result<Listing, Status> {
        let limit = self.options.limit.filter(|limit| *limit > 0);
        let everything = self.options.selection.is_everything();
        loop {
            let step = if everything {
                limit
            } else {
                limit.map(|limit| limit.max(STEP))
            };
            let listing = self
                .registry
                .store()
                .list(&self.prefix, after.as_deref(), step, self.revision);
            let mut listing = listing.map_err(|error| self.explain(error, after.as_deref()))?;
            self.revision = Some(listing.revision);
            let records = std::mem::take(&mut listing.records);
            let count = records.len();
            after = records.last().map(|record| record.key.clone());
            for (index, record) in records.into_iter().enumerate() {
                if !self.selects(&record)? {
                    continue;
                }
                self.page.push(record);
                if limit == Some(self.page.len()) {
                    listing.more |= index + 1 < count;
                    return Ok(listing);
                }
            }
            if !listing.more || after.is_none() {
                listing.more = false;
                return Ok(listing);
            }
        }
    }

    fn selects(&self, record: &Record) -> Result<bool, Status> {
        let selection = &self.options.selection;
        let (namespace, name) = place_of(self.resource, &record.key);
        if !selection.fields.may_match(namespace, name) {
            return Ok(false);
        }
        if !selection.needs_object() {
            return Ok(true);
        }
        let object = Object::new(self.resource, record).to_value()?;
        Ok(selection.matches(self.resource, &object))
    }

    fn into_page(self, listing: &Listing) -> Page {
        let last = self.page.last().filter(|_| listing.more);
        let continue_token = last.map(|record| {
            let after = record.key[self.prefix.len()..].to_owned();
            PageToken {
                revision: Some(listing.revision),
                after,
            }
            .encode()
        });
        let remaining = listing
            .remaining
            .filter(|_| listing.more && self.options.selection.is_everything());
        let objects = self
            .page
            .iter()
            .map(|record| Object::new(self.resource, record))
            .collect();
        Page {
            objects,
            revision: listing.revision,
            continue_token,
            remaining,
        }
    }

    /// A revision that is gone is the client's to handle: with a page token it may go on at the newest state.
    fn explain(&self, error: StoreError, after: Option<&str>) -> Status {
        let StoreError::Compacted { .. } = error else {
            return error.into();
        };
        if self.options.continue_token.is_none() {
            return Status::expired("The resourceVersion for the provided list is too old.");
        }
        let after = after.map_or(String::new(), |key| key[self.prefix.len()..].to_owned());
        Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        )
        .with_continue(PageToken { revision: None, after }.encode())
    }
}

/// Namespace (empty for cluster-scoped kinds) and name in a store key.
pub(crate) fn place_of<'k>(resource: &Resource, key: &'k str) -> (&'k str, &'k str) {
    let mut parts = key.rsplitn(3, '/');
    let name = parts.next().unwrap_or_default();
    let namespace = if resource.namespaced {
        parts.next().unwrap_or_default()
    } else {
        ""
    };
    (namespace, name)
}
