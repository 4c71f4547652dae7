//! Push in JSON, read in one pass without a document tree.
//!
//! ```json
//! {"streams":[{"stream":{"app":"shop"},"values":[["1700000000000000000","line",{"trace_id":"t1"}]]}]}
//! {"streams":[{"labels":"{app=\"shop\"}","entries":[{"ts":"2023-11-14T22:13:20Z","line":"line"}]}]}
//! ```
//!
//! The second form belongs to `/api/prom/push`. Times are strings, numbers are refused; label values may be numbers
//! or booleans and are taken as written. Lines may hold bytes that are not UTF-8 and keep them; a lone surrogate
//! escape becomes U+FFFD. Unknown keys are ignored, `null` for a list is an empty list.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use trilith_model::{Error, LabelsBuilder, Limits, LogBatch, LogEntry, Result};

use super::Assembler;
use super::labels::{is_label_name, parse_labels};
use crate::Decoded;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    V1,
    Legacy,
}

pub(super) fn decode(raw: &Bytes, form: Form, limits: &Limits) -> Result<Decoded<LogBatch>> {
    if raw.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid("EOF"));
    }
    let mut state = State {
        raw,
        form,
        assembler: Assembler::new(limits, raw.len()),
        labels: LabelsBuilder::new(),
        failed: None,
    };
    let mut de = serde_json::Deserializer::from_slice(raw);
    let read = Push(&mut state).deserialize(&mut de).and_then(|()| de.end());
    match (state.failed.take(), read) {
        (Some(e), _) => Err(e),
        (None, Err(e)) => Err(Error::invalid(format!("invalid JSON in push request: {e}"))),
        (None, Ok(())) => state.assembler.finish(raw.len()),
    }
}

struct State<'s> {
    raw: &'s Bytes,
    form: Form,
    assembler: Assembler<'s>,
    labels: LabelsBuilder,
    /// The error behind serde's error, with its own kind and text.
    failed: Option<Error>,
}

impl State<'_> {
    fn fail<E: serde::de::Error>(&mut self, e: Error) -> E {
        let out = E::custom(&e.message);
        self.failed = Some(e);
        out
    }
}

/// A seed over `&mut State` whose value is the side effect.
macro_rules! seed {
    ($name:ident, $method:ident, $expected:literal, { $($visit:tt)* }) => {
        impl<'de> DeserializeSeed<'de> for $name<'_, '_> {
            type Value = <Self as Visitor<'de>>::Value;
            fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Self::Value, D::Error> {
                d.$method(self)
            }
        }
        impl<'de> Visitor<'de> for $name<'_, '_> {
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expected)
            }
            $($visit)*
        }
    };
}

struct Push<'a, 's>(&'a mut State<'s>);
seed!(
    Push,
    deserialize_any,
    "a push request: an object with the key \"streams\"",
    {
        type Value = ();
        fn visit_unit<E>(self) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            while let Some(key) = map.next_key::<Key<'de>>()? {
                match key.as_str() {
                    "streams" => map.next_value_seed(Streams(self.0))?,
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(())
        }
    }
);

struct Streams<'a, 's>(&'a mut State<'s>);
seed!(Streams, deserialize_any, "a list of streams", {
    type Value = ();
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        while seq.next_element_seed(Stream(self.0))?.is_some() {}
        Ok(())
    }
});

struct Stream<'a, 's>(&'a mut State<'s>);
seed!(
    Stream,
    deserialize_map,
    "a stream: an object with labels and entries",
    {
        type Value = ();
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            let state = self.0;
            state.labels.clear();
            let mut entries = Vec::new();
            while let Some(key) = map.next_key::<Key<'de>>()? {
                match (state.form, key.as_str()) {
                    (Form::V1, "stream") => map.next_value_seed(LabelMap(state))?,
                    (Form::V1, "values") => map.next_value_seed(Entries(state, &mut entries))?,
                    (Form::Legacy, "labels") => {
                        let text = map.next_value::<std::borrow::Cow<'de, str>>()?;
                        state.labels.clear();
                        if let Err(e) = parse_labels(&text, &mut state.labels) {
                            return Err(state.fail(e));
                        }
                    }
                    (Form::Legacy, "entries") => map.next_value_seed(Entries(state, &mut entries))?,
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            let assembler = &mut state.assembler;
            assembler.streams_seen += 1;
            if let Some(labels) = assembler.begin(&mut state.labels, entries.len() as u64) {
                entries.retain(|e| assembler.admit(&labels, e));
                assembler.stream(labels, entries);
            }
            Ok(())
        }
    }
);

