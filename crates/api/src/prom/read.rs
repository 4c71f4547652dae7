//! Remote read: the samples of a selector, as a message of samples or as a stream of chunks.
//!
//! A request holds several queries. All of them are read before the answer begins, so that an error has its status;
//! chunks are compressed as they are read, which keeps what waits small, and both it and the samples of a plain answer
//! are booked on the query's memory. Float samples come as XOR chunks, histograms as float histograms.
//!
//! There are no external labels. Hints that narrow a query are not used: a reader trims.

mod bits;
mod chunks;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt as _;
use prost::Message as _;
use trilith_codec::crc32c;
use trilith_histogram::{Buckets, FloatHistogram};
use trilith_model::{Error, ErrorKind, Labels, MatchOp, Matcher, Result, SampleValue, task};
use trilith_proto::prometheus as pb;
use trilith_query::{ColumnValues, QueryContext, Reservation, SelectHints, SeriesBatch, SeriesRequest};

use super::Prom;
use crate::common::{Failure, read_body};

/// Selectors and hints; nothing of this size is one.
const REQUEST_BYTES_MAX: usize = 4 << 20;

pub async fn remote_read(State(prom): State<Prom>, request: Request<Body>) -> Response {
    match read(&prom, request).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn read(prom: &Prom, request: Request<Body>) -> std::result::Result<Response, Failure> {
    let tenant = prom.shared.tenant(request.headers())?;
    let body = read_body(request.into_body(), REQUEST_BYTES_MAX as u64)
        .await
        .map_err(|(status, message)| Failure {
            status,
            message,
            retry_after: None,
        })?;
    let request = task::compute(move || decode(&body)).await??;
    let streamed = negotiate(&request.accepted_response_types).map_err(Failure::bad)?;
    let (ctx, _cancel) = prom.shared.query(&tenant, Duration::ZERO);
    let _slot = prom.reads.enter(&ctx, 0).await?;
    let work = async {
        if streamed {
            stream(prom, &ctx, &request.queries).await
        } else {
            samples(prom, &ctx, &request.queries).await
        }
    };
    match ctx.remaining() {
        None => work.await,
        Some(left) => tokio::time::timeout(left, work)
            .await
            .unwrap_or_else(|_| Err(ctx.timed_out())),
    }
    .map_err(|e| {
        let status = match e.kind {
            ErrorKind::Invalid | ErrorKind::LimitExceeded => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure {
            status,
            message: e.message,
            retry_after: e.retry_after,
        }
    })
}

/// A snappy block of a `ReadRequest`.
fn decode(body: &[u8]) -> Result<pb::ReadRequest> {
    let bad = |e: &dyn std::fmt::Display| Error::invalid(e.to_string());
    let len = snap::raw::decompress_len(body).map_err(|e| bad(&e))?;
    if len > REQUEST_BYTES_MAX {
        return Err(bad(&format_args!(
            "snappy: decoded length {len} exceeds limit {REQUEST_BYTES_MAX}"
        )));
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(body).map_err(|e| bad(&e))?;
    pb::ReadRequest::decode(bytes.as_slice()).map_err(|e| bad(&e))
}

/// Whether chunks are to be streamed: the first type of the list that is known; an empty list asks for samples.
fn negotiate(accepted: &[i32]) -> std::result::Result<bool, String> {
    use pb::read_request::ResponseType::{Samples, StreamedXorChunks};
    if accepted.is_empty() {
        return Ok(false);
    }
    let known = accepted.iter().find_map(|t| match t {
        t if *t == Samples as i32 => Some(false),
        t if *t == StreamedXorChunks as i32 => Some(true),
        _ => None,
    });
    known.ok_or_else(|| {
        format!(
            "server does not support any of the requested response types: {accepted:?}; supported: SAMPLES, \
             STREAMED_XOR_CHUNKS"
        )
    })
}

fn series_request(query: &pb::Query) -> Result<SeriesRequest> {
    let matchers = query.matchers.iter().map(|m| {
        use pb::label_matcher::Type;
        let op = match Type::try_from(m.r#type) {
            Ok(Type::Eq) => MatchOp::Eq,
            Ok(Type::Neq) => MatchOp::Ne,
            Ok(Type::Re) => MatchOp::Re,
            Ok(Type::Nre) => MatchOp::NotRe,
            Err(_) => return Err(Error::invalid("invalid matcher type")),
        };
        Matcher::new(op, m.name.as_str(), m.value.as_str())
    });
    Ok(SeriesRequest {
        matchers: matchers.collect::<Result<_>>()?,
        start_ms: query.start_timestamp_ms,
        end_ms: query.end_timestamp_ms,
        hints: SelectHints::default(),
    })
}

/// Calls `each` on a compute thread with every batch that a query selects.
async fn select<S: Send + 'static>(
    prom: &Prom,
    ctx: &QueryContext,
    query: &pb::Query,
    mut state: S,
    each: impl Fn(&mut S, &SeriesBatch) -> Result<()> + Clone + Send + 'static,
) -> Result<S> {
    let request = series_request(query)?;
    if request.start_ms > request.end_ms {
        return Ok(state);
    }
    let mut batches = prom.source.select(ctx, request);
    while let Some(batch) = batches.try_next().await? {
        ctx.check()?;
        let each = each.clone();
        state = task::compute(move || {
            each(&mut state, &batch)?;
            Ok::<_, Error>(state)
        })
        .await??;
    }
    Ok(state)
}

fn labels_of(labels: &Labels) -> Vec<pb::Label> {
    let label = |l: trilith_model::Label<'_>| pb::Label {
        name: l.name.to_owned(),
        value: l.value.to_owned(),
    };
    labels.iter().map(label).collect()
}

/// Series found so far and what they take.
struct Found<T> {
    series: Vec<(Labels, T)>,
    memory: Reservation,
    samples: u64,
}

impl<T> Found<T> {
    fn new(ctx: &QueryContext) -> Result<Self> {
        Ok(Found {
            series: Vec::new(),
            memory: ctx.memory.reserve(0)?,
            samples: 0,
        })
    }
}

async fn samples(prom: &Prom, ctx: &QueryContext, queries: &[pb::Query]) -> Result<Response> {
    let most = prom.options.read_samples_max;
    let mut results = Vec::with_capacity(queries.len());
    let mut booked = Vec::new();
    for query in queries {
        let found = select(prom, ctx, query, Found::new(ctx)?, move |found, batch| {
            for column in &batch.columns {
                let times = batch.times_of(column);
                found.samples += times.len() as u64;
                if most != 0 && found.samples > most {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!("exceeded sample limit ({most})"),
                    ));
                }
                let series = time_series(&column.labels, times, batch.values_of(column));
                found.memory.grow(series.encoded_len() * 2 + times.len() * 16)?;
                found.series.push((column.labels.clone(), series));
            }
            Ok(())
        })
        .await?;
        let mut series = found.series;
        series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        results.push(pb::QueryResult {
            timeseries: series.into_iter().map(|(_, s)| s).collect(),
        });
        booked.push(found.memory);
    }
    let body = task::compute(move || {
        let bytes = pb::ReadResponse { results }.encode_to_vec();
        let out = snap::raw::Encoder::new().compress_vec(&bytes);
        drop(booked);
        out.map_err(|e| Error::internal(format!("the answer cannot be compressed: {e}")))
    })
    .await??;
    Ok((
        [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
            (header::CONTENT_ENCODING, HeaderValue::from_static("snappy")),
        ],
        body,
    )
        .into_response())
}

