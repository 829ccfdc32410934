//! The agent without its surroundings: events in, maps written, and what others have to be told.
//!
//! [`run`](super) feeds it from the network and the clock; tests feed it from files. No call here waits for anything but
//! the maps.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use proxy_ebpf::abi::StateGeneration;

use super::status::{Fill, HealthPort, Problem, StatusHandle};
use crate::{
    apply::{self, ApplyError},
    diff::Operation,
    maps::{MapError, Maps, Table},
    model::{Model, Node, Protocol, ServiceName, Touched},
    plan::{Planner, Policy, Tables, backends::BackendKey},
    watch::Event,
};

/// How long after a failure the maps are compared and mended, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Model, plan and maps of one node.
pub struct Agent<M> {
    maps: M,
    model: Model,
    planner: Planner,
    status: StatusHandle,
    synced: bool,
    /// After a failure: when to try again, and how long the wait was.
    retry: Option<(Instant, Duration)>,
    failure: Option<String>,
}

/// What a batch of events means for others than the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The node, if it changed.
    pub node: Option<Node>,
    /// UDP backends no flow may go to any more.
    pub gone: Vec<SocketAddr>,
}

impl<M: Maps> Agent<M> {
    /// An agent for a node, that adopts what the maps hold.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn new(node_name: &str, policy: Policy, maps: M, status: StatusHandle) -> Result<Self, MapError> {
        let held = Tables::read(&maps, [])?;
        let planner = Planner::new(policy, |table| maps.size(table), held);
        let model = Model::new(node_name);
        Ok(Self {
            maps,
            model,
            planner,
            status,
            synced: false,
            retry: None,
            failure: None,
        })
    }

    /// What the cluster says.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the maps should hold.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The maps.
    pub fn maps(&self) -> &M {
        &self.maps
    }

    /// The maps, and the agent no more: a stop.
    pub fn into_maps(self) -> M {
        self.maps
    }

    /// Takes a batch of events in and brings the maps up to date. Until [`Event::Synced`] has come nothing is written.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>, now: Instant) -> Outcome {
        let began = Instant::now();
        let node_before = self.model.node().clone();
        let (mut touched, mut everything, mut first) = (BTreeSet::new(), false, false);
        for event in events {
            self.count(&event);
            first |= event == Event::Synced && !self.synced;
            match self.model.handle(event) {
                Touched::Services(names) => touched.extend(names),
                Touched::Everything => everything = true,
            }
        }
        let node = Some(self.model.node()).filter(|node| **node != node_before).cloned();
        self.synced |= first;
        let operations = match (self.synced, first, everything) {
            (false, ..) => return Outcome { node, gone: Vec::new() },
            (_, true, _) => self.planner.start(&self.model, now),
            (_, _, true) => self.planner.plan_all(&self.model, now),
            (_, _, false) => self.planner.plan(&self.model, &touched, now),
        };
        self.write(&operations, now);
        self.report(began);
        Outcome {
            node,
            gone: udp_backends_killed(&operations),
        }
    }

    /// What is due at `now`: grace periods that end, Services that wait for room, another try after a failure.
    pub fn tick(&mut self, now: Instant) -> Outcome {
        if !self.synced {
            return Outcome::default();
        }
        let operations = self.planner.tick(&self.model, now);
        if self.retry.is_some_and(|(due, _)| due <= now) {
            self.compare(now);
        } else {
            self.write(&operations, now);
        }
        self.report_problems();
        Outcome {
            node: None,
            gone: udp_backends_killed(&operations),
        }
    }

    /// When [`Agent::tick`] has something to do.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        let due = if self.synced { self.planner.next_tick(now) } else { None };
        due.into_iter().chain(self.retry.map(|(due, _)| due)).min()
    }

    /// Compares the maps in full with what they should hold, and mends them.
    pub fn compare(&mut self, now: Instant) {
        if !self.synced {
            return;
        }
        let failed_before = self.retry.is_some();
        match apply::mend(&mut self.maps, self.planner.tables()) {
            Ok(0) => self.note_success(),
            Ok(wrong) => {
                if !failed_before {
                    tracing::warn!(entries = wrong, "maps were changed by somebody else and are mended");
                    self.status.update(|status| status.mended += 1);
                }
                self.note_success();
            }
            Err(error) => self.note_failure(&error, now),
        }
    }

    fn write(&mut self, operations: &[Operation], now: Instant) {
        // After a failure the maps are not what the operations assume: the next comparison brings all of it.
        if self.retry.is_some() {
            return;
        }
        match apply::apply(&mut self.maps, operations) {
            Ok(()) => self.note_success(),
            Err(error) => self.note_failure(&error, now),
        }
    }

    fn note_success(&mut self) {
        self.retry = None;
        self.failure = None;
        self.status.update(|status| {
            status.synced = true;
            status.last_synced = Some(SystemTime::now());
            status.service_changes.pending = 0;
            status.endpoint_changes.pending = 0;
        });
    }

    fn note_failure(&mut self, error: &ApplyError, now: Instant) {
        let delay = self.retry.map_or(RETRY.0, |(_, last)| (last * 2).min(RETRY.1));
        let message = crate::watch::kinds::chain(error);
        tracing::error!(error = %message, retry_in = ?delay, "maps can't be written; traffic goes on as it was");
        self.failure = Some(message);
        self.retry = Some((now + delay, delay));
    }

    fn count(&self, event: &Event) {
        let queued = SystemTime::now();
        self.status.update(|status| match event {
            Event::ServiceApplied(_) | Event::ServiceDeleted(_) | Event::ServicesReplaced(_) => {
                status.service_changes.total += 1;
                status.service_changes.pending += 1;
                status.last_queued = Some(queued);
            }
            Event::SliceApplied(_) | Event::SliceDeleted(_) | Event::SlicesReplaced(_) => {
                status.endpoint_changes.total += 1;
                status.endpoint_changes.pending += 1;
                status.last_queued = Some(queued);
            }
            Event::NodeApplied(node) => status.node_terminating = node.terminating,
            Event::NodeDeleted | Event::InterfaceAddresses(_) | Event::Synced => {}
        });
    }

    fn report(&self, began: Instant) {
        let health_ports = self.health_ports();
        let (internal, external) = self.planner.without_local_endpoints();
        self.status.update(|status| {
            status.syncs.record(began.elapsed());
            status.no_local_endpoints = (internal as u64, external as u64);
            status.health_ports = health_ports;
        });
        self.report_problems();
    }

    fn report_problems(&self) {
        let problems = self.problems();
        let fill = Table::ALL[..5].iter().map(|table| Fill {
            map: table.name(),
            used: self.planner.used(*table) as u64,
            size: self.planner.size(*table).into(),
        });
        let fill = fill.collect();
        self.status.update(|status| {
            status.problems = problems;
            status.fill = fill;
        });
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = |service: &ServiceName, reason, message| Problem {
            service: service.to_string(),
            reason,
            message,
        };
        let shortages = self.planner.shortages().iter();
        let shortages = shortages.map(|(name, why)| problem(name, "ServiceNotProgrammed", why.to_string()));
        let warnings = self.model.services().flat_map(|service| {
            service
                .warnings
                .iter()
                .map(|warning| problem(&service.name, "ServiceNotUnderstood", warning.clone()))
        });
        let failure = self.failure.iter().map(|why| Problem {
            service: "*".into(),
            reason: "MapsNotWritten",
            message: why.clone(),
        });
        shortages.chain(warnings).chain(failure).collect()
    }

    fn health_ports(&self) -> Vec<HealthPort> {
        let ports = self
            .model
            .services()
            .filter_map(|service| Some((&service.name, service.health_port?)));
        let health = |(name, port): (&ServiceName, u16)| HealthPort {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            port,
            local_endpoints: self.model.ready_local_endpoints(name),
        };
        ports.map(health).collect()
    }
}

fn udp_backends_killed(operations: &[Operation]) -> Vec<SocketAddr> {
    let killed = operations.iter().filter_map(|operation| match operation {
        Operation::KillBackends(entries) => Some(entries),
        _ => None,
    });
    let udp = killed
        .flatten()
        .filter(|(_, backend)| backend.state.state() == StateGeneration::DEAD)
        .filter_map(|(_, backend)| BackendKey::of(backend).filter(|key| key.protocol == Protocol::Udp));
    udp.map(|key| SocketAddr::new(IpAddr::from(key.addr), key.port))
        .collect()
}
