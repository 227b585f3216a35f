//! Values: what a tree is made of.
//!
//! Two values are equal when their canonical bytes are: floats compare by bits, mappings with their order, sets without.

use crate::id::TreeId;
use crate::int::Int;
use crate::key::Key;
use crate::mapping::Mapping;
use crate::named::Name;
use crate::tensor::{Tensor, TensorData};

/// A value. `D` is where the bytes of its tensors are; [`TensorData`] in an object.
#[derive(Debug, Clone)]
pub enum Value<D = TensorData> {
    /// Python's `None`.
    None,
    /// A bool.
    Bool(bool),
    /// An integer of any size.
    Int(Int),
    /// A float; its bits count, so every NaN payload is kept.
    Float(f64),
    /// A complex number: real, imaginary.
    Complex(f64, f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value<D>>),
    /// A tuple.
    Tuple(Vec<Value<D>>),
    /// A set. Its elements are what can be a key, frozen sets, and tuples of these.
    Set {
        /// Whether it is a `frozenset`.
        frozen: bool,
        /// The elements, in any order.
        items: Vec<Value<D>>,
    },
    /// A mapping with its order.
    Map(Mapping<D>),
    /// A tensor or array.
    Tensor(Tensor<D>),
    /// This tensor is the one at that path of the same component.
    Alias(Vec<Key>),
    /// A value with a name of the closed table.
    Named {
        /// What it is.
        name: Name,
        /// Its content.
        value: Box<Value<D>>,
        /// What else the table asks for.
        extra: Box<Value<D>>,
    },
    /// Another tree.
    Subtree(TreeId),
}

impl<D> Value<D> {
    /// Replaces the data of every tensor, depth first, mappings in the order of insertion.
    ///
    /// # Errors
    /// The first error of `f`, which gets the tensor without data, and the data.
    pub fn map_data<E, Err>(self, f: &mut impl FnMut(&Tensor<()>, D) -> Result<E, Err>) -> Result<Value<E>, Err> {
        let all = |items: Vec<Self>, f: &mut _| {
            items.into_iter().map(|item| item.map_data(f)).collect::<Result<Vec<_>, Err>>()
        };
        Ok(match self {
            Self::None => Value::None,
            Self::Bool(bool) => Value::Bool(bool),
            Self::Int(int) => Value::Int(int),
            Self::Float(float) => Value::Float(float),
            Self::Complex(real, imaginary) => Value::Complex(real, imaginary),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::List(items) => Value::List(all(items, f)?),
            Self::Tuple(items) => Value::Tuple(all(items, f)?),
            Self::Set { frozen, items } => Value::Set { frozen, items: all(items, f)? },
            Self::Map(mapping) => Value::Map(mapping.map_data(f)?),
            Self::Tensor(tensor) => Value::Tensor(tensor.map_data(f)?),
            Self::Alias(path) => Value::Alias(path),
            Self::Named { name, value, extra } => {
                Value::Named { name, value: Box::new(value.map_data(f)?), extra: Box::new(extra.map_data(f)?) }
            }
            Self::Subtree(id) => Value::Subtree(id),
        })
    }

    /// Shows every tensor in the order of [`Self::map_data`].
    pub fn for_each_tensor<'a>(&'a self, f: &mut impl FnMut(&'a Tensor<D>)) {
        match self {
            Self::None
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Complex(..)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Alias(_)
            | Self::Subtree(_) => {}
            Self::List(items) | Self::Tuple(items) | Self::Set { items, .. } => {
                for item in items {
                    item.for_each_tensor(f);
                }
            }
            Self::Map(mapping) => mapping.for_each_tensor(f),
            Self::Tensor(tensor) => f(tensor),
            Self::Named { value, extra, .. } => {
                value.for_each_tensor(f);
                extra.for_each_tensor(f);
            }
        }
    }
}

