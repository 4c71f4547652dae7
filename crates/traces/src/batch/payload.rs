//! A batch as the payload of a log record.

use bytes::Bytes;
use trilith_codec::Reader;
use trilith_model::Result;

use super::{BODY_BYTES_MAX, Batch, VERSION, bad, corrupt};

/// The payload of a WAL record: `| 1 u8 | body length u32 | LZ4 block |`.
///
/// LZ4 because the log is read only after a crash and writing it is on the way of every push.
pub fn to_payload(batch: &Batch) -> Bytes {
    let body = batch.as_bytes();
    let mut out = Vec::with_capacity(5 + lz4_flex::block::get_maximum_output_size(body.len()));
    out.push(VERSION);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let start = out.len();
    out.resize(out.capacity(), 0);
    let n = lz4_flex::block::compress_into(body, &mut out[start..])
        .expect("the buffer has the size that the compressor asked for");
    out.truncate(start + n);
    out.into()
}

/// # Errors
/// `Corrupt`; nothing is allocated that the payload could not expand to.
pub fn from_payload(payload: &[u8]) -> Result<Batch> {
    let mut r = Reader::new(payload);
    let version = r.u8().map_err(bad)?;
    if version != VERSION {
        return Err(corrupt(format!("payload version {version} is not known")));
    }
    let len = r.u32().map_err(bad)? as usize;
    // LZ4 expands at most 255 times.
    if len > BODY_BYTES_MAX || len / 255 > r.remaining() {
        return Err(corrupt(format!("{len} bytes cannot come out of {}", r.remaining())));
    }
    let body = lz4_flex::block::decompress(r.rest(), len).map_err(corrupt)?;
    if body.len() != len {
        return Err(corrupt(format!("{} bytes instead of {len}", body.len())));
    }
    Batch::from_bytes(body.into())
}
