//! A whole cluster: the wire, nodes, control plane, agents, an outside client, and an API client to steer it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::agent::Agent;
use crate::control_plane::ControlPlane;
use crate::kubelet::{self, Running, Site};
use crate::process::{Place, eventually};
use crate::programs;
use crate::scope::Scope;
use crate::topology::{Host, Node, Pod, Wire, connect};
use crate::traffic::Report;

/// How large a cluster is and how its agents run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes.
    pub nodes: u8,
    /// Flags for every agent, after the lab's own.
    pub agent: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 2,
            agent: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it ends every process and removes all it made.
pub struct Cluster {
    /// One agent per node, in order.
    pub agents: Vec<Agent>,
    /// The API server.
    pub control: ControlPlane,
    /// A client outside the cluster: 172.18.100.1 to .200, fd00:18::100:1 to ::100:c8.
    pub outside: Host,
    running: Running,
    client: Client,
    runtime: Runtime,
    wire: Wire,
    site: Arc<Site>,
}

impl Cluster {
    /// Brings a cluster up; `progress` hears each step.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn new(options: &Options, progress: &dyn Fn(&str)) -> Result<Self> {
        // A second provider in the process is no error: the first stays.
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime = Runtime::new()?;
        let scope = Scope::new()?;
        progress("network: a wire, nodes and an outside client as network namespaces");
        let wire = Wire::new(&scope)?;
        let nodes = (1..=options.nodes)
            .map(|index| Node::new(&scope, &wire, index))
            .collect::<Result<Vec<_>>>()?;
        connect(&nodes)?;
        let outside = Host::new(&scope, &wire, "outside", &outside_addresses())?;
        progress("control plane: API server with its own CA, store and EndpointSlice controller");
        let control = ControlPlane::start(&scope, &wire)?;
        let client = runtime.block_on(connect_api(&control))?;
        let site = Arc::new(Site { nodes, scope });
        let mut cluster = Self {
            agents: Vec::new(),
            control,
            outside,
            running: Running::default(),
            client,
            runtime,
            wire,
            site,
        };
        for node in &cluster.site.nodes {
            cluster.apply_value(serde_json::to_value(crate::objects::node(node))?)?;
        }
        cluster.runtime.spawn(kubelet::run(
            Arc::clone(&cluster.site),
            cluster.running.clone(),
            cluster.client.clone(),
        ));
        progress("agents: one on each node, loading and attaching the BPF programs");
        cluster.start_agents(&options.agent)?;
        Ok(cluster)
    }

    fn start_agents(&mut self, extra: &[String]) -> Result<()> {
        for node in &self.site.nodes {
            let kubeconfig = self.control.agent_kubeconfig(&node.name())?;
            let mut agent = Agent::new(node, &kubeconfig.display().to_string(), &self.site.scope.dir(), extra);
            agent.start()?;
            self.agents.push(agent);
        }
        self.agents.iter_mut().try_for_each(Agent::wait_ready)
    }

    /// The node with this number, from 1.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.site.nodes[number - 1]
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.site.nodes
    }

    /// The wire, for captures.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The lab's files.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.site.scope
    }

    /// Pods as the kubelet runs them.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Runs a future of the API client to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Runs a future in the background for as long as the cluster lives.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(future);
    }

    /// The API client, as cluster administrator.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Applies YAML documents: creates what is absent, merges into what is there.
    ///
    /// # Errors
    /// If a document isn't a Kubernetes object, or the API server refuses it.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("not YAML")?;
        documents
            .into_iter()
            .filter(|document| !document.is_null())
            .try_for_each(|document| self.apply_value(document))
    }

    fn apply_value(&self, document: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(document).context("not a Kubernetes object")?;
        let name = object
            .metadata
            .name
            .clone()
            .context("an object without metadata.name")?;
        let api = self.dynamic(&object)?;
        self.block_on(async {
            if api.get_opt(&name).await?.is_none() {
                return api.create(&PostParams::default(), &object).await.map(drop);
            }
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&object))
                .await
                .map(drop)
        })
        .with_context(|| format!("can't apply {name}"))
    }

    fn dynamic(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let types = object.types.clone().context("an object without apiVersion and kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
        let cluster_wide = matches!(types.kind.as_str(), "Namespace" | "Node");
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        Ok(if cluster_wide {
            Api::all_with(self.client(), &resource)
        } else {
            Api::namespaced_with(self.client(), namespace, &resource)
        })
    }

    /// A Service's object.
    ///
    /// # Errors
    /// If there is none.
    pub fn service(&self, namespace: &str, name: &str) -> Result<Service> {
        let api: Api<Service> = Api::namespaced(self.client(), namespace);
        Ok(self.block_on(api.get(name))?)
    }

    /// The first ClusterIP of a family.
    ///
    /// # Errors
    /// If the Service has none.
    pub fn cluster_ip(&self, namespace: &str, name: &str, ipv6: bool) -> Result<IpAddr> {
        let spec = self.service(namespace, name)?.spec.context("no spec")?;
        let addresses = spec.cluster_ips.unwrap_or_default();
        let mut addresses = addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
        addresses
            .find(|address| address.is_ipv6() == ipv6)
            .context("no ClusterIP of that family")
    }

    /// The node port of a Service's first port.
    ///
    /// # Errors
    /// If it has none.
    pub fn node_port(&self, namespace: &str, name: &str) -> Result<u16> {
        let spec = self.service(namespace, name)?.spec.context("no spec")?;
        let port = spec
            .ports
            .unwrap_or_default()
            .first()
            .and_then(|port| port.node_port)
            .context("no node port")?;
        Ok(u16::try_from(port)?)
    }

    /// Waits until a Service's slices hold this many ready endpoints per family.
    ///
    /// # Errors
    /// If they don't within 15 s.
    pub fn wait_endpoints(&self, namespace: &str, service: &str, count: usize) -> Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client(), namespace);
        let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        eventually(Duration::from_secs(15), || {
            let slices = self.block_on(api.list(&selector))?;
            let ready = |slice: &EndpointSlice| {
                let endpoints = slice.endpoints.iter();
                let conditions = endpoints.filter_map(|endpoint| endpoint.conditions.as_ref());
                conditions.filter(|conditions| conditions.ready != Some(false)).count()
            };
            let mut families: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
            for slice in &slices.items {
                *families.entry(slice.address_type.clone()).or_default() += ready(slice);
            }
            let all = families.values().all(|ready| *ready == count) && (count == 0 || !families.is_empty());
            if all {
                Ok(())
            } else {
                bail!("{namespace}/{service} has {families:?} ready endpoints, not {count}")
            }
        })
    }

    /// Waits until the kubelet runs a Pod.
    ///
    /// # Errors
    /// If it doesn't within 15 s.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        eventually(Duration::from_secs(15), || {
            self.running
                .get(namespace, name)
                .with_context(|| format!("Pod {namespace}/{name} doesn't run"))
        })
    }

    /// Runs `lab request` in a place and returns its report.
    ///
    /// # Errors
    /// If the client can't run; failed requests are part of the report.
    pub fn request(&self, place: &Place, arguments: &[&str]) -> Result<Report> {
        let mut all = vec!["request"];
        all.extend(arguments);
        let output = place.output(programs::lab()?, &all)?;
        serde_json::from_slice(&output.stdout).context("lab request printed no report")
    }

    /// Everything that helps to find out why a test failed.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (node, agent) in self.site.nodes.iter().zip(&self.agents) {
            text.push_str(&crate::ip::describe(node.netns()));
            for subcommand in ["status", "services", "backends", "flows"] {
                let printed = agent.text(subcommand, &[]).unwrap_or_else(|error| format!("{error:#}"));
                text.push_str(&format!("--- {} {subcommand}\n{printed}\n", node.name()));
            }
            text.push_str(&format!("--- {} agent's log\n{}\n", node.name(), agent.log_tail(40)));
        }
        text
    }
}

async fn connect_api(control: &ControlPlane) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(control.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The addresses of the outside client.
#[must_use]
pub fn outside_addresses() -> Vec<IpAddr> {
    let v4 = (1..=200).map(|n| IpAddr::from([172, 18, 100, n]));
    let v6 = (1..=200).map(|n| IpAddr::from([0xfd00, 0x18, 0, 0, 0, 0, 0x100, n]));
    v4.chain(v6).collect()
}
