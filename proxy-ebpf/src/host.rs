//! The host's side of [`Maps`](crate::maps::Maps) and [`Packet`](crate::packet::Packet): ordinary memory, for tests.

mod maps;
mod packet;

pub(crate) use maps::HostMaps;
pub(crate) use packet::HostPacket;
