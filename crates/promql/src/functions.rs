//! The functions: names, signatures, and those that map a number to a number.

use trilith_histogram::FloatHistogram;
use trilith_query::vector::rate::RateKind;

use crate::ast::ValueType;

// Names are shown by `Debug`.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// v → v, element by element.
    Map(&'static str, fn(f64) -> f64),
    /// v? → v, of the seconds since the epoch; the evaluation time without an argument.
    Calendar(&'static str, fn(Civil) -> f64),
    /// m → v
    OverTime(RangeFunction),
    Absent,
    AbsentOverTime,
    Clamp,
    ClampMax,
    ClampMin,
    /// v → v, of the native histograms.
    Histogram(&'static str, fn(&FloatHistogram) -> f64),
    HistogramFraction,
    HistogramQuantile,
    HistogramQuantiles,
    Info,
    LabelJoin,
    LabelReplace,
    MaxOf,
    MinOf,
    Pi,
    Round,
    Scalar,
    Sort {
        descending: bool,
    },
    SortByLabel {
        descending: bool,
    },
    StartTimestamp,
    Time,
    Timestamp,
    Vector,
}

/// A function of the samples in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeFunction {
    Rate(RateKind),
    Irate,
    Idelta,
    Avg,
    Sum,
    Min,
    Max,
    Count,
    Last,
    First,
    Present,
    Stddev,
    Stdvar,
    Quantile,
    Changes,
    Resets,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    /// Median absolute deviation.
    Mad,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
}

impl RangeFunction {
    pub const fn name(self) -> &'static str {
        match self {
            RangeFunction::Rate(RateKind::Rate) => "rate",
            RangeFunction::Rate(RateKind::Increase) => "increase",
            RangeFunction::Rate(RateKind::Delta) => "delta",
            RangeFunction::Irate => "irate",
            RangeFunction::Idelta => "idelta",
            RangeFunction::Avg => "avg_over_time",
            RangeFunction::Sum => "sum_over_time",
            RangeFunction::Min => "min_over_time",
            RangeFunction::Max => "max_over_time",
            RangeFunction::Count => "count_over_time",
            RangeFunction::Last => "last_over_time",
            RangeFunction::First => "first_over_time",
            RangeFunction::Present => "present_over_time",
            RangeFunction::Stddev => "stddev_over_time",
            RangeFunction::Stdvar => "stdvar_over_time",
            RangeFunction::Quantile => "quantile_over_time",
            RangeFunction::Changes => "changes",
            RangeFunction::Resets => "resets",
            RangeFunction::Deriv => "deriv",
            RangeFunction::PredictLinear => "predict_linear",
            RangeFunction::DoubleExponentialSmoothing => "double_exponential_smoothing",
            RangeFunction::Mad => "mad_over_time",
            RangeFunction::TsOfFirst => "ts_of_first_over_time",
            RangeFunction::TsOfLast => "ts_of_last_over_time",
            RangeFunction::TsOfMin => "ts_of_min_over_time",
            RangeFunction::TsOfMax => "ts_of_max_over_time",
        }
    }

    /// Whether start timestamps of samples change the result.
    pub const fn uses_starts(self) -> bool {
        self.finds_resets() || matches!(self, RangeFunction::Irate)
    }

    /// Whether counter resets between any two neighbours matter.
    pub const fn finds_resets(self) -> bool {
        matches!(
            self,
            RangeFunction::Rate(RateKind::Rate | RateKind::Increase) | RangeFunction::Resets
        )
    }

    /// Whether the metric name survives.
    pub const fn keeps_name(self) -> bool {
        matches!(self, RangeFunction::Last | RangeFunction::First)
    }
}

