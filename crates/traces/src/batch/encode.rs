//! The write side: a push into bytes.

use bytes::Bytes;
use hashbrown::HashMap;
use trilith_codec::{put_bytes, put_uvarint, put_varint};
use trilith_model::trace::{AnyValue, KeyValue, Resource, Scope, Span, TraceBatch};
use trilith_model::{Error, Result};
use trilith_query::span_rows::{same_resource, same_scope};

use super::{
    BODY_BYTES_MAX, DOUBLE, EMPTY, FALSE, HAS_DROPPED, HAS_EVENTS, HAS_FLAGS, HAS_LINKS, HAS_PARENT, HAS_STATUS,
    HAS_TRACE_STATE, HEADER_BYTES, INT, OTHER, STRING, TRUE, VERSION,
};
use crate::anyvalue;

/// Longer strings stand where they are used: they are rarely repeated, and hashing them costs.
const TABLE_STRING_BYTES_MAX: usize = 128;

/// See [`super::Batch::encode`].
pub(super) fn encode(batch: &TraceBatch) -> Result<Bytes> {
    let mut e = Encoder::default();
    let mut resources: Vec<&Resource> = Vec::new();
    let mut scopes: Vec<&Scope> = Vec::new();
    for rs in &batch.resource_spans {
        let resource = position(&resources, |r| same_resource(r, &rs.resource));
        let resource = match resource {
            Some(i) => i,
            None => {
                e.resource(&rs.resource)?;
                resources.push(&rs.resource);
                resources.len() - 1
            }
        };
        for ss in &rs.scope_spans {
            let scope = match position(&scopes, |s| same_scope(s, &ss.scope)) {
                Some(i) => i,
                None => {
                    e.scope(&ss.scope)?;
                    scopes.push(&ss.scope);
                    scopes.len() - 1
                }
            };
            for span in &ss.spans {
                e.span(resource as u64, scope as u64, span)?;
            }
        }
    }
    e.finish()
}

fn position<T>(items: &[T], is: impl Fn(&T) -> bool) -> Option<usize> {
    // A push has few distinct resources and scopes, and the last one is the likeliest.
    items.iter().rposition(is)
}

/// A part while it is written.
#[derive(Default)]
struct Part {
    ends: Vec<u8>,
    items: Vec<u8>,
    count: u32,
}

impl Part {
    fn end_item(&mut self) -> Result<()> {
        let end = u32::try_from(self.items.len())
            .ok()
            .filter(|_| self.items.len() <= BODY_BYTES_MAX);
        let end =
            end.ok_or_else(|| Error::new(trilith_model::ErrorKind::TooLarge, "push has more than 1 GiB of spans"))?;
        self.ends.extend_from_slice(&end.to_le_bytes());
        self.count += 1;
        Ok(())
    }
}

#[derive(Default)]
struct Encoder<'a> {
    table: HashMap<&'a str, u32, foldhash::fast::RandomState>,
    strings: Part,
    resources: Part,
    scopes: Part,
    spans: Part,
}

impl<'a> Encoder<'a> {
    fn text(&mut self, out: &mut Vec<u8>, s: &'a str) -> Result<()> {
        if s.len() > TABLE_STRING_BYTES_MAX || s.is_empty() {
            out.push(0);
            put_bytes(out, s.as_bytes());
            return Ok(());
        }
        let i = match self.table.get(s) {
            Some(i) => *i,
            None => {
                let i = self.strings.count;
                self.strings.items.extend_from_slice(s.as_bytes());
                self.strings.end_item()?;
                self.table.insert(s, i);
                i
            }
        };
        put_uvarint(out, u64::from(i) + 1);
        Ok(())
    }

    fn attributes(&mut self, out: &mut Vec<u8>, attributes: &'a [KeyValue]) -> Result<()> {
        put_uvarint(out, attributes.len() as u64);
        for KeyValue { key, value } in attributes {
            self.text(out, key)?;
            match value {
                AnyValue::Empty => out.push(EMPTY),
                AnyValue::String(s) => {
                    out.push(STRING);
                    self.text(out, s)?;
                }
                AnyValue::Bool(b) => out.push(if *b { TRUE } else { FALSE }),
                AnyValue::Int(i) => {
                    out.push(INT);
                    put_varint(out, *i);
                }
                AnyValue::Double(f) => {
                    out.push(DOUBLE);
                    out.extend_from_slice(&f.to_bits().to_le_bytes());
                }
                AnyValue::Bytes(_) | AnyValue::Array(_) | AnyValue::KvList(_) => {
                    out.push(OTHER);
                    let mut bytes = Vec::new();
                    anyvalue::encode(&mut bytes, value)?;
                    put_bytes(out, &bytes);
                }
            }
        }
        Ok(())
    }

