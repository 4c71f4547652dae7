//! Label sets: sorted by name, no duplicate names, no empty values, one allocation each.
//!
//! Packed form: `(uvarint name_len, name, uvarint value_len, value)*`, names strictly ascending bytewise.
//! Equal sets have equal bytes, so hashing and comparing for equality never decodes.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// A borrowed packed label set.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabelsRef<'a>(&'a [u8]);

/// An owned label set; cloning shares it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl<'a> LabelsRef<'a> {
    /// Checks bytes that come from storage.
    ///
    /// # Errors
    /// `Corrupt` unless the bytes are a packed label set with ascending names in UTF-8.
    pub fn from_packed(bytes: &'a [u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut last: Option<&str> = None;
        while !rest.is_empty() {
            let name = take_str(&mut rest)?;
            take_str(&mut rest)?;
            if last.is_some_and(|l| l >= name) {
                return Err(Error::corrupt("label names are not in ascending order"));
            }
            last = Some(name);
        }
        Ok(LabelsRef(bytes))
    }

    /// Wraps bytes that this process packed itself.
    pub fn from_packed_trusted(bytes: &'a [u8]) -> Self {
        LabelsRef(bytes)
    }

    pub fn as_packed(self) -> &'a [u8] {
        self.0
    }

    pub fn iter(self) -> LabelsIter<'a> {
        LabelsIter(self.0)
    }

    /// (name, value) as bytes, which are UTF-8: without the check that a `str` takes, where every series of a query is
    /// looked at.
    pub fn iter_bytes(self) -> LabelsBytesIter<'a> {
        LabelsBytesIter(self.0)
    }

    pub fn get(self, name: &str) -> Option<&'a str> {
        let (_, value) = self.iter_bytes().find(|(n, _)| *n == name.as_bytes())?;
        Some(std::str::from_utf8(value).unwrap_or(""))
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// xxh3 of the packed form with seed 0: stable across processes and versions.
    pub fn stable_hash(self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.0)
    }

    pub fn to_owned(self) -> Labels {
        Labels(self.0.into())
    }
}

impl Labels {
    pub fn empty() -> Self {
        Labels(Arc::from([]))
    }

    /// Sorts and packs. The last of several equal names wins; empty values are dropped, because a label
    /// with an empty value is the same as no label.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut b = LabelsBuilder::new();
        for (n, v) in pairs {
            b.push(n.as_ref(), v.as_ref());
        }
        b.finish()
    }

    pub fn as_ref(&self) -> LabelsRef<'_> {
        LabelsRef(&self.0)
    }

    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter(&self.0)
    }

    /// As [`LabelsRef::iter_bytes`].
    pub fn iter_bytes(&self) -> LabelsBytesIter<'_> {
        LabelsBytesIter(&self.0)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.as_ref().get(name)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn as_packed(&self) -> &[u8] {
        &self.0
    }

    pub fn stable_hash(&self) -> u64 {
        self.as_ref().stable_hash()
    }

    /// The set without the names for which `drop` holds.
    pub fn without(&self, mut drop: impl FnMut(&str) -> bool) -> Labels {
        let mut out = Vec::with_capacity(self.0.len());
        for l in self.iter() {
            if !drop(l.name) {
                put_str(&mut out, l.name);
                put_str(&mut out, l.value);
            }
        }
        Labels(out.into())
    }

    /// The set with only the names for which `keep` holds.
    pub fn keep(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        self.without(|n| !keep(n))
    }

    /// The set with one label replaced, added, or removed (`value` empty).
    pub fn with(&self, name: &str, value: &str) -> Labels {
        let mut b = LabelsBuilder::new();
        for l in self.iter().filter(|l| l.name != name) {
            b.push(l.name, l.value);
        }
        b.push(name, value);
        b.finish()
    }
}

/// Packs labels given in any order, reusing its buffers from set to set.
#[derive(Debug, Default)]
pub struct LabelsBuilder {
    text: String,
    /// (name start, name end = value start, value end)
    spans: Vec<(usize, usize, usize)>,
    packed: Vec<u8>,
}

impl LabelsBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        let mid = self.text.len();
        self.text.push_str(value);
        self.spans.push((start, mid, self.text.len()));
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// The first name that was pushed twice, if any; for protocols that refuse duplicates.
    pub fn duplicate(&mut self) -> Option<&str> {
        self.sort();
        let at = self
            .spans
            .windows(2)
            .position(|w| self.text[w[0].0..w[0].1] == self.text[w[1].0..w[1].1])?;
        let (s, m, _) = self.spans[at];
        Some(&self.text[s..m])
    }

    fn sort(&mut self) {
        let text = &self.text;
        let sorted = self
            .spans
            .windows(2)
            .all(|w| text[w[0].0..w[0].1] < text[w[1].0..w[1].1]);
        if !sorted {
            // Stable, so that the last of equal names stays last.
            self.spans.sort_by(|a, b| text[a.0..a.1].cmp(&text[b.0..b.1]));
        }
    }

    /// Packs without giving up the buffers; valid until the next change.
    pub fn pack(&mut self) -> LabelsRef<'_> {
        self.sort();
        self.packed.clear();
        for (i, &(s, m, e)) in self.spans.iter().enumerate() {
            let name = &self.text[s..m];
            let overridden = self.spans.get(i + 1).is_some_and(|n| &self.text[n.0..n.1] == name);
            if overridden || m == e {
                continue;
            }
            put_str(&mut self.packed, name);
            put_str(&mut self.packed, &self.text[m..e]);
        }
        LabelsRef(&self.packed)
    }

    /// Packs and clears.
    pub fn finish(&mut self) -> Labels {
        let out = self.pack().to_owned();
        self.clear();
        out
    }
}

