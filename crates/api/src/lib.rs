//! The HTTP and gRPC faces of Trilith: Prometheus on one port, Loki on another, Tempo on a third, OTLP on two more.
//!
//! Data flow: bytes → `ingest` → checked batch → sink; parameters → language over a source → upstream's JSON
//! or protobuf. This crate owns routes, parameters, encodings and the mapping from error kind to status code; it
//! knows nothing of blocks and engines. Every answer's shape, status and error text follows the product it stands in for.
//!
//! Handlers never compute on the I/O threads: decoding of large bodies and encoding of large results run under
//! `model::task::compute`. A client that goes away drops the handler, which cancels the query's context.

pub mod common;
pub mod float;
pub mod loki;
pub mod ops;
pub mod otlp;
pub mod params;
pub mod prom;
pub mod push;
pub mod target;
pub mod tempo;
pub mod times;

pub use common::Shared;
