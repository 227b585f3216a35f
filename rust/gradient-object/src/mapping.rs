//! Mappings: keys to values, in the order of insertion.
//!
//! The order is state: two mappings are equal when they hold equal entries in the same order. Keys are unique by their
//! canonical bytes.

use indexmap::IndexMap;
use indexmap::map::Entry;

use crate::error::ObjectError;
use crate::key::{Key, TextKey};
use crate::tensor::{Tensor, TensorData};
use crate::value::Value;

/// A mapping that keeps the order of insertion.
#[derive(Debug, Clone)]
pub struct Mapping<D = TensorData> {
    entries: IndexMap<Key, Value<D>>,
}

impl<D> Mapping<D> {
    /// An empty mapping.
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty mapping with room for this many entries.
    pub fn with_capacity(num_entries: usize) -> Self {
        Self { entries: IndexMap::with_capacity(num_entries) }
    }

    /// The mapping of these entries, whose keys are known to differ.
    pub(crate) fn from_unique(entries: Vec<(Key, Value<D>)>) -> Self {
        Self { entries: entries.into_iter().collect() }
    }

    /// Adds an entry after all others.
    ///
    /// # Errors
    /// [`ObjectError::Duplicate`]: the key is there already; the mapping is unchanged.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Value<D>>) -> Result<(), ObjectError> {
        match self.entries.entry(key.into()) {
            Entry::Vacant(vacant) => {
                vacant.insert(value.into());
                Ok(())
            }
            Entry::Occupied(occupied) => {
                Err(ObjectError::Duplicate { what: "key", key: format!("{:?}", occupied.key()) })
            }
        }
    }

    /// The value of a text key.
    pub fn get(&self, key: &str) -> Option<&Value<D>> {
        self.entries.get(&TextKey(key))
    }

    /// The value of any key.
    pub fn get_key(&self, key: &Key) -> Option<&Value<D>> {
        self.entries.get(key)
    }

    /// Entries in the order of insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Value<D>)> + DoubleEndedIterator {
        self.entries.iter()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, in the order of insertion.
    pub fn into_entries(self) -> Vec<(Key, Value<D>)> {
        self.entries.into_iter().collect()
    }

    /// Replaces the data of every tensor, entry by entry in the order of insertion.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn map_data<E, Err>(self, f: &mut impl FnMut(&Tensor<()>, D) -> Result<E, Err>) -> Result<Mapping<E>, Err> {
        let entries = self.entries.into_iter();
        let entries = entries.map(|(key, value)| Ok((key, value.map_data(f)?)));
        Ok(Mapping { entries: entries.collect::<Result<_, Err>>()? })
    }

    /// Shows every tensor, entry by entry in the order of insertion.
    pub fn for_each_tensor<'a>(&'a self, f: &mut impl FnMut(&'a Tensor<D>)) {
        self.entries.values().for_each(|value| value.for_each_tensor(f));
    }
}

impl<D> Default for Mapping<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: PartialEq> PartialEq for Mapping<D> {
    fn eq(&self, other: &Self) -> bool {
        self.entries.iter().eq(other.entries.iter())
    }
}

impl<D: Eq> Eq for Mapping<D> {}

impl<D> IntoIterator for Mapping<D> {
    type Item = (Key, Value<D>);
    type IntoIter = indexmap::map::IntoIter<Key, Value<D>>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_insertion_is_part_of_equality() -> Result<(), ObjectError> {
        let mut one: Mapping = Mapping::new();
        one.insert("b", 1_i64)?;
        one.insert("a", 2_i64)?;
        let mut other = Mapping::new();
        other.insert("a", 2_i64)?;
        other.insert("b", 1_i64)?;
        assert_ne!(one, other);
        assert_eq!(one.into_entries().first().map(|(key, _)| key.clone()), Some(Key::from("b")));
        Ok(())
    }

    #[test]
    fn a_key_is_a_duplicate_by_its_bytes_alone() -> Result<(), ObjectError> {
        let mut mapping: Mapping = Mapping::new();
        mapping.insert(Key::Float(0.0), "zero")?;
        mapping.insert(Key::Float(-0.0), "minus zero")?;
        mapping.insert(Key::Float(f64::NAN), "nan")?;
        mapping.insert(Key::from(0_i64), "int")?;
        mapping.insert(Key::Bool(false), "bool")?;
        mapping.insert(Key::Bytes(b"a".to_vec()), "bytes")?;
        mapping.insert("a", "text")?;
        assert_eq!(mapping.len(), 7);
        assert_eq!(mapping.get("a"), Some(&Value::from("text")));
        assert_eq!(mapping.get_key(&Key::Float(-0.0)), Some(&Value::from("minus zero")));
        let again = mapping.insert(Key::Float(f64::NAN), "again");
        assert!(matches!(again, Err(ObjectError::Duplicate { what: "key", .. })));
        assert_eq!(mapping.get_key(&Key::Float(f64::NAN)), Some(&Value::from("nan")));
        Ok(())
    }
}
