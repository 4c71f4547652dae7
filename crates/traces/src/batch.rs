//! A push as bytes: the form in which spans are logged and kept in the head.
//!
//! One [`Batch`] is one push: a string table, the distinct resources and scopes, and the spans, each part with an offset
//! table, so that any span is decoded alone and without allocation. Keeping the push as it was encoded costs a fraction of
//! the memory of decoded spans, and the log and the head share the bytes. Format: docs/formats/traces-wal.md.
//!
//! Invariant: a `Batch` was walked completely when it was made ([`Batch::check`]); reads still return errors instead of
//! panicking, so that a mistake here costs one answer and not the process.

mod encode;
mod payload;

pub use payload::{from_payload, to_payload};

use bytes::Bytes;
use trilith_codec::{DecodeError, Reader};
use trilith_model::trace::{
    AnyValue, Event, KeyValue, Link, Resource, Scope, Span, SpanId, Status, TraceBatch, TraceId,
};
use trilith_model::{Error, Result};

use crate::anyvalue;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 8 * 4;
/// Decompressed size above which a payload is refused; a push is limited to far less.
const BODY_BYTES_MAX: usize = 1 << 30;

// Value tags.
const EMPTY: u8 = 0;
const STRING: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const INT: u8 = 4;
const DOUBLE: u8 = 5;
const OTHER: u8 = 6;

// Span flags.
const HAS_PARENT: u64 = 1;
const HAS_TRACE_STATE: u64 = 1 << 1;
const HAS_FLAGS: u64 = 1 << 2;
const HAS_STATUS: u64 = 1 << 3;
const HAS_EVENTS: u64 = 1 << 4;
const HAS_LINKS: u64 = 1 << 5;
const HAS_DROPPED: u64 = 1 << 6;
const KNOWN_FLAGS: u64 = (1 << 7) - 1;

/// An encoded push; cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    strings: Table,
    resources: Table,
    scopes: Table,
    spans: Table,
}

/// Where a part of the batch is: `count` end offsets, then the items.
#[derive(Clone, Copy, Debug)]
struct Table {
    count: u32,
    ends_at: usize,
    items_at: usize,
    items_len: usize,
}

fn corrupt(e: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("span batch: {e}"))
}

fn bad(e: DecodeError) -> Error {
    corrupt(e)
}

impl Batch {
    /// Encodes a push. Equal resources and scopes become one.
    ///
    /// # Errors
    /// `Invalid` when an attribute value is nested too deep, `TooLarge` above 1 GiB.
    pub fn encode(batch: &TraceBatch) -> Result<Batch> {
        Batch::parse(encode::encode(batch)?)
    }

    /// Takes bytes that [`Batch::encode`] made in this process.
    fn parse(bytes: Bytes) -> Result<Batch> {
        let mut r = Reader::new(&bytes);
        let version = r.u8().map_err(bad)?;
        if version != VERSION {
            return Err(corrupt(format!("version {version} is not known")));
        }
        let mut at = HEADER_BYTES;
        let mut table = || -> Result<Table> {
            let (count, len) = (r.u32().map_err(bad)?, r.u32().map_err(bad)?);
            let table = Table {
                count,
                ends_at: at,
                items_at: at.saturating_add((count as usize).saturating_mul(4)),
                items_len: len as usize,
            };
            at = table.items_at.saturating_add(table.items_len);
            Ok(table)
        };
        let (strings, resources, scopes, spans) = (table()?, table()?, table()?, table()?);
        if at != bytes.len() {
            return Err(corrupt(format!("{} bytes where the header says {at}", bytes.len())));
        }
        Ok(Batch {
            bytes,
            strings,
            resources,
            scopes,
            spans,
        })
    }

