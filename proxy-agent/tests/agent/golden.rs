//! Golden cases: objects in, maps out. Each file of `golden/` is one behaviour: YAML documents in the order they happen,
//! and beside it what the maps held each time the case asks (`kind: Show`), written anew with `INSTA_UPDATE=always`.
//!
//! Besides Kubernetes objects, which are applied, a case may hold these documents:
//! ```yaml
//! kind: Case        # first: description; algorithm, masqueradeAll, nodePortAddresses as the flags; sizes by map
//! kind: Delete      # of: Service or EndpointSlice, name (in namespace default); unseen: the agent isn't told
//! kind: Interfaces  # addresses of the node's interfaces
//! kind: Wait        # seconds
//! kind: Restart     # the agent; the API server lists what was applied so far
//! kind: Show        # title
//! ```

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{checked::Checked, picture};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use proxy_agent::{
    config::{NodePortAddresses, parse_algorithm},
    maps::{Table, memory::MemoryMaps},
    plan::Policy,
    run::{agent::Agent, status::StatusHandle},
    watch::{Event, parse},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

const NODE: &str = "node-a";

struct Case {
    agent: Agent<Checked>,
    policy: Policy,
    status: StatusHandle,
    /// What the API server would list, by kind and name.
    objects: BTreeMap<(String, String), Value>,
    now: Instant,
    shown: String,
}

impl Case {
    fn new(header: &Value) -> Self {
        let word = |field: &str, default: &str| header[field].as_str().unwrap_or(default).to_owned();
        let policy = Policy {
            algorithm: parse_algorithm(&word("algorithm", "rr")).expect("an algorithm"),
            masquerade_all: header["masqueradeAll"].as_bool().unwrap_or(false),
            node_port_addresses: word("nodePortAddresses", "primary")
                .parse::<NodePortAddresses>()
                .expect("ranges"),
        };
        let sizes = header["sizes"].clone();
        let size = |table: Table| {
            sizes[table.name()]
                .as_u64()
                .map_or(table.spec().max_entries, |size| size as u32)
        };
        let lenient = !sizes.is_null();
        let maps = Checked {
            maps: MemoryMaps::with_sizes(size),
            lenient,
            writes: 0,
        };
        let (status, now) = (StatusHandle::default(), Instant::now());
        let mut agent = Agent::new(NODE, policy.clone(), maps, status.clone()).expect("adopt");
        agent.handle([Event::Synced], now);
        let shown = format!("{}\n", word("description", "").trim());
        Self {
            agent,
            policy,
            status,
            objects: BTreeMap::new(),
            now,
            shown,
        }
    }

    fn document(&mut self, document: Value) {
        match document["kind"].as_str().expect("kind") {
            "Show" => self.show(document["title"].as_str().unwrap_or("")),
            "Wait" => {
                self.now += Duration::from_secs(document["seconds"].as_u64().expect("seconds"));
                self.agent.tick(self.now);
            }
            "Delete" => {
                let key = (text(&document["of"]), text(&document["name"]));
                let object = self.objects.remove(&key).expect("an object to delete");
                let event = match key.0.as_str() {
                    "Service" => Event::ServiceDeleted(parse::service_name(&typed::<Service>(&object).metadata)),
                    _ => Event::SliceDeleted(parse::slice_name(&typed::<EndpointSlice>(&object).metadata)),
                };
                if !document["unseen"].as_bool().unwrap_or(false) {
                    self.agent.handle([event], self.now);
                }
            }
            "Interfaces" => {
                let addresses = document["addresses"].as_array().expect("addresses").iter();
                let addresses = addresses
                    .map(|address| text(address).parse().expect("an address"))
                    .collect();
                self.agent.handle([Event::InterfaceAddresses(addresses)], self.now);
            }
            "Restart" => self.restart(),
            kind => self.apply(kind.to_owned(), document),
        }
    }

    fn apply(&mut self, kind: String, mut object: Value) {
        if kind != "Node" {
            object["metadata"]["namespace"] = "default".into();
        }
        if kind == "EndpointSlice" && object["metadata"]["labels"].is_null() {
            let service = object["metadata"]["name"]
                .as_str()
                .expect("name")
                .split('-')
                .next()
                .expect("a part");
            object["metadata"]["labels"] = serde_json::json!({ "kubernetes.io/service-name": service });
        }
        self.agent.handle(event(&kind, &object), self.now);
        let name = text(&object["metadata"]["name"]);
        self.objects.insert((kind, name), object);
    }

    fn restart(&mut self) {
        let mut maps = self.agent.maps().clone();
        maps.writes = 0;
        self.agent = Agent::new(NODE, self.policy.clone(), maps, self.status.clone()).expect("adopt");
        for ((kind, _), object) in &self.objects {
            self.agent.handle(event(kind, object), self.now);
        }
        assert_eq!(
            self.agent.maps().writes,
            0,
            "nothing is written before the lists are complete"
        );
        self.agent.handle([Event::Synced], self.now);
        writeln!(self.shown, "\n== restart: {} entries written", self.agent.maps().writes).expect("text");
    }

    fn show(&mut self, title: &str) {
        writeln!(
            self.shown,
            "\n== {title}\n{}",
            picture::dump(&self.agent.maps().maps).trim_end()
        )
        .expect("text");
        for problem in self.status.get().problems {
            writeln!(self.shown, "PROBLEM {}: {}", problem.service, problem.message).expect("text");
        }
        for port in self.status.get().health_ports {
            writeln!(
                self.shown,
                "HEALTH {} on {}: {} local",
                port.name, port.port, port.local_endpoints
            )
            .expect("text");
        }
    }
}

fn event(kind: &str, object: &Value) -> Option<Event> {
    match kind {
        "Service" => {
            let object: Service = typed(object);
            let gone = Event::ServiceDeleted(parse::service_name(&object.metadata));
            Some(parse::service(&object).map_or(gone, Event::ServiceApplied))
        }
        "EndpointSlice" => parse::slice(&typed(object)).map(Event::SliceApplied),
        "Node" => Some(Event::NodeApplied(parse::node(&typed::<Node>(object)))),
        other => panic!("a case can't hold a {other}"),
    }
}

fn typed<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).expect("an object of its kind")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn run(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.yaml"));
    let yaml = fs::read_to_string(&file).expect("the case");
    let mut documents = serde_saphyr::from_multiple::<Value>(&yaml).expect("YAML").into_iter();
    let mut case = Case::new(&documents.next().expect("kind: Case"));
    documents.for_each(|document| case.document(document));
    case.shown
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path("../golden");
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_snapshot!(stringify!($name), run(stringify!($name))));
        })*

        #[test]
        fn every_file_is_a_test() {
            let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).expect("the cases");
            let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
            for name in names.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)) {
                assert!([$(stringify!($name)),*].contains(&name.as_str()), "{name} is not in the list of cases");
            }
        }
    };
}

cases! {
    affinity
    algorithm_annotation
    cluster_ip
    conflict
    dual_stack
    duplicates
    external_policy
    headless
    hints
    internal_policy
    load_balancer
    map_full
    node_port
    node_port_ranges
    port_swap
    restart
    terminating
    udp_unready
}
