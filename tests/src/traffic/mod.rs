//! Traffic: servers that say who they are, clients that count who answered. Both are subcommands of the `lab` binary, so
//! that they run in a namespace and a cgroup of their own.

mod client;
mod flood;
mod report;
mod server;

pub use client::{Protocol, Request, run as request};
pub use flood::syn_flood;
pub use report::Report;
pub use server::{Serve, run as serve};
