//! Prometheus remote write 1.0: a snappy block of `prometheus.WriteRequest`.
//!
//! The message is walked, never built: labels are packed straight from the wire into the batch's arena, and a
//! sender that sorts its labels (all known ones do) costs no sorting and no allocation per series.
//!
//! What upstream does with bad items differs: Prometheus skips series with invalid labels and says nothing,
//! Mimir stores the good ones and answers 400. Here: store the good ones, answer 400 and name the first bad one,
//! so that nothing disappears silently. Senders drop a request on 400 and never retry it, so the good part is
//! not sent twice. Native histograms are refused the same way until they can be stored; exemplars are dropped
//! without an error, as upstream does without exemplar storage (`docs/adr/0081-remote-write-refusals.md`).

use bytes::Bytes;
use trilith_codec::put_bytes;
use trilith_model::{
    Error, ErrorKind, Labels, LabelsBuilder, LabelsRef, Limits, MetricBatch, MetricMetadata, MetricType, Rejection,
    Result, Sample,
};

use crate::body::{self, Budget, Encoding};
use crate::rejections::{Rejections, quoted};
use crate::wire::Fields;
use crate::{Decoded, PushHeaders, content_encoding};

#[cfg(test)]
mod tests;

const MEDIA_TYPE: &str = "application/x-protobuf";
const MESSAGE_V1: &str = "prometheus.WriteRequest";
const MESSAGE_V2: &str = "io.prometheus.write.v2.Request";