impl Function {
    /// `None` when there is no such function here.
    pub fn by_name(name: &str) -> Option<Function> {
        use RangeFunction as R;
        Some(match name {
            "abs" => Function::Map("abs", f64::abs),
            "ceil" => Function::Map("ceil", f64::ceil),
            "floor" => Function::Map("floor", f64::floor),
            "exp" => Function::Map("exp", f64::exp),
            "sqrt" => Function::Map("sqrt", f64::sqrt),
            "ln" => Function::Map("ln", f64::ln),
            "log2" => Function::Map("log2", f64::log2),
            "log10" => Function::Map("log10", f64::log10),
            "sgn" => Function::Map("sgn", sgn),
            "deg" => Function::Map("deg", |v| v * 180.0 / std::f64::consts::PI),
            "rad" => Function::Map("rad", |v| v * std::f64::consts::PI / 180.0),
            "sin" => Function::Map("sin", f64::sin),
            "cos" => Function::Map("cos", f64::cos),
            "tan" => Function::Map("tan", f64::tan),
            "asin" => Function::Map("asin", f64::asin),
            "acos" => Function::Map("acos", f64::acos),
            "atan" => Function::Map("atan", f64::atan),
            "sinh" => Function::Map("sinh", f64::sinh),
            "cosh" => Function::Map("cosh", f64::cosh),
            "tanh" => Function::Map("tanh", f64::tanh),
            "asinh" => Function::Map("asinh", f64::asinh),
            "acosh" => Function::Map("acosh", f64::acosh),
            "atanh" => Function::Map("atanh", f64::atanh),
            "minute" => Function::Calendar("minute", |c| c.minute),
            "hour" => Function::Calendar("hour", |c| c.hour),
            "day_of_month" => Function::Calendar("day_of_month", |c| c.day),
            "day_of_week" => Function::Calendar("day_of_week", |c| c.weekday),
            "day_of_year" => Function::Calendar("day_of_year", |c| c.day_of_year),
            "days_in_month" => Function::Calendar("days_in_month", |c| c.days_in_month),
            "month" => Function::Calendar("month", |c| c.month),
            "year" => Function::Calendar("year", |c| c.year),
            "rate" => Function::OverTime(R::Rate(RateKind::Rate)),
            "increase" => Function::OverTime(R::Rate(RateKind::Increase)),
            "delta" => Function::OverTime(R::Rate(RateKind::Delta)),
            "irate" => Function::OverTime(R::Irate),
            "idelta" => Function::OverTime(R::Idelta),
            "avg_over_time" => Function::OverTime(R::Avg),
            "sum_over_time" => Function::OverTime(R::Sum),
            "min_over_time" => Function::OverTime(R::Min),
            "max_over_time" => Function::OverTime(R::Max),
            "count_over_time" => Function::OverTime(R::Count),
            "last_over_time" => Function::OverTime(R::Last),
            "first_over_time" => Function::OverTime(R::First),
            "present_over_time" => Function::OverTime(R::Present),
            "stddev_over_time" => Function::OverTime(R::Stddev),
            "stdvar_over_time" => Function::OverTime(R::Stdvar),
            "quantile_over_time" => Function::OverTime(R::Quantile),
            "changes" => Function::OverTime(R::Changes),
            "resets" => Function::OverTime(R::Resets),
            "double_exponential_smoothing" => Function::OverTime(R::DoubleExponentialSmoothing),
            "mad_over_time" => Function::OverTime(R::Mad),
            "ts_of_first_over_time" => Function::OverTime(R::TsOfFirst),
            "ts_of_last_over_time" => Function::OverTime(R::TsOfLast),
            "ts_of_min_over_time" => Function::OverTime(R::TsOfMin),
            "ts_of_max_over_time" => Function::OverTime(R::TsOfMax),
            "deriv" => Function::OverTime(R::Deriv),
            "predict_linear" => Function::OverTime(R::PredictLinear),
            "absent" => Function::Absent,
            "absent_over_time" => Function::AbsentOverTime,
            "clamp" => Function::Clamp,
            "clamp_max" => Function::ClampMax,
            "clamp_min" => Function::ClampMin,
            "histogram_avg" => Function::Histogram("histogram_avg", FloatHistogram::mean),
            "histogram_count" => Function::Histogram("histogram_count", |h| h.count),
            "histogram_sum" => Function::Histogram("histogram_sum", |h| h.sum),
            "histogram_stddev" => Function::Histogram("histogram_stddev", |h| h.variance().sqrt()),
            "histogram_stdvar" => Function::Histogram("histogram_stdvar", FloatHistogram::variance),
            "histogram_fraction" => Function::HistogramFraction,
            "histogram_quantile" => Function::HistogramQuantile,
            "histogram_quantiles" => Function::HistogramQuantiles,
            "info" => Function::Info,
            "max_of" => Function::MaxOf,
            "min_of" => Function::MinOf,
            "label_join" => Function::LabelJoin,
            "label_replace" => Function::LabelReplace,
            "pi" => Function::Pi,
            "round" => Function::Round,
            "scalar" => Function::Scalar,
            "sort" => Function::Sort { descending: false },
            "sort_desc" => Function::Sort { descending: true },
            "sort_by_label" => Function::SortByLabel { descending: false },
            "sort_by_label_desc" => Function::SortByLabel { descending: true },
            "time" => Function::Time,
            "start_timestamp" => Function::StartTimestamp,
            "timestamp" => Function::Timestamp,
            "vector" => Function::Vector,
            _ => return None,
        })
    }

