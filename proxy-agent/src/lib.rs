//! The node agent of Waggle: keeps the maps of the data path in step with a Kubernetes API server.
//!
//! # A Service's walk
//!
//! 1. [`watch`] follows Services, EndpointSlices and this node's Node, parses each object once, and says what happened as
//!    a closed enum of events.
//! 2. [`model`] holds what the cluster says, and which Services an event touched.
//! 3. [`plan`] decides what the maps of this node should hold for a touched Service: ids, runs of slots, frontends.
//! 4. [`diff`] turns what changed into an ordered list of operations, which are plain data.
//! 5. [`apply`] is the only writer of Service maps: it carries the operations out, through [`maps`].
//!
//! Steps 2 to 4 are functions without I/O, cost what the change costs rather than what the cluster holds, and give the
//! same answer on every node. [`run`] wires them together. Beside the walk stand [`datapath`], which loads, pins and
//! attaches the programs, [`serve`], which answers probes and scrapes, and [`commands`], the side doors for people.
//!
//! Maps, programs and links are pinned, so the agent may stop, crash or be replaced at any time: traffic goes on, and the
//! next start adopts what it finds ([`plan::Planner::new`]).

pub mod apply;
pub mod commands;
pub mod config;
pub mod datapath;
pub mod diff;
pub mod maps;
pub mod model;
pub mod plan;
pub mod run;
pub mod serve;
pub mod watch;
