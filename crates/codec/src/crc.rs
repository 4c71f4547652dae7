//! CRC-32C (Castagnoli), the checksum of everything that Trilith writes; in hardware where there is any.

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC-32C of `a ‖ bytes`, where `crc` is that of `a`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

/// CRC-32C of `a ‖ b` from the sums of both and the length of `b`, without the bytes.
pub fn crc32c_combine(crc_a: u32, crc_b: u32, len_b: usize) -> u32 {
    ::crc32c::crc32c_combine(crc_a, crc_b, len_b)
}

/// A running sum over bytes that come in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crc32c {
    crc: u32,
}

impl Crc32c {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.crc = crc32c_append(self.crc, bytes);
    }

    /// The sum of everything so far; more may follow.
    pub fn value(self) -> u32 {
        self.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0u8; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn pieces_give_the_same_sum() {
        let (a, b) = (b"hello ".as_slice(), b"world".as_slice());
        let whole = crc32c(b"hello world");
        assert_eq!(crc32c_append(crc32c(a), b), whole);
        assert_eq!(crc32c_combine(crc32c(a), crc32c(b), b.len()), whole);
        let mut running = Crc32c::new();
        running.update(a);
        running.update(b);
        assert_eq!(running.value(), whole);
    }
}
