//! The values of one slot, each with the cheapest of a few encodings; all are bit-exact.
//!
//! | encoding u8 | payload |
//! |---|---|
//! | 0 constant | f64 bits |
//! | 1 decimal Δ | exponent u8, exceptions, i0 varint, Δi varint … |
//! | 2 decimal Δ² | exponent u8, exceptions, i0 varint, Δ²i varint … (Δ before the second is 0) |
//! | 3 xor | the XORs with the value before (the first with 0), transposed: all first bytes, all second bytes, … |
//!
//! A decimal slot holds integers `i` with `value = i / 10^exponent`; the division rounds correctly, so what was written
//! as a decimal number of up to 15 digits comes back with the same bits. Values that do not fit (staleness markers,
//! other NaNs, infinities, -0, odd doubles) are exceptions: `| n uvarint | n × (Δposition uvarint, bits u64) |`, and the
//! stream repeats the integer before them.

use trilith_codec::{DecodeError, Reader, put_uvarint, put_varint, uvarint_len, zigzag};
use trilith_model::{Error, Result};

use super::bad;

const CONSTANT: u8 = 0;
const DECIMAL_DELTA: u8 = 1;
const DECIMAL_DELTA2: u8 = 2;
const XOR: u8 = 3;

const EXPONENT_MAX: u8 = 15;
const POW10: [f64; EXPONENT_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Integers beyond this are not all exact doubles.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The integer of a value under an exponent, when it brings back the same bits.
#[inline]
fn decimal(value: f64, exponent: u8) -> Option<i64> {
    let p = POW10[usize::from(exponent)];
    let scaled = (value * p).round_ties_even();
    if scaled.is_nan() || scaled.abs() > INTEGER_MAX {
        return None;
    }
    let i = scaled as i64;
    ((i as f64 / p).to_bits() == value.to_bits()).then_some(i)
}

/// Appends the encoding byte and the payload. `values` is not empty.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[f64]) {
    debug_assert!(!values.is_empty());
    let first = values[0].to_bits();
    if values.iter().all(|v| v.to_bits() == first) {
        out.push(CONSTANT);
        out.extend_from_slice(&first.to_le_bytes());
        return;
    }
    if !encode_decimal(out, values) {
        encode_xor(out, values);
    }
}

/// The smallest exponent that fits (nearly) all values; `None` when too many fit none.
fn exponent_of(values: &[f64]) -> Option<u8> {
    let exceptions_max = values.len() / 8 + 1;
    let (mut exponent, mut exceptions) = (0u8, 0usize);
    for &v in values {
        if decimal(v, exponent).is_some() {
            continue;
        }
        match (exponent + 1..=EXPONENT_MAX).find(|&e| decimal(v, e).is_some()) {
            // A value with so many digits that others no longer fit is better an exception; the second pass of
            // the caller counts what does not fit in the end.
            Some(e) => exponent = e,
            None => {
                exceptions += 1;
                if exceptions > exceptions_max {
                    return None;
                }
            }
        }
    }
    Some(exponent)
}

/// Whether it wrote anything: not when exceptions would outweigh the gain.
fn encode_decimal(out: &mut Vec<u8>, values: &[f64]) -> bool {
    let Some(exponent) = exponent_of(values) else {
        return false;
    };
    let mut ints = Vec::with_capacity(values.len());
    let mut exceptions: Vec<(usize, u64)> = Vec::new();
    let mut last = 0i64;
    for (i, &v) in values.iter().enumerate() {
        match decimal(v, exponent) {
            Some(n) => last = n,
            None => exceptions.push((i, v.to_bits())),
        }
        ints.push(last);
    }
    if exceptions.len() > values.len() / 8 + 1 {
        return false;
    }
    // Integers are below 2^53, so differences of differences fit.
    let (mut delta_bytes, mut delta2_bytes) = (0, 0);
    let (mut last, mut last_delta) = (ints[0], 0);
    for &n in &ints[1..] {
        let delta = n - last;
        delta_bytes += uvarint_len(zigzag(delta));
        delta2_bytes += uvarint_len(zigzag(delta - last_delta));
        (last, last_delta) = (n, delta);
    }
    if delta_bytes.min(delta2_bytes) + exceptions.len() * 9 >= values.len() * 7 {
        return false;
    }
    let second = delta2_bytes < delta_bytes;
    out.push(if second { DECIMAL_DELTA2 } else { DECIMAL_DELTA });
    out.push(exponent);
    put_uvarint(out, exceptions.len() as u64);
    let mut at = 0;
    for (i, bits) in exceptions {
        put_uvarint(out, (i - at) as u64);
        out.extend_from_slice(&bits.to_le_bytes());
        at = i;
    }
    put_varint(out, ints[0]);
    let (mut last, mut last_delta) = (ints[0], 0);
    for &n in &ints[1..] {
        let delta = n - last;
        put_varint(out, if second { delta - last_delta } else { delta });
        (last, last_delta) = (n, delta);
    }
    true
}

fn encode_xor(out: &mut Vec<u8>, values: &[f64]) {
    out.push(XOR);
    let n = values.len();
    let base = out.len();
    out.resize(base + n * 8, 0);
    let planes = &mut out[base..];
    let mut last = 0u64;
    for (i, v) in values.iter().enumerate() {
        let bits = v.to_bits();
        for (plane, byte) in (bits ^ last).to_be_bytes().into_iter().enumerate() {
            planes[plane * n + i] = byte;
        }
        last = bits;
    }
}

/// Appends the `n` values of a slot to `out`.
///
/// # Errors
/// `Corrupt` unless the payload holds exactly `n` values; `out` is cut back then.
pub(crate) fn decode(payload: &[u8], n: usize, out: &mut Vec<f64>) -> Result<()> {
    let from = out.len();
    let done = decode_into(payload, n, out);
    if done.is_err() {
        out.truncate(from);
    }
    done
}

