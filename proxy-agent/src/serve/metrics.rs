//! `/metrics`: kube-proxy's names where they mean the same here, and `waggle_*` for the rest. Called by
//! [`serve`](super) on a scrape; everything is read at that moment, so nothing has to be kept in step.

use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use proxy_ebpf::abi::ServiceId;
use tracing::warn;

use super::{Probes, Sources};
use crate::{
    commands::names::Names,
    datapath::{
        devices::{ATTACHED, explain},
        usage::Usage,
        view::{BackendView, View, ViewError},
    },
    run::status::{Status, SyncTimes},
};

/// What `text` writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The answer to a scrape.
pub(super) fn scrape(sources: &Sources, probes: &Probes) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page::gather(sources, probes)));
    let mut page = String::new();
    if let Err(error) = text::encode(&mut page, &registry) {
        warn!(%error, "metrics can't be written");
    }
    page
}

/// Everything that is shown, gathered before anything is written.
#[derive(Debug)]
struct Page {
    status: Status,
    usage: Usage,
    probes: [(&'static str, [u64; 2]); 2],
    devices: Vec<[(&'static str, String); 4]>,
    maps: Maps,
}

/// What the maps say; empty if they can't be read.
#[derive(Debug, Default)]
struct Maps {
    reasons: Vec<(&'static str, u64)>,
    services: Vec<(Labels, [u64; 4])>,
    backends: Vec<(Labels, u64)>,
    fill: Vec<(&'static str, u64, u64)>,
}

type Labels = Vec<(&'static str, String)>;

impl Page {
    fn gather(sources: &Sources, probes: &Probes) -> Self {
        let usage = sources.datapath.usage().get();
        let maps = Maps::read(sources, &usage).unwrap_or_else(|error| {
            warn!(reason = explain(&error), "metrics lack what the maps say");
            Maps::default()
        });
        let devices = sources.datapath.devices().into_iter().map(|device| {
            let attached = (device.tc == ATTACHED).to_string();
            [
                ("device", device.name),
                ("role", device.role),
                ("xdp", device.xdp),
                ("attached", attached),
            ]
        });
        let count = |counters: &[std::sync::atomic::AtomicU64; 2]| {
            [counters[0].load(Ordering::Relaxed), counters[1].load(Ordering::Relaxed)]
        };
        Self {
            status: sources.status.get(),
            usage,
            probes: [("healthz", count(&probes.healthz)), ("livez", count(&probes.livez))],
            devices: devices.collect(),
            maps,
        }
    }
}

impl Maps {
    fn read(sources: &Sources, usage: &Usage) -> Result<Self, ViewError> {
        let view = View::open(sources.datapath.pins())?;
        let names = Names::read(&sources.state_dir);
        let services = view.services()?;
        let ids: Vec<ServiceId> = services.iter().map(|service| service.id).collect();
        let traffic = view.traffic(&ids)?;
        let backends = view.backends()?;
        Ok(Self {
            reasons: view.reasons()?,
            services: ids
                .iter()
                .zip(traffic)
                .map(|(id, sum)| {
                    (
                        service_labels(&names, *id),
                        [sum.connections, sum.packets, sum.bytes, sum.refused],
                    )
                })
                .collect(),
            // A backend that never had a flow says nothing and would cost a line.
            backends: backends
                .iter()
                .filter(|backend| backend.opened > 0)
                .map(backend_line)
                .collect(),
            fill: view
                .fill_of_services()?
                .into_iter()
                .map(|fill| (fill.map, fill.used, fill.size))
                .chain([
                    ("CONNTRACK", usage.conntrack, view.size("CONNTRACK")?),
                    ("HALF_OPEN", usage.half_open, view.size("HALF_OPEN")?),
                    ("AFFINITY", usage.affinity, view.size("AFFINITY")?),
                ])
                .collect(),
        })
    }
}

fn service_labels(names: &Names, id: ServiceId) -> Labels {
    match names.get(id) {
        Some(port) => vec![
            ("namespace", port.namespace.clone()),
            ("service", port.name.clone()),
            ("port", port.port.clone()),
            ("protocol", port.protocol.clone()),
            ("family", port.family.clone()),
        ],
        None => vec![("id", id.0.to_string())],
    }
}

fn backend_line(view: &BackendView) -> (Labels, u64) {
    let address = std::net::SocketAddr::new(view.backend.addr.into(), view.backend.port.get());
    (
        vec![("backend", address.to_string()), ("id", view.id.0.to_string())],
        view.open,
    )
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        self.write_kube_proxy(&mut out)?;
        self.write_probes(&mut out)?;
        self.write_maps(&mut out)?;
        self.write_agent(&mut out)
    }
}

impl Page {
    fn write_kube_proxy(&self, out: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        let (internal, external) = status.no_local_endpoints;
        out.histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time to program a batch of changes",
            &status.syncs,
        )?;
        out.gauges(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When the maps last held everything that had arrived",
            [(vec![], seconds(status.last_synced))],
        )?;
        out.gauges(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change last arrived",
            [(vec![], seconds(status.last_queued))],
        )?;
        for (kind, changes) in [
            ("endpoint", status.endpoint_changes),
            ("service", status.service_changes),
        ] {
            let name = format!("kubeproxy_sync_proxy_rules_{kind}_changes");
            out.gauges(
                &format!("{name}_pending"),
                "Changes not programmed yet",
                [(vec![], changes.pending as f64)],
            )?;
            out.counters(&name, "Changes since the start", [(vec![], changes.total)])?;
        }
        out.gauges(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with a Local policy and no endpoint on this node",
            [("internal", internal), ("external", external)]
                .map(|(policy, count)| (vec![("traffic_policy", policy.to_owned())], count as f64)),
        )
    }

    fn write_probes(&self, out: &mut Writer<'_>) -> fmt::Result {
        for (probe, [ok, unavailable]) in self.probes {
            let codes = [("200", ok), ("503", unavailable)].map(|(code, n)| (vec![("code", code.to_owned())], n));
            out.counters(&format!("kubeproxy_proxy_{probe}"), "Answers to the probe", codes)?;
        }
        Ok(())
    }

    fn write_maps(&self, out: &mut Writer<'_>) -> fmt::Result {
        let maps = &self.maps;
        let reasons = maps
            .reasons
            .iter()
            .map(|(reason, count)| (vec![("reason", (*reason).to_owned())], *count));
        out.counters("waggle_verdicts", "Packets and socket calls by how they ended", reasons)?;
        let kinds = [
            ("connections", "New flows, and connects on the socket path"),
            ("packets", "Packets translated on the packet path, both directions"),
            ("bytes", "Bytes of translated packets"),
            ("refused", "Packets and connects rejected or dropped"),
        ];
        for (index, (kind, help)) in kinds.into_iter().enumerate() {
            let lines = maps
                .services
                .iter()
                .map(|(labels, counts)| (labels.clone(), counts[index]));
            out.counters(&format!("waggle_service_{kind}"), help, lines)?;
        }
        let open = maps
            .backends
            .iter()
            .map(|(labels, open)| (labels.clone(), *open as f64));
        out.gauges("waggle_backend_open_flows", "Open flows of a backend", open)?;
        let map = |name: &str| vec![("map", name.to_owned())];
        let used = maps.fill.iter().map(|(name, used, _)| (map(name), *used as f64));
        out.gauges("waggle_map_entries", "Entries of a map in use", used)?;
        let size = maps.fill.iter().map(|(name, _, size)| (map(name), *size as f64));
        out.gauges("waggle_map_max_entries", "Entries a map has room for", size)
    }

    fn write_agent(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.counters(
            "waggle_expired_flow_entries",
            "Entries of flows ended by timeout",
            [(vec![], self.usage.expired)],
        )?;
        out.counters(
            "waggle_healed_backends",
            "Counts of open flows that had drifted",
            [(vec![], self.usage.healed)],
        )?;
        out.counters(
            "waggle_mended_compares",
            "Full compares that found a difference",
            [(vec![], self.status.mended)],
        )?;
        let problems = self.status.problems.len() as f64;
        out.gauges(
            "waggle_services_not_programmed",
            "Services there was no room for",
            [(vec![], problems)],
        )?;
        let devices = self.devices.iter().map(|labels| (labels.to_vec(), 1.0));
        out.gauges("waggle_device", "Devices with programs", devices)
    }
}

fn seconds(at: Option<SystemTime>) -> f64 {
    let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Writes families of metrics, each of one line without labels or of any number with; the format appends `_total` to
/// counters.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counters(&mut self, name: &str, help: &str, lines: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in lines {
            if labels.is_empty() {
                return ConstCounter::new(value).encode(family);
            }
            ConstCounter::new(value).encode(family.encode_family(&Labelled(&labels))?)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, lines: impl IntoIterator<Item = (Labels, f64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in lines {
            if labels.is_empty() {
                return ConstGauge::new(value).encode(family);
            }
            ConstGauge::new(value).encode(family.encode_family(&Labelled(&labels))?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, times: &SyncTimes) -> fmt::Result {
        let mut buckets: Vec<(f64, u64)> = times
            .buckets
            .iter()
            .enumerate()
            .map(|(bucket, count)| (SyncTimes::bound(bucket).as_secs_f64(), *count))
            .collect();
        let within: u64 = times.buckets.iter().sum();
        buckets.push((f64::INFINITY, times.count.saturating_sub(within)));
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<[(&str, &str); 0]>(times.sum.as_secs_f64(), times.count, &buckets, None)
    }
}

/// Labels as the encoder wants them.
struct Labelled<'a>(&'a Labels);

impl EncodeLabelSet for Labelled<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.as_slice().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: Status) -> String {
        let probes = [("healthz", [2, 1]), ("livez", [3, 0])];
        let backends = vec![(vec![("backend", "10.0.1.5:80".to_owned())], 7)];
        let maps = Maps {
            backends,
            reasons: vec![("new_flow", 9)],
            fill: vec![("CONNTRACK", 4, 8)],
            ..Maps::default()
        };
        let page = Page {
            status,
            usage: Usage::default(),
            probes,
            devices: vec![],
            maps,
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn every_figure_is_on_the_page_under_its_name() {
        let text = page(Status {
            no_local_endpoints: (1, 2),
            ..Status::default()
        });
        for line in [
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 2",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "waggle_verdicts_total{reason=\"new_flow\"} 9",
            "waggle_backend_open_flows{backend=\"10.0.1.5:80\"} 7",
            "waggle_map_entries{map=\"CONNTRACK\"} 4",
        ] {
            assert!(
                text.lines()
                    .any(|found| found.strip_suffix(".0").unwrap_or(found) == line),
                "{line}\n{text}"
            );
        }
    }

    #[test]
    fn the_histogram_counts_batches_up_to_each_bound() {
        let mut status = Status::default();
        for millis in [1, 3, 100_000] {
            status.syncs.record(Duration::from_millis(millis));
        }
        let text = page(status);
        for (bound, count) in [("0.001", 1), ("0.002", 1), ("0.004", 2), ("+Inf", 3)] {
            let line = format!("kubeproxy_sync_proxy_rules_duration_seconds_bucket{{le=\"{bound}\"}} {count}");
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
