//! The shape of an answer.

use std::sync::Arc;

use trilith_model::{FloatHistogram, Labels, Result, SampleValue};
use trilith_query::vector::{Block, Grid, is_absent};

use crate::element::drop_names;
use crate::eval::Value;
use crate::names::distinct_rows;

/// What a query answers; times in ms.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    Scalar {
        time_ms: i64,
        value: f64,
    },
    String {
        time_ms: i64,
        value: String,
    },
    /// Sorted by labels unless the outermost function orders it.
    Vector(Vec<VectorElement>),
    /// Sorted by labels; no series without points.
    Matrix(Vec<MatrixSeries>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct VectorElement {
    pub labels: Labels,
    pub time_ms: i64,
    pub value: SampleValue,
}

impl VectorElement {
    /// The value, unless it is a histogram.
    pub fn float(&self) -> Option<f64> {
        match &self.value {
            SampleValue::Float(v) => Some(*v),
            SampleValue::Histogram(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    pub labels: Labels,
    /// (ms, value), times ascending.
    pub points: Vec<(i64, f64)>,
    /// (ms, histogram), times ascending.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

/// A value with what is to be said about it. Warnings of the store are in the query's context.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryOutput {
    pub value: QueryValue,
    /// `PromQL warning: …`
    pub warnings: Vec<String>,
    /// `PromQL info: …`
    pub infos: Vec<String>,
}

/// `ordered`: the expression orders its elements.
pub(crate) fn instant(value: Value, time_ms: i64, ordered: bool) -> Result<QueryValue> {
    Ok(match value {
        Value::Scalar(v) => QueryValue::Scalar {
            time_ms,
            value: v.first().copied().unwrap_or(f64::NAN),
        },
        Value::String(value) => QueryValue::String { time_ms, value },
        Value::Vector(mut block) => {
            finish(&mut block, ordered)?;
            let elements = block.iter().map(|(row, cells)| VectorElement {
                labels: row.labels.clone(),
                time_ms,
                value: match row.histograms.as_ref().and_then(|h| h[0].clone()) {
                    Some(histogram) => SampleValue::Histogram(histogram),
                    None => SampleValue::Float(cells[0]),
                },
            });
            QueryValue::Vector(elements.collect())
        }
    })
}

pub(crate) fn range(value: Value, grid: Grid) -> Result<QueryValue> {
    let mut block = match value {
        Value::Scalar(values) => {
            let points = grid.times().zip(values).collect();
            return Ok(QueryValue::Matrix(vec![MatrixSeries {
                labels: Labels::empty(),
                points,
                histograms: Vec::new(),
            }]));
        }
        Value::String(_) => return Err(trilith_model::Error::internal("strings have no range")),
        Value::Vector(block) => block,
    };
    finish(&mut block, false)?;
    let series = block.iter().map(|(row, cells)| MatrixSeries {
        labels: row.labels.clone(),
        points: grid
            .times()
            .zip(cells)
            .filter(|(_, v)| !is_absent(**v))
            .map(|(t, v)| (t, *v))
            .collect(),
        histograms: match &row.histograms {
            None => Vec::new(),
            Some(cells) => grid
                .times()
                .zip(cells)
                .filter_map(|(t, h)| h.clone().map(|h| (t, h)))
                .collect(),
        },
    });
    Ok(QueryValue::Matrix(series.collect()))
}

/// Drops names, empty rows, and joins what became equal.
fn finish(block: &mut Block, ordered: bool) -> Result<()> {
    block.drop_empty_rows();
    drop_names(block);
    if !ordered {
        block.sort_by_labels();
        // Equal rows are neighbours now, and seldom are there any.
        if block.rows.windows(2).all(|pair| pair[0].labels != pair[1].labels) {
            return Ok(());
        }
    }
    distinct_rows(block)
}
