//! The API server: HTTPS in front, the store behind, everything between generic over the resource table.
//!
//! A request's walk:
//!
//! 1. [`serve`] accepts the connection (TLS, HTTP/1.1 or HTTP/2), `auth` says who it is;
//! 2. `request` reads what it is about, `negotiate` in which form the answer goes, `query` the parameters;
//! 3. `handlers` call the [`Registry`], which does the work without knowing of HTTP;
//! 4. `wire`, `table` and `discovery` render the answer; [`Status`] is every error.
//!
//! Whoever is authenticated may do everything; authorization is not built yet.

mod auth;
mod body;
mod discovery;
mod duplicates;
mod handlers;
mod health;
mod negotiate;
mod page_token;
mod patch;
mod query;
mod registry;
mod request;
mod selector;
mod server;
mod status;
mod table;
mod watch;
mod wire;

pub use auth::{Identity, TokenError, Tokens};
pub use patch::Patch;
pub use registry::{
    DeleteOptions, Deleted, FieldValidation, ListOptions, Page, Part, Preconditions, ReadAt, Registry, WriteOptions,
    Written, new_uid,
};
pub use selector::{FieldSelector, LabelSelector, Selection, SelectorError};
pub use server::{ServeOptions, serve};
pub use status::{Reason, Status};
pub use watch::{Item, Start, Watch, WatchOptions};
pub use wire::Object;