    fn resource(&mut self, r: &'a Resource) -> Result<()> {
        let mut out = std::mem::take(&mut self.resources.items);
        out.push(u8::from(r.present));
        put_uvarint(&mut out, u64::from(r.dropped_attributes_count));
        self.text(&mut out, &r.schema_url)?;
        self.attributes(&mut out, &r.attributes)?;
        self.resources.items = out;
        self.resources.end_item()
    }

    fn scope(&mut self, s: &'a Scope) -> Result<()> {
        let mut out = std::mem::take(&mut self.scopes.items);
        out.push(u8::from(s.present));
        self.text(&mut out, &s.name)?;
        self.text(&mut out, &s.version)?;
        put_uvarint(&mut out, u64::from(s.dropped_attributes_count));
        self.text(&mut out, &s.schema_url)?;
        self.attributes(&mut out, &s.attributes)?;
        self.scopes.items = out;
        self.scopes.end_item()
    }

    fn span(&mut self, resource: u64, scope: u64, s: &'a Span) -> Result<()> {
        let dropped = [
            s.dropped_attributes_count,
            s.dropped_events_count,
            s.dropped_links_count,
        ];
        let has = [
            (!s.parent_span_id.is_zero(), HAS_PARENT),
            (!s.trace_state.is_empty(), HAS_TRACE_STATE),
            (s.flags != 0, HAS_FLAGS),
            (s.status.is_some(), HAS_STATUS),
            (!s.events.is_empty(), HAS_EVENTS),
            (!s.links.is_empty(), HAS_LINKS),
            (dropped != [0; 3], HAS_DROPPED),
        ];
        let has = has.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        let mut out = std::mem::take(&mut self.spans.items);
        put_uvarint(&mut out, has);
        put_uvarint(&mut out, resource);
        put_uvarint(&mut out, scope);
        out.extend_from_slice(&s.trace_id.0);
        out.extend_from_slice(&s.span_id.0);
        if has & HAS_PARENT != 0 {
            out.extend_from_slice(&s.parent_span_id.0);
        }
        self.text(&mut out, &s.name)?;
        put_varint(&mut out, i64::from(s.kind));
        out.extend_from_slice(&s.start_ns.to_le_bytes());
        // Wrapping, so that an end before the start comes back as it was.
        put_uvarint(&mut out, s.end_ns.wrapping_sub(s.start_ns));
        if has & HAS_TRACE_STATE != 0 {
            self.text(&mut out, &s.trace_state)?;
        }
        if has & HAS_FLAGS != 0 {
            put_uvarint(&mut out, u64::from(s.flags));
        }
        if let Some(status) = &s.status {
            put_varint(&mut out, i64::from(status.code));
            self.text(&mut out, &status.message)?;
        }
        if has & HAS_DROPPED != 0 {
            dropped.iter().for_each(|d| put_uvarint(&mut out, u64::from(*d)));
        }
        self.attributes(&mut out, &s.attributes)?;
        if has & HAS_EVENTS != 0 {
            put_uvarint(&mut out, s.events.len() as u64);
            for e in &s.events {
                out.extend_from_slice(&e.time_ns.to_le_bytes());
                self.text(&mut out, &e.name)?;
                put_uvarint(&mut out, u64::from(e.dropped_attributes_count));
                self.attributes(&mut out, &e.attributes)?;
            }
        }
        if has & HAS_LINKS != 0 {
            put_uvarint(&mut out, s.links.len() as u64);
            for l in &s.links {
                out.extend_from_slice(&l.trace_id.0);
                out.extend_from_slice(&l.span_id.0);
                self.text(&mut out, &l.trace_state)?;
                put_uvarint(&mut out, u64::from(l.flags));
                put_uvarint(&mut out, u64::from(l.dropped_attributes_count));
                self.attributes(&mut out, &l.attributes)?;
            }
        }
        self.spans.items = out;
        self.spans.end_item()
    }

    fn finish(self) -> Result<Bytes> {
        let parts = [&self.strings, &self.resources, &self.scopes, &self.spans];
        let len: usize = parts.iter().map(|p| p.ends.len() + p.items.len()).sum();
        let mut out = Vec::with_capacity(HEADER_BYTES + len);
        out.push(VERSION);
        for p in parts {
            out.extend_from_slice(&p.count.to_le_bytes());
            // `end_item` bounds it far below 4 GiB.
            out.extend_from_slice(&(p.items.len() as u32).to_le_bytes());
        }
        for p in parts {
            out.extend_from_slice(&p.ends);
            out.extend_from_slice(&p.items);
        }
        Ok(out.into())
    }
}