    pub const fn returns(self) -> ValueType {
        match self {
            Function::MaxOf | Function::MinOf | Function::Pi | Function::Scalar | Function::Time => ValueType::Scalar,
            _ => ValueType::Vector,
        }
    }
}

/// The greater number; an infinity wins over NaN, and NaN over the rest.
pub(crate) fn max_of(a: f64, b: f64) -> f64 {
    -min_of(-a, -b)
}

/// The lesser number; a negative infinity wins over NaN, and NaN over the rest.
pub(crate) fn min_of(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

fn sgn(v: f64) -> f64 {
    if v > 0.0 {
        1.0
    } else if v < 0.0 {
        -1.0
    } else {
        v
    }
}

/// A UTC time by calendar fields, as numbers.
#[derive(Clone, Copy, Debug)]
pub struct Civil {
    pub minute: f64,
    pub hour: f64,
    pub day: f64,
    /// Sunday is 0.
    pub weekday: f64,
    pub day_of_year: f64,
    pub days_in_month: f64,
    pub month: f64,
    pub year: f64,
}

/// Seconds beyond which a calendar makes no sense; keeps the arithmetic in range.
const CIVIL_SECONDS_MAX: f64 = 1e15;

impl Civil {
    /// From seconds since the epoch, fractions cut; `None` for NaN, infinities and absurd years.
    pub fn from_seconds(seconds: f64) -> Option<Civil> {
        if seconds.is_nan() || seconds.abs() > CIVIL_SECONDS_MAX {
            return None;
        }
        let seconds = seconds.trunc() as i64;
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        // Days since 0000-03-01 of the proleptic Gregorian calendar; years start in March, so that the leap
        // day is the last (Hinnant, "chrono-compatible low-level date algorithms").
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let of_era = z.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let from_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let before: i64 = lengths[..(month - 1) as usize].iter().sum();
        Some(Civil {
            minute: (of_day / 60 % 60) as f64,
            hour: (of_day / 3600) as f64,
            day: day as f64,
            weekday: (days + 4).rem_euclid(7) as f64,
            day_of_year: (before + day) as f64,
            days_in_month: lengths[(month - 1) as usize] as f64,
            month: month as f64,
            year: year as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_as_the_checker_has_them() {
        for f in trilith_promql_syntax::FUNCTIONS {
            if let Some(function) = Function::by_name(f.name) {
                assert_eq!(function.returns(), f.returns, "{}", f.name);
            }
        }
    }

    #[test]
    fn calendar() {
        let at = |s: f64| {
            let c = Civil::from_seconds(s).unwrap();
            (
                c.year,
                c.month,
                c.day,
                c.hour,
                c.minute,
                c.weekday,
                c.day_of_year,
                c.days_in_month,
            )
        };
        assert_eq!(at(0.0), (1970.0, 1.0, 1.0, 0.0, 0.0, 4.0, 1.0, 31.0));
        assert_eq!(at(951_782_400.0), (2000.0, 2.0, 29.0, 0.0, 0.0, 2.0, 60.0, 29.0));
        assert_eq!(at(1_700_000_000.9), (2023.0, 11.0, 14.0, 22.0, 13.0, 2.0, 318.0, 30.0));
        assert_eq!(at(-1.0), (1969.0, 12.0, 31.0, 23.0, 59.0, 3.0, 365.0, 31.0));
        assert!(Civil::from_seconds(f64::NAN).is_none() && Civil::from_seconds(f64::INFINITY).is_none());
    }
}
