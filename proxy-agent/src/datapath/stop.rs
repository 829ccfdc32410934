//! How the threads of the data path learn that it is over. Owned by [`Datapath`](super::Datapath), looked at by
//! [`devices`](super::devices), [`pods`](super::pods) and [`expire`](super::expire).

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// A flag that can be waited for; clones share it.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Sets the flag and wakes whoever waits.
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, less if the flag is set; returns whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let flag = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(flag, time, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
