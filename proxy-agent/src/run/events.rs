//! Kubernetes Events about Services that can't be served as their objects ask.
//!
//! [`run`](super) hands every new list of problems to [`Reporter::report`]; each problem is told once while it lasts.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use super::status::Problem;
use crate::model::{Model, Service, ServiceName};

/// Tells the cluster.
pub struct Reporter {
    client: Client,
    node_name: String,
    told: BTreeSet<(String, String)>,
}

impl Reporter {
    /// A reporter for the agent of a node.
    pub fn new(client: Client, node_name: &str) -> Self {
        Self {
            client,
            node_name: node_name.to_owned(),
            told: BTreeSet::new(),
        }
    }

    /// Sends an Event, in the background, for each problem that is new. An Event that can't be sent is logged.
    pub fn report(&mut self, problems: &[Problem], model: &Model) {
        let key = |problem: &Problem| (problem.service.clone(), problem.message.clone());
        self.told
            .retain(|told| problems.iter().any(|problem| key(problem) == *told));
        for problem in problems {
            if !self.told.insert(key(problem)) {
                continue;
            }
            tracing::warn!(service = problem.service, "{}", problem.message);
            if let Some(service) = named(&problem.service, model) {
                self.send(service, problem);
            }
        }
    }

    fn send(&self, service: &Service, problem: &Problem) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &service.name.namespace);
        let event = self.event(service, problem);
        tokio::spawn(async move {
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, "an Event could not be sent");
            }
        });
    }

    fn event(&self, service: &Service, problem: &Problem) -> Event {
        let ServiceName { namespace, name } = &service.name;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp::from_second(now.as_secs() as i64).ok().map(Time);
        Event {
            metadata: ObjectMeta {
                // As Kubernetes' own clients name them: unique, and still readable.
                name: Some(format!("{name}.{:x}", now.as_nanos())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Service".into()),
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: Some(service.uid.clone()),
                ..ObjectReference::default()
            },
            type_: Some("Warning".into()),
            reason: Some(problem.reason.into()),
            message: Some(problem.message.clone()),
            source: Some(EventSource {
                component: Some("waggle".into()),
                host: Some(self.node_name.clone()),
            }),
            reporting_component: Some("waggle.dev/proxy-agent".into()),
            reporting_instance: Some(self.node_name.clone()),
            first_timestamp: time.clone(),
            last_timestamp: time,
            count: Some(1),
            ..Event::default()
        }
    }
}

fn named<'a>(name: &str, model: &'a Model) -> Option<&'a Service> {
    let (namespace, name) = name.split_once('/')?;
    model.service(&ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
