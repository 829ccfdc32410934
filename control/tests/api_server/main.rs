//! The API server over TLS, in process: what clients send, byte for byte, and what they get.
//!
//! [`harness`] starts a server on a directory of its own and speaks HTTP to it; each other module is one behaviour.

mod concurrency;
mod deletion;
mod harness;
mod kube_client;
mod lists;
mod patches;
mod protocol;
mod watches;
mod writes;