fn time_series(labels: &Labels, times: &[i64], values: ColumnValues<'_>) -> pb::TimeSeries {
    let mut out = pb::TimeSeries {
        labels: labels_of(labels),
        ..pb::TimeSeries::default()
    };
    let sample = |timestamp: i64, value: f64| pb::Sample { value, timestamp };
    match values {
        ColumnValues::Float(values) => out.samples = times.iter().zip(values).map(|(t, v)| sample(*t, *v)).collect(),
        ColumnValues::Mixed(values) => {
            for (t, v) in times.iter().zip(values) {
                match v {
                    SampleValue::Float(v) => out.samples.push(sample(*t, *v)),
                    SampleValue::Histogram(h) => out.histograms.push(histogram(*t, h)),
                }
            }
        }
    }
    out
}

fn histogram(timestamp: i64, h: &FloatHistogram) -> pb::Histogram {
    let spans = |side: &Buckets| {
        let span = |s: &trilith_histogram::Span| pb::BucketSpan {
            offset: s.offset,
            length: s.length,
        };
        side.spans.iter().map(span).collect()
    };
    pb::Histogram {
        count: Some(pb::histogram::Count::CountFloat(h.count)),
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountFloat(h.zero_count)),
        negative_spans: spans(&h.negative),
        negative_counts: h.negative.counts.clone(),
        positive_spans: spans(&h.positive),
        positive_counts: h.positive.counts.clone(),
        reset_hint: h.reset_hint as i32,
        timestamp,
        custom_values: h.custom_bounds().to_vec(),
        ..pb::Histogram::default()
    }
}