struct LabelMap<'a, 's>(&'a mut State<'s>);
seed!(LabelMap, deserialize_map, "an object of labels", {
    type Value = ();
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let state = self.0;
        // Of equal keys the last one counts, as in any JSON object.
        let mut pairs: Vec<(Key<'de>, String)> = Vec::new();
        while let Some(name) = map.next_key::<Key<'de>>()? {
            let raw: &RawValue = map.next_value()?;
            let value = match raw.get().as_bytes().first() {
                Some(b'"') => serde_json::from_str::<String>(raw.get()).map_err(A::Error::custom)?,
                Some(b'{' | b'[' | b'n') | None => {
                    let text = format!(
                        "value of label '{}' is not a string",
                        crate::rejections::quoted(&name.0)
                    );
                    return Err(A::Error::custom(text));
                }
                Some(_) => raw.get().to_owned(),
            };
            if !is_label_name(&name.0) {
                // The text form is what upstream parses, so its parser says what is wrong.
                let text = format!("{{{}={value:?}}}", name.0);
                let error = parse_labels(&text, &mut LabelsBuilder::new()).err();
                let error = error.unwrap_or_else(|| Error::invalid("couldn't parse labels: invalid label name"));
                return Err(state.fail(error));
            }
            pairs.push((name, value));
        }
        pairs.sort_by(|a, b| a.0.0.cmp(&b.0.0));
        state.labels.clear();
        for (i, (name, value)) in pairs.iter().enumerate() {
            if pairs.get(i + 1).is_none_or(|next| next.0.0 != name.0) {
                state.labels.push(&name.0, value);
            }
        }
        Ok(())
    }
});

struct Entries<'a, 's>(&'a mut State<'s>, &'a mut Vec<LogEntry>);
seed!(Entries, deserialize_any, "a list of entries", {
    type Value = ();
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let state = self.0;
        loop {
            let entry = match state.form {
                Form::V1 => seq.next_element_seed(ValueEntry(state))?,
                Form::Legacy => seq.next_element_seed(LegacyEntry(state))?,
            };
            let Some(entry) = entry else {
                return Ok(());
            };
            if let Err(e) = state.assembler.budget.charge::<LogEntry>() {
                return Err(state.fail(e));
            }
            self.1.push(entry);
        }
    }
});

/// `["<ns>", "line", {metadata}]`; the line may be absent, what follows the metadata is ignored.
struct ValueEntry<'a, 's>(&'a mut State<'s>);
seed!(
    ValueEntry,
    deserialize_seq,
    "an entry: [\"<timestamp in nanoseconds>\", \"<line>\", {<metadata>}]",
    {
        type Value = LogEntry;
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<LogEntry, A::Error> {
            let state = self.0;
            let Some(Nanoseconds(ts_ns)) = seq.next_element()? else {
                return Err(A::Error::custom("an entry without timestamp"));
            };
            let line = seq.next_element_seed(Line(state))?.unwrap_or_default();
            seq.next_element_seed(Metadata(state))?;
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            let metadata = state.assembler.take_metadata();
            Ok(LogEntry { ts_ns, line, metadata })
        }
    }
);

