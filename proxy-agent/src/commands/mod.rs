//! The side doors for people: what `proxy-agent` does besides `run`. Called by `main`; each prints to standard output.
//!
//! Except for [`cleanup`] they change nothing, and none needs a running agent: they read the pinned maps through
//! [`view`](crate::datapath::view), and put names to ids by [`names`].

pub mod backends;
pub mod check;
pub mod cleanup;
pub mod flows;
pub mod names;
pub mod services;
pub mod status;
mod table;
