//! Bits, most significant first, and the codes that Prometheus' chunks are made of.

/// Appends to a byte vector that ends on a byte boundary.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Unused low bits of the last byte.
    free: u32,
}

impl BitWriter {
    pub fn new(bytes: Vec<u8>) -> Self {
        BitWriter { bytes, free: 0 }
    }

    /// The bytes, the last one filled with zeros.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn bit(&mut self, one: bool) {
        self.bits(u64::from(one), 1);
    }

    /// The low `n` bits of `value`; n ≤ 64.
    pub fn bits(&mut self, value: u64, n: u32) {
        let mut left = n;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (value >> (left - take)) & ((1u64 << take) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part << (self.free - take)) as u8;
            }
            self.free -= take;
            left -= take;
        }
    }

    pub fn float(&mut self, v: f64) {
        self.bits(v.to_bits(), 64);
    }

    /// LEB128.
    pub fn uvarint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.bits(v & 0x7f | 0x80, 8);
            v >>= 7;
        }
        self.bits(v, 8);
    }

    /// Zigzag, then LEB128.
    pub fn varint(&mut self, v: i64) {
        self.uvarint(((v << 1) ^ (v >> 63)) as u64);
    }

    /// Prefix code of histogram chunks: n ones and a zero name the width.
    pub fn varbit_uint(&mut self, v: u64) {
        let needed = 64 - v.leading_zeros();
        self.varbit(v, |width| needed <= width);
    }

    /// As `varbit_uint`; a width of n holds −2ⁿ⁻¹+1 ..= 2ⁿ⁻¹.
    pub fn varbit_int(&mut self, v: i64) {
        self.varbit(v as u64, |width| fits(v, width));
    }

    fn varbit(&mut self, v: u64, fits: impl Fn(u32) -> bool) {
        /// Widths of the codes with one, two, … leading ones.
        const WIDTHS: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];
        if v == 0 {
            self.bit(false);
            return;
        }
        match WIDTHS.iter().position(|w| fits(*w)) {
            Some(i) => {
                let ones = i as u32 + 1;
                self.bits(((1 << ones) - 1) << 1, ones + 1);
                self.bits(v, WIDTHS[i]);
            }
            None => {
                self.bits(0xff, 8);
                self.bits(v, 64);
            }
        }
    }
}

/// Whether −2ⁿ⁻¹+1 ≤ v ≤ 2ⁿ⁻¹.
pub fn fits(v: i64, n: u32) -> bool {
    let half = 1i64 << (n - 1);
    (1 - half..=half).contains(&v)
}

/// A float as the difference to the one before: the state of one column of values.
#[derive(Clone, Copy, Debug)]
pub struct XorColumn {
    value: f64,
    /// Zeros before and behind the differing bits of the last difference; `None` before the first.
    window: Option<(u32, u32)>,
}

impl XorColumn {
    /// After the first value, which is written in full.
    pub fn new(first: f64) -> Self {
        XorColumn {
            value: first,
            window: None,
        }
    }

    pub fn write(&mut self, out: &mut BitWriter, v: f64) {
        let delta = v.to_bits() ^ self.value.to_bits();
        self.value = v;
        if delta == 0 {
            out.bit(false);
            return;
        }
        out.bit(true);
        // Five bits say how many.
        let leading = delta.leading_zeros().min(31);
        let trailing = delta.trailing_zeros();
        if let Some((l, t)) = self.window
            && leading >= l
            && trailing >= t
        {
            out.bit(false);
            out.bits(delta >> t, 64 - l - t);
            return;
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        out.bit(true);
        out.bits(u64::from(leading), 5);
        // 64 does not fit into six bits and is written as 0; a width of 0 cannot occur.
        out.bits(u64::from(width), 6);
        out.bits(delta >> trailing, width);
    }
}
