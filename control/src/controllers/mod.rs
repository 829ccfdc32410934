//! The control loops: they watch objects, and write others so that the cluster is as the first say.
//!
//! Started by [`crate::run`]. They write through [`crate::api::Registry`], in process, so that validation, defaults and
//! ids are the same as for clients. `runtime` is the loop, `queue` what waits for work, `informer` a kept copy of a
//! resource.

mod endpoint_slice;
mod index;
mod informer;
mod namespace;
mod queue;
mod runtime;
#[cfg(test)]
mod tests;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Registry;

/// Starts all controllers; they end with `shutdown`, or when the store closes.
pub fn spawn(registry: &Registry, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    let now = registry.store().revision();
    if let Some(controller) = endpoint_slice::EndpointSlices::new(registry.clone()) {
        loops.spawn(runtime::run("endpointslice", controller, now, shutdown.clone()));
    }
    if let Some(controller) = namespace::Namespaces::new(registry.clone()) {
        loops.spawn(runtime::run("namespace", controller, now, shutdown.clone()));
    }
    loops
}
