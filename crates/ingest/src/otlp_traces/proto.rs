//! `ExportTraceServiceRequest` (the same bytes as `TracesData`) by walking it into the model.
//!
//! Nested messages that come twice are merged, as protobuf prescribes; items are charged against the budget before
//! they are made.

use trilith_model::trace::{AnyValue, Event, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status};
use trilith_model::{Result, TraceBatch};

use super::{deeper, link_ids, span_ids};
use crate::body::Budget;
use crate::wire::{Field, Fields};

pub(super) fn decode(raw: &[u8]) -> Result<TraceBatch> {
    let mut walk = Walk {
        budget: Budget::for_body(raw.len()),
    };
    let mut batch = TraceBatch::default();
    let mut fields = Fields::new(raw, "ExportTraceServiceRequest");
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            let message = field.message("ResourceSpans", "ResourceSpans")?;
            batch.resource_spans.push(walk.resource_spans(message)?);
        }
    }
    Ok(batch)
}

struct Walk {
    budget: Budget,
}

impl Walk {
    fn resource_spans(&mut self, mut fields: Fields<'_>) -> Result<ResourceSpans> {
        self.budget.charge::<ResourceSpans>()?;
        let mut out = ResourceSpans::default();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.resource(field.message("Resource", "Resource")?, &mut out.resource)?,
                2 => out
                    .scope_spans
                    .push(self.scope_spans(field.message("ScopeSpans", "ScopeSpans")?)?),
                3 => out.resource.schema_url = text(&field, "ResourceSpans.SchemaUrl")?,
                _ => {}
            }
        }
        Ok(out)
    }

    fn resource(&mut self, mut fields: Fields<'_>, out: &mut Resource) -> Result<()> {
        out.present = true;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.attribute(&field, &mut out.attributes)?,
                2 => out.dropped_attributes_count = field.u32("DroppedAttributesCount")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, mut fields: Fields<'_>) -> Result<ScopeSpans> {
        self.budget.charge::<ScopeSpans>()?;
        let mut out = ScopeSpans::default();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.scope(field.message("Scope", "InstrumentationScope")?, &mut out.scope)?,
                2 => out.spans.push(self.span(field.message("Spans", "Span")?)?),
                3 => out.scope.schema_url = text(&field, "ScopeSpans.SchemaUrl")?,
                _ => {}
            }
        }
        Ok(out)
    }

    fn scope(&mut self, mut fields: Fields<'_>, out: &mut Scope) -> Result<()> {
        out.present = true;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => out.name = text(&field, "Scope.Name")?,
                2 => out.version = text(&field, "Scope.Version")?,
                3 => self.attribute(&field, &mut out.attributes)?,
                4 => out.dropped_attributes_count = field.u32("DroppedAttributesCount")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn span(&mut self, mut fields: Fields<'_>) -> Result<Span> {
        self.budget.charge::<Span>()?;
        let (mut trace, mut id, mut parent) = (&b""[..], &b""[..], &b""[..]);
        let mut out = Span::default();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => trace = field.bytes("TraceId")?,
                2 => id = field.bytes("SpanId")?,
                3 => out.trace_state = text(&field, "Span.TraceState")?,
                4 => parent = field.bytes("ParentSpanId")?,
                5 => out.name = text(&field, "Span.Name")?,
                6 => out.kind = field.i32("Kind")?,
                7 => out.start_ns = field.fixed64("StartTimeUnixNano")?,
                8 => out.end_ns = field.fixed64("EndTimeUnixNano")?,
                9 => self.attribute(&field, &mut out.attributes)?,
                10 => out.dropped_attributes_count = field.u32("DroppedAttributesCount")?,
                11 => out.events.push(self.event(field.message("Events", "Event")?)?),
                12 => out.dropped_events_count = field.u32("DroppedEventsCount")?,
                13 => out.links.push(self.link(field.message("Links", "Link")?)?),
                14 => out.dropped_links_count = field.u32("DroppedLinksCount")?,
                15 => status(field.message("Status", "Status")?, out.status.get_or_insert_default())?,
                16 => out.flags = field.fixed32("Flags")?,
                _ => {}
            }
        }
        (out.trace_id, out.span_id, out.parent_span_id) = span_ids(trace, id, parent, &out.name)?;
        Ok(out)
    }

    fn event(&mut self, mut fields: Fields<'_>) -> Result<Event> {
        self.budget.charge::<Event>()?;
        let mut out = Event::default();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => out.time_ns = field.fixed64("TimeUnixNano")?,
                2 => out.name = text(&field, "Event.Name")?,
                3 => self.attribute(&field, &mut out.attributes)?,
                4 => out.dropped_attributes_count = field.u32("DroppedAttributesCount")?,
                _ => {}
            }
        }
        Ok(out)
    }

    fn link(&mut self, mut fields: Fields<'_>) -> Result<Link> {
        self.budget.charge::<Link>()?;
        let (mut trace, mut span) = (&b""[..], &b""[..]);
        let mut out = Link::default();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => trace = field.bytes("TraceId")?,
                2 => span = field.bytes("SpanId")?,
                3 => out.trace_state = text(&field, "Link.TraceState")?,
                4 => self.attribute(&field, &mut out.attributes)?,
                5 => out.dropped_attributes_count = field.u32("DroppedAttributesCount")?,
                6 => out.flags = field.fixed32("Flags")?,
                _ => {}
            }
        }
        (out.trace_id, out.span_id) = link_ids(trace, span)?;
        Ok(out)
    }

    fn attribute(&mut self, field: &Field<'_>, out: &mut Vec<KeyValue>) -> Result<()> {
        out.push(self.key_value(field.message("Attributes", "KeyValue")?, 0)?);
        Ok(())
    }

    fn key_value(&mut self, mut fields: Fields<'_>, depth: usize) -> Result<KeyValue> {
        self.budget.charge::<KeyValue>()?;
        let (mut key, mut value) = (String::new(), AnyValue::Empty);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => key = text(&field, "KeyValue.Key")?,
                2 => self.any_value(field.message("Value", "AnyValue")?, depth, &mut value)?,
                _ => {}
            }
        }
        Ok(KeyValue { key, value })
    }

    fn any_value(&mut self, mut fields: Fields<'_>, depth: usize, out: &mut AnyValue) -> Result<()> {
        while let Some(field) = fields.next()? {
            *out = match field.number {
                1 => AnyValue::String(text(&field, "AnyValue.StringValue")?),
                2 => AnyValue::Bool(field.varint("BoolValue")? != 0),
                3 => AnyValue::Int(field.varint("IntValue")? as i64),
                4 => AnyValue::Double(f64::from_bits(field.fixed64("DoubleValue")?)),
                5 => {
                    let inner = field.message("ArrayValue", "ArrayValue")?;
                    AnyValue::Array(self.array(inner, deeper(depth)?)?)
                }
                6 => {
                    let inner = field.message("KvlistValue", "KeyValueList")?;
                    AnyValue::KvList(self.kv_list(inner, deeper(depth)?)?)
                }
                7 => AnyValue::Bytes(field.bytes("BytesValue")?.to_vec()),
                _ => continue,
            };
        }
        Ok(())
    }

    fn array(&mut self, mut fields: Fields<'_>, depth: usize) -> Result<Vec<AnyValue>> {
        let mut out = Vec::new();
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.budget.charge::<AnyValue>()?;
                let mut value = AnyValue::Empty;
                self.any_value(field.message("Values", "AnyValue")?, depth, &mut value)?;
                out.push(value);
            }
        }
        Ok(out)
    }

    fn kv_list(&mut self, mut fields: Fields<'_>, depth: usize) -> Result<Vec<KeyValue>> {
        let mut out = Vec::new();
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                out.push(self.key_value(field.message("Values", "KeyValue")?, depth)?);
            }
        }
        Ok(out)
    }
}

fn status(mut fields: Fields<'_>, out: &mut Status) -> Result<()> {
    while let Some(field) = fields.next()? {
        match field.number {
            2 => out.message = text(&field, "Status.Message")?,
            3 => out.code = field.i32("Code")?,
            _ => {}
        }
    }
    Ok(())
}

fn text(field: &Field<'_>, name: &'static str) -> Result<String> {
    Ok(field.text(name)?.to_owned())
}