/// Decides whether a request with these headers can be read, before its body is.
///
/// As Prometheus: an absent content type means 1.0, an absent encoding means snappy.
///
/// # Errors
/// `Unsupported` (415) for another media type, message or encoding, with Prometheus' text. A 2.0 sender falls back to
/// 1.0 upon it.
pub fn negotiate(headers: &PushHeaders<'_>) -> Result<()> {
    let content_type = match headers.content_type {
        None | Some("") => MEDIA_TYPE,
        Some(t) => t,
    };
    let mut parts = content_type.split(';').map(str::trim);
    if parts.next().is_none_or(|m| !m.eq_ignore_ascii_case(MEDIA_TYPE)) {
        return Err(Error::unsupported(format!(
            "expected {MEDIA_TYPE} as the first (media) part, got {content_type} content-type"
        )));
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Error::unsupported(format!(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, \
                 got {part} in {content_type} content-type"
            )));
        };
        if !name.eq_ignore_ascii_case("proto") {
            continue;
        }
        match value.trim_matches('"') {
            MESSAGE_V1 => break,
            MESSAGE_V2 => {
                return Err(Error::unsupported(format!(
                    "{MESSAGE_V2} protobuf message is not accepted by this server; only accepts {MESSAGE_V1}"
                )));
            }
            other => {
                return Err(Error::unsupported(format!(
                    "got {content_type} content type; unknown remote write protobuf message {other}, \
                     supported: {MESSAGE_V1}"
                )));
            }
        }
    }
    match content_encoding(headers).as_str() {
        "" | "snappy" => Ok(()),
        other => Err(Error::unsupported(format!(
            "{other} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ))),
    }
}

/// Decodes one request.
///
/// # Errors
/// `Unsupported` (415) from [`negotiate`], `TooLarge` (413) above `limits.request_bytes_max`, `Invalid` (400)
/// for bytes that are not a snappy block of a `WriteRequest`. Bad series are rejections, not errors.
pub fn decode_remote_write(body: Bytes, headers: &PushHeaders<'_>, limits: &Limits) -> Result<Decoded<MetricBatch>> {
    negotiate(headers)?;
    let raw = body::decode(body, Encoding::SnappyBlock, limits.request_bytes_max)?;
    decode_message(&raw, limits)
}

/// What to answer when some items were refused: one error of the gravest kind, or `None` for an empty list.
/// `LimitExceeded` (429) goes before 400, because the sender may retry it.
pub fn error_of(rejections: &[Rejection]) -> Option<Error> {
    let limited = rejections.iter().any(|r| r.kind == ErrorKind::LimitExceeded);
    let kind = if limited {
        ErrorKind::LimitExceeded
    } else {
        rejections.first()?.kind
    };
    let texts: Vec<String> = rejections
        .iter()
        .map(|r| match r.count {
            1 => r.message.clone(),
            n => format!("{} ({n} samples refused)", r.message),
        })
        .collect();
    let mut error = Error::new(kind, texts.join("; "));
    error.retry_after = limited.then_some(std::time::Duration::from_secs(1));
    Some(error)
}

/// The message after decompression; also the entry for fuzzing.
pub(crate) fn decode_message(raw: &[u8], limits: &Limits) -> Result<Decoded<MetricBatch>> {
    let mut decoder = Decoder {
        limits,
        batch: MetricBatch::default(),
        rejections: Rejections::default(),
        budget: Budget::for_body(raw.len()),
        exemplars: 0,
        labels: Vec::new(),
        packed: Vec::new(),
        builder: LabelsBuilder::new(),
    };
    let mut fields = Fields::new(raw, "WriteRequest");
    while let Some(field) = fields.next()? {
        match field.number {
            1 => decoder.series(field.message("Timeseries", "TimeSeries")?)?,
            3 => decoder.metadata(field.message("Metadata", "MetricMetadata")?)?,
            _ => {}
        }
    }
    Ok(Decoded {
        batch: decoder.batch,
        rejections: decoder.rejections.into_vec(),
        bytes: raw.len() as u64,
        exemplars_dropped: decoder.exemplars,
    })
}

struct Decoder<'a> {
    limits: &'a Limits,
    batch: MetricBatch,
    rejections: Rejections,
    budget: Budget,
    exemplars: u64,
    /// Labels of the series at hand, in wire order, not yet checked.
    labels: Vec<(&'a [u8], &'a [u8])>,
    packed: Vec<u8>,
    builder: LabelsBuilder,
}

/// Why the labels of a series cannot be stored.
struct BadLabels {
    reason: &'static str,
    message: String,
}

impl<'a> Decoder<'a> {
    fn series(&mut self, mut fields: Fields<'a>) -> Result<()> {
        self.labels.clear();
        let samples_before = self.batch.samples.len();
        let mut histograms = 0;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    self.labels.push(label(field.bytes("Labels")?)?);
                }
                2 => {
                    // A message takes at least two bytes on the wire and 16 here: bounded without a budget.
                    let sample = sample(field.bytes("Samples")?)?;
                    self.batch.samples.push(sample);
                }
                3 => {
                    field.bytes("Exemplars")?;
                    self.exemplars += 1;
                }
                4 => {
                    field.bytes("Histograms")?;
                    histograms += 1;
                }
                _ => {}
            }
        }
        let samples = (self.batch.samples.len() - samples_before) as u64;
        if histograms > 0 {
            let labels = &self.labels;
            self.rejections
                .add(ErrorKind::Invalid, "native_histogram", histograms, || {
                    format!(
                        "native histograms are not supported by this server, series: {}",
                        text(labels)
                    )
                });
        }
        if samples == 0 {
            return Ok(());
        }
        match self.pack() {
            Ok(()) => {
                let labels = LabelsRef::from_packed_trusted(&self.packed);
                self.batch.finish_series(labels);
            }
            Err(bad) => {
                self.batch.abandon_series();
                self.rejections
                    .add(ErrorKind::Invalid, bad.reason, samples, || bad.message);
            }
        }
        Ok(())
    }

    /// Checks the labels at hand and packs them into `self.packed`.
    fn pack(&mut self) -> std::result::Result<(), BadLabels> {
        let limits = self.limits;
        if limits.label_names_max > 0 && self.labels.len() > limits.label_names_max as usize {
            return Err(BadLabels {
                reason: "max_label_names_per_series",
                message: format!(
                    "received a series whose number of labels exceeds the limit (actual: {}, limit: {}), series: {} \
                     (limits.label-names)",
                    self.labels.len(),
                    limits.label_names_max,
                    text(&self.labels)
                ),
            });
        }
        self.packed.clear();
        let mut named = false;
        let mut ordered = true;
        let mut last: &[u8] = &[];
        for &(name, value) in &self.labels {
            if let Some(bad) = self.bad_label(name, value) {
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
            return Err(BadLabels {
                reason: "missing_metric_name",
                message: format!(
                    "received a series without a metric name, series: {}",
                    text(&self.labels)
                ),
            });
        }
        if ordered { Ok(()) } else { self.pack_unordered() }
    }

    /// Prometheus takes labels in any order but refuses a name that comes twice.
    #[cold]
    fn pack_unordered(&mut self) -> std::result::Result<(), BadLabels> {
        self.builder.clear();
        for &(name, value) in &self.labels {
            // Both were checked to be UTF-8 by `bad_label`.
            self.builder
                .push(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
        }
        if let Some(name) = self.builder.duplicate() {
            return Err(BadLabels {
                reason: "duplicate_label_names",
                message: format!("duplicate label \"{}\" in series: {}", quoted(name), text(&self.labels)),
            });
        }
        self.packed.clear();
        self.packed.extend_from_slice(self.builder.pack().as_packed());
        Ok(())
    }

    #[inline]
    fn bad_label(&self, name: &[u8], value: &[u8]) -> Option<BadLabels> {
        let name_max = self.limits.label_name_bytes_max as usize;
        let value_max = self.limits.label_value_bytes_max as usize;
        let short = (name_max == 0 || name.len() <= name_max) && (value_max == 0 || value.len() <= value_max);
        if short && !name.is_empty() && is_utf8(name) && is_utf8(value) {
            return None;
        }
        Some(self.describe_bad_label(name, value))
    }

    #[cold]
    fn describe_bad_label(&self, name: &[u8], value: &[u8]) -> BadLabels {
        let (name_max, value_max) = (self.limits.label_name_bytes_max, self.limits.label_value_bytes_max);
        let series = text(&self.labels);
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
                message: format!(
                    "invalid metric name or labels, {what}, label: '{}', series: {series}",
                    quoted(&shown)
                ),
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

    fn metadata(&mut self, mut fields: Fields<'_>) -> Result<()> {
        let (mut kind, mut family, mut help, mut unit) = (0, &b""[..], &b""[..], &b""[..]);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => kind = field.varint("Type")?,
                2 => family = field.bytes("MetricFamilyName")?,
                4 => help = field.bytes("Help")?,
                5 => unit = field.bytes("Unit")?,
                _ => {}
            }
        }
        if family.is_empty() {
            return Ok(());
        }
        self.budget.charge::<MetricMetadata>()?;
        // Help texts come from source code in all encodings: readable is better than refused.
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        self.batch.metadata.push(MetricMetadata {
            family: text(family),
            kind: metric_type(kind),
            help: text(help),
            unit: text(unit),
        });
        Ok(())
    }
}

