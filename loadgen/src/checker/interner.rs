//! Small numbers for long names: tables of ten million rows hold four bytes instead of a string.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A hasher of a few instructions a word, for maps whose keys are not chosen by an adversary.
#[derive(Clone, Copy, Default)]
pub(super) struct QuickHasher(u64);

/// A map with [`QuickHasher`].
pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// A set with [`QuickHasher`].
pub(super) type QuickSet<K> = std::collections::HashSet<K, BuildHasherDefault<QuickHasher>>;

impl QuickHasher {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.word(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn finish(&self) -> u64 {
        // The multiplication mixes upwards only; the map takes its bucket from the low bits.
        self.0 ^ (self.0 >> 32)
    }
}

/// Names of text, numbered from 0 in the order of first sight.
#[derive(Default)]
pub(super) struct Names {
    numbers: QuickMap<Box<str>, u32>,
    names: Vec<Box<str>>,
}

impl Names {
    /// The name's number.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// The name of a number that [`number`](Self::number) gave.
    pub(super) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

/// Names of any kind, numbered from 0 in the order of first sight.
pub(super) struct Index<T> {
    numbers: QuickMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { numbers: QuickMap::default(), values: Vec::new() }
    }
}

impl<T: Copy + Eq + Hash> Index<T> {
    /// The value's number.
    pub(super) fn number(&mut self, value: T) -> u32 {
        match self.numbers.entry(value) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.values.push(value);
                *new.insert(self.values.len() as u32 - 1)
            }
        }
    }

    /// The value of a number that [`number`](Self::number) gave.
    pub(super) fn value(&self, number: u32) -> T {
        self.values[number as usize]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
