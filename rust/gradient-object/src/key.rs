//! Keys of a mapping, and the steps of an alias path.
//!
//! Two keys are the same key when their canonical bytes are: floats compare by bits, and `true`, `1` and `1.0` are three
//! keys. `Ord` is the order of those bytes, found without writing them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use crate::int::Int;

/// A key of a mapping.
#[derive(Debug, Clone)]
pub enum Key {
    /// Python's `None`.
    None,
    /// A bool.
    Bool(bool),
    /// An integer of any size.
    Int(Int),
    /// A float; its bits count.
    Float(f64),
    /// A complex number: real, imaginary.
    Complex(f64, f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A tuple of keys.
    Tuple(Vec<Key>),
}

impl Key {
    /// Where this kind of key sorts: by the first byte of its encoding, and by the tag.
    fn rank(&self) -> u8 {
        match self {
            Self::Int(int) => match int.head() {
                crate::int::Head::Small { negative: false, .. } => 0, // 0x00
                crate::int::Head::Small { negative: true, .. } => 1,  // 0x20
                crate::int::Head::Big { negative: false, .. } => 4,   // 0xc2
                crate::int::Head::Big { negative: true, .. } => 5,    // 0xc3
            },
            Self::Bytes(_) => 2,    // 0x40
            Self::Text(_) => 3,     // 0x60
            Self::Tuple(_) => 6,    // 0xd9, tag 60002
            Self::Complex(..) => 7, // 0xd9, tag 60005
            Self::Bool(false) => 8, // 0xf4
            Self::Bool(true) => 9,  // 0xf5
            Self::None => 10,       // 0xf6
            Self::Float(_) => 11,   // 0xfb
        }
    }
}

/// Order of two byte or text strings in canonical bytes: the length leads.
pub(crate) fn cmp_strings<T: AsRef<[u8]>>(a: &T, b: &T) -> Ordering {
    let (a, b) = (a.as_ref(), b.as_ref());
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp_canonical(b),
            (Self::Bytes(a), Self::Bytes(b)) => cmp_strings(a, b),
            (Self::Text(a), Self::Text(b)) => cmp_strings(a, b),
            (Self::Float(a), Self::Float(b)) => a.to_bits().cmp(&b.to_bits()),
            (Self::Complex(a, b), Self::Complex(c, d)) => (a.to_bits(), b.to_bits()).cmp(&(c.to_bits(), d.to_bits())),
            // No encoding is the start of another, so elements compare one by one.
            (Self::Tuple(a), Self::Tuple(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            // The ranks have decided, or there is nothing more to compare.
            (
                Self::None
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Float(_)
                | Self::Complex(..)
                | Self::Text(_)
                | Self::Bytes(_)
                | Self::Tuple(_),
                _,
            ) => Ordering::Equal,
        })
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Self::None | Self::Bool(_) => {}
            Self::Int(int) => int.hash(state),
            Self::Float(float) => float.to_bits().hash(state),
            Self::Complex(real, imaginary) => (real.to_bits(), imaginary.to_bits()).hash(state),
            Self::Text(text) => text.as_str().hash(state),
            Self::Bytes(bytes) => bytes.hash(state),
            Self::Tuple(keys) => keys.hash(state),
        }
    }
}

/// Finds a text key without making one: hashes as `Key::Text` does.
pub(crate) struct TextKey<'a>(pub(crate) &'a str);

impl Hash for TextKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Key::Text(String::new()).rank().hash(state);
        self.0.hash(state);
    }
}

impl indexmap::Equivalent<Key> for TextKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Text(text) if text == self.0)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Key {
    fn from(int: i64) -> Self {
        Self::Int(int.into())
    }
}
