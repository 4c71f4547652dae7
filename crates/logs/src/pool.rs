//! Line buffers and compression contexts, used again.
//!
//! Pages and chunks come and go by the hundred per second, each a buffer of half a megabyte or one, filled by one
//! thread and dropped by another. An allocator keeps what other threads free for long, and the kernel clears fresh
//! memory each time: without the pools a merge kept several times the memory that it used.
//!
//! The pools belong to the process and not to threads: work wanders over the runtime's blocking threads, of which
//! there may be hundreds, while only about as many contexts as cores are in use at a time.

use parking_lot::Mutex;

use crate::format::page::PAGE_LINE_BYTES;
use crate::head::chunk::CHUNK_LINE_BYTES;

/// Buffers kept of each class; 48 MiB in sum.
const KEPT_MAX: usize = 32;

/// Values kept of a [`Stock`]; as many are in use at a time on a machine of eight cores.
const STOCK_MAX: usize = 8;

/// Interchangeable values that are dear to make.
pub(crate) struct Stock<T>(Mutex<Vec<T>>);

impl<T> Stock<T> {
    pub const fn new() -> Self {
        Stock(Mutex::new(Vec::new()))
    }

    pub fn take(&self) -> Option<T> {
        self.0.lock().pop()
    }

    pub fn give(&self, value: T) {
        let mut kept = self.0.lock();
        if kept.len() < STOCK_MAX {
            kept.push(value);
        }
    }
}

struct Class {
    capacity: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Class {
    const fn new(capacity: usize) -> Self {
        Class {
            capacity,
            buffers: Mutex::new(Vec::new()),
        }
    }

    /// Smaller requests would waste more than half of a buffer.
    fn fits(&self, len: usize) -> bool {
        len > self.capacity / 2 && len <= self.capacity
    }
}

static CLASSES: [Class; 2] = [Class::new(PAGE_LINE_BYTES), Class::new(CHUNK_LINE_BYTES)];

/// An empty buffer for `len` bytes.
pub(crate) fn take(len: usize) -> Vec<u8> {
    let Some(class) = CLASSES.iter().find(|c| c.fits(len)) else {
        return Vec::with_capacity(len);
    };
    let kept = class.buffers.lock().pop();
    kept.unwrap_or_else(|| Vec::with_capacity(class.capacity))
}

/// Takes back what `take` gave, or frees it.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if let Some(class) = CLASSES.iter().find(|c| c.capacity == buffer.capacity()) {
        buffer.clear();
        let mut kept = class.buffers.lock();
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_fit_and_come_back_empty() {
        for len in [
            0,
            1,
            PAGE_LINE_BYTES / 2,
            PAGE_LINE_BYTES,
            PAGE_LINE_BYTES + 1,
            CHUNK_LINE_BYTES,
            3 << 20,
        ] {
            let mut b = take(len);
            assert!(b.is_empty() && b.capacity() >= len, "{len}");
            b.resize(len, 7);
            give(b);
            assert!(take(len).is_empty());
        }
    }
}