    /// Takes bytes that nobody vouches for and walks them completely.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn from_bytes(bytes: Bytes) -> Result<Batch> {
        let batch = Batch::parse(bytes)?;
        batch.check()?;
        Ok(batch)
    }

    fn check(&self) -> Result<()> {
        for i in 0..self.strings.count {
            self.string(i)?;
        }
        for i in 0..self.resources.count {
            self.resource(i)?.attributes.check()?;
        }
        for i in 0..self.scopes.count {
            self.scope(i)?.attributes.check()?;
        }
        for i in 0..self.spans.count {
            let span = self.span(i)?;
            if span.resource >= self.resources.count || span.scope >= self.scopes.count {
                return Err(corrupt("a span points past the resources or scopes"));
            }
            span.attributes.check()?;
            for event in span.events() {
                event?.attributes.check()?;
            }
            for link in span.links() {
                link?.attributes.check()?;
            }
        }
        Ok(())
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn span_count(&self) -> u32 {
        self.spans.count
    }

    pub fn resource_count(&self) -> u32 {
        self.resources.count
    }

    pub fn scope_count(&self) -> u32 {
        self.scopes.count
    }

    fn item(&self, table: Table, i: u32) -> Result<&[u8]> {
        let end = |i: u32| -> Option<usize> {
            let at = table.ends_at + i as usize * 4;
            let bytes: [u8; 4] = self.bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes) as usize)
        };
        if i >= table.count {
            return Err(corrupt(format!("item {i} of {}", table.count)));
        }
        let start = if i == 0 { Some(0) } else { end(i - 1) };
        start
            .zip(end(i))
            .filter(|(_, end)| *end <= table.items_len)
            .and_then(|(start, end)| self.bytes.get(table.items_at + start..table.items_at + end))
            .ok_or_else(|| corrupt("offsets are out of order"))
    }

    fn string(&self, i: u32) -> Result<&str> {
        std::str::from_utf8(self.item(self.strings, i)?).map_err(corrupt)
    }

    pub fn resource(&self, i: u32) -> Result<ResourceRef<'_>> {
        let mut c = Cursor::new(self, self.item(self.resources, i)?);
        let present = c.r.u8().map_err(bad)? != 0;
        let dropped = c.r.uvarint_u32().map_err(bad)?;
        let schema_url = c.text()?;
        let attributes = c.attributes()?;
        c.r.finish().map_err(bad)?;
        Ok(ResourceRef {
            present,
            dropped,
            schema_url,
            attributes,
        })
    }

    pub fn scope(&self, i: u32) -> Result<ScopeRef<'_>> {
        let mut c = Cursor::new(self, self.item(self.scopes, i)?);
        let present = c.r.u8().map_err(bad)? != 0;
        let (name, version) = (c.text()?, c.text()?);
        let dropped = c.r.uvarint_u32().map_err(bad)?;
        let schema_url = c.text()?;
        let attributes = c.attributes()?;
        c.r.finish().map_err(bad)?;
        Ok(ScopeRef {
            present,
            name,
            version,
            dropped,
            schema_url,
            attributes,
        })
    }

    pub fn span(&self, i: u32) -> Result<SpanRef<'_>> {
        let mut c = Cursor::new(self, self.item(self.spans, i)?);
        let has = c.r.uvarint().map_err(bad)?;
        if has & !KNOWN_FLAGS != 0 {
            return Err(corrupt(format!("span flags {has:#x} are not known")));
        }
        let resource = c.r.uvarint_u32().map_err(bad)?;
        let scope = c.r.uvarint_u32().map_err(bad)?;
        let trace_id = TraceId(c.array()?);
        let span_id = SpanId(c.array()?);
        let parent_span_id = if has & HAS_PARENT != 0 {
            SpanId(c.array()?)
        } else {
            SpanId::default()
        };
        let name = c.text()?;
        let kind = c.i32()?;
        let start_ns = c.r.u64().map_err(bad)?;
        let end_ns = start_ns.wrapping_add(c.r.uvarint().map_err(bad)?);
        let trace_state = if has & HAS_TRACE_STATE != 0 { c.text()? } else { "" };
        let flags = if has & HAS_FLAGS != 0 {
            c.r.uvarint_u32().map_err(bad)?
        } else {
            0
        };
        let status = if has & HAS_STATUS != 0 {
            Some((c.i32()?, c.text()?))
        } else {
            None
        };
        let mut dropped = [0; 3];
        if has & HAS_DROPPED != 0 {
            for d in &mut dropped {
                *d = c.r.uvarint_u32().map_err(bad)?;
            }
        }
        let attributes = c.attributes()?;
        let events = if has & HAS_EVENTS != 0 {
            c.list(|c| c.event().map(drop))?
        } else {
            Run::EMPTY
        };
        let links = if has & HAS_LINKS != 0 {
            c.list(|c| c.link().map(drop))?
        } else {
            Run::EMPTY
        };
        c.r.finish().map_err(bad)?;
        Ok(SpanRef {
            batch: self,
            resource,
            scope,
            trace_id,
            span_id,
            parent_span_id,
            name,
            kind,
            start_ns,
            end_ns,
            trace_state,
            flags,
            status,
            dropped,
            attributes,
            events,
            links,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ResourceRef<'a> {
    pub present: bool,
    pub dropped: u32,
    pub schema_url: &'a str,
    pub attributes: AttributesRef<'a>,
}

#[derive(Clone, Copy, Debug)]
pub struct ScopeRef<'a> {
    pub present: bool,
    pub name: &'a str,
    pub version: &'a str,
    pub dropped: u32,
    pub schema_url: &'a str,
    pub attributes: AttributesRef<'a>,
}

