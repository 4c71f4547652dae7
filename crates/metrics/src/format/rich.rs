//! Slots with native histograms or start timestamps. Format: docs/formats/metrics-block.md.
//!
//! | encoding u8 | payload |
//! |---|---|
//! | 4 mixed | h uvarint, runs if h < n, floats bytes if h < n, sums bytes, h histograms |
//! | 5 started | s0 varint, runs of (length uvarint, Δs varint) for the other n-1, then a payload of 0 to 4 |
//!
//! Mixed: h of the n samples are histograms. Runs are lengths (uvarint) of float and histogram runs in turn, floats
//! first, up to n samples. Floats and sums are slots of `values`, histograms a run of `histogram`.

use trilith_codec::{Reader, put_bytes, put_uvarint, put_varint};
use trilith_model::{Error, Result, SampleValue};

use super::{bad, histogram, values};
use crate::samples::{AnySample, Samples, SamplesRef};

const MIXED: u8 = 4;
const STARTED: u8 = 5;

/// Whether a payload is one of this module; the others hold floats alone.
#[inline]
pub(crate) fn is_rich(payload: &[u8]) -> bool {
    payload.first().is_some_and(|&e| e == MIXED || e == STARTED)
}

/// Numbers in the histograms of one slot, unless a single one has more: bounds what a slot takes, encoded and decoded.
const SLOT_NUMBERS_MAX: usize = 1 << 16;

/// How many of the samples fit one slot; at least one.
pub(crate) fn slot_len(samples: SamplesRef<'_>) -> usize {
    let len = samples.len().min(super::SLOT_SAMPLES_MAX);
    let mut numbers = 0;
    for (at, h) in samples.histograms() {
        numbers += histogram::numbers(h);
        if numbers > SLOT_NUMBERS_MAX && at > 0 {
            return len.min(at);
        }
    }
    len
}

/// Appends the encoding byte and the payload of a slot that is not empty.
pub(crate) fn encode(out: &mut Vec<u8>, samples: SamplesRef<'_>) {
    if samples.has_starts() {
        out.push(STARTED);
        encode_starts(out, samples.starts);
    }
    if samples.histogram_count() == 0 {
        return values::encode(out, samples.floats);
    }
    out.push(MIXED);
    let (n, h) = (samples.len(), samples.histogram_count());
    put_uvarint(out, h as u64);
    if h < n {
        let mut end = 0;
        let mut run = 0;
        for (at, _) in samples.histograms() {
            if at > end || end == 0 {
                if end > 0 {
                    put_uvarint(out, run);
                }
                put_uvarint(out, (at - end) as u64);
                run = 0;
            }
            run += 1;
            end = at + 1;
        }
        put_uvarint(out, run);
        if end < n {
            put_uvarint(out, (n - end) as u64);
        }
        let mut floats = Vec::with_capacity(n - h);
        let mut from = 0;
        for (at, _) in samples.histograms() {
            floats.extend_from_slice(&samples.floats[from..at]);
            from = at + 1;
        }
        floats.extend_from_slice(&samples.floats[from..]);
        put_values(out, &floats);
    }
    let sums: Vec<f64> = samples.histograms().map(|(_, h)| h.sum).collect();
    put_values(out, &sums);
    let mut run = histogram::Run::default();
    for (_, h) in samples.histograms() {
        run.put(out, h);
    }
}

fn put_values(out: &mut Vec<u8>, floats: &[f64]) {
    let mut bytes = Vec::new();
    values::encode(&mut bytes, floats);
    put_bytes(out, &bytes);
}

fn take_values(r: &mut Reader<'_>, n: usize) -> Result<Vec<f64>> {
    let bytes = r.bytes().map_err(bad("mixed slot"))?;
    let mut out = Vec::new();
    values::decode(bytes, n, &mut out)?;
    Ok(out)
}

