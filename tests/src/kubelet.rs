//! Pod objects become namespaces with servers in them: what a kubelet and a CNI do, as far as the lab needs it.
//!
//! A Pod with `spec.nodeName` gets a namespace on that lab node; a container with ports runs `lab serve` on them (its
//! `args` are passed on), one without only holds the namespace, for clients. Then its status says Running and Ready.
//! A deleted Pod loses its process and its device at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tracing::{info, warn};

use crate::objects;
use crate::process::Process;
use crate::programs;
use crate::scope::Scope;
use crate::topology::{Node, Pod};

/// What the kubelet works on, shared with the cluster.
#[derive(Debug)]
pub struct Site {
    /// The nodes, `node-1` first.
    pub nodes: Vec<Node>,
    /// The lab everything belongs to; last, so that it is swept last.
    pub scope: Scope,
}

/// The Pods that run, by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<BTreeMap<(String, String), RunningPod>>>);

#[derive(Debug)]
struct RunningPod {
    pod: Pod,
    uid: String,
    /// Holds the namespace, as a pause container does.
    _pause: Process,
    server: Option<Process>,
}

impl Running {
    /// A running Pod.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Pod> {
        self.lock()
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(|running| running.pod.clone())
    }

    /// Kills a Pod's server with SIGKILL but leaves the Pod object alone, as a crash would.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn crash(&self, namespace: &str, name: &str) -> Result<()> {
        let mut pods = self.lock();
        let running = pods
            .get_mut(&(namespace.to_owned(), name.to_owned()))
            .context("no such Pod runs")?;
        running.server.take().context("the Pod has no server")?.kill()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), RunningPod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows Pod objects until dropped.
pub async fn run(site: Arc<Site>, running: Running, client: Client) {
    let pods: Api<PodObject> = Api::all(client.clone());
    let mut kubelet = Kubelet {
        site,
        running,
        client,
        numbers: BTreeMap::new(),
    };
    let mut events = watcher::watcher(pods, watcher::Config::default()).boxed();
    let mut listed: Vec<(String, String)> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.push(key_of(&pod));
                kubelet.applied(&pod).await;
            }
            Ok(watcher::Event::InitDone) => kubelet.forget_others(&listed),
            Ok(watcher::Event::Apply(pod)) => kubelet.applied(&pod).await,
            Ok(watcher::Event::Delete(pod)) => kubelet.deleted(&key_of(&pod)),
            Err(error) => {
                warn!(%error, "watching Pods");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

fn key_of(pod: &PodObject) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

struct Kubelet {
    site: Arc<Site>,
    running: Running,
    client: Client,
    /// Last number given out, by node: numbers come back only after all others were used.
    numbers: BTreeMap<String, u8>,
}

impl Kubelet {
    async fn applied(&mut self, object: &PodObject) {
        let key = key_of(object);
        let uid = object.uid().unwrap_or_default();
        let known = self.running.lock().get(&key).map(|running| running.uid.clone());
        match known {
            Some(known) if known == uid => return,
            Some(_) => self.deleted(&key),
            None => {}
        }
        if object.metadata.deletion_timestamp.is_some() {
            return;
        }
        if let Err(error) = self.start(object, &key, uid).await {
            warn!(pod = %format!("{}/{}", key.0, key.1), "can't run the Pod: {error:#}");
        }
    }

    async fn start(&mut self, object: &PodObject, key: &(String, String), uid: String) -> Result<()> {
        let spec = object.spec.as_ref().context("no spec")?;
        let node_name = spec
            .node_name
            .clone()
            .context("spec.nodeName must name a lab node: the lab has no scheduler")?;
        let site = Arc::clone(&self.site);
        let index = site.nodes.iter().position(|node| node.name() == node_name);
        let node = &site.nodes[index.with_context(|| format!("no lab node is called {node_name}"))?];
        let number = self.numbers.entry(node_name).or_insert(9);
        *number = if *number >= 250 { 10 } else { *number + 1 };
        let sandbox = format!("{}-{number}", &uid[..8.min(uid.len())]);
        let place = node.sandbox(&site.scope, &sandbox)?;
        let mut pause = place.command(programs::lab()?)?;
        pause.arg("hold");
        let pause = Process::spawn("pause", pause, Path::new("/dev/null"))?;
        let pod = node.attach(place, &key.1, *number)?;
        let server = serve(&site.scope, &pod, object)?;
        self.running.lock().insert(
            key.clone(),
            RunningPod {
                pod: pod.clone(),
                uid,
                _pause: pause,
                server,
            },
        );
        let api: Api<PodObject> = Api::namespaced(self.client.clone(), &key.0);
        let status = objects::pod_status(&pod, node);
        api.patch_status(&key.1, &PatchParams::default(), &Patch::Merge(status))
            .await
            .context("can't report its status")?;
        info!(pod = %key.1, address = %IpAddr::from(pod.ipv4), "runs");
        Ok(())
    }

    fn deleted(&mut self, key: &(String, String)) {
        let Some(running) = self.running.lock().remove(key) else {
            return;
        };
        drop(running.server);
        if let Some(node) = self.site.nodes.iter().find(|node| node.name() == running.pod.node)
            && let Err(error) = node.unplug(&running.pod)
        {
            warn!("{error:#}");
        }
    }

    fn forget_others(&mut self, listed: &[(String, String)]) {
        let gone: Vec<_> = self
            .running
            .lock()
            .keys()
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.deleted(&key);
        }
    }
}

/// Starts the server of a Pod and waits until its ports are bound.
fn serve(scope: &Scope, pod: &Pod, object: &PodObject) -> Result<Option<Process>> {
    let containers = object.spec.iter().flat_map(|spec| &spec.containers);
    let container = containers.into_iter().next().context("no container")?;
    let ports = container.ports.clone().unwrap_or_default();
    if ports.is_empty() {
        return Ok(None);
    }
    let mut command = pod.place.command(programs::lab()?)?;
    command.args(["serve", "--name", &pod.name]);
    for port in &ports {
        let flag = if port.protocol.as_deref() == Some("UDP") {
            "--udp"
        } else {
            "--tcp"
        };
        command.args([flag, &port.container_port.to_string()]);
    }
    command.args(container.args.iter().flatten());
    let log = scope.dir().join(format!("pod-{}.log", pod.place.netns.name()));
    let mut process = Process::spawn(&pod.name, command, &log)?;
    crate::process::eventually(std::time::Duration::from_secs(10), || {
        process.check_alive()?;
        if process.log().contains("ready") {
            Ok(())
        } else {
            anyhow::bail!("not listening yet")
        }
    })?;
    Ok(Some(process))
}
