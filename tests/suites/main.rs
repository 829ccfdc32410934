//! The suites: one file per behaviour, all in one binary, run as root by `cargo xtask test`.

mod algorithms;
mod clients;
mod cluster_ip;
mod endpoints;
mod fixture;
mod kernel_matrix;
mod kubectl_apply;
mod lab_itself;
mod node_port;
mod packet_table;
mod restart;
mod side_doors;
mod socket_path;