#[derive(Clone, Copy, Debug)]
pub struct SpanRef<'a> {
    batch: &'a Batch,
    /// Into the batch's resources.
    pub resource: u32,
    /// Into the batch's scopes.
    pub scope: u32,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: SpanId,
    pub name: &'a str,
    pub kind: i32,
    pub start_ns: u64,
    pub end_ns: u64,
    pub trace_state: &'a str,
    pub flags: u32,
    /// Code and message.
    pub status: Option<(i32, &'a str)>,
    /// Dropped attributes, events and links.
    pub dropped: [u32; 3],
    pub attributes: AttributesRef<'a>,
    events: Run<'a>,
    links: Run<'a>,
}

#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    pub time_ns: u64,
    pub name: &'a str,
    pub dropped: u32,
    pub attributes: AttributesRef<'a>,
}

#[derive(Clone, Copy, Debug)]
pub struct LinkRef<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub trace_state: &'a str,
    pub flags: u32,
    pub dropped: u32,
    pub attributes: AttributesRef<'a>,
}

/// Attributes of anything, in order.
#[derive(Clone, Copy, Debug)]
pub struct AttributesRef<'a> {
    batch: &'a Batch,
    run: Run<'a>,
}

/// Items one after the other.
#[derive(Clone, Copy, Debug)]
struct Run<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl Run<'_> {
    const EMPTY: Run<'static> = Run { count: 0, bytes: &[] };
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Empty,
    String(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// Bytes, array or key-value list: see [`crate::anyvalue`].
    Other(&'a [u8]),
}

impl ValueRef<'_> {
    pub fn to_model(self) -> Result<AnyValue> {
        Ok(match self {
            ValueRef::Empty => AnyValue::Empty,
            ValueRef::String(s) => AnyValue::String(s.to_owned()),
            ValueRef::Bool(b) => AnyValue::Bool(b),
            ValueRef::Int(i) => AnyValue::Int(i),
            ValueRef::Double(f) => AnyValue::Double(f),
            ValueRef::Other(bytes) => anyvalue::decode(bytes)?,
        })
    }
}

struct Cursor<'a> {
    batch: &'a Batch,
    r: Reader<'a>,
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(batch: &'a Batch, bytes: &'a [u8]) -> Self {
        Cursor {
            batch,
            r: Reader::new(bytes),
            bytes,
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.r.take(N).map_err(bad)?;
        Ok(bytes.try_into().expect("take gives as many bytes as asked"))
    }

    fn i32(&mut self) -> Result<i32> {
        i32::try_from(self.r.varint().map_err(bad)?).map_err(corrupt)
    }

    fn text(&mut self) -> Result<&'a str> {
        match self.r.uvarint().map_err(bad)? {
            0 => self.r.str().map_err(bad),
            i => self.batch.string(u32::try_from(i - 1).map_err(corrupt)?),
        }
    }

    /// Steps over a text without looking at it.
    fn skip_text(&mut self) -> Result<()> {
        if self.r.uvarint().map_err(bad)? == 0 {
            self.r.bytes().map_err(bad)?;
        }
        Ok(())
    }

    /// A counted list; finds its end by stepping over the items.
    fn list(&mut self, mut skip: impl FnMut(&mut Self) -> Result<()>) -> Result<Run<'a>> {
        let count = self.r.count(1).map_err(bad)?;
        let start = self.r.position();
        for _ in 0..count {
            skip(self)?;
        }
        Ok(Run {
            count,
            bytes: &self.bytes[start..self.r.position()],
        })
    }

    fn attributes(&mut self) -> Result<AttributesRef<'a>> {
        let run = self.list(|c| {
            c.skip_text()?;
            match c.r.u8().map_err(bad)? {
                EMPTY | FALSE | TRUE => Ok(()),
                STRING => c.skip_text(),
                INT => c.r.varint().map(drop).map_err(bad),
                DOUBLE => c.r.skip(8).map_err(bad),
                OTHER => c.r.bytes().map(drop).map_err(bad),
                tag => Err(corrupt(format!("value tag {tag}"))),
            }
        })?;
        Ok(AttributesRef { batch: self.batch, run })
    }

    fn attribute(&mut self) -> Result<(&'a str, ValueRef<'a>)> {
        let key = self.text()?;
        let value = match self.r.u8().map_err(bad)? {
            EMPTY => ValueRef::Empty,
            STRING => ValueRef::String(self.text()?),
            FALSE => ValueRef::Bool(false),
            TRUE => ValueRef::Bool(true),
            INT => ValueRef::Int(self.r.varint().map_err(bad)?),
            DOUBLE => ValueRef::Double(self.r.f64().map_err(bad)?),
            OTHER => ValueRef::Other(self.r.bytes().map_err(bad)?),
            tag => return Err(corrupt(format!("value tag {tag}"))),
        };
        Ok((key, value))
    }

    fn event(&mut self) -> Result<EventRef<'a>> {
        Ok(EventRef {
            time_ns: self.r.u64().map_err(bad)?,
            name: self.text()?,
            dropped: self.r.uvarint_u32().map_err(bad)?,
            attributes: self.attributes()?,
        })
    }

    fn link(&mut self) -> Result<LinkRef<'a>> {
        Ok(LinkRef {
            trace_id: TraceId(self.array()?),
            span_id: SpanId(self.array()?),
            trace_state: self.text()?,
            flags: self.r.uvarint_u32().map_err(bad)?,
            dropped: self.r.uvarint_u32().map_err(bad)?,
            attributes: self.attributes()?,
        })
    }
}

