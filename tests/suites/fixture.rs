//! What the suites start from: a cluster shared by the tests of a file, and workloads in a namespace of each test's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::cluster::{Cluster, Options};
use lab::process::{Place, Process, eventually};
use lab::topology::Pod;
use lab::traffic::Report;

/// A cluster that is brought up by the first test that asks and then shared, one test at a time. A static is never
/// dropped: the lab's warden removes the cluster when the test process ends.
pub(crate) struct Shared {
    agent_flags: &'static [&'static str],
    cluster: OnceLock<Mutex<Cluster>>,
}

impl Shared {
    /// A cluster of two nodes whose agents get these flags.
    pub(crate) const fn new(agent_flags: &'static [&'static str]) -> Self {
        Self {
            agent_flags,
            cluster: OnceLock::new(),
        }
    }

    /// Runs a test in a namespace of its own; if it fails, the state of the cluster is printed.
    pub(crate) fn test(&self, namespace: &str, test: impl FnOnce(&mut Case) -> Result<()>) {
        let cluster = self.cluster.get_or_init(|| {
            let agent = self.agent_flags.iter().map(|flag| (*flag).to_owned()).collect();
            let options = Options { nodes: 2, agent };
            Mutex::new(Cluster::new(&options, &|_| ()).unwrap_or_else(|error| panic!("no cluster: {error:#}")))
        });
        let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let mut case = Case {
            cluster: &mut cluster,
            namespace: namespace.to_owned(),
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            case.apply(&format!(
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n"
            ))?;
            test(&mut case)
        }));
        let failure = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "an assertion failed".into()),
        };
        println!("{}", case.cluster.describe());
        panic!("{failure}");
    }
}

/// One test's view of a shared cluster.
pub(crate) struct Case<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) namespace: String,
}

/// Waits for requests in the background to end, and returns their report.
pub(crate) fn finish(flow: &mut Process) -> Result<Report> {
    flow.wait(Duration::from_secs(60))?;
    let log = flow.log();
    serde_json::from_str(log.trim()).with_context(|| format!("no report: {log}"))
}

/// A server Pod to make.
#[derive(Clone, Copy)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) node: u8,
    pub(crate) args: &'static [&'static str],
}

/// A server Pod without special arguments.
pub(crate) const fn backend(name: &'static str, node: u8) -> Backend {
    Backend { name, node, args: &[] }
}

