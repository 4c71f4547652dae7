//! Range functions of histograms.

use std::sync::Arc;

use trilith_model::{FloatHistogram, SampleValue};
use trilith_query::vector::rate::RateKind;

use super::general::Window;
use super::remarks::SeriesRemarks;
use crate::functions::RangeFunction;

/// Whether a function needs the arithmetic of histograms.
pub(super) fn is_supported(function: RangeFunction) -> bool {
    use RangeFunction as F;
    !matches!(
        function,
        F::Rate(_) | F::Irate | F::Idelta | F::Avg | F::Sum | F::Changes | F::Resets
    )
}

pub(super) fn rate(_: RateKind, _: &Window<'_>, _: i64, _: &SeriesRemarks<'_>) -> Option<SampleValue> {
    None
}

pub(super) fn rate_between_edges(
    _: RateKind,
    _: &Window<'_>,
    _: bool,
    _: f64,
    _: &SeriesRemarks<'_>,
) -> Option<SampleValue> {
    None
}

pub(super) fn of_last_two(
    _: &FloatHistogram,
    _: &FloatHistogram,
    _: bool,
    _: Option<f64>,
    _: &SeriesRemarks<'_>,
) -> Option<FloatHistogram> {
    None
}

pub(super) fn avg(_: &[Arc<FloatHistogram>], _: &SeriesRemarks<'_>) -> Option<FloatHistogram> {
    None
}

pub(super) fn sum(_: &[Arc<FloatHistogram>], _: &SeriesRemarks<'_>) -> Option<FloatHistogram> {
    None
}

pub(super) fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a == b
}

pub(super) fn is_reset(_: &FloatHistogram, _: &FloatHistogram) -> bool {
    false
}

pub(super) fn between(
    _: (i64, &FloatHistogram),
    _: (i64, &FloatHistogram),
    _: i64,
    _: &SeriesRemarks<'_>,
) -> Option<Arc<FloatHistogram>> {
    None
}

pub(super) fn without_hint(h: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    h.clone()
}
