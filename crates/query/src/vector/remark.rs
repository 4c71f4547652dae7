//! What operations on vectors find worth telling. The language words it and knows the place in the query.

use std::collections::BTreeSet;

/// Distinct remarks of one operation over all its steps.
pub type Remarks = BTreeSet<Remark>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// The operator does not work between these; the element is left out.
    IncompatibleTypes { left: Kind, right: Kind },
    /// Histograms with exponential and with custom buckets meet in an operator; the element is left out.
    IncompatibleBuckets,
    /// One histogram says that a counter was reset, another that it was not.
    ConflictingResets,
    /// Histograms with different custom bounds were merged onto the bounds they share.
    BoundsReconciled,
    /// An aggregation of floats passed histograms over.
    HistogramIgnored,
    /// A group has floats and histograms at one step and is left out.
    MixedGroup,
    /// A group has histograms with exponential and with custom buckets at one step and is left out; the name of the
    /// metric that did not fit, empty when it has none.
    MixedSchemas { metric: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Float,
    Histogram,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Float => "float",
            Kind::Histogram => "histogram",
        }
    }
}
