//! Requests to one Service, and what its algorithm promises of where they go.

use anyhow::Result;

use super::demo::{Demo, Service};
use crate::cluster::outside_addresses;
use crate::traffic::Report;

/// Where the requests to a Service went.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) service: String,
    pub(super) algorithm: String,
    pub(super) pods: Vec<(String, bool)>,
    pub(super) report: Report,
}

/// Sends about `requests` requests, from where the Service is meant to be reached.
pub(super) fn send(demo: &Demo, service: &Service, requests: u64) -> Result<Outcome> {
    let backends = service.pods.len().max(1) as u64;
    let to = format!("--to={}", std::net::SocketAddr::new(service.address, service.port));
    let protocol = if service.udp {
        "--protocol=udp"
    } else {
        "--protocol=tcp"
    };
    // One thread makes round robin exact; fewest connections needs several open at a time; source hashing needs sources.
    let threads: u64 = if service.algorithm == "lc" { 6 } else { 1 };
    let sources: Vec<String> = if service.outside && matches!(service.algorithm.as_str(), "sh" | "maglev") {
        let same_family = |address: &&std::net::IpAddr| address.is_ipv4() == service.address.is_ipv4();
        outside_addresses()
            .iter()
            .filter(same_family)
            .take(12)
            .map(ToString::to_string)
            .collect()
    } else {
        Vec::new()
    };
    let each = requests.div_ceil(backends * threads * sources.len().max(1) as u64) * backends;
    let mut arguments = vec![
        to,
        protocol.to_owned(),
        format!("--count={each}"),
        format!("--threads={threads}"),
    ];
    if !sources.is_empty() {
        arguments.push(format!("--source={}", sources.join(",")));
    }
    let client = demo.client()?.place;
    let place = if service.outside {
        demo.cluster().outside.place()
    } else {
        &client
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = demo.cluster().request(place, &arguments)?;
    Ok(Outcome {
        service: service.name.clone(),
        algorithm: service.algorithm.clone(),
        pods: service.pods.clone(),
        report,
    })
}

impl Outcome {
    /// Whether it belongs to the Service as it is now: the same Pods under the same algorithm.
    pub(super) fn is_of(&self, service: &Service) -> bool {
        self.service == service.name && self.algorithm == service.algorithm && self.pods == service.pods
    }

    /// Adds to the outcome of the same Service, or begins one.
    pub(super) fn add(totals: &mut Vec<Self>, outcome: Self) {
        match totals.iter_mut().find(|total| total.service == outcome.service) {
            Some(total) => total.report.merge(outcome.report),
            None => totals.push(outcome),
        }
    }

    /// What the algorithm promised and didn't keep.
    pub(super) fn broken_promise(&self) -> Option<String> {
        if self.report.failed() > 0 {
            return Some(format!("requests failed: {:?}", self.report.errors));
        }
        if self.report.ok == 0 {
            return Some("no request was sent".into());
        }
        let counts: Vec<u64> = self.pods.iter().map(|(name, _)| self.report.from(name)).collect();
        match self.algorithm.as_str() {
            "rr" => unequal(&counts),
            "lc" => self.slow_gets_more(),
            "sh" if !self.report.by_source.is_empty() => self.scattered_source(),
            "sh" | "dh" => {
                (self.report.backends.len() != 1).then(|| format!("one client, several backends: {counts:?}"))
            }
            _ => improbable(&counts),
        }
    }

    fn slow_gets_more(&self) -> Option<String> {
        let slow = self
            .pods
            .iter()
            .filter(|(_, slow)| *slow)
            .map(|(name, _)| self.report.from(name))
            .max()?;
        let quick = self
            .pods
            .iter()
            .filter(|(_, slow)| !*slow)
            .map(|(name, _)| self.report.from(name))
            .min()?;
        (slow >= quick).then(|| format!("the slow backend got {slow}, a quick one only {quick}"))
    }

    fn scattered_source(&self) -> Option<String> {
        let mut sources = self.report.by_source.keys();
        let scattered = sources.find(|source| self.report.only_backend(**source).is_none())?;
        Some(format!(
            "{scattered} reached several backends: {:?}",
            self.report.by_source[scattered]
        ))
    }
}

fn unequal(counts: &[u64]) -> Option<String> {
    let (least, most) = (counts.iter().min()?, counts.iter().max()?);
    (least != most).then(|| format!("not the same for each backend: {counts:?}"))
}

/// Chance may be uneven, but not by five standard deviations.
fn improbable(counts: &[u64]) -> Option<String> {
    let total: u64 = counts.iter().sum();
    let share = 1.0 / counts.len() as f64;
    let mean = total as f64 * share;
    let deviation = (mean * (1.0 - share)).sqrt();
    let far = counts
        .iter()
        .any(|count| (*count as f64 - mean).abs() > 5.0 * deviation);
    far.then(|| format!("five standard deviations from even: {counts:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(algorithm: &str, counts: &[(&str, bool, u64)]) -> Outcome {
        let mut report = Report::default();
        for (name, _, count) in counts {
            report.backends.insert((*name).to_owned(), *count);
            report.ok += count;
        }
        let pods = counts
            .iter()
            .map(|(name, slow, _)| ((*name).to_owned(), *slow))
            .collect();
        Outcome {
            service: "s".into(),
            algorithm: algorithm.into(),
            pods,
            report,
        }
    }

    #[test]
    fn round_robin_promises_the_same_for_each() {
        assert_eq!(
            outcome("rr", &[("a", false, 5), ("b", false, 5)]).broken_promise(),
            None
        );
        assert!(
            outcome("rr", &[("a", false, 6), ("b", false, 4)])
                .broken_promise()
                .is_some()
        );
    }

    #[test]
    fn least_connections_promises_the_slow_one_the_fewest() {
        assert_eq!(
            outcome("lc", &[("a", false, 50), ("b", true, 5)]).broken_promise(),
            None
        );
        assert!(
            outcome("lc", &[("a", false, 20), ("b", true, 20)])
                .broken_promise()
                .is_some()
        );
    }

    #[test]
    fn a_failed_request_breaks_every_promise() {
        let mut failed = outcome("random", &[("a", false, 10), ("b", false, 10)]);
        assert_eq!(failed.broken_promise(), None);
        failed.report.errors.insert("refused".into(), 1);
        assert!(failed.broken_promise().is_some());
    }
}