impl<'a> AttributesRef<'a> {
    pub fn len(&self) -> usize {
        self.run.count
    }

    pub fn is_empty(&self) -> bool {
        self.run.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<(&'a str, ValueRef<'a>)>> + use<'a> {
        let mut c = Cursor::new(self.batch, self.run.bytes);
        (0..self.run.count).map(move |_| c.attribute())
    }

    /// The first value under a key.
    pub fn get(&self, key: &str) -> Result<Option<ValueRef<'a>>> {
        for pair in self.iter() {
            let (k, value) = pair?;
            if k == key {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn check(&self) -> Result<()> {
        for pair in self.iter() {
            if let (_, ValueRef::Other(bytes)) = pair? {
                anyvalue::decode(bytes)?;
            }
        }
        Ok(())
    }

    pub fn to_model(self) -> Result<Vec<KeyValue>> {
        self.iter()
            .map(|pair| {
                let (key, value) = pair?;
                Ok(KeyValue {
                    key: key.to_owned(),
                    value: value.to_model()?,
                })
            })
            .collect()
    }
}

impl<'a> SpanRef<'a> {
    pub fn events(&self) -> impl ExactSizeIterator<Item = Result<EventRef<'a>>> + use<'a> {
        let mut c = Cursor::new(self.batch, self.events.bytes);
        (0..self.events.count).map(move |_| c.event())
    }

    pub fn links(&self) -> impl ExactSizeIterator<Item = Result<LinkRef<'a>>> + use<'a> {
        let mut c = Cursor::new(self.batch, self.links.bytes);
        (0..self.links.count).map(move |_| c.link())
    }

    pub fn to_model(&self) -> Result<Span> {
        Ok(Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            trace_state: self.trace_state.to_owned(),
            flags: self.flags,
            name: self.name.to_owned(),
            kind: self.kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            attributes: self.attributes.to_model()?,
            dropped_attributes_count: self.dropped[0],
            events: self
                .events()
                .map(|e| {
                    let e = e?;
                    Ok(Event {
                        time_ns: e.time_ns,
                        name: e.name.to_owned(),
                        attributes: e.attributes.to_model()?,
                        dropped_attributes_count: e.dropped,
                    })
                })
                .collect::<Result<_>>()?,
            dropped_events_count: self.dropped[1],
            links: self
                .links()
                .map(|l| {
                    let l = l?;
                    Ok(Link {
                        trace_id: l.trace_id,
                        span_id: l.span_id,
                        trace_state: l.trace_state.to_owned(),
                        attributes: l.attributes.to_model()?,
                        dropped_attributes_count: l.dropped,
                        flags: l.flags,
                    })
                })
                .collect::<Result<_>>()?,
            dropped_links_count: self.dropped[2],
            status: self.status.map(|(code, message)| Status {
                code,
                message: message.to_owned(),
            }),
        })
    }
}

impl ResourceRef<'_> {
    pub fn to_model(self) -> Result<Resource> {
        Ok(Resource {
            attributes: self.attributes.to_model()?,
            dropped_attributes_count: self.dropped,
            schema_url: self.schema_url.to_owned(),
            present: self.present,
        })
    }
}

impl ScopeRef<'_> {
    pub fn to_model(self) -> Result<Scope> {
        Ok(Scope {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            attributes: self.attributes.to_model()?,
            dropped_attributes_count: self.dropped,
            schema_url: self.schema_url.to_owned(),
            present: self.present,
        })
    }
}
