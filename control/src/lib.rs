//! `control`: a small Kubernetes control plane in one process, on one file.
//!
//! A write walks through the crate in one direction:
//!
//! 1. [`run`] puts the parts together, as [`config`] says, with certificates from [`pki`].
//! 2. [`api`] takes the HTTPS request and finds out which resource it is about.
//! 3. [`resources`] defaults, validates and allocates for that resource.
//! 4. [`store`] makes the write durable, gives it a revision and puts it into the event log.
//! 5. Watches in [`api`] and the loops in [`controllers`] read the event log; controllers write through [`api`] again.

pub mod api;
pub mod config;
pub mod controllers;
pub mod pki;
pub mod resources;
pub mod run;
pub mod store;
