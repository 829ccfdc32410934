//! What a caller can ask of the registry beyond the object itself.

use crate::api::selector::Selection;

/// Which part of an object an update or patch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The `status` subresource.
    Status,
    /// The `finalize` subresource of Namespaces.
    Finalize,
}

/// What to do about fields the kind does not have, and about those that are there twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    #[default]
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse the write.
    Strict,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but the write itself.
    pub dry_run: bool,
    /// What to do about unknown and repeated fields.
    pub field_validation: FieldValidation,
    /// Paths of the fields that the client's text has more than once.
    pub repeated_fields: Vec<String>,
}

/// What must be true of an object for it to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// It is this very object, not a namesake.
    pub uid: Option<String>,
    /// It has not changed since.
    pub resource_version: Option<String>,
}

/// How to delete. Propagation policies are accepted and mean nothing: nobody collects garbage yet.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Do everything but the write itself.
    pub dry_run: bool,
    /// Checked in the same write.
    pub preconditions: Preconditions,
}

/// The state a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadAt {
    /// The newest.
    #[default]
    Newest,
    /// The newest, provided it is not older than this revision.
    NotOlderThan(u64),
    /// That of this revision.
    Exact(u64),
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Which objects.
    pub selection: Selection,
    /// At most this many; none or 0 for all.
    pub limit: Option<usize>,
    /// Where to go on, from [`super::Page::continue_token`].
    pub continue_token: Option<String>,
    /// The state to show; not looked at with a continue token.
    pub read_at: ReadAt,
}
