//! What start timestamps tell about two neighbouring samples. All times in ms; 0 means unknown.

/// A sample's time and when counting began for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub start: i64,
    pub time: i64,
}

/// Whether the counter began anew between two samples, as far as start timestamps tell.
pub(super) fn is_reset(before: Counted, now: Counted) -> bool {
    // A start at the sample's own time or later is no information.
    if now.start == 0 || now.start >= now.time || now.start < before.time {
        return false;
    }
    if now.start > before.time {
        return true;
    }
    // Counting began exactly at the sample before: a delta, unless that sample's own start is unusable, as in
    // cumulative series whose start nobody knows.
    before.start != 0 && before.start < before.time
}

/// Whether a sample claims to count from a time that the one before already covers, with another start.
pub(super) fn overlaps(before: Counted, now: Counted) -> bool {
    now.start != 0 && now.start < before.time && now.start != before.start
}

/// Whether the start timestamps of a series can change anything in windows that begin at `first_start` or later. A
/// counter that has run since before, as most have, tells nothing new.
pub(super) fn matter(starts: &[i64], first_start: i64) -> bool {
    let Some(first) = starts.first() else {
        return false;
    };
    *first > first_start || starts.iter().any(|s| s != first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: i64, time: i64) -> Counted {
        Counted { start, time }
    }

    #[test]
    fn resets() {
        assert!(!is_reset(at(10, 60), at(0, 120)), "unknown");
        assert!(!is_reset(at(10, 60), at(120, 120)), "at its own time");
        assert!(!is_reset(at(10, 60), at(130, 120)), "after its own time");
        assert!(!is_reset(at(10, 60), at(10, 120)), "the same counter");
        assert!(is_reset(at(10, 60), at(61, 120)), "a new counter");
        assert!(is_reset(at(10, 60), at(60, 120)), "a delta");
        assert!(!is_reset(at(0, 60), at(60, 120)), "the first start is unknown");
        assert!(!is_reset(at(60, 60), at(60, 120)), "the first start is its own time");
        assert!(!is_reset(at(61, 60), at(60, 120)), "the first start is invalid");
    }

    #[test]
    fn old_counters_tell_nothing() {
        assert!(!matter(&[], 100) && !matter(&[0, 0], 100) && !matter(&[100, 100], 100));
        assert!(matter(&[101, 101], 100) && matter(&[50, 60], 100) && matter(&[50, 0], 100));
        assert!(matter(&[0, 0], -5), "zero lies in the window, and is sorted out there");
    }

    #[test]
    fn overlap() {
        assert!(overlaps(at(10, 60), at(20, 120)));
        assert!(!overlaps(at(10, 60), at(10, 120)));
        assert!(!overlaps(at(10, 60), at(60, 120)));
        assert!(!overlaps(at(10, 60), at(0, 120)));
    }
}
