//! Keeps the file of [`names`](crate::commands::names) in step with the ids the planner gave out. Called by the loop of
//! [`run`](super).

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    commands::names::{self, ServicePort},
    model::{Family, Protocol},
    plan::{Planner, PortKey},
};

/// The file holds all names, so a burst of changes should cost one writing of it.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// The file, and which version of the names it holds.
pub(super) struct NamesFile {
    state_dir: PathBuf,
    written: u64,
    /// Not before this time.
    next: Option<Instant>,
    pending: bool,
}

impl NamesFile {
    pub(super) fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            written: 0,
            next: None,
            pending: false,
        }
    }

    /// When [`NamesFile::follow`] has something to write that it put off.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.filter(|_| self.pending)
    }

    /// Writes the file if names changed and the last writing was long enough ago.
    pub(super) fn follow(&mut self, planner: &Planner, now: Instant) {
        self.pending = planner.ports_version() != self.written;
        if !self.pending || self.next.is_some_and(|next| now < next) {
            return;
        }
        let ports: Vec<_> = planner.ports().map(|(id, key)| port(id.0, key)).collect();
        if let Err(error) = names::write(&self.state_dir, &ports) {
            tracing::warn!(%error, directory = %self.state_dir.display(), "commands and metrics won't know new names");
        }
        self.written = planner.ports_version();
        self.next = Some(now + AT_MOST_EVERY);
        self.pending = false;
    }
}

fn port(id: u32, key: &PortKey) -> ServicePort {
    let protocol = match key.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    ServicePort {
        id,
        namespace: key.service.namespace.clone(),
        name: key.service.name.clone(),
        port: key.port.clone(),
        protocol: protocol.into(),
        family: if key.family == Family::V4 { "IPv4" } else { "IPv6" }.into(),
    }
}
