//! The writer: values to canonical bytes.

use std::cmp::Ordering;

use super::bounds::{Bounds, Place, check_element};
use super::token::{self, write_head};
use super::{check_object_len, tag};
use crate::error::ObjectError;
use crate::id::TreeId;
use crate::int::{Head, Int};
use crate::key::{Key, cmp_strings};
use crate::mapping::Mapping;
use crate::tensor::{Flavor, Tensor, TensorData};
use crate::value::Value;

/// Writes one object.
pub(crate) struct Writer {
    out: Vec<u8>,
    bounds: Bounds,
}

type Done = Result<(), ObjectError>;

impl Writer {
    pub(crate) fn new(place: Place) -> Self {
        Self { out: Vec::with_capacity(256), bounds: Bounds::new(place) }
    }

    /// The object, if it is not too long.
    pub(crate) fn finish(self) -> Result<Vec<u8>, ObjectError> {
        check_object_len(self.out.len())?;
        Ok(self.out)
    }

    /// Counts the object itself as the first of its elements.
    pub(crate) fn count_root(&mut self) -> Done {
        self.bounds.count(1)
    }

    /// Writes the only value of an object.
    pub(crate) fn root_value(&mut self, value: &Value) -> Done {
        self.count_root()?;
        self.value(value)
    }

    /// Writes the only mapping of an object.
    pub(crate) fn root_mapping(&mut self, mapping: &Mapping) -> Done {
        self.count_root()?;
        self.mapping(mapping)
    }

    pub(crate) fn unsigned(&mut self, n: u64) {
        self.head(token::UNSIGNED, n);
    }

    pub(crate) fn int(&mut self, int: &Int) {
        match int.head() {
            Head::Small { negative, n } => self.head(if negative { token::NEGATIVE } else { token::UNSIGNED }, n),
            Head::Big { negative, n } => {
                self.tag(if negative { tag::BIG_NEGATIVE } else { tag::BIG });
                self.bytes(n);
            }
        }
    }

