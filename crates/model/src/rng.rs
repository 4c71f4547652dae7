//! Injected randomness: seeded in tests, from the operating system in the server.

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A shared source of random numbers. Cheap enough for ids and jitter; not for per-item work.
#[derive(Debug)]
pub struct Rng(Mutex<ChaCha8Rng>);

impl Rng {
    pub fn from_os() -> Self {
        Rng(Mutex::new(rand::make_rng()))
    }

    /// The same seed gives the same sequence on every platform.
    pub fn seeded(seed: u64) -> Self {
        Rng(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    pub fn next_u128(&self) -> u128 {
        let mut rng = self.0.lock();
        (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())
    }

    /// Uniform in `[0, 1)`.
    pub fn next_f64(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}
