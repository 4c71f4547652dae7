//! Numbers of variable length, and the writers of length-prefixed bytes. Their readers are in [`crate::Reader`].

/// Bytes of the longest `u64`.
pub const UVARINT_BYTES_MAX: usize = 10;

/// Maps small magnitudes of both signs to small unsigned numbers: 0, -1, 1, -2 … become 0, 1, 2, 3 …
#[inline]
pub const fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub const fn unzigzag(n: u64) -> i64 {
    ((n >> 1) as i64) ^ -((n & 1) as i64)
}

/// Bytes that [`put_uvarint`] writes for `n`: 1 to 10.
#[inline]
pub const fn uvarint_len(n: u64) -> usize {
    // `| 1` makes zero take one byte.
    (63 - (n | 1).leading_zeros() as usize) / 7 + 1
}

#[inline]
pub fn put_uvarint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, n: i64) {
    put_uvarint(out, zigzag(n));
}

/// Length as uvarint, then the bytes.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// As [`put_bytes`].
#[inline]
pub fn put_str(out: &mut Vec<u8>, s: &str) {
    put_bytes(out, s.as_bytes());
}
