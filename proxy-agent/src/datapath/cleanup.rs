//! Takes the data path away: every link, every filter, every map. Called by the command `cleanup`.

use tracing::debug;

use super::{
    devices, hooks, netlink_tc,
    pins::{self, PinError, Pins},
};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Pinned links.
    pub links: usize,
    /// TC filters.
    pub filters: usize,
    /// Directories of maps, one per layout version.
    pub map_directories: usize,
}

/// Detaches all programs, in the reverse of the order they were attached in, then removes the maps of all versions.
///
/// # Errors
/// A pin can't be removed; what was removed before stays removed.
pub fn cleanup(pins: &Pins) -> Result<Removed, PinError> {
    let mut removed = Removed::default();
    let mut links = pins.link_names()?;
    links.sort_by_key(|name| std::cmp::Reverse(attach_order(name)));
    for name in links {
        pins::remove(&pins.links().join(&name))?;
        debug!(link = name, "detached");
        removed.links += 1;
    }
    for device in devices::list().unwrap_or_default() {
        removed.filters += netlink_tc::remove(&device.name);
    }
    let mut directories = pins.other_versions()?;
    directories.extend(Some(pins.maps()).filter(|maps| maps.exists()));
    for directory in &directories {
        pins::remove_maps(directory)?;
        removed.map_directories += 1;
    }
    pins.remove_links_directory()?;
    Ok(removed)
}

/// Position of a link's program in the order to attach; devices come after the socket path.
fn attach_order(link: &str) -> usize {
    hooks::SOCKET_PATH
        .iter()
        .position(|hook| hook.program == link)
        .unwrap_or(hooks::SOCKET_PATH.len())
}