    pub(crate) fn float(&mut self, float: f64) {
        self.out.push(token::FLOAT);
        self.out.extend_from_slice(&float.to_bits().to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(token::BYTES, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(token::TEXT, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn array(&mut self, len: usize) {
        self.head(token::ARRAY, len as u64);
    }

    pub(crate) fn map_head(&mut self, len: usize) {
        self.head(token::MAP, len as u64);
    }

    pub(crate) fn tag(&mut self, tag: u64) {
        self.head(token::TAG, tag);
    }

    pub(crate) fn none(&mut self) {
        self.out.push(token::NULL);
    }

    /// Writes entries in canonical order, with the permutation if they came in another.
    ///
    /// # Errors
    /// [`ObjectError::Duplicate`], and those of the two writers.
    pub(crate) fn entries<K: std::fmt::Debug, V>(
        &mut self,
        entries: &[(K, V)],
        cmp: impl Fn(&K, &K) -> Ordering,
        write_key: impl Fn(&mut Self, &K) -> Done,
        write_value: impl Fn(&mut Self, &V) -> Done,
    ) -> Done {
        self.bounds.open(entries.len().saturating_mul(2))?;
        let mut sorted: Vec<&(K, V)> = Vec::new();
        let mut permutation = Vec::new();
        if !entries.is_sorted_by(|a, b| cmp(&a.0, &b.0).is_lt()) {
            let mut inserted: Vec<usize> = (0..entries.len()).collect();
            inserted.sort_unstable_by(|a, b| cmp(&entries[*a].0, &entries[*b].0));
            sorted = inserted.iter().map(|i| &entries[*i]).collect();
            if let Some(pair) = sorted.windows(2).find(|pair| cmp(&pair[0].0, &pair[1].0).is_eq()) {
                let key = format!("{:?}", pair[0].0);
                return Err(ObjectError::Duplicate { what: "key", key });
            }
            permutation = vec![0; entries.len()];
            for (position, i) in inserted.into_iter().enumerate() {
                permutation[i] = position as u64;
            }
            self.tag(tag::MAPPING);
            self.array(2);
        }
        self.map_head(entries.len());
        let mut write = |(key, value): &(K, V)| {
            write_key(self, key)?;
            write_value(self, value)
        };
        if permutation.is_empty() {
            entries.iter().try_for_each(&mut write)?;
        } else {
            sorted.into_iter().try_for_each(&mut write)?;
            self.array(permutation.len());
            for position in permutation {
                self.unsigned(position);
            }
        }
        self.bounds.close();
        Ok(())
    }

    /// Writes entries with text for keys.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub(crate) fn text_entries<V>(
        &mut self,
        entries: &[(&str, V)],
        write_value: impl Fn(&mut Self, &V) -> Done,
    ) -> Done {
        let write_key = |writer: &mut Self, key: &&str| {
            writer.text(key);
            Ok(())
        };
        self.entries(entries, cmp_strings, write_key, write_value)
    }

    pub(crate) fn subtree(&mut self, id: &TreeId) -> Done {
        self.bounds.admit_subtree()?;
        self.tag(tag::SUBTREE);
        self.bytes(id.as_bytes());
        Ok(())
    }

    pub(crate) fn mapping(&mut self, mapping: &Mapping) -> Done {
        let entries: Vec<(&Key, &Value)> = mapping.iter().collect();
        self.entries(&entries, Ord::cmp, |writer, key| writer.key(key), |writer, value| writer.value(value))
    }

    fn head(&mut self, major: u8, n: u64) {
        write_head(&mut self.out, major, n);
    }

    fn bool(&mut self, bool: bool) {
        self.out.push(if bool { token::TRUE } else { token::FALSE });
    }

    fn complex(&mut self, real: f64, imaginary: f64) {
        self.tag(tag::COMPLEX);
        self.array(2);
        self.float(real);
        self.float(imaginary);
    }

    fn value(&mut self, value: &Value) -> Done {
        match value {
            Value::None => self.none(),
            Value::Bool(bool) => self.bool(*bool),
            Value::Int(int) => self.int(int),
            Value::Float(float) => self.float(*float),
            Value::Complex(real, imaginary) => self.complex(*real, *imaginary),
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::List(items) => self.items(items)?,
            Value::Tuple(items) => {
                self.tag(tag::TUPLE);
                self.items(items)?;
            }
            Value::Set { frozen, items } => self.set(*frozen, items)?,
            Value::Map(mapping) => self.mapping(mapping)?,
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Alias(path) => self.alias(path)?,
            Value::Named { name, value, extra } => {
                self.bounds.open(2)?;
                name.check(value, extra)?;
                self.tag(tag::NAMED);
                self.array(3);
                self.text(name.as_str());
                self.value(value)?;
                self.value(extra)?;
                self.bounds.close();
            }
            Value::Subtree(id) => self.subtree(id)?,
        }
        Ok(())
    }

    fn items(&mut self, items: &[Value]) -> Done {
        self.bounds.open(items.len())?;
        self.array(items.len());
        items.iter().try_for_each(|item| self.value(item))?;
        self.bounds.close();
        Ok(())
    }

    /// Writes the elements behind the head, then sorts them in place of each other.
    fn set(&mut self, frozen: bool, items: &[Value]) -> Done {
        self.bounds.open(items.len())?;
        self.tag(if frozen { tag::FROZEN_SET } else { tag::SET });
        self.array(items.len());
        let start = self.out.len();
        let mut ends = Vec::with_capacity(items.len());
        for item in items {
            check_element(item)?;
            self.value(item)?;
            ends.push(self.out.len() - start);
        }
        let written = self.out.split_off(start);
        let mut from = 0;
        let mut elements: Vec<&[u8]> =
            ends.into_iter().map(|end| &written[std::mem::replace(&mut from, end)..end]).collect();
        elements.sort_unstable();
        if let Some(pair) = elements.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ObjectError::Duplicate {
                what: "element of a set",
                key: format!("{:02x?}", &pair[0][..pair[0].len().min(16)]),
            });
        }
        for element in elements {
            self.out.extend_from_slice(element);
        }
        self.bounds.close();
        Ok(())
    }

    fn key(&mut self, key: &Key) -> Done {
        match key {
            Key::None => self.none(),
            Key::Bool(bool) => self.bool(*bool),
            Key::Int(int) => self.int(int),
            Key::Float(float) => self.float(*float),
            Key::Complex(real, imaginary) => self.complex(*real, *imaginary),
            Key::Text(text) => self.text(text),
            Key::Bytes(bytes) => self.bytes(bytes),
            Key::Tuple(keys) => {
                self.bounds.open(keys.len())?;
                self.tag(tag::TUPLE);
                self.array(keys.len());
                keys.iter().try_for_each(|key| self.key(key))?;
                self.bounds.close();
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &Tensor) -> Done {
        self.bounds.admit_tensor()?;
        tensor.check()?;
        self.tag(match tensor.flavor {
            Flavor::Torch => tag::TENSOR,
            Flavor::Numpy => tag::ARRAY,
        });
        self.array(4);
        self.text(&tensor.dtype);
        self.array(tensor.shape.len());
        for dim in &tensor.shape {
            self.unsigned(*dim);
        }
        match &tensor.order {
            None => self.none(),
            Some(order) => {
                self.array(order.len());
                for dim in order {
                    self.unsigned(u64::from(*dim));
                }
            }
        }
        match &tensor.data {
            TensorData::Inline(bytes) => self.bytes(bytes),
            TensorData::Chunks(ids) => {
                self.array(ids.len());
                for id in ids {
                    self.bytes(id.as_bytes());
                }
            }
        }
        Ok(())
    }

    fn alias(&mut self, path: &[Key]) -> Done {
        self.bounds.admit_alias()?;
        if path.is_empty() {
            return Err(ObjectError::EmptyAlias);
        }
        self.bounds.count(path.len())?;
        self.tag(tag::ALIAS);
        self.array(path.len());
        path.iter().try_for_each(|key| self.key(key))
    }
}
