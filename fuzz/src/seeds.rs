//! Valid inputs of the engines and the languages.

use trilith_index::IndexBuilder;
use trilith_ingest::PushHeaders;
use trilith_model::{Labels, Limits};
use trilith_traces::batch::{Batch, to_payload};

/// For formats whose valid inputs are short enough to be found from random bytes.
pub fn none() -> Vec<Vec<u8>> {
    vec![vec![0; 64], (0..128).collect(), vec![1, 2, 1, 0, 3, 1, 1, 4]]
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn promql() -> Vec<Vec<u8>> {
    texts(&[
        "up",
        "sum by (job, instance) (rate(http_requests_total{code=~\"5..\", job!=\"x\"}[5m] offset -1h)) > bool 0.5e-3",
        "histogram_quantile(0.9, sum without (pod) (rate(a_bucket[1m:15s] @ end())))",
        "-a ^ 2 * on (x) group_left (y) b unless ignoring (z) c or vector(NaN)",
        "label_replace(a, \"b\", \"$1\", \"c\", `(.*)`) and topk(3, {__name__=~\"a.+\"} @ 1.5)",
        "absent_over_time({\"quoted name\"}[1h30m]) == Inf # comment",
    ])
}

pub fn logql() -> Vec<Vec<u8>> {
    texts(&[
        "{app=\"x\"}",
        "{app=~\"a|b\", env!=\"dev\"} |= \"error\" or \"warn\" != `debug` |~ \"(?i)time\\\\s*out\"",
        "sum by (app) (count_over_time({app=\"x\"} |= \"e\" [5m] offset 1m)) > bool 3",
        "topk(5, sum without (pod) (rate({app=\"x\"}[1m]))) / on (app) group_left bytes_rate({app=\"x\"}[1m])",
        "{app=\"x\"} | json a=\"b.c[0]\" | logfmt | duration > 1h30m and size < 5MiB | line_format \"{{.a}}\" | drop b",
        "quantile_over_time(0.9, {app=\"x\"} | unwrap duration(d) [5m]) by (app) + vector(1)",
    ])
}

pub fn traceql() -> Vec<Vec<u8>> {
    texts(&[
        "{}",
        "{ resource.service.name = \"api\" && span.http.status_code >= 500 }",
        "{ (.a = 1.5 || name =~ `GET.*`) && duration > 1h30m && !span.\"b c\" } | select(status, kind) with (most_recent=true)",
        "{ status = error } >> { kind = client } | rate() by (name)",
        "service.name=api name=\"GET /\" error=true",
    ])
}

fn span_batches() -> Vec<Batch> {
    let headers = PushHeaders {
        content_type: Some("application/x-protobuf"),
        content_encoding: None,
    };
    let decode = |body: Vec<u8>| {
        let decoded = trilith_ingest::decode_otlp_traces(body.into(), &headers, &Limits::default()).expect("valid");
        Batch::encode(&decoded.batch).expect("valid")
    };
    trilith_ingest::fuzzing::seeds::otlp_traces_protobuf()
        .into_iter()
        .map(decode)
        .collect()
}

pub fn trace_payload() -> Vec<Vec<u8>> {
    span_batches().iter().map(|batch| to_payload(batch).to_vec()).collect()
}

pub fn trace_batch() -> Vec<Vec<u8>> {
    span_batches().iter().map(|batch| batch.as_bytes().to_vec()).collect()
}

pub fn index() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for series in [0, 1, 40] {
        let mut builder = IndexBuilder::new();
        for i in 0..series {
            let pairs = [
                ("__name__", "up".to_owned()),
                ("instance", format!("host-{i}")),
                ("job", format!("{}", i % 3)),
            ];
            builder.add(Labels::from_pairs(pairs).as_ref()).expect("fits");
        }
        seeds.push(builder.finish().expect("fits"));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_valid() {
        assert!(span_batches().iter().any(|batch| batch.span_count() > 0));
        assert_eq!(index().len(), 3);
    }

    #[test]
    fn queries_parse_or_are_refused_by_name() {
        assert!(trilith_promql::parse("up", &trilith_promql::Features::default()).is_ok());
        assert!(trilith_logql::parse("{app=\"x\"}").is_ok());
    }
}