impl Case<'_> {
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.cluster.apply(yaml)
    }

    /// Makes server Pods with label `app`, TCP and UDP 8080, and waits until they run.
    pub(crate) fn backends(&self, app: &str, backends: &[Backend]) -> Result<Vec<Pod>> {
        for Backend { name, node, args } in backends {
            self.apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {}, labels: {{app: {app}}}}}\nspec:\n  \
                 nodeName: node-{node}\n  containers:\n  - name: server\n    image: lab/serve\n    args: {args:?}\n    \
                 ports: [{{containerPort: 8080}}, {{containerPort: 8080, protocol: UDP, name: udp}}]\n",
                self.namespace
            ))?;
        }
        backends
            .iter()
            .map(|backend| self.cluster.pod(&self.namespace, backend.name))
            .collect()
    }

    /// Makes a Pod that serves nothing, to send requests from.
    pub(crate) fn client(&self, name: &str, node: u8) -> Result<Pod> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n  nodeName: node-{node}\n  \
             containers: [{{name: client, image: lab/hold}}]\n",
            self.namespace
        ))?;
        self.cluster.pod(&self.namespace, name)
    }

    /// Makes a dual-stack Service over the Pods of `app`, TCP and UDP 80; `more` is further YAML of its spec, each line
    /// indented by two spaces, `algorithm` goes into the annotation.
    pub(crate) fn service(&self, name: &str, app: &str, algorithm: &str, more: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {}\n  annotations: \
             {{waggle.dev/algorithm: {algorithm}}}\nspec:\n  ipFamilyPolicy: RequireDualStack\n  selector: {{app: {app}}}\n  \
             ports:\n  - {{name: tcp, port: 80, targetPort: 8080}}\n  - {{name: udp, port: 80, targetPort: 8080, protocol: UDP}}\n\
             {more}",
            self.namespace
        ))
    }

    /// The Service's ClusterIP and port 80.
    pub(crate) fn vip(&self, service: &str, ipv6: bool) -> Result<SocketAddr> {
        Ok(SocketAddr::new(
            self.cluster.cluster_ip(&self.namespace, service, ipv6)?,
            80,
        ))
    }

    /// A node's address of a family and the Service's node port.
    pub(crate) fn node_port(&self, service: &str, node: usize, ipv6: bool) -> Result<SocketAddr> {
        let node = self.cluster.node(node);
        let address: IpAddr = if ipv6 { node.ipv6().into() } else { node.ipv4().into() };
        Ok(SocketAddr::new(
            address,
            self.cluster.node_port(&self.namespace, service)?,
        ))
    }

    /// Waits until requests from a place are answered by every one of these backends and by nobody else.
    pub(crate) fn wait_served(&self, place: &Place, to: SocketAddr, by: &[&str]) -> Result<()> {
        eventually(Duration::from_secs(5), || {
            let report = self.request(place, to, &["--count=12", "--timeout-ms=500"])?;
            let all = by.iter().all(|name| report.from(name) > 0) && report.backends.len() == by.len();
            anyhow::ensure!(
                all && report.failed() == 0,
                "{to} isn't served by {by:?} only: {report:?}"
            );
            Ok(())
        })
    }

    /// Sends requests and returns the report.
    pub(crate) fn request(&self, place: &Place, to: SocketAddr, more: &[&str]) -> Result<Report> {
        let to = to.to_string();
        let mut arguments = vec!["--to", &to];
        arguments.extend(more);
        self.cluster
            .request(place, &arguments)
            .with_context(|| format!("requests to {to}"))
    }

    /// Starts requests that go on in the background; [`finish`] waits for their report.
    pub(crate) fn flow(&self, name: &str, place: &Place, to: SocketAddr, more: &[&str]) -> Result<Process> {
        let mut command = place.command(lab::programs::lab()?)?;
        command.args(["request", "--to", &to.to_string()]).args(more);
        let log = self
            .cluster
            .scope()
            .dir()
            .join(format!("{}-{name}.json", self.namespace));
        std::fs::remove_file(&log).ok();
        Process::spawn(name, command, &log)
    }

    /// Gives a Service a load-balancer address, as a cloud's controller does.
    pub(crate) fn load_balancer_address(&self, service: &str, address: &str) -> Result<()> {
        use k8s_openapi::api::core::v1::Service;
        use kube::api::{Api, Patch, PatchParams};
        let api: Api<Service> = Api::namespaced(self.cluster.client(), &self.namespace);
        let ingress = serde_json::json!([{ "ip": address, "ipMode": "VIP" }]);
        let status = serde_json::json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        self.cluster
            .block_on(api.patch_status(service, &PatchParams::default(), &Patch::Merge(status)))?;
        Ok(())
    }

    /// Gives a Pod another `app` label, so that it leaves its Services while it goes on serving.
    pub(crate) fn relabel(&self, pod: &str, app: &str) -> Result<()> {
        use k8s_openapi::api::core::v1::Pod;
        use kube::api::{Api, Patch, PatchParams};
        let api: Api<Pod> = Api::namespaced(self.cluster.client(), &self.namespace);
        let labels = serde_json::json!({ "metadata": { "labels": { "app": app } } });
        self.cluster
            .block_on(api.patch(pod, &PatchParams::default(), &Patch::Merge(labels)))?;
        Ok(())
    }

    /// Deletes an object of this namespace by plural and name.
    pub(crate) fn delete(&self, kind: &str, name: &str) -> Result<()> {
        use kube::api::{Api, ApiResource, DeleteParams, DynamicObject};
        use kube::core::GroupVersionKind;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.cluster.client(), &self.namespace, &resource);
        self.cluster.block_on(api.delete(name, &DeleteParams::default()))?;
        Ok(())
    }
}
