//! The packet path by itself, in the kernel: one packet in, a verdict and a packet out (`BPF_PROG_TEST_RUN`), for XDP and
//! TC, IPv4 and IPv6, TCP and UDP. Maps are filled here. Expected packets are built from scratch with all their
//! checksums, so comparing bytes checks the programs' incremental updates.
//!
//! The programs and maps are loaded once and shared, one test at a time; every case has addresses of its own. Each test
//! is in a network namespace of its own, whose routes and neighbours the programs ask for.

mod bench;
mod bytes;
mod choice;
mod cost;
mod flows;
mod packets;
mod refusals;