#[derive(Clone, Debug)]
pub struct LabelsIter<'a>(&'a [u8]);

impl<'a> Iterator for LabelsIter<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Label<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let name = take_str_trusted(&mut self.0);
        let value = take_str_trusted(&mut self.0);
        Some(Label { name, value })
    }
}

/// See [`LabelsRef::iter_bytes`].
#[derive(Clone, Debug)]
pub struct LabelsBytesIter<'a>(&'a [u8]);

impl<'a> Iterator for LabelsBytesIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        Some((take_bytes_trusted(&mut self.0), take_bytes_trusted(&mut self.0)))
    }
}

/// By (name, value) pairs, bytewise, the shorter set first: the order of Prometheus' `labels.Compare`.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        // Bytes of UTF-8 are in the order of its characters.
        self.iter_bytes().cmp(other.iter_bytes())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Labels {
    /// `{a="b", c="d"}` with Go-quoted values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Display for LabelsRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, l) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}={:?}", l.name, l.value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for LabelsRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    let mut n = s.len();
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(s.as_bytes());
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    let bytes = take_bytes(rest).ok_or_else(|| Error::corrupt("label set is truncated"))?;
    std::str::from_utf8(bytes).map_err(|_| Error::corrupt("label is not UTF-8"))
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut len = 0usize;
    for (i, b) in rest.iter().enumerate().take(5) {
        len |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            let body = rest.get(i + 1..)?;
            let (head, tail) = body.split_at_checked(len)?;
            *rest = tail;
            return Some(head);
        }
    }
    None
}

fn take_str_trusted<'a>(rest: &mut &'a [u8]) -> &'a str {
    // Checked rather than assumed: short strings cost a few nanoseconds, and trusted bytes may stem from a
    // checked but hostile block.
    std::str::from_utf8(take_bytes_trusted(rest)).unwrap_or("")
}

#[inline]
fn take_bytes_trusted<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    if let [len @ 0..0x80, after @ ..] = *rest
        && let Some((bytes, after)) = after.split_at_checked(usize::from(*len))
    {
        *rest = after;
        return bytes;
    }
    take_bytes(rest).unwrap_or_else(|| {
        debug_assert!(false, "packed labels are truncated");
        *rest = &[];
        &[]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_drops_empty_and_keeps_the_last_duplicate() {
        let l = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("a", "3")]);
        assert_eq!(l.to_string(), r#"{a="3", b="2"}"#);
        assert_eq!(l.get("a"), Some("3"));
        assert_eq!(l.get("c"), None);
    }

    #[test]
    fn order_is_by_pairs() {
        let a = Labels::from_pairs([("a", "1")]);
        let ab = Labels::from_pairs([("a", "1"), ("b", "1")]);
        let b = Labels::from_pairs([("b", "0")]);
        let long = Labels::from_pairs([("a", "x".repeat(300))]);
        assert!(a < ab && ab < b && a < long && Labels::empty() < a);
    }

    #[test]
    fn packed_bytes_from_outside_are_checked() {
        let l = Labels::from_pairs([("a", "1"), ("b", "2")]);
        assert!(LabelsRef::from_packed(l.as_packed()).is_ok());
        for n in 1..l.as_packed().len() {
            let cut = LabelsRef::from_packed(&l.as_packed()[..n]);
            assert!(cut.is_err() || n == 4, "cut at {n}");
        }
        assert!(LabelsRef::from_packed(&[1, b'b', 1, b'x', 1, b'a', 1, b'x']).is_err());
        assert!(LabelsRef::from_packed(&[1, 0xff, 1, b'x']).is_err());
        assert!(LabelsRef::from_packed(&[0xff, 0xff, 0xff, 0xff, 0x7f, 1]).is_err());
    }

    #[test]
    fn builder_finds_duplicates() {
        let mut b = LabelsBuilder::new();
        b.push("x", "1");
        b.push("a", "1");
        b.push("x", "2");
        assert_eq!(b.duplicate(), Some("x"));
    }

    #[test]
    fn with_and_without() {
        let l = Labels::from_pairs([("a", "1"), ("b", "2")]);
        assert_eq!(l.with("a", ""), Labels::from_pairs([("b", "2")]));
        assert_eq!(l.with("c", "3").len(), 3);
        assert_eq!(l.without(|n| n == "b"), Labels::from_pairs([("a", "1")]));
    }
}
