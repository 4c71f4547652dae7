//! Query values as JSON, written without a tree in between: a result may have millions of points.

use trilith_model::{FloatHistogram, SampleValue};
use trilith_promql::QueryValue;

use super::labels::list;
use crate::float::{push_json, push_labels, push_seconds, push_string};

/// `{"resultType":…,"result":…}`; `more` adds members at the end.
pub fn push_data(out: &mut Vec<u8>, value: &QueryValue, more: impl FnOnce(&mut Vec<u8>)) {
    let kind = match value {
        QueryValue::Scalar { .. } => "scalar",
        QueryValue::String { .. } => "string",
        QueryValue::Vector(_) => "vector",
        QueryValue::Matrix(_) => "matrix",
    };
    out.extend_from_slice(b"{\"resultType\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"result\":");
    match value {
        QueryValue::Scalar { time_ms, value } => point(out, *time_ms, *value),
        QueryValue::String { time_ms, value } => {
            out.push(b'[');
            push_seconds(out, *time_ms);
            out.push(b',');
            push_string(out, value, false);
            out.push(b']');
        }
        QueryValue::Vector(elements) => list(out, elements, |out, e| {
            out.extend_from_slice(b"{\"metric\":");
            push_labels(out, &e.labels);
            match &e.value {
                SampleValue::Float(value) => {
                    out.extend_from_slice(b",\"value\":");
                    point(out, e.time_ms, *value);
                }
                SampleValue::Histogram(h) => {
                    out.extend_from_slice(b",\"histogram\":");
                    histogram_point(out, e.time_ms, h);
                }
            }
            out.push(b'}');
        }),
        QueryValue::Matrix(series) => list(out, series, |out, s| {
            out.extend_from_slice(b"{\"metric\":");
            push_labels(out, &s.labels);
            if !s.points.is_empty() {
                out.extend_from_slice(b",\"values\":");
                list(out, &s.points, |out, (t, v)| point(out, *t, *v));
            }
            if !s.histograms.is_empty() {
                out.extend_from_slice(b",\"histograms\":");
                list(out, &s.histograms, |out, (t, h)| histogram_point(out, *t, h));
            }
            out.push(b'}');
        }),
    }
    more(out);
    out.push(b'}');
}

fn point(out: &mut Vec<u8>, time_ms: i64, value: f64) {
    out.push(b'[');
    push_seconds(out, time_ms);
    out.extend_from_slice(b",\"");
    push_json(out, value);
    out.extend_from_slice(b"\"]");
}

fn histogram_point(out: &mut Vec<u8>, time_ms: i64, h: &FloatHistogram) {
    out.push(b'[');
    push_seconds(out, time_ms);
    out.extend_from_slice(b",{\"count\":\"");
    push_json(out, h.count);
    out.extend_from_slice(b"\",\"sum\":\"");
    push_json(out, h.sum);
    out.push(b'"');
    let mut any = false;
    for b in h.buckets().filter(|b| b.count != 0.0) {
        out.extend_from_slice(if any { b",[" } else { b",\"buckets\":[[" });
        any = true;
        out.push(b'0' + b.rule());
        for v in [b.lower, b.upper, b.count] {
            out.extend_from_slice(b",\"");
            push_json(out, v);
            out.push(b'"');
        }
        out.push(b']');
    }
    if any {
        out.push(b']');
    }
    out.extend_from_slice(b"}]");
}

#[cfg(test)]
mod tests {
    use trilith_histogram::Buckets;
    use trilith_model::Labels;
    use trilith_promql::{MatrixSeries, VectorElement};

    use super::*;

    fn text(value: &QueryValue) -> String {
        let mut out = Vec::new();
        push_data(&mut out, value, |_| {});
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn histograms_list_buckets_that_hold_something() {
        let h = FloatHistogram {
            count: 7.5,
            sum: 3.25,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive: Buckets::run(0, vec![2.0, 0.0, 1.5]),
            negative: Buckets::run(1, vec![3.0]),
            ..FloatHistogram::default()
        };
        let value = QueryValue::Vector(vec![VectorElement {
            labels: Labels::empty(),
            time_ms: 1000,
            value: SampleValue::Histogram(h.into()),
        }]);
        assert_eq!(
            text(&value),
            r#"{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"7.5","sum":"3.25","buckets":[[1,"-2","-1","3"],[3,"-0.001","0.001","1"],[0,"0.5","1","2"],[0,"2","4","1.5"]]}]}]}"#
        );
        let empty = QueryValue::Matrix(vec![MatrixSeries {
            labels: Labels::empty(),
            points: vec![],
            histograms: vec![(0, FloatHistogram::default().into())],
        }]);
        assert_eq!(
            text(&empty),
            r#"{"resultType":"matrix","result":[{"metric":{},"histograms":[[0,{"count":"0","sum":"0"}]]}]}"#
        );
    }

    #[test]
    fn shapes() {
        assert_eq!(
            text(&QueryValue::Scalar {
                time_ms: 4000,
                value: 2.0
            }),
            r#"{"resultType":"scalar","result":[4,"2"]}"#
        );
        assert_eq!(
            text(&QueryValue::String {
                time_ms: 1500,
                value: "a\"b".into()
            }),
            r#"{"resultType":"string","result":[1.5,"a\"b"]}"#
        );
        assert_eq!(
            text(&QueryValue::Vector(vec![])),
            r#"{"resultType":"vector","result":[]}"#
        );
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        assert_eq!(
            text(&QueryValue::Vector(vec![VectorElement {
                labels: labels.clone(),
                time_ms: 1,
                value: SampleValue::Float(f64::NAN)
            }])),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[0.001,"NaN"]}]}"#
        );
        assert_eq!(
            text(&QueryValue::Matrix(vec![MatrixSeries {
                labels,
                points: vec![(0, 1.0), (1000, 1e-7)],
                histograms: vec![],
            }])),
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a"},"values":[[0,"1"],[1,"1e-07"]]}]}"#
        );
    }
}
