//! The payload of a metrics record in the write-ahead log. Format: docs/formats/metrics-wal.md.
//!
//! A record stands alone: it carries the label sets of its series, so that replay needs nothing that was released
//! before. What that costs is small after front coding against the series before and zstd, and it keeps a record
//! valid whatever becomes of the records around it.
//!
//! Version 2 adds histograms, start timestamps and exemplars. A batch of plain samples is still written as version 1, which
//! costs it nothing and which earlier versions read.

use std::io::Read as _;
use std::ops::Range;

use trilith_codec::{Reader, put_bytes, put_uvarint, put_varint};
use trilith_model::{Error, Exemplar, HistogramSample, LabelsRef, MetricBatch, Result, Sample};

use crate::format::{bad, compress_at, histogram, metadata};

/// Plain samples and metadata.
const PLAIN: u8 = 1;
/// Everything a batch may hold.
const WHOLE: u8 = 2;

/// Decompressed size above which a record is refused, by the writer as by the reader. Requests are limited to 100 MiB
/// by default, and a record is smaller than the request it comes from.
const RECORD_RAW_BYTES_MAX: usize = 256 << 20;

/// Most bytes that a label set shares with the one before: bounds what a forged record can unfold to.
const SHARED_BYTES_MAX: usize = 1024;

/// # Errors
/// `TooLarge` when the batch exceeds what a record may hold; `Internal` when the compressor fails.
pub(crate) fn encode(batch: &MetricBatch) -> Result<Vec<u8>> {
    let plain = batch.starts.is_empty() && batch.histograms.is_empty() && batch.exemplars.is_empty();
    let version = if plain { PLAIN } else { WHOLE };
    let mut raw = Vec::with_capacity(batch.samples.len() * 12 + batch.series_count() * 32 + 64);
    put_uvarint(&mut raw, batch.series_count() as u64);
    let mut last: &[u8] = &[];
    for s in batch.views() {
        let packed = s.labels.as_packed();
        let pairs = last.iter().zip(packed).take(SHARED_BYTES_MAX);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        put_uvarint(&mut raw, shared as u64);
        put_uvarint(&mut raw, (packed.len() - shared) as u64);
        raw.extend_from_slice(&packed[shared..]);
        put_uvarint(&mut raw, s.samples.len() as u64);
        if !plain {
            put_uvarint(&mut raw, s.histograms.len() as u64);
            put_uvarint(&mut raw, s.exemplars.len() as u64);
        }
        last = packed;
    }
    // Columns apart: times are nearly all equal, values are not.
    put_deltas(&mut raw, batch.samples.iter().map(|s| s.ts_ms));
    for s in &batch.samples {
        raw.extend_from_slice(&s.value.to_le_bytes());
    }
    if !plain {
        encode_rest(&mut raw, batch);
    }
    metadata::encode(&mut raw, batch.metadata.iter());
    if raw.len() > RECORD_RAW_BYTES_MAX {
        return Err(Error::new(
            trilith_model::ErrorKind::TooLarge,
            format!(
                "push of {} bytes exceeds the {RECORD_RAW_BYTES_MAX} bytes of a log record",
                raw.len()
            ),
        ));
    }
    let packed = compress_at(&raw, 1)?;
    let mut out = Vec::with_capacity(packed.len() + 8);
    out.push(version);
    put_uvarint(&mut out, raw.len() as u64);
    out.extend_from_slice(&packed);
    Ok(out)
}

/// What version 2 has and version 1 does not.
fn encode_rest(raw: &mut Vec<u8>, batch: &MetricBatch) {
    raw.push(u8::from(!batch.starts.is_empty()));
    put_deltas(raw, batch.starts.iter().copied());
    put_deltas(raw, batch.histograms.iter().map(|h| h.ts_ms));
    put_deltas(raw, batch.histograms.iter().map(|h| h.start_ms));
    for h in &batch.histograms {
        raw.extend_from_slice(&h.histogram.sum.to_le_bytes());
    }
    // One run through all series: neighbours mostly have the same layout.
    let mut run = histogram::Run::default();
    for h in &batch.histograms {
        run.put(raw, &h.histogram);
    }
    put_deltas(raw, batch.exemplars.iter().map(|e| e.ts_ms));
    for e in &batch.exemplars {
        raw.extend_from_slice(&e.value.to_le_bytes());
        put_bytes(raw, e.labels.as_packed());
    }
}

/// Differences, the first from 0, wrapping.
fn put_deltas(raw: &mut Vec<u8>, numbers: impl Iterator<Item = i64>) {
    let mut last = 0i64;
    for n in numbers {
        put_varint(raw, n.wrapping_sub(last));
        last = n;
    }
}

fn take_deltas(r: &mut Reader<'_>, n: usize) -> Result<Vec<i64>> {
    let mut out = Vec::with_capacity(n.min(r.remaining()));
    let mut last = 0i64;
    for _ in 0..n {
        last = last.wrapping_add(r.varint().map_err(bad("metrics record"))?);
        out.push(last);
    }
    Ok(out)
}

