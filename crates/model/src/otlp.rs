//! How OTLP metrics become series: the choices of a tenant. Plain data; the translation is the ingest layer's.
//!
//! Source: Prometheus' configuration, section `otlp`, and its feature flags for delta temporality.

use std::time::Duration;

/// What becomes of metric and label names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TranslationStrategy {
    /// Characters outside the classic set become underscores; unit and type are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    UnderscoreEscapingWithoutSuffixes,
    /// Names as sent; unit and type are appended.
    NoUtf8EscapingWithSuffixes,
    NoTranslation,
}

impl TranslationStrategy {
    pub const ALL: [TranslationStrategy; 4] = [
        TranslationStrategy::UnderscoreEscapingWithSuffixes,
        TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
        TranslationStrategy::NoUtf8EscapingWithSuffixes,
        TranslationStrategy::NoTranslation,
    ];

    /// The name in Prometheus' configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            TranslationStrategy::UnderscoreEscapingWithSuffixes => "UnderscoreEscapingWithSuffixes",
            TranslationStrategy::UnderscoreEscapingWithoutSuffixes => "UnderscoreEscapingWithoutSuffixes",
            TranslationStrategy::NoUtf8EscapingWithSuffixes => "NoUTF8EscapingWithSuffixes",
            TranslationStrategy::NoTranslation => "NoTranslation",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }

    pub const fn escapes(self) -> bool {
        matches!(
            self,
            TranslationStrategy::UnderscoreEscapingWithSuffixes
                | TranslationStrategy::UnderscoreEscapingWithoutSuffixes
        )
    }

    pub const fn adds_suffixes(self) -> bool {
        matches!(
            self,
            TranslationStrategy::UnderscoreEscapingWithSuffixes | TranslationStrategy::NoUtf8EscapingWithSuffixes
        )
    }
}

/// Which resource attributes are copied onto every series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promotion {
    These(Vec<String>),
    AllBut(Vec<String>),
}

impl Promotion {
    pub fn includes(&self, attribute: &str) -> bool {
        match self {
            Promotion::These(names) => names.iter().any(|n| n == attribute),
            Promotion::AllBut(names) => names.iter().all(|n| n != attribute),
        }
    }
}

/// What becomes of points that count since the point before instead of since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeltaTemporality {
    /// Summed up in memory; stored are running totals.
    #[default]
    Convert,
    /// Stored as they are, with the type `unknown`.
    Store,
    Reject,
}

/// The settings `otlp.*` of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpMetrics {
    pub strategy: TranslationStrategy,
    /// Put before every metric name; empty for none.
    pub namespace: String,
    pub promotion: Promotion,
    /// `service.name`, `.namespace` and `.instance.id` on `target_info` besides `job` and `instance`.
    pub keep_identifying_attributes: bool,
    pub promote_scope_metadata: bool,
    /// Histograms with explicit bounds become native ones with custom buckets instead of `_bucket` series.
    pub histograms_to_nhcb: bool,
    /// A label name with one leading underscore gets `key` in front. Only when names are escaped.
    pub underscore_sanitization: bool,
    /// Runs of underscores in label names stay. Only when names are escaped.
    pub preserve_multiple_underscores: bool,
    pub type_and_unit_labels: bool,
    pub delta: DeltaTemporality,
    /// A running total that nothing was added to for this long is forgotten.
    pub delta_idle: Duration,
    /// Memory for running totals; points of further series are refused. 0: no limit.
    pub delta_bytes_max: u64,
}

impl Default for OtlpMetrics {
    fn default() -> Self {
        OtlpMetrics {
            strategy: TranslationStrategy::default(),
            namespace: String::new(),
            promotion: Promotion::These(Vec::new()),
            keep_identifying_attributes: false,
            promote_scope_metadata: false,
            histograms_to_nhcb: false,
            underscore_sanitization: true,
            preserve_multiple_underscores: true,
            type_and_unit_labels: false,
            delta: DeltaTemporality::default(),
            delta_idle: Duration::from_secs(300),
            delta_bytes_max: 128 << 20,
        }
    }
}
