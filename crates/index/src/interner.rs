//! Strings to dense numbers: each distinct string is stored once, in one arena.

use std::hash::BuildHasher;

use hashbrown::HashTable;

/// Numbers strings from 0 in the order they are first seen. Only grows.
#[derive(Default)]
pub struct Interner {
    text: String,
    /// End of each string in `text`; the start is the end of the one before.
    ends: Vec<u32>,
    table: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl std::fmt::Debug for Interner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interner")
            .field("strings", &self.len())
            .field("bytes", &self.text.len())
            .finish()
    }
}

impl Interner {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Approximate heap bytes.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * 4 + self.table.capacity() * 5
    }

    /// The number of a string, given now if it has none.
    ///
    /// # Panics
    /// When the distinct strings exceed 4 GiB; request and head limits lie far below.
    pub fn intern(&mut self, s: &str) -> u32 {
        let hash = self.hasher.hash_one(s);
        let Interner {
            text,
            ends,
            table,
            hasher,
        } = self;
        if let Some(&id) = table.find(hash, |&id| slice(text, ends, id) == s) {
            return id;
        }
        let id = u32::try_from(ends.len()).expect("fewer strings than bytes, and those are below 4 GiB");
        text.push_str(s);
        ends.push(u32::try_from(text.len()).expect("limits keep distinct strings below 4 GiB"));
        table.insert_unique(hash, id, |&id| hasher.hash_one(slice(text, ends, id)));
        id
    }

    /// The number of a string that was interned before.
    pub fn find(&self, s: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(s);
        self.table.find(hash, |&id| self.get(id) == s).copied()
    }

    /// # Panics
    /// When `id` was not handed out by this interner.
    pub fn get(&self, id: u32) -> &str {
        slice(&self.text, &self.ends, id)
    }
}

fn slice<'a>(text: &'a str, ends: &[u32], id: u32) -> &'a str {
    let i = id as usize;
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    &text[start..ends[i] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_have_one_number() {
        let mut i = Interner::new();
        let words = ["", "a", "b", "a", "", "ab", "b"];
        let ids: Vec<u32> = words.iter().map(|w| i.intern(w)).collect();
        assert_eq!(ids, [0, 1, 2, 1, 0, 3, 2]);
        for (w, id) in words.iter().zip(ids) {
            assert_eq!(i.get(id), *w);
            assert_eq!(i.find(w), Some(id));
        }
        assert_eq!(i.find("c"), None);
        assert_eq!(i.len(), 4);
    }
}
