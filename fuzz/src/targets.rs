//! The list of targets: a name, the function, its seeds. One line each; the test comes with it.

use crate::{Target, seeds};

macro_rules! targets {
    ($($name:ident: $run:path, $seeds:path;)*) => {
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $run, seeds: $seeds },)*
        ];

        #[cfg(test)]
        mod briefly {
            $(
                #[test]
                fn $name() {
                    crate::driver::briefly(stringify!($name));
                }
            )*
        }
    };
}

targets! {
    ingest_body: trilith_ingest::fuzzing::body, trilith_ingest::fuzzing::seeds::body;
    ingest_loki_json: trilith_ingest::fuzzing::loki_json, trilith_ingest::fuzzing::seeds::loki_json;
    ingest_loki_labels: trilith_ingest::fuzzing::loki_labels, trilith_ingest::fuzzing::seeds::loki_labels;
    ingest_loki_protobuf: trilith_ingest::fuzzing::loki_protobuf, trilith_ingest::fuzzing::seeds::loki_protobuf;
    ingest_otlp_metrics_json: trilith_ingest::fuzzing::otlp_metrics_json, trilith_ingest::fuzzing::seeds::otlp_metrics_json;
    ingest_otlp_metrics_protobuf: trilith_ingest::fuzzing::otlp_metrics_protobuf, trilith_ingest::fuzzing::seeds::otlp_metrics_protobuf;
    ingest_otlp_traces_json: trilith_ingest::fuzzing::otlp_traces_json, trilith_ingest::fuzzing::seeds::otlp_traces_json;
    ingest_otlp_traces_protobuf: trilith_ingest::fuzzing::otlp_traces_protobuf, trilith_ingest::fuzzing::seeds::otlp_traces_protobuf;
    ingest_remote_write: trilith_ingest::fuzzing::remote_write, trilith_ingest::fuzzing::seeds::remote_write;
    ingest_remote_write_v2: trilith_ingest::fuzzing::remote_write_v2, trilith_ingest::fuzzing::seeds::remote_write_v2;
    wal_segment: trilith_wal::fuzzing::segment, trilith_wal::fuzzing::seeds;
    wal_frames: trilith_wal::fuzzing::frames, trilith_wal::fuzzing::frame_seeds;
    container: crate::manifest::container, crate::manifest::container_seeds;
    manifest_object: crate::manifest::manifest_object, crate::manifest::manifest_object_seeds;
    manifest_content: crate::manifest::manifest_content, crate::manifest::manifest_content_seeds;
    index: trilith_index::block::fuzz, seeds::index;
    metrics_block: trilith_metrics::fuzzing::block, trilith_metrics::fuzzing::seeds::block;
    metrics_wal_record: trilith_metrics::fuzzing::wal_record, trilith_metrics::fuzzing::seeds::wal_record;
    metrics_wal_record_raw: trilith_metrics::fuzzing::wal_record_raw, seeds::none;
    metrics_wal_record_raw_2: trilith_metrics::fuzzing::wal_record_raw_2, seeds::none;
    metrics_slot: trilith_metrics::fuzzing::slot, trilith_metrics::fuzzing::seeds::slot;
    metrics_histograms: trilith_metrics::fuzzing::histograms, trilith_metrics::fuzzing::seeds::histograms;
    metrics_exemplars: trilith_metrics::fuzzing::exemplars, trilith_metrics::fuzzing::seeds::exemplars;
    metrics_value_page: trilith_metrics::fuzzing::value_page, seeds::none;
    metrics_values: trilith_metrics::fuzzing::values, seeds::none;
    metrics_times_page: trilith_metrics::fuzzing::times_page, seeds::none;
    metrics_directories: trilith_metrics::fuzzing::directories, seeds::none;
    metrics_tombstone: trilith_metrics::fuzzing::tombstone, seeds::none;
    metrics_metadata: trilith_metrics::fuzzing::metadata, seeds::none;
    logs_wal_payload: trilith_logs::fuzz::wal_payload, seeds::none;
    logs_directory: trilith_logs::fuzz::directory, seeds::none;
    logs_page: trilith_logs::fuzz::page, seeds::none;
    traces_payload: trilith_traces::fuzzing::payload, seeds::trace_payload;
    traces_batch: trilith_traces::fuzzing::body, seeds::trace_batch;
    traces_index_sections: trilith_traces::fuzzing::index_sections, seeds::none;
    traces_any_value: trilith_traces::fuzzing::any_value, seeds::none;
    histogram_operations: trilith_histogram::fuzzing::operations, seeds::none;
    promql_parse: trilith_promql::fuzz_parse, seeds::promql;
    promql_print: crate::promql::print, seeds::promql;
    promql_evaluate: crate::promql::evaluate, seeds::promql_over_data;
    promql_syntax: trilith_promql_syntax::fuzzing::parser, seeds::promql_with_switches;
    logql_parse: trilith_logql::fuzz_parse, seeds::logql;
    traceql_parse: trilith_traceql::fuzz_parse, seeds::traceql;
}
