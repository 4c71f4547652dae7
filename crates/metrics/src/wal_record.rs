//! The payload of a metrics record in the write-ahead log. Format: docs/formats/metrics-wal.md.
//!
//! A record stands alone: it carries the label sets of its series, so that replay needs nothing that was released
//! before. What that costs is small after front coding against the series before and zstd, and it keeps a record
//! valid whatever becomes of the records around it.

use std::io::Read as _;

use trilith_codec::{Reader, put_uvarint, put_varint};
use trilith_model::{Error, LabelsRef, MetricBatch, Result, Sample};

use crate::format::{bad, compress_at, metadata};

const VERSION: u8 = 1;

/// Decompressed size above which a record is refused, by the writer as by the reader. Requests are limited to 100 MiB
/// by default, and a record is smaller than the request it comes from.
const RECORD_RAW_BYTES_MAX: usize = 256 << 20;

/// Most bytes that a label set shares with the one before: bounds what a forged record can unfold to.
const SHARED_BYTES_MAX: usize = 1024;

/// # Errors
/// `TooLarge` when the batch exceeds what a record may hold; `Internal` when the compressor fails.
pub(crate) fn encode(batch: &MetricBatch) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(batch.samples.len() * 12 + batch.series_count() * 32 + 64);
    put_uvarint(&mut raw, batch.series_count() as u64);
    let mut last: &[u8] = &[];
    for (labels, samples) in batch.series() {
        let packed = labels.as_packed();
        let pairs = last.iter().zip(packed).take(SHARED_BYTES_MAX);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        put_uvarint(&mut raw, shared as u64);
        put_uvarint(&mut raw, (packed.len() - shared) as u64);
        raw.extend_from_slice(&packed[shared..]);
        put_uvarint(&mut raw, samples.len() as u64);
        last = packed;
    }
    // Columns apart: times are nearly all equal, values are not.
    let mut last_ms = 0i64;
    for s in &batch.samples {
        put_varint(&mut raw, s.ts_ms.wrapping_sub(last_ms));
        last_ms = s.ts_ms;
    }
    for s in &batch.samples {
        raw.extend_from_slice(&s.value.to_le_bytes());
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
    out.push(VERSION);
    put_uvarint(&mut out, raw.len() as u64);
    out.extend_from_slice(&packed);
    Ok(out)
}

/// # Errors
/// `Corrupt`, `Unsupported` for a newer version.
pub(crate) fn decode(payload: &[u8]) -> Result<MetricBatch> {
    let bad = bad("metrics record");
    let mut r = Reader::new(payload);
    let version = r.u8().map_err(&bad)?;
    if version != VERSION {
        return Err(Error::unsupported(format!("metrics record version {version}")));
    }
    let raw_len = r.uvarint_max(RECORD_RAW_BYTES_MAX as u64).map_err(&bad)? as usize;
    let raw = unpack(r.rest(), raw_len)?;
    decode_raw(&raw)
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

pub(crate) fn decode_raw(raw: &[u8]) -> Result<MetricBatch> {
    let bad = bad("metrics record");
    let mut r = Reader::new(raw);
    let series = r.count(3).map_err(&bad)?;
    // Front coding can make labels larger than the record: bounded in sum, too.
    let mut arena: Vec<u8> = Vec::new();
    let mut spans: Vec<(std::ops::Range<usize>, usize)> = Vec::with_capacity(series);
    let mut total = 0usize;
    let mut last = 0..0;
    for _ in 0..series {
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
        let samples = r.count(1).map_err(&bad)?;
        total = total.saturating_add(samples);
        last = start..arena.len();
        spans.push((last.clone(), samples));
    }
    // A time takes a byte at least and a value eight.
    if total > r.remaining() / 9 {
        return Err(Error::corrupt("metrics record: more samples than bytes"));
    }
    let mut times = Vec::with_capacity(total);
    let mut last_ms = 0i64;
    for _ in 0..total {
        last_ms = last_ms.wrapping_add(r.varint().map_err(&bad)?);
        times.push(last_ms);
    }
    let mut batch = MetricBatch::default();
    let mut times = times.into_iter();
    for (span, samples) in spans {
        for ts_ms in times.by_ref().take(samples) {
            batch.samples.push(Sample {
                ts_ms,
                value: r.f64().map_err(&bad)?,
            });
        }
        batch.finish_series(LabelsRef::from_packed_trusted(&arena[span]));
    }
    batch.metadata = metadata::decode(&mut r)?;
    r.finish().map_err(&bad)?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trilith_model::{Labels, MetricMetadata, MetricType};

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
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode_raw(&bytes);
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
        let mut payload = vec![VERSION];
        put_uvarint(&mut payload, RECORD_RAW_BYTES_MAX as u64);
        payload.extend(zstd::bulk::compress(&[0; 100], 1).unwrap());
        assert!(decode(&payload).is_err());
    }
}
