//! The demo's cluster: manifests applied, load balancers given addresses, dead agents started again.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod as PodObject, Service as ServiceObject};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::table;
use crate::cluster::Cluster;
use crate::process::eventually;

const NAMESPACE: &str = "demo";
const ALGORITHM: &str = "waggle.dev/algorithm";

/// A Service of the demo and how to reach it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) algorithm: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) udp: bool,
    /// Reached from outside the cluster, else from the client Pod.
    pub(super) outside: bool,
    /// Its Pods, and whether each is slow.
    pub(super) pods: Vec<(String, bool)>,
}

pub(super) struct Demo {
    cluster: Cluster,
}

impl Demo {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Applies the manifests with `kubectl` if there is one, else through the API client; returns how.
    pub(super) fn apply(&self, manifests: &Path) -> Result<&'static str> {
        let how = match Command::new("kubectl").args(["version", "--client"]).output() {
            Ok(output) if output.status.success() => {
                let output = Command::new("kubectl")
                    .arg("--kubeconfig")
                    .arg(self.cluster.control.kubeconfig())
                    .args(["apply", "-f"])
                    .arg(manifests)
                    .output()?;
                if !output.status.success() {
                    bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
                }
                "with kubectl apply"
            }
            _ => {
                for file in yaml_files(manifests)? {
                    let text = std::fs::read_to_string(&file)?;
                    self.cluster.apply(&text).with_context(|| file.display().to_string())?;
                }
                "through the API client (no kubectl on the PATH)"
            }
        };
        self.assign_load_balancers()?;
        Ok(how)
    }

    /// What a cloud does for `type: LoadBalancer`: an address in the status, and a route to it, here by the second node.
    fn assign_load_balancers(&self) -> Result<()> {
        let api = self.service_api();
        let gateway = self.cluster.node(2).ipv4();
        for (number, service) in (10..).zip(self.cluster.block_on(api.list(&ListParams::default()))?) {
            if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
                let address = Ipv4Addr::new(203, 0, 113, number);
                let status =
                    json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "VIP" }] } } });
                let name = service.name_any();
                self.cluster
                    .block_on(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)))?;
                self.cluster.outside.route(&format!("{address}/32"), gateway.into())?;
            }
        }
        Ok(())
    }

    pub(super) fn wait_ready(&self) -> Result<()> {
        for pod in self.pods()? {
            self.cluster.pod(NAMESPACE, &pod.name_any())?;
        }
        for service in self.services()? {
            self.cluster
                .wait_endpoints(NAMESPACE, &service.name, service.pods.len())?;
            // Endpoints in the API are not yet endpoints in every node's maps: a request says so.
            eventually(Duration::from_secs(5), || {
                let outcome = super::probe::send(self, &service, 1)?;
                if outcome.report.failed() == 0 {
                    Ok(())
                } else {
                    bail!("{:?}", outcome.report.errors)
                }
            })
            .with_context(|| format!("Service {} doesn't answer\n{}", service.name, self.cluster.describe()))?;
        }
        Ok(())
    }

    /// The Services as the API server has them now.
    pub(super) fn services(&self) -> Result<Vec<Service>> {
        let pods = self.pods()?;
        let services = self.cluster.block_on(self.service_api().list(&ListParams::default()))?;
        services.into_iter().map(|service| self.read(&service, &pods)).collect()
    }

    fn read(&self, service: &ServiceObject, pods: &[PodObject]) -> Result<Service> {
        let name = service.name_any();
        let spec = service.spec.as_ref().context("a Service without spec")?;
        let port = spec
            .ports
            .iter()
            .flatten()
            .next()
            .with_context(|| format!("Service {name} has no port"))?;
        let kind = spec.type_.clone().unwrap_or_default();
        let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default().parse::<IpAddr>();
        let (address, number) = match kind.as_str() {
            "NodePort" => (self.cluster.node(1).ipv4().into(), port.node_port.unwrap_or_default()),
            "LoadBalancer" => (
                load_balancer(service).with_context(|| format!("{name} has no address yet"))?,
                port.port,
            ),
            _ => (
                cluster_ip.with_context(|| format!("Service {name} has no ClusterIP"))?,
                port.port,
            ),
        };
        let selector = spec.selector.clone().unwrap_or_default();
        let selected = pods.iter().filter(|pod| {
            !selector.is_empty() && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        });
        let slow = |pod: &PodObject| {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            containers
                .flat_map(|container| container.args.iter().flatten())
                .any(|arg| arg.starts_with("--delay-ms"))
        };
        Ok(Service {
            algorithm: service
                .annotations()
                .get(ALGORITHM)
                .cloned()
                .unwrap_or_else(|| "rr".into()),
            outside: kind != "ClusterIP",
            pods: selected.map(|pod| (pod.name_any(), slow(pod))).collect(),
            udp: port.protocol.as_deref() == Some("UDP"),
            port: u16::try_from(number)?,
            kind,
            name,
            address,
        })
    }

    /// Starts agents again that were killed, as a DaemonSet would; says so.
    pub(super) fn supervise(&mut self) -> Vec<String> {
        let nodes: Vec<String> = self.cluster.nodes().iter().map(crate::topology::Node::name).collect();
        let mut notices = Vec::new();
        for (node, agent) in nodes.iter().zip(&mut self.cluster.agents) {
            if agent.has_ended() {
                match agent.start() {
                    Ok(()) => notices.push(format!(
                        "the agent of {node} had ended: started again, pid {:?}",
                        agent.pid()
                    )),
                    Err(error) => notices.push(format!("the agent of {node} had ended and doesn't start: {error:#}")),
                }
            }
        }
        notices
    }

    /// The table of what is running.
    pub(super) fn describe(&self) -> Result<String> {
        let mut text = String::new();
        let nodes = self
            .cluster
            .nodes()
            .iter()
            .zip(&self.cluster.agents)
            .map(|(node, agent)| {
                let pid = agent.pid().map_or_else(|| "-".into(), |pid| pid.to_string());
                vec![node.name(), node.ipv4().to_string(), node.ipv6().to_string(), pid]
            });
        writeln!(
            text,
            "{}",
            table::render(&["NODE", "ADDRESS", "ADDRESS", "AGENT PID"], nodes.collect())
        )?;
        let services = self.services()?.into_iter().map(|service| {
            let from = if service.outside { "outside" } else { "a Pod" };
            let pods: Vec<&str> = service.pods.iter().map(|(name, _)| name.as_str()).collect();
            let to = std::net::SocketAddr::new(service.address, service.port).to_string();
            vec![
                service.name.clone(),
                service.kind.clone(),
                service.algorithm.clone(),
                to,
                from.into(),
                pods.join(" "),
            ]
        });
        let heads = ["SERVICE", "TYPE", "ALGORITHM", "REACHED AT", "FROM", "BACKENDS"];
        writeln!(text, "{}", table::render(&heads, services.collect()))?;
        writeln!(
            text,
            "export KUBECONFIG={}",
            self.cluster.control.kubeconfig().display()
        )?;
        Ok(text)
    }

    /// What a newcomer may do next.
    pub(super) fn what_to_try(&self, manifests: &Path) -> String {
        let pid = self
            .cluster
            .agents
            .first()
            .and_then(crate::agent::Agent::pid)
            .unwrap_or_default();
        let scale = manifests.join("scale/web-5.yaml");
        let scale = scale.canonicalize().unwrap_or(scale);
        let scale = scale.display();
        format!(
            "In another terminal, with that KUBECONFIG:\n  \
             kubectl -n demo get svc,endpointslices,pods -o wide\n  \
             kubectl apply -f {scale}    # scale up\n  \
             kubectl -n demo delete pod web-5    # and down again\n  \
             kubectl -n demo annotate svc web waggle.dev/algorithm=sh --overwrite    # another algorithm, at once\n  \
             kill -9 {pid}    # an agent; nothing is lost\n\
             Ctrl-C here ends it all.\n"
        )
    }

    fn pods(&self) -> Result<Vec<PodObject>> {
        let api: Api<PodObject> = Api::namespaced(self.cluster.client(), NAMESPACE);
        Ok(self.cluster.block_on(api.list(&ListParams::default()))?.items)
    }

    fn service_api(&self) -> Api<ServiceObject> {
        Api::namespaced(self.cluster.client(), NAMESPACE)
    }

    /// The Pod that requests from inside the cluster come from.
    pub(super) fn client(&self) -> Result<crate::topology::Pod> {
        self.cluster.pod(NAMESPACE, "client")
    }
}

fn load_balancer(service: &ServiceObject) -> Option<IpAddr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_ref()?.parse().ok()
}

fn yaml_files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("can't read the manifests in {}", dir.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}