/// # Errors
/// `Corrupt`, `Unsupported` for a newer version.
pub(crate) fn decode(payload: &[u8]) -> Result<MetricBatch> {
    let bad = bad("metrics record");
    let mut r = Reader::new(payload);
    let version = r.u8().map_err(&bad)?;
    if version != PLAIN && version != WHOLE {
        return Err(Error::unsupported(format!("metrics record version {version}")));
    }
    let raw_len = r.uvarint_max(RECORD_RAW_BYTES_MAX as u64).map_err(&bad)? as usize;
    let raw = unpack(r.rest(), raw_len)?;
    decode_raw(&raw, version == WHOLE)
}

/// Decompresses to exactly `raw_len` bytes. Allocates as the bytes come, so a forged length costs nothing.
fn unpack(packed: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    let corrupt = |e: std::io::Error| Error::corrupt(format!("metrics record: zstd: {e}"));
    let mut raw = Vec::with_capacity(raw_len.min(packed.len().saturating_mul(64)));
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(corrupt)?;
    decoder
        .take(raw_len as u64 + 1)
        .read_to_end(&mut raw)
        .map_err(corrupt)?;
    if raw.len() != raw_len {
        return Err(Error::corrupt(format!(
            "metrics record: {raw_len} bytes expected, got {}",
            raw.len()
        )));
    }
    Ok(raw)
}

/// `whole`: version 2.
pub(crate) fn decode_raw(raw: &[u8], whole: bool) -> Result<MetricBatch> {
    let bad = bad("metrics record");
    let mut r = Reader::new(raw);
    let count = r.count(3).map_err(&bad)?;
    // Front coding can make labels larger than the record: bounded in sum, too.
    let mut arena: Vec<u8> = Vec::new();
    // Label spans, with the numbers of samples, histograms and exemplars.
    let mut series: Vec<(Range<usize>, [usize; 3])> = Vec::with_capacity(count);
    let mut totals = [0usize; 3];
    let mut last = 0..0;
    for _ in 0..count {
        let shared_max = (last.end - last.start).min(SHARED_BYTES_MAX);
        let shared = r.uvarint_max(shared_max as u64).map_err(&bad)? as usize;
        let suffix = r.bytes().map_err(&bad)?;
        let start = arena.len();
        if start + shared + suffix.len() > RECORD_RAW_BYTES_MAX {
            return Err(Error::corrupt("metrics record: labels are too large"));
        }
        arena.extend_from_within(last.start..last.start + shared);
        arena.extend_from_slice(suffix);
        LabelsRef::from_packed(&arena[start..])?;
        let mut counts = [0; 3];
        for n in &mut counts[..if whole { 3 } else { 1 }] {
            *n = r.count(1).map_err(&bad)?;
        }
        for (total, n) in totals.iter_mut().zip(counts) {
            *total = total.saturating_add(n);
        }
        last = start..arena.len();
        series.push((last.clone(), counts));
    }
    // A time takes a byte at least and a value eight; a histogram two times, its sum and three bytes; an exemplar a time, a
    // value and the length of its labels.
    let least = [(totals[0], 9), (totals[1], 13), (totals[2], 10)];
    let least = least.iter().map(|&(n, bytes)| n.saturating_mul(bytes));
    if least.fold(0, usize::saturating_add) > r.remaining() {
        return Err(Error::corrupt("metrics record: more samples than bytes"));
    }
    let times = take_deltas(&mut r, totals[0])?;
    let mut samples = Vec::with_capacity(totals[0]);
    for ts_ms in times {
        let value = r.f64().map_err(&bad)?;
        samples.push(Sample { ts_ms, value });
    }
    let mut batch = MetricBatch::default();
    let mut rest = Rest::default();
    if whole {
        rest = decode_rest(&mut r, totals)?;
    }
    let mut samples = samples.into_iter();
    let mut starts = rest.starts.into_iter();
    let mut histograms = rest.histograms.into_iter();
    let mut exemplars = rest.exemplars.into_iter();
    for (span, [n, h, e]) in series {
        for s in samples.by_ref().take(n) {
            batch.push_started(s, starts.next().unwrap_or(0));
        }
        batch.histograms.extend(histograms.by_ref().take(h));
        batch.exemplars.extend(exemplars.by_ref().take(e));
        batch.finish_series(LabelsRef::from_packed_trusted(&arena[span]));
    }
    batch.metadata = metadata::decode(&mut r)?;
    r.finish().map_err(&bad)?;
    Ok(batch)
}

#[derive(Default)]
struct Rest {
    starts: Vec<i64>,
    histograms: Vec<HistogramSample>,
    exemplars: Vec<Exemplar>,
}

