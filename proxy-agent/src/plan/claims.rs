//! Who has a frontend when several service ports want it. Used by [`super`].
//!
//! Two Services may name the same load-balancer or external IP and port. Exactly one has it, and every node must agree
//! on which, whatever the order of events: the kind that Kubernetes allocates before the kind that anyone can write
//! into an object (ClusterIP, node port, load balancer, external IP), then the older Service, then the name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proxy_ebpf::abi::{Frontend, FrontendKey};

use super::{desired::PortKey, tables::Ledger};

/// Who claims, best first: kind, age of the Service, name.
pub(super) type Rank = (u8, i64, Arc<PortKey>);

/// All claims to frontends.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(HashMap<FrontendKey, BTreeMap<Rank, Frontend>>);

impl Claims {
    /// Adds a claim, or changes what the claimant would have the frontend say.
    pub(super) fn add(&mut self, key: FrontendKey, rank: Rank, value: Frontend, ledger: &mut Ledger) {
        self.0.entry(key).or_default().insert(rank, value);
        self.settle(key, ledger);
    }

    /// Takes a claim back; the next best has the frontend.
    pub(super) fn remove(&mut self, key: FrontendKey, rank: &Rank, ledger: &mut Ledger) {
        if let Some(claims) = self.0.get_mut(&key) {
            claims.remove(rank);
            if claims.is_empty() {
                self.0.remove(&key);
            }
        }
        self.settle(key, ledger);
    }

    /// Whether anyone claims a frontend.
    pub(super) fn has(&self, key: &FrontendKey) -> bool {
        self.0.contains_key(key)
    }

    fn settle(&self, key: FrontendKey, ledger: &mut Ledger) {
        let value = self.0.get(&key).and_then(|claims| claims.values().next()).copied();
        if ledger.tables().frontends.get(&key).copied() != value {
            ledger.set_frontend(key, value);
        }
    }
}
