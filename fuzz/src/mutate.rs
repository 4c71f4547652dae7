//! Valid inputs, made wrong.

/// SplitMix64: small, fast, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, iteration: u64) -> Self {
        let mut random = Random(seed ^ iteration.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// An input never grows beyond this; larger ones find the same mistakes more slowly.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Numbers that lengths and counts are compared with.
const INTERESTING: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// What parsers of text and of varints stumble over.
const TOKENS: [&[u8]; 24] = [
    b"(",
    b")",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"`",
    b"\0",
    b"\n",
    b"=~",
    b"!=",
    b"|",
    b"-1",
    b"1e999",
    b"NaN",
    b"9223372036854775808",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
    b"\xf0\x9f\xaa\xa8",
    b"\xc3",
    b"null",
    b"((((((((((((((((",
];

/// The input of one iteration.
pub fn input(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if seeds.is_empty() || random.below(16) == 0 {
        return (0..random.below(512)).map(|_| random.next() as u8).collect();
    }
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        mutate(&mut bytes, seeds, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
    }
    let at = random.below(bytes.len());
    match random.below(11) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => {
            let end = at + random.below(bytes.len() - at) + 1;
            bytes.drain(at..end.min(at + 64));
        }
        4 => {
            let new: Vec<u8> = (0..=random.below(16)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, new);
        }
        5 => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            for _ in 0..=random.below(8) {
                bytes.splice(at..at, copy.iter().copied());
            }
        }
        6 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => overwrite_number(bytes, at, random),
        8 => {
            // A length a little off.
            bytes[at] = bytes[at].wrapping_add(random.below(5) as u8).wrapping_sub(2);
        }
        9 => {
            let token = TOKENS[random.below(TOKENS.len())];
            bytes.splice(at..at, token.iter().copied());
        }
        _ => {
            let end = (at + 1 + random.below(32)).min(bytes.len());
            bytes[at..end].fill([0, 0xff, b'a', b'0'][random.below(4)]);
        }
    }
}

fn overwrite_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let number = match random.below(3) {
        0 => bytes.len() as u64,
        1 => random.next() >> random.below(64),
        _ => INTERESTING[random.below(INTERESTING.len())],
    };
    let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
    let little = number.to_le_bytes();
    for i in 0..width {
        let from = if random.below(2) == 0 { i } else { width - 1 - i };
        bytes[at + i] = little[from];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_give_the_same_input() {
        let seeds = vec![b"hello world".to_vec(), vec![]];
        for i in 0..200 {
            let first = input(&seeds, &mut Random::new(7, i));
            assert_eq!(first, input(&seeds, &mut Random::new(7, i)));
            assert!(first.len() <= INPUT_BYTES_MAX);
        }
    }

    #[test]
    fn inputs_differ() {
        let seeds = vec![vec![0u8; 100]];
        let distinct: std::collections::HashSet<_> = (0..200).map(|i| input(&seeds, &mut Random::new(7, i))).collect();
        assert!(distinct.len() > 190, "{}", distinct.len());
    }
}
