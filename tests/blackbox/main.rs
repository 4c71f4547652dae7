//! Black-box tests: the real binary, real sockets, real protocols. Nothing of the workspace is linked but the wire
//! messages and the S3 test server.
//!
//! Every test starts its own processes on free ports and temporary directories, so all run in parallel.

#![allow(clippy::print_stderr, reason = "tests report what they skip and which seed they ran")]

mod bad_input;
mod deletes;
mod durability;
mod harness;
mod kill;
mod logs;
mod metrics;
mod otlp_metrics;
mod prom_api;
mod remote_write;
mod startup;
mod storage;
mod tenants;
mod traces;
