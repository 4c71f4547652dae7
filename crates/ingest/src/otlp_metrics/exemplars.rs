//! Exemplars of points: filtered attributes as labels, besides `trace_id` and `span_id`.
//!
//! Source: Prometheus `storage/remote/otlptranslator/prometheusremotewrite/helper.go`, `getPromExemplars`.

use trilith_model::{Exemplar, LabelsBuilder, Result};

use super::labels::text;
use super::points::{self, to_ms};
use crate::wire::Fields;

/// Characters that the labels of an exemplar may have in sum, names included; filtered attributes are left out when they
/// do not fit.
const CHARS_MAX: usize = 128;

/// `None` for an exemplar without a value and for ids of the wrong length.
///
/// # Errors
/// `Invalid` for bytes that are no exemplar.
pub fn exemplar(fields: Fields<'_>, point_ts_ms: i64, builder: &mut LabelsBuilder) -> Result<Option<Exemplar>> {
    let raw = points::exemplar(fields)?;
    let Some(value) = raw.value else { return Ok(None) };
    let is_id = |id: &[u8], len: usize| id.is_empty() || id.len() == len;
    if !is_id(raw.trace_id, 16) || !is_id(raw.span_id, 8) {
        return Ok(None);
    }
    let ids = [("trace_id", raw.trace_id), ("span_id", raw.span_id)].map(|(name, id)| {
        (
            name,
            if id.iter().all(|b| *b == 0) {
                String::new()
            } else {
                hex::encode(id)
            },
        )
    });
    let mut chars: usize = ids
        .iter()
        .map(|(n, id)| if id.is_empty() { 0 } else { n.len() + id.len() })
        .sum();
    builder.clear();
    for &(name, value) in &raw.attributes {
        let value = text(value)?;
        chars += name.chars().count() + value.chars().count();
        if chars > CHARS_MAX || raw.has_too_many_attributes() {
            builder.clear();
            break;
        }
        if !name.is_empty() {
            builder.push(name, &value);
        }
    }
    for (name, id) in &ids {
        builder.push(name, id);
    }
    let ts_ms = to_ms(raw.time_ns);
    Ok(Some(Exemplar {
        labels: builder.finish(),
        value: value.as_f64(),
        ts_ms: if ts_ms == 0 { point_ts_ms } else { ts_ms },
    }))
}