impl<D: PartialEq> PartialEq for Value<D> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Complex(a, b), Self::Complex(c, d)) => (a.to_bits(), b.to_bits()) == (c.to_bits(), d.to_bits()),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => a == b,
            (Self::Set { frozen: a, items: c }, Self::Set { frozen: b, items: d }) => {
                a == b && (c == d || same_elements(c, d))
            }
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Tensor(a), Self::Tensor(b)) => a == b,
            (Self::Alias(a), Self::Alias(b)) => a == b,
            (
                Self::Named { name, value, extra },
                Self::Named { name: other_name, value: other_value, extra: other_extra },
            ) => name == other_name && value == other_value && extra == other_extra,
            (Self::Subtree(a), Self::Subtree(b)) => a == b,
            (
                Self::None
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Float(_)
                | Self::Complex(..)
                | Self::Text(_)
                | Self::Bytes(_)
                | Self::List(_)
                | Self::Tuple(_)
                | Self::Set { .. }
                | Self::Map(_)
                | Self::Tensor(_)
                | Self::Alias(_)
                | Self::Named { .. }
                | Self::Subtree(_),
                _,
            ) => false,
        }
    }
}

impl<D: Eq> Eq for Value<D> {}

/// Whether two sets hold the same, in whatever order. Quadratic; sets that were read stand in canonical order, and
/// those the caller has compared already.
fn same_elements<D: PartialEq>(a: &[Value<D>], b: &[Value<D>]) -> bool {
    a.len() == b.len() && a.iter().all(|item| b.contains(item)) && b.iter().all(|item| a.contains(item))
}

impl<D> From<bool> for Value<D> {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

impl<D> From<i64> for Value<D> {
    fn from(int: i64) -> Self {
        Self::Int(int.into())
    }
}

impl<D> From<f64> for Value<D> {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl<D> From<&str> for Value<D> {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<D> From<String> for Value<D> {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<D> From<Mapping<D>> for Value<D> {
    fn from(mapping: Mapping<D>) -> Self {
        Self::Map(mapping)
    }
}

impl<D> From<Tensor<D>> for Value<D> {
    fn from(tensor: Tensor<D>) -> Self {
        Self::Tensor(tensor)
    }
}

impl<D> From<TreeId> for Value<D> {
    fn from(id: TreeId) -> Self {
        Self::Subtree(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Flavor;

    fn tensor(data: u32) -> Value<u32> {
        Value::Tensor(Tensor {
            flavor: Flavor::Torch,
            dtype: "uint8".to_owned(),
            shape: vec![u64::from(data)],
            order: None,
            data,
        })
    }

    #[test]
    fn tensors_come_in_the_order_of_insertion_in_both_walks() {
        let mut mapping = Mapping::new();
        for (key, data) in [("z", 1), ("a", 2), ("m", 3)] {
            assert!(mapping.insert(key, Value::List(vec![tensor(data)])).is_ok());
        }
        let value = Value::Named {
            name: Name::Quantized,
            value: Box::new(Value::Tuple(vec![tensor(0), Value::Map(mapping)])),
            extra: Box::new(tensor(4)),
        };
        let mut seen = Vec::new();
        value.for_each_tensor(&mut |tensor| seen.push(tensor.data));
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        let mut next = 0;
        let mapped = value.map_data(&mut |bare, data| {
            assert_eq!((bare.shape[0], data), (u64::from(next), next));
            next += 1;
            if data < 9 { Ok(i64::from(data) * 10) } else { Err(data) }
        });
        let mut seen = Vec::new();
        if let Ok(value) = &mapped {
            value.for_each_tensor(&mut |tensor| seen.push(tensor.data));
        }
        assert_eq!(seen, [0, 10, 20, 30, 40]);
        let failed: Result<Value<()>, u32> = tensor(9).map_data(&mut |_, data| Err(data));
        assert_eq!(failed, Err(9));
    }

    #[test]
    fn sets_are_equal_in_any_order_and_floats_by_their_bits() {
        let set = |items: [f64; 2], frozen| -> Value {
            let items = items.into_iter().map(Value::Float).collect();
            Value::Set { frozen, items }
        };
        assert_eq!(set([1.0, f64::NAN], false), set([f64::NAN, 1.0], false));
        assert_ne!(set([1.0, f64::NAN], false), set([1.0, f64::NAN], true));
        assert_ne!(set([0.0, 1.0], false), set([-0.0, 1.0], false));
        assert_ne!(Value::<TensorData>::List(vec![]), Value::Tuple(vec![]));
    }
}
