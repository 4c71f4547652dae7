//! Which segments there are and what each still holds.

use trilith_model::Signal;

/// The largest LSN per signal; 0 when there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SignalLsns([u64; Signal::ALL.len()]);

impl SignalLsns {
    pub fn get(&self, signal: Signal) -> u64 {
        self.0[signal as usize - 1]
    }

    /// Never goes back.
    pub fn note(&mut self, signal: Signal, lsn: u64) {
        let slot = &mut self.0[signal as usize - 1];
        *slot = (*slot).max(lsn);
    }

    /// Nothing in `self` is newer than `released`.
    pub fn within(&self, released: &SignalLsns) -> bool {
        self.0.iter().zip(&released.0).all(|(max, released)| max <= released)
    }
}

/// A segment that takes no more records.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub bytes: u64,
    /// Unknown until a replay went through all of it; such a segment is kept.
    pub max: Option<SignalLsns>,
    /// Only the header is left.
    pub emptied: bool,
}

impl Closed {
    pub fn releasable(&self, released: &SignalLsns) -> bool {
        self.max.is_some_and(|max| max.within(released))
    }
}
