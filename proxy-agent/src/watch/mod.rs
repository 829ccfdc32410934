//! Follows Services, EndpointSlices and this node's Node, and says what happened.
//!
//! [`run`](crate::run) starts it with [`start`] and takes [`Event`]s from the channel; [`model`](crate::model) comes
//! next. Each kind has a task of its own ([`kinds`]), which lists, watches, and lists anew when the API server forgot
//! where it was; objects become the agent's types in [`parse`].
//!
//! ```text
//! kind     start --Init--> listing --InitDone--> following --Init--> listing ...
//! event                              Replaced    Applied / Deleted
//! all three kinds have left their first listing: Synced, once
//! ```

mod backoff;
pub mod client;
pub mod interfaces;
pub mod kinds;
pub mod parse;

use std::net::IpAddr;

pub use kinds::{Options, start};

use crate::model::{Node, Service, ServiceName, Slice, SliceName};

/// What happened in the cluster or on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Service is there or has changed.
    ServiceApplied(Service),
    /// A Service is gone, or has no virtual address any more.
    ServiceDeleted(ServiceName),
    /// These are all Services: others are gone.
    ServicesReplaced(Vec<Service>),
    /// An EndpointSlice is there or has changed.
    SliceApplied(Slice),
    /// An EndpointSlice is gone, or belongs to no Service any more.
    SliceDeleted(SliceName),
    /// These are all EndpointSlices: others are gone.
    SlicesReplaced(Vec<Slice>),
    /// This node's Node object.
    NodeApplied(Node),
    /// There is no Node object for this node (any more).
    NodeDeleted,
    /// The addresses of the node's interfaces.
    InterfaceAddresses(Vec<IpAddr>),
    /// The first full lists of all three kinds were sent: from now on what is missing is gone.
    Synced,
}