fn encode_starts(out: &mut Vec<u8>, starts: &[i64]) {
    put_varint(out, starts[0]);
    let deltas = starts.windows(2).map(|w| w[1].wrapping_sub(w[0]));
    let mut run: Option<(u64, i64)> = None;
    for d in deltas {
        match &mut run {
            Some((n, of)) if *of == d => *n += 1,
            _ => {
                if let Some((n, of)) = run {
                    put_uvarint(out, n);
                    put_varint(out, of);
                }
                run = Some((1, d));
            }
        }
    }
    if let Some((n, of)) = run {
        put_uvarint(out, n);
        put_varint(out, of);
    }
}

fn decode_starts(r: &mut Reader<'_>, n: usize) -> Result<Vec<i64>> {
    let bad = bad("starts");
    let mut start = r.varint().map_err(&bad)?;
    let mut out = Vec::with_capacity(n);
    out.push(start);
    while out.len() < n {
        let run = r.uvarint_max((n - out.len()) as u64).map_err(&bad)?;
        let delta = r.varint().map_err(&bad)?;
        if run == 0 {
            return Err(Error::corrupt("starts: an empty run"));
        }
        for _ in 0..run {
            start = start.wrapping_add(delta);
            out.push(start);
        }
    }
    Ok(out)
}

/// Appends the samples of a slot of any encoding; `times` are those of its vector, at least one and at most
/// `SLOT_SAMPLES_MAX`.
///
/// # Errors
/// `Corrupt` unless the payload holds exactly as many values; `out` is cut back then.
pub(crate) fn decode(payload: &[u8], times: &[i64], out: &mut Samples) -> Result<()> {
    let from = out.len();
    let done = decode_into(payload, times, out);
    if done.is_err() {
        out.floats.truncate(from);
        out.truncate(from);
    }
    done
}

fn decode_into(payload: &[u8], times: &[i64], out: &mut Samples) -> Result<()> {
    let (mut payload, n) = (payload, times.len());
    let mut starts = Vec::new();
    if payload.first() == Some(&STARTED) {
        let mut r = Reader::new(&payload[1..]);
        starts = decode_starts(&mut r, n)?;
        payload = r.rest();
    }
    if payload.first() != Some(&MIXED) {
        let at = out.len();
        values::decode(payload, n, &mut out.floats)?;
        out.times.extend_from_slice(times);
        out.extend_starts(at, &starts);
        return Ok(());
    }
    let bad = bad("mixed slot");
    let mut r = Reader::new(&payload[1..]);
    let h = r.uvarint_max(n as u64).map_err(&bad)? as usize;
    let mut kinds: Vec<(usize, bool)> = Vec::new();
    if h == n {
        kinds.push((n, true));
    } else {
        let (mut total, mut of_histograms, mut is_histogram) = (0, 0, false);
        while total < n {
            let run = r.uvarint_max((n - total) as u64).map_err(&bad)? as usize;
            // Only the run of floats before the first histogram may be empty.
            if run == 0 && !kinds.is_empty() {
                return Err(Error::corrupt("mixed slot: an empty run"));
            }
            total += run;
            of_histograms += if is_histogram { run } else { 0 };
            kinds.push((run, is_histogram));
            is_histogram = !is_histogram;
        }
        if of_histograms != h {
            return Err(Error::corrupt("mixed slot: number of histograms"));
        }
    }
    // A histogram takes three bytes at least.
    if h == 0 || h > r.remaining() / 3 {
        return Err(Error::corrupt("mixed slot: number of histograms"));
    }
    let floats = if h < n { take_values(&mut r, n - h)? } else { Vec::new() };
    let sums = take_values(&mut r, h)?;
    let (mut floats, mut sums) = (floats.into_iter(), sums.into_iter());
    let mut run = histogram::Run::default();
    let mut at = 0;
    for (len, is_histogram) in kinds {
        for _ in 0..len {
            let value = if is_histogram {
                let sum = sums.next().expect("there are as many sums as histograms");
                SampleValue::Histogram(run.take(&mut r, sum)?)
            } else {
                SampleValue::Float(floats.next().expect("there are as many floats as places for them"))
            };
            out.push(AnySample {
                ts_ms: times[at],
                start_ms: starts.get(at).copied().unwrap_or(0),
                value,
            });
            at += 1;
        }
    }
    r.finish().map_err(&bad)
}

#[cfg(test)]
mod tests;
