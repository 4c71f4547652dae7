//! Pure byte codecs: numbers of variable length, the checksum, and a cursor that never trusts a length.
//!
//! Writers append to a `Vec<u8>` and cannot fail. Readers go through [`Reader`], which returns a [`DecodeError`]
//! for anything that does not fit: no input makes them panic, loop, or allocate more than the input is long.
//! Nothing here knows a file, a label or an async runtime.
//!
//! | name | bytes |
//! |---|---|
//! | uvarint | LEB128: seven bits per byte, low bits first, high bit set on all but the last byte; at most 10 bytes |
//! | varint | [`zigzag`] and then uvarint |
//! | fixed | little endian |
//! | bytes | uvarint length, then the bytes |

pub mod crc;
pub mod reader;
pub mod varint;

pub use crc::{Crc32c, crc32c, crc32c_append, crc32c_combine};
pub use reader::{DecodeError, Reader};
pub use varint::{UVARINT_BYTES_MAX, put_bytes, put_str, put_uvarint, put_varint, unzigzag, uvarint_len, zigzag};