fn decode_into(payload: &[u8], n: usize, out: &mut Vec<f64>) -> Result<()> {
    let bad = bad("values");
    let mut r = Reader::new(payload);
    let from = out.len();
    match r.u8().map_err(&bad)? {
        CONSTANT => {
            let v = r.f64().map_err(&bad)?;
            out.resize(from + n, v);
        }
        encoding @ (DECIMAL_DELTA | DECIMAL_DELTA2) => {
            let exponent = r.u8().map_err(&bad)?;
            let p = *POW10
                .get(usize::from(exponent))
                .ok_or_else(|| Error::corrupt(format!("decimal exponent {exponent}")))?;
            let count = r.count(9).map_err(&bad)?;
            let mut exceptions = Vec::with_capacity(count);
            let mut at = 0usize;
            for _ in 0..count {
                at = at.saturating_add(r.uvarint_u32().map_err(&bad)? as usize);
                if at >= n {
                    return Err(Error::corrupt("exception past the end of its slot"));
                }
                exceptions.push((at, r.u64().map_err(&bad)?));
            }
            // One byte per value at least.
            if r.remaining() < n {
                return Err(Error::corrupt("values are truncated"));
            }
            out.resize(from + n, 0.0);
            let cells = &mut out[from..];
            match (encoding == DECIMAL_DELTA2, exponent == 0) {
                (false, false) => decode_decimal::<false, _>(&mut r, cells, |i| i as f64 / p),
                (true, false) => decode_decimal::<true, _>(&mut r, cells, |i| i as f64 / p),
                // Most counters: no division.
                (false, true) => decode_decimal::<false, _>(&mut r, cells, |i| i as f64),
                (true, true) => decode_decimal::<true, _>(&mut r, cells, |i| i as f64),
            }
            .map_err(&bad)?;
            for (at, bits) in exceptions {
                out[from + at] = f64::from_bits(bits);
            }
        }
        XOR => {
            let planes = r.take(n.saturating_mul(8)).map_err(&bad)?;
            let mut last = 0u64;
            out.reserve(n);
            for i in 0..n {
                last ^= u64::from_be_bytes(std::array::from_fn(|plane| planes[plane * n + i]));
                out.push(f64::from_bits(last));
            }
        }
        other => return Err(Error::corrupt(format!("unknown value encoding {other}"))),
    }
    r.finish().map_err(&bad)
}

/// `SECOND`: differences of differences.
fn decode_decimal<const SECOND: bool, F: Fn(i64) -> f64>(
    r: &mut Reader<'_>,
    cells: &mut [f64],
    value: F,
) -> std::result::Result<(), DecodeError> {
    let (mut i, mut delta) = (0i64, 0i64);
    for (k, cell) in cells.iter_mut().enumerate() {
        let d = r.varint()?;
        // The first integer stands as it is, and the difference before the second is 0.
        delta = if SECOND && k > 1 { delta.wrapping_add(d) } else { d };
        i = i.wrapping_add(delta);
        if SECOND && k == 0 {
            delta = 0;
        }
        *cell = value(i);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trilith_model::STALE_NAN_BITS;

    fn check(values: &[f64]) -> (u8, usize) {
        let mut bytes = Vec::new();
        encode(&mut bytes, values);
        let mut out = vec![7.0];
        decode(&bytes, values.len(), &mut out).unwrap();
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out[1..]), bits(values));
        for cut in 0..bytes.len() {
            let mut out = vec![7.0];
            assert!(decode(&bytes[..cut], values.len(), &mut out).is_err());
            assert_eq!(out, [7.0]);
        }
        (bytes[0], bytes.len())
    }

    #[test]
    fn picks_the_cheap_encoding() {
        assert_eq!(check(&[0.1; 50]), (CONSTANT, 9));
        assert_eq!(check(&[f64::from_bits(STALE_NAN_BITS); 3]).0, CONSTANT);
        let counter: Vec<f64> = (0..100).map(|i| 1e9 + f64::from(i * 1000)).collect();
        assert_eq!(check(&counter).0, DECIMAL_DELTA2);
        let noisy: Vec<f64> = (0..100).map(|i| f64::from(i * 7919 % 101) / 1000.0).collect();
        assert_eq!(check(&noisy).0, DECIMAL_DELTA);
        let mut stale = noisy.clone();
        stale[99] = f64::from_bits(STALE_NAN_BITS);
        stale[3] = -0.0;
        stale[4] = f64::INFINITY;
        let (encoding, len) = check(&stale);
        assert_eq!(encoding, DECIMAL_DELTA);
        assert!(len < 300);
        let doubles: Vec<f64> = (1..100).map(|i| 1.0 / f64::from(i)).collect();
        assert_eq!(check(&doubles).0, XOR);
        check(&[
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            9007199254740993.0,
            -9007199254740992.0,
        ]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bits(bits in proptest::collection::vec(any::<u64>(), 1..40)) {
            check(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn decimals(ints in proptest::collection::vec(-1_000_000i64..1_000_000, 1..40), e in 0u8..8, nan in any::<u8>()) {
            let mut values: Vec<f64> = ints.iter().map(|&i| i as f64 / POW10[usize::from(e)]).collect();
            let at = usize::from(nan) % values.len();
            values[at] = f64::from_bits(STALE_NAN_BITS);
            check(&values);
        }

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..100), encoding in 0u8..5, n in 1usize..50) {
            let mut payload = vec![encoding];
            payload.extend(bytes);
            let _ = decode(&payload, n, &mut Vec::new());
        }
    }
}