/// Pure ASCII, the usual case, is found eight bytes at a time.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

#[inline]
fn label(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    // Name, then value, both short: what every sender writes nearly always.
    if let [0x0a, name_len @ 0..0x80, rest @ ..] = bytes
        && let Some((name, rest)) = rest.split_at_checked(usize::from(*name_len))
        && let [0x12, value_len @ 0..0x80, value @ ..] = rest
        && value.len() == usize::from(*value_len)
    {
        return Ok((name, value));
    }
    let (mut name, mut value) = (&b""[..], &b""[..]);
    let mut fields = Fields::new(bytes, "Label");
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.bytes("Name")?,
            2 => value = field.bytes("Value")?,
            _ => {}
        }
    }
    Ok((name, value))
}

#[inline]
fn sample(bytes: &[u8]) -> Result<Sample> {
    let mut out = Sample { ts_ms: 0, value: 0.0 };
    let mut fields = Fields::new(bytes, "Sample");
    while let Some(field) = fields.next()? {
        match field.number {
            // By bits: the payload of a NaN is the staleness marker.
            1 => out.value = f64::from_bits(field.fixed64("Value")?),
            2 => out.ts_ms = field.varint("Timestamp")? as i64,
            _ => {}
        }
    }
    Ok(out)
}

fn metric_type(n: u64) -> MetricType {
    match n {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}

/// A label set for a message.
fn text(labels: &[(&[u8], &[u8])]) -> String {
    // A message shows the first of absurdly many labels; sorting them all would cost more than decoding.
    const SHOWN_MAX: usize = 64;
    let shown = labels.iter().take(SHOWN_MAX);
    let labels = Labels::from_pairs(shown.map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v))));
    quoted(&labels.to_string()).into_owned()
}
