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
        "a[5m*2:max_of(step(),1s)] @ start() offset -(1h^2) + on(b) group_left(c) fill_left(-1) fill_right(NaN) d",
        "rate(a{b=\"\\xff\",\"c d\"!~'e|f'}[1w] anchored) </ 0x1F >/ 1_000 atan2 - -start{}",
        "info(a smoothed, {x=~`.+`}) or label_join(vector(1h30m), 'a', '\\u00fc', \"b\")",
    ])
}

/// Over the series that the evaluation target has.
pub fn promql_over_data() -> Vec<Vec<u8>> {
    texts(&[
        "sum by (job) (rate(c_total[5m] offset 30s)) > bool 0.5 and on (job) g @ end()",
        "histogram_quantile(0.9, {__name__=~\"h|h_bucket\"}) or histogram_quantiles(h, \"q\", 0, 0.5, 2)",
        "histogram_fraction(-1, 2, sum without (job) (rate(h[3m:20s]))) + histogram_avg(h) / histogram_stddev(h)",
        "h + on (job) group_left () h * -2 unless h </ 1.5 or h >/ 0 == h",
        "increase(c_total[2m] anchored) - on () group_right (job) fill (3) max_over_time(g[1m:10s])",
        "avg_over_time(h[10m]) or resets(h[5m]) or changes({__name__=~\".+\"}[4m] @ start()) or delta(h[3m] smoothed)",
        "count_values(\"v\", h) or topk(1, g) or limitk(2, h) or limit_ratio(-0.5, c_total) or quantile(0.3, g)",
        "label_replace(h, \"job\", \"$1\", \"job\", \"(.)\") or label_join(g, \"x\", \"-\", \"job\", \"le\") or absent(h{job=\"z\"})",
        "predict_linear(c_total[5m], 60) ^ deriv(g[5m]) % atan2(g, 2) or mad_over_time(g[5m]) or info(c_total)",
        "sort_by_label_desc(h_bucket, \"le\", \"job\") or double_exponential_smoothing(c_total[5m], 0.5, 0.5)",
        "stddev_over_time(g[step()+1m]) or quantile_over_time(scalar(g), c_total[max_of(1m, 90s)]) or timestamp(h)",
    ])
}

/// The first byte chooses the syntax switches.
pub fn promql_with_switches() -> Vec<Vec<u8>> {
    let with = |switches: u8, text: Vec<u8>| [vec![switches], text].concat();
    let all = promql().into_iter().map(|text| with(0, text));
    all.chain(promql().into_iter().map(|text| with(15, text))).collect()
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
