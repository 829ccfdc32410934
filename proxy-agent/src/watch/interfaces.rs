//! The addresses of this node's interfaces: for node ports on ranges of addresses, and to know an endpoint on the
//! host's network from one elsewhere.
//!
//! [`run`](crate::run) starts [`follow`] beside the kinds of objects. Addresses change rarely, so they are looked at
//! from time to time.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use nix::ifaddrs::getifaddrs;
use tokio::sync::mpsc;

use super::Event;

const PERIOD: Duration = Duration::from_secs(10);

/// The addresses now, without loopback ones, sorted.
///
/// # Errors
/// The kernel's.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for interface in getifaddrs()? {
        let Some(storage) = interface.address else { continue };
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        addresses.extend(
            v4.or(v6)
                .filter(|address| !address.is_loopback() && !is_link_local(*address)),
        );
    }
    Ok(addresses.into_iter().collect())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Sends the addresses whenever they differ from those sent last, until the receiver is gone.
pub async fn follow(mut last: Vec<IpAddr>, events: mpsc::Sender<Event>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        match addresses() {
            Ok(now) if now == last => {}
            Ok(now) => {
                last.clone_from(&now);
                if events.send(Event::InterfaceAddresses(now)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the addresses of interfaces can't be read"),
        }
    }
}
