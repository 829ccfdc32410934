//! The programs as lists of steps: [`ingress`] and [`egress`] for packets, [`socket`] for calls on sockets.

mod decide;
pub mod egress;
pub mod ingress;
pub mod socket;

pub use decide::choose;

#[cfg(test)]
mod tests;
