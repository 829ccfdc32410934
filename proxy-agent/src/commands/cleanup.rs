//! `proxy-agent cleanup`: detaches every program and removes every map and file of the agent. Called by `main`;
//! [`datapath::cleanup`] does the work. The agent must not run: it would attach again.

use std::{fs, io, path::Path};

use super::{names, table};
use crate::{
    config::CleanupArgs,
    datapath::{self, pins::Pins},
};

/// Removes everything and says what it was.
///
/// # Errors
/// Something can't be removed.
pub fn run(args: CleanupArgs) -> anyhow::Result<()> {
    let removed = datapath::cleanup::cleanup(&Pins::new(&args.place.bpffs))?;
    for file in [datapath::DEVICES_FILE, names::FILE] {
        remove_file(&args.place.state_dir.join(file))?;
    }
    table::write(&format!(
        "removed {} links, {} TC filters and {} directories of maps\n",
        removed.links, removed.filters, removed.map_directories
    ))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
