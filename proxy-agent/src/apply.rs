//! Carries operations out: the only writer of the maps of Services.
//!
//! Called by [`run`](crate::run) with what [`diff`] made. Whether everything fits was settled before, in
//! [`plan`](crate::plan), so an error here is the kernel's or another writer's; the caller then compares the maps in full
//! ([`mend`]) and tries again.

use proxy_ebpf::abi::{BackendExpired, BackendId};

use crate::{
    diff::{self, Operation},
    maps::{MapError, Maps},
    plan::Tables,
};

/// An operation that failed. Those before it are done, those after it are not begun.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct ApplyError {
    /// What was tried, in words.
    operation: String,
    /// What the map said.
    #[source]
    source: MapError,
}

/// Carries operations out in their order.
///
/// # Errors
/// The first one that fails.
pub fn apply(maps: &mut impl Maps, operations: &[Operation]) -> Result<(), ApplyError> {
    for operation in operations {
        one(maps, operation).map_err(|source| ApplyError {
            operation: operation.to_string(),
            source,
        })?;
    }
    Ok(())
}

fn one(maps: &mut impl Maps, operation: &Operation) -> Result<(), MapError> {
    match operation {
        Operation::ResetLoads(ids) => reset_loads(maps, ids),
        Operation::PutBackends(entries) | Operation::KillBackends(entries) => maps.put_backends(entries),
        Operation::PutSlots(base, slots) => maps.put_slots(*base, slots),
        Operation::PutServices(entries) => maps.put_services(entries),
        Operation::PutFrontends(entries) => maps.put_frontends(entries),
        Operation::PutOwnedAddrs(addrs) => maps.put_owned_addrs(addrs),
        Operation::DeleteOwnedAddrs(addrs) => maps.delete_owned_addrs(addrs),
        Operation::DeleteFrontends(keys) => maps.delete_frontends(keys),
        Operation::ClearServices(ids) => {
            let cleared: Vec<_> = ids.iter().map(|id| (*id, Default::default())).collect();
            maps.put_services(&cleared)
        }
    }
}

/// The programs own `BACKEND_LOADS`, so zero open flows is written as "all that were counted in are out again".
fn reset_loads(maps: &mut impl Maps, ids: &[BackendId]) -> Result<(), MapError> {
    let expired = |id: &BackendId| {
        let load = maps.load(*id)?;
        Ok((
            *id,
            BackendExpired {
                flows: load.opened.wrapping_sub(load.closed),
            },
        ))
    };
    let entries = ids.iter().map(expired).collect::<Result<Vec<_>, _>>()?;
    maps.put_expired(&entries)
}

/// Compares the maps in full with what they should hold and corrects them. Returns how many entries were wrong.
///
/// # Errors
/// A map that can't be read or written, in words of the operation.
pub fn mend(maps: &mut impl Maps, desired: &Tables) -> Result<usize, ApplyError> {
    let read = Tables::read(maps, desired.runs());
    let actual = read.map_err(|source| ApplyError {
        operation: "read the maps back".into(),
        source,
    })?;
    let operations = diff::between(&actual, desired);
    apply(maps, &operations)?;
    Ok(operations.iter().map(Operation::len).sum())
}