fn decode_rest(r: &mut Reader<'_>, totals: [usize; 3]) -> Result<Rest> {
    let bad = bad("metrics record");
    let starts = match r.u8().map_err(&bad)? {
        0 => Vec::new(),
        1 => take_deltas(r, totals[0])?,
        other => return Err(Error::corrupt(format!("metrics record: flag {other}"))),
    };
    let times = take_deltas(r, totals[1])?;
    let starts_of_histograms = take_deltas(r, totals[1])?;
    let mut sums = Vec::with_capacity(times.len());
    for _ in 0..totals[1] {
        sums.push(r.f64().map_err(&bad)?);
    }
    let mut histograms = Vec::with_capacity(sums.len());
    let mut run = histogram::Run::default();
    for ((ts_ms, start_ms), sum) in times.into_iter().zip(starts_of_histograms).zip(sums) {
        histograms.push(HistogramSample {
            ts_ms,
            start_ms,
            histogram: run.take(r, sum)?,
        });
    }
    let times = take_deltas(r, totals[2])?;
    let mut exemplars = Vec::with_capacity(times.len());
    for ts_ms in times {
        let value = r.f64().map_err(&bad)?;
        let labels = LabelsRef::from_packed(r.bytes().map_err(&bad)?)?.to_owned();
        exemplars.push(Exemplar { labels, value, ts_ms });
    }
    Ok(Rest {
        starts,
        histograms,
        exemplars,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trilith_model::{BatchSeriesView, Labels, MetricMetadata, MetricType, SampleValue};

    type Flat = Vec<(Labels, Vec<(i64, u64)>)>;

    fn flat(batch: &MetricBatch) -> Flat {
        batch
            .series()
            .map(|(l, s)| (l.to_owned(), s.iter().map(|s| (s.ts_ms, s.value.to_bits())).collect()))
            .collect()
    }

    fn batch(series: &Flat) -> MetricBatch {
        let mut b = MetricBatch::default();
        for (labels, samples) in series {
            b.samples.extend(samples.iter().map(|&(ts_ms, v)| Sample {
                ts_ms,
                value: f64::from_bits(v),
            }));
            b.finish_series(labels.as_ref());
        }
        b
    }

    fn arb_series() -> impl Strategy<Value = Flat> {
        let labels = proptest::collection::btree_map("[a-c]{1,2}", "[x-z]{1,3}", 0..4).prop_map(Labels::from_pairs);
        let samples = proptest::collection::vec((any::<i64>(), any::<u64>()), 0..4);
        proptest::collection::vec((labels, samples), 0..10)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(series in arb_series(), family in ".{0,5}") {
            let mut b = batch(&series);
            b.metadata.push(MetricMetadata { family, kind: MetricType::Counter, help: "h".into(), unit: String::new() });
            let back = decode(&encode(&b).unwrap()).unwrap();
            prop_assert_eq!(flat(&back), series);
            prop_assert_eq!(back.metadata, b.metadata);
        }

        #[test]
        fn everything(
            series in proptest::collection::vec((arb_series(), crate::arb::any_samples(5), 0usize..3), 0..6),
        ) {
            let mut b = MetricBatch::default();
            for (labels, samples, exemplars) in &series {
                for s in samples {
                    match &s.value {
                        SampleValue::Float(value) => b.push_started(Sample { ts_ms: s.ts_ms, value: *value }, s.start_ms),
                        SampleValue::Histogram(h) => b.histograms.push(HistogramSample {
                            ts_ms: s.ts_ms,
                            start_ms: s.start_ms,
                            histogram: h.clone(),
                        }),
                    }
                }
                for i in 0..*exemplars {
                    let labels = Labels::from_pairs([("trace_id", i.to_string())]);
                    b.exemplars.push(Exemplar { labels, value: i as f64, ts_ms: i as i64 * 7 });
                }
                b.finish_series(labels.first().map_or(Labels::empty(), |l| l.0.clone()).as_ref());
            }
            let bytes = encode(&b).unwrap();
            let back = decode(&bytes).unwrap();
            prop_assert_eq!(back.series_count(), b.series_count());
            for (got, want) in back.views().zip(b.views()) {
                prop_assert_eq!(got.labels, want.labels);
                let flat = |v: &BatchSeriesView<'_>| v.samples.iter().map(|s| (s.ts_ms, s.value.to_bits())).collect::<Vec<_>>();
                prop_assert_eq!(flat(&got), flat(&want));
                let starts = |v: &BatchSeriesView<'_>| v.starts.iter().copied().filter(|s| *s != 0).collect::<Vec<_>>();
                prop_assert_eq!(starts(&got), starts(&want));
                prop_assert_eq!(got.exemplars, want.exemplars);
                prop_assert_eq!(got.histograms.len(), want.histograms.len());
                for (g, w) in got.histograms.iter().zip(want.histograms) {
                    prop_assert_eq!((g.ts_ms, g.start_ms), (w.ts_ms, w.start_ms));
                    crate::arb::assert_same(&g.histogram, &w.histogram);
                }
            }
        }

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode_raw(&bytes, false);
            let _ = decode_raw(&bytes, true);
        }

        #[test]
        fn damaged(series in arb_series(), at in any::<usize>(), mask in 1u8..) {
            let mut bytes = encode(&batch(&series)).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= mask;
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut payload = vec![PLAIN];
        put_uvarint(&mut payload, RECORD_RAW_BYTES_MAX as u64);
        payload.extend(zstd::bulk::compress(&[0; 100], 1).unwrap());
        assert!(decode(&payload).is_err());
    }
}