/// `{"ts":"<RFC 3339>","line":"…"}`
struct LegacyEntry<'a, 's>(&'a mut State<'s>);
seed!(
    LegacyEntry,
    deserialize_map,
    "an entry: {\"ts\":\"<RFC 3339>\",\"line\":\"…\"}",
    {
        type Value = LogEntry;
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<LogEntry, A::Error> {
            let state = self.0;
            let (mut time, mut line) = (None, Bytes::new());
            while let Some(key) = map.next_key::<Key<'de>>()? {
                match key.as_str() {
                    "ts" => {
                        let text = map.next_value::<std::borrow::Cow<'de, str>>()?;
                        let parsed = text.parse::<jiff::Timestamp>().ok();
                        let ns = parsed.and_then(|t| i64::try_from(t.as_nanosecond()).ok());
                        time = Some(ns.ok_or_else(|| {
                            let shown = crate::rejections::quoted(&text).into_owned();
                            A::Error::custom(format!("parsing time {shown:?} as RFC 3339"))
                        })?);
                    }
                    "line" => line = map.next_value_seed(Line(state))?,
                    "structuredMetadata" | "structured_metadata" => map.next_value_seed(Metadata(state))?,
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            let Some(ts_ns) = time else {
                return Err(A::Error::custom("an entry without ts"));
            };
            let metadata = state.assembler.take_metadata();
            Ok(LogEntry { ts_ns, line, metadata })
        }
    }
);

/// A line: a slice of the body when it has no escapes, else its own bytes.
struct Line<'a, 's>(&'a mut State<'s>);
seed!(Line, deserialize_bytes, "a log line", {
    type Value = Bytes;
    fn visit_borrowed_bytes<E>(self, line: &'de [u8]) -> std::result::Result<Bytes, E> {
        Ok(self.0.raw.slice_ref(line))
    }
    fn visit_bytes<E>(self, line: &[u8]) -> std::result::Result<Bytes, E> {
        let mut line = line.to_vec();
        replace_surrogates(&mut line);
        Ok(line.into())
    }
});

struct Metadata<'a, 's>(&'a mut State<'s>);
seed!(
    Metadata,
    deserialize_map,
    "structured metadata: an object of strings",
    {
        type Value = ();
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            while let Some(name) = map.next_key::<Key<'de>>()? {
                map.next_value_seed(MetadataValue(self.0, &name.0))?;
            }
            Ok(())
        }
    }
);

struct MetadataValue<'a, 's>(&'a mut State<'s>, &'a str);
seed!(
    MetadataValue,
    deserialize_bytes,
    "a string as value of structured metadata",
    {
        type Value = ();
        fn visit_bytes<E>(self, value: &[u8]) -> std::result::Result<(), E> {
            self.0.assembler.metadata(self.1.as_bytes(), value);
            Ok(())
        }
    }
);

/// An object key, borrowed from the body unless it has escapes.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl Key<'_> {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, s: &'de str) -> std::result::Result<Key<'de>, E> {
                Ok(Key(s.into()))
            }
            fn visit_str<E>(self, s: &str) -> std::result::Result<Key<'de>, E> {
                Ok(Key(s.to_owned().into()))
            }
        }
        d.deserialize_str(V)
    }
}

struct Nanoseconds(i64);

impl<'de> serde::Deserialize<'de> for Nanoseconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Nanoseconds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp: a string of decimal nanoseconds")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> std::result::Result<Nanoseconds, E> {
                s.parse().map(Nanoseconds).map_err(|_| {
                    let shown = crate::rejections::quoted(s).into_owned();
                    E::custom(format!("strconv.ParseInt: parsing {shown:?}: invalid syntax"))
                })
            }
        }
        d.deserialize_str(V)
    }
}

/// serde_json gives lone surrogates as their three bytes (WTF-8); U+FFFD has three bytes, too.
fn replace_surrogates(line: &mut [u8]) {
    if std::str::from_utf8(line).is_ok() {
        return;
    }
    for i in 0..line.len().saturating_sub(2) {
        if line[i] == 0xed && line[i + 1] >= 0xa0 && (0x80..=0xbf).contains(&line[i + 2]) {
            line[i..i + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
}
