//! kubectl, as users run it. One file per thing they do.

mod apply;
mod discovery;
mod get;
mod patch;
mod refuse;
