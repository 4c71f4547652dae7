//! The order of series inside a block.
//!
//! Series of one metric lie next to each other, because queries name a metric and because neighbours that look alike
//! compress better. Within a metric the order is the one of the packed label bytes: total, cheap, the same everywhere.

use std::cmp::Ordering;

use trilith_model::LabelsRef;

pub(crate) const METRIC_NAME: &str = "__name__";

/// Compares two label sets by (metric name, packed bytes). Equal exactly when the sets are.
pub(crate) fn compare(a: LabelsRef<'_>, b: LabelsRef<'_>) -> Ordering {
    if a.as_packed() == b.as_packed() {
        return Ordering::Equal;
    }
    a.get(METRIC_NAME)
        .unwrap_or("")
        .cmp(b.get(METRIC_NAME).unwrap_or(""))
        .then_with(|| a.as_packed().cmp(b.as_packed()))
}