async fn stream(prom: &Prom, ctx: &QueryContext, queries: &[pb::Query]) -> Result<Response> {
    let mut all = Vec::with_capacity(queries.len());
    for query in queries {
        let mut found = select(prom, ctx, query, Found::new(ctx)?, |found, batch| {
            for column in &batch.columns {
                let chunks = chunks::encode(batch.times_of(column), batch.values_of(column));
                let bytes: usize = chunks.iter().map(|c| c.data.len() + 64).sum();
                found.memory.grow(bytes + column.labels.as_packed().len() + 64)?;
                found.series.push((column.labels.clone(), chunks));
            }
            Ok(())
        })
        .await?;
        found.series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all.push(found);
    }
    let most = prom.options.read_frame_bytes;
    // Frames are made as the client takes them; the memory is given back with the last.
    let frames = all.into_iter().enumerate().flat_map(move |(query, found)| {
        let Found { series, memory, .. } = found;
        let frames = series
            .into_iter()
            .flat_map(move |(labels, chunks)| frames_of(query, &labels, chunks, most));
        Held {
            frames,
            _memory: memory,
        }
    });
    let body = Body::from_stream(futures::stream::iter(frames.map(Ok::<Bytes, Infallible>)));
    let kind = HeaderValue::from_static("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// An iterator that holds booked memory until it is dropped.
struct Held<I> {
    frames: I,
    _memory: Reservation,
}

impl<I: Iterator> Iterator for Held<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.frames.next()
    }
}

/// The frames of one series; a frame is sent when it has `most` bytes, about.
fn frames_of(query: usize, labels: &Labels, chunks: Vec<pb::Chunk>, most: usize) -> Vec<Bytes> {
    let labels = labels_of(labels);
    let mut out = Vec::new();
    let mut open: Vec<pb::Chunk> = Vec::new();
    let mut bytes = 0;
    let mut chunks = chunks.into_iter().peekable();
    while let Some(chunk) = chunks.next() {
        bytes += chunk.encoded_len();
        open.push(chunk);
        if bytes >= most || chunks.peek().is_none() {
            let message = pb::ChunkedReadResponse {
                chunked_series: vec![pb::ChunkedSeries {
                    labels: labels.clone(),
                    chunks: std::mem::take(&mut open),
                }],
                query_index: query as i64,
            };
            out.push(frame(&message));
            bytes = 0;
        }
    }
    out
}

/// | length uvarint | CRC-32C of the payload, big-endian | payload |
fn frame(message: &pb::ChunkedReadResponse) -> Bytes {
    let payload = message.encode_to_vec();
    let mut out = Vec::with_capacity(payload.len() + 14);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(&crc32c(&payload).to_be_bytes());
    out.extend_from_slice(&payload);
    out.into()
}

#[cfg(test)]
mod tests;
