//! Names for the ids in the maps: a file in the state directory, written by [`run`](crate::run) when Services change and
//! read by the commands and by [`serve`](crate::serve). The maps hold numbers only; without the file they are shown.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use proxy_ebpf::abi::ServiceId;
use serde::{Deserialize, Serialize};

/// Name of the file.
pub(super) const FILE: &str = "names.json";

/// A service port and its id in the maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePort {
    /// Id in the maps.
    pub id: u32,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port; empty if it has none.
    pub port: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
}

/// Service ports by id.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<u32, ServicePort>);

impl Names {
    /// What the file in `state_dir` says; nothing if there is none.
    pub fn read(state_dir: &Path) -> Self {
        let text = fs::read(file(state_dir)).unwrap_or_default();
        let ports: Vec<ServicePort> = serde_json::from_slice(&text).unwrap_or_default();
        Self(ports.into_iter().map(|port| (port.id, port)).collect())
    }

    /// The service port with that id.
    pub fn get(&self, id: ServiceId) -> Option<&ServicePort> {
        self.0.get(&id.0)
    }

    /// `namespace/name:port`, or the number if the name is not known.
    pub fn show(&self, id: ServiceId) -> String {
        match self.get(id) {
            Some(port) if port.port.is_empty() => format!("{}/{}", port.namespace, port.name),
            Some(port) => format!("{}/{}:{}", port.namespace, port.name, port.port),
            None => format!("#{}", id.0),
        }
    }
}

/// Writes the names of all service ports, in one step: a reader sees the old file or the new one.
///
/// # Errors
/// The directory can't be made or written.
pub fn write(state_dir: &Path, ports: &[ServicePort]) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let partial = state_dir.join(format!(".{FILE}.partial"));
    fs::write(&partial, serde_json::to_vec(ports)?)?;
    fs::rename(partial, file(state_dir))
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_unknown_ids_shown_as_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let port = |id: u32, port: &str| ServicePort {
            id,
            namespace: "shop".into(),
            name: "web".into(),
            port: port.into(),
            protocol: "TCP".into(),
            family: "IPv4".into(),
        };
        write(directory.path(), &[port(4, "http"), port(5, "")]).unwrap();
        let names = Names::read(directory.path());
        assert_eq!(names.show(ServiceId(4)), "shop/web:http");
        assert_eq!(names.show(ServiceId(5)), "shop/web");
        assert_eq!(names.show(ServiceId(6)), "#6");
        assert_eq!(Names::read(Path::new("/nonexistent")).show(ServiceId(4)), "#4");
    }
}
