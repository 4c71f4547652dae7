//! The labels of one series: checked against the limits and packed, with no allocation when they come sorted.

use trilith_codec::put_bytes;
use trilith_model::{Labels, LabelsBuilder, LabelsRef, Limits};

use super::Version;
use crate::rejections::quoted;

/// Label names and values of an exemplar together, in characters (OpenMetrics).
const EXEMPLAR_CHARS_MAX: usize = 128;

/// Labels as they are on the wire or in the symbols table, in wire order, not yet checked.
pub(super) type RawLabels<'a> = [(&'a [u8], &'a [u8])];

/// Why the labels of a series cannot be stored.
pub(super) struct BadLabels {
    pub reason: &'static str,
    pub message: String,
}

/// Its buffers are kept from series to series.
pub(super) struct Packer<'l> {
    limits: &'l Limits,
    version: Version,
    packed: Vec<u8>,
    builder: LabelsBuilder,
}

impl<'l> Packer<'l> {
    pub fn new(limits: &'l Limits, version: Version) -> Self {
        Packer {
            limits,
            version,
            packed: Vec::new(),
            builder: LabelsBuilder::new(),
        }
    }

    /// Checks and packs the labels of a series; valid until the next call.
    #[inline]
    pub fn pack(&mut self, labels: &RawLabels<'_>) -> Result<LabelsRef<'_>, BadLabels> {
        let limits = self.limits;
        if limits.label_names_max > 0 && labels.len() > limits.label_names_max as usize {
            return Err(self.too_many(labels));
        }
        self.packed.clear();
        let mut named = false;
        let mut ordered = true;
        let mut last: &[u8] = &[];
        for &(name, value) in labels {
            if let Some(bad) = self.bad_label(labels, name, value) {
                return Err(bad);
            }
            ordered &= last < name;
            last = name;
            if value.is_empty() {
                continue;
            }
            named |= name == b"__name__";
            put_bytes(&mut self.packed, name);
            put_bytes(&mut self.packed, value);
        }
        if !named {
            return Err(self.unnamed(labels));
        }
        if !ordered {
            self.pack_unordered(labels)?;
        }
        Ok(LabelsRef::from_packed_trusted(&self.packed))
    }

    /// The labels of an exemplar; `None` when they are none or too long, for an exemplar never fails its series.
    pub fn exemplar(&mut self, labels: &RawLabels<'_>) -> Option<Labels> {
        self.builder.clear();
        let mut chars = 0;
        for (name, value) in labels {
            let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
            chars += name.chars().count() + value.chars().count();
            if name.is_empty() || chars > EXEMPLAR_CHARS_MAX {
                return None;
            }
            self.builder.push(name, value);
        }
        match self.builder.duplicate() {
            Some(_) => None,
            None => Some(self.builder.finish()),
        }
    }

    /// Prometheus takes labels in any order but refuses a name that comes twice.
    #[cold]
    fn pack_unordered(&mut self, labels: &RawLabels<'_>) -> Result<(), BadLabels> {
        self.builder.clear();
        for &(name, value) in labels {
            // Both were checked to be UTF-8 by `bad_label`.
            self.builder
                .push(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
        }
        if let Some(name) = self.builder.duplicate() {
            let (name, series) = (quoted(name), text(labels));
            return Err(BadLabels {
                reason: "duplicate_label_names",
                message: match self.version {
                    Version::V1 => format!("duplicate label \"{name}\" in series: {series}"),
                    Version::V2 => format!("invalid labels for series, labels {series}, duplicated label {name}"),
                },
            });
        }
        self.packed.clear();
        self.packed.extend_from_slice(self.builder.pack().as_packed());
        Ok(())
    }

    #[cold]
    fn too_many(&self, labels: &RawLabels<'_>) -> BadLabels {
        BadLabels {
            reason: "max_label_names_per_series",
            message: format!(
                "received a series whose number of labels exceeds the limit (actual: {}, limit: {}), series: {} \
                 (limits.label-names)",
                labels.len(),
                self.limits.label_names_max,
                text(labels)
            ),
        }
    }

    #[cold]
    fn unnamed(&self, labels: &RawLabels<'_>) -> BadLabels {
        BadLabels {
            reason: "missing_metric_name",
            message: match self.version {
                Version::V1 => format!("received a series without a metric name, series: {}", text(labels)),
                Version::V2 => format!("invalid metric name or labels, got {}", text(labels)),
            },
        }
    }

    #[inline]
    fn bad_label(&self, labels: &RawLabels<'_>, name: &[u8], value: &[u8]) -> Option<BadLabels> {
        let name_max = self.limits.label_name_bytes_max as usize;
        let value_max = self.limits.label_value_bytes_max as usize;
        let short = (name_max == 0 || name.len() <= name_max) && (value_max == 0 || value.len() <= value_max);
        if short && !name.is_empty() && is_utf8(name) && is_utf8(value) {
            return None;
        }
        Some(self.describe_bad_label(labels, name, value))
    }

    #[cold]
    fn describe_bad_label(&self, labels: &RawLabels<'_>, name: &[u8], value: &[u8]) -> BadLabels {
        let (name_max, value_max) = (self.limits.label_name_bytes_max, self.limits.label_value_bytes_max);
        let series = text(labels);
        let shown = String::from_utf8_lossy(name);
        if name.is_empty() || !is_utf8(name) || !is_utf8(value) {
            let what = if name.is_empty() {
                "empty label name"
            } else if is_utf8(name) {
                "label value is not valid UTF-8"
            } else {
                "label name is not valid UTF-8"
            };
            return BadLabels {
                reason: "label_invalid",
                message: match self.version {
                    Version::V1 => format!(
                        "invalid metric name or labels, {what}, label: '{}', series: {series}",
                        quoted(&shown)
                    ),
                    Version::V2 => format!("invalid metric name or labels, got {series}"),
                },
            };
        }
        if name_max > 0 && name.len() > name_max as usize {
            return BadLabels {
                reason: "label_name_too_long",
                message: format!(
                    "received a series whose label name length of {} exceeds the limit of {name_max}, label: '{}', \
                     series: {series} (limits.label-name-length)",
                    name.len(),
                    quoted(&shown)
                ),
            };
        }
        BadLabels {
            reason: "label_value_too_long",
            message: format!(
                "received a series whose label value length of {} exceeds the limit of {value_max}, label: '{}', \
                 series: {series} (limits.label-value-length)",
                value.len(),
                quoted(&shown)
            ),
        }
    }
}

/// Pure ASCII, the usual case, is found eight bytes at a time.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// A label set for a message, as it came but sorted: repeated names and empty values are shown.
#[cold]
pub(super) fn text(labels: &RawLabels<'_>) -> String {
    // A message shows the first of absurdly many labels; sorting them all would cost more than decoding.
    const SHOWN_MAX: usize = 64;
    let mut shown: Vec<_> = labels.iter().take(SHOWN_MAX).collect();
    shown.sort_by_key(|(name, _)| name);
    let shown = shown.into_iter().map(|(name, value)| {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        format!("{name}={value:?}")
    });
    quoted(&format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))).into_owned()
}
