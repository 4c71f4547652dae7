//! Compiles `proto/` with protox, so that no `protoc` is needed. Output goes to `OUT_DIR` only.

use std::error::Error;
use std::path::Path;

const FILES: [&str; 5] = [
    "prometheus/remote.proto",
    "prometheus/write_v2.proto",
    "loki/push.proto",
    "tempo/tempo.proto",
    "google/rpc/status.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [root])?;
    tonic_prost_build::configure()
        // `opentelemetry/shim.proto` only lends names; the messages are those of opentelemetry-proto.
        .extern_path(
            ".opentelemetry.proto.shim.v1.KeyValue",
            "::opentelemetry_proto::tonic::common::v1::KeyValue",
        )
        .extern_path(
            ".opentelemetry.proto.shim.v1.ResourceSpans",
            "::opentelemetry_proto::tonic::trace::v1::ResourceSpans",
        )
        .bytes(".logproto.Entry.line")
        .compile_fds(descriptors)?;
    Ok(())
}
