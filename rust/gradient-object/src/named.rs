//! Named values: the closed table of what else a state may hold.
//!
//! A name says what a value is, never which class to make: the reader of a name decides that by its own table.

use std::fmt;
use std::str::FromStr;

use crate::dtype;
use crate::error::ObjectError;
use crate::key::Key;
use crate::tensor::Flavor;
use crate::value::Value;

/// A name of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `collections.Counter`.
    Counter,
    /// `collections.defaultdict`; the extra names its factory.
    DefaultDict,
    /// `collections.deque`; the extra is its maximal length.
    Deque,
    /// A numpy scalar; the extra is its dtype.
    NumpyScalar,
    /// A sparse tensor in coordinates; the extra is its shape and whether it is coalesced.
    SparseCoo,
    /// A sparse tensor by compressed rows; the extra is its shape.
    SparseCsr,
    /// A sparse tensor by compressed columns; the extra is its shape.
    SparseCsc,
    /// A sparse tensor by compressed rows of blocks; the extra is its shape.
    SparseBsr,
    /// A sparse tensor by compressed columns of blocks; the extra is its shape.
    SparseBsc,
    /// A quantized tensor; the extra is its quantizer.
    Quantized,
    /// A nested tensor.
    Nested,
    /// A tensor whose conjugate is meant.
    Conjugate,
    /// A tensor whose negative is meant.
    Negative,
    /// A tensor of zeros without memory of its own; the value is its dtype, the extra its shape and order.
    Zero,
    /// A tensor that oneDNN keeps in a layout of its own; the value is the dense one.
    Mkldnn,
    /// State of an optimizer in fewer bits; the extra says how.
    Coded,
}

/// What a default-dict may make of a missing key.
const FACTORIES: [&str; 10] = ["bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "set", "dict"];

impl Name {
    /// All names of the table.
    pub const ALL: [Self; 17] = [
        Self::OrderedDict,
        Self::Counter,
        Self::DefaultDict,
        Self::Deque,
        Self::NumpyScalar,
        Self::SparseCoo,
        Self::SparseCsr,
        Self::SparseCsc,
        Self::SparseBsr,
        Self::SparseBsc,
        Self::Quantized,
        Self::Nested,
        Self::Conjugate,
        Self::Negative,
        Self::Zero,
        Self::Mkldnn,
        Self::Coded,
    ];

    /// The name as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderedDict => "ordered-dict",
            Self::Counter => "counter",
            Self::DefaultDict => "default-dict",
            Self::Deque => "deque",
            Self::NumpyScalar => "numpy-scalar",
            Self::SparseCoo => "sparse-coo",
            Self::SparseCsr => "sparse-csr",
            Self::SparseCsc => "sparse-csc",
            Self::SparseBsr => "sparse-bsr",
            Self::SparseBsc => "sparse-bsc",
            Self::Quantized => "quantized",
            Self::Nested => "nested",
            Self::Conjugate => "conjugate",
            Self::Negative => "negative",
            Self::Zero => "zero",
            Self::Mkldnn => "mkldnn",
            Self::Coded => "coded",
        }
    }

    /// Checks value and extra against the table.
    pub(crate) fn check<D>(self, value: &Value<D>, extra: &Value<D>) -> Result<(), ObjectError> {
        let is_map = matches!(value, Value::Map(_));
        let no_extra = matches!(extra, Value::None);
        let (good, what) = match self {
            Self::OrderedDict | Self::Counter => (is_map && no_extra, "wants a mapping and no extra"),
            Self::DefaultDict => (
                is_map && (no_extra || matches!(extra, Value::Text(text) if FACTORIES.contains(&text.as_str()))),
                "wants a mapping, and none or a factory of the table",
            ),
            Self::Deque => (
                matches!(value, Value::List(_)) && (no_extra || is_length(extra)),
                "wants a list, and none or the maximal length",
            ),
            Self::NumpyScalar => (is_scalar(value, extra), "wants the bytes of one element, and its numpy dtype"),
            Self::SparseCoo => (
                is_coo(value)
                    && matches!(extra, Value::List(parts) if matches!(&parts[..], [shape, Value::Bool(_)] if is_shape(shape))),
                "wants indices and values, and a list of the shape and whether it is coalesced",
            ),
            Self::SparseCsr | Self::SparseCsc | Self::SparseBsr | Self::SparseBsc => {
                (is_map && is_shape(extra), "wants a mapping of the parts, and the shape")
            }
            Self::Quantized | Self::Nested | Self::Coded => {
                (is_map && matches!(extra, Value::Map(_)), "wants a mapping of the parts, and a mapping")
            }
            Self::Conjugate => (
                (is_torch(value) || is_named(value, &[Self::Negative, Self::Zero])) && no_extra,
                "wants a tensor, an alias, a negative or zeros, and no extra",
            ),
            Self::Negative => (
                (is_torch(value) || is_named(value, &[Self::Zero])) && no_extra,
                "wants a tensor, an alias or zeros, and no extra",
            ),
            Self::Zero => (
                is_torch_dtype(value)
                    && matches!(extra, Value::List(parts) if matches!(&parts[..], [shape, order] if is_shape(shape) && (is_shape(order) || matches!(order, Value::None)))),
                "wants a dtype, and a list of the shape and the order",
            ),
            Self::Mkldnn => (is_torch(value) && no_extra, "wants a tensor or an alias, and no extra"),
        };
        if good {
            return Ok(());
        }
        Err(ObjectError::BadNamed { name: self.as_str(), what })
    }
}

fn is_length<D>(value: &Value<D>) -> bool {
    matches!(value, Value::Int(int) if int.as_u64().is_some())
}

fn is_shape<D>(value: &Value<D>) -> bool {
    matches!(value, Value::List(dims) if dims.iter().all(is_length))
}

/// Whether this is a torch tensor, or the alias of one.
fn is_torch<D>(value: &Value<D>) -> bool {
    matches!(value, Value::Tensor(tensor) if tensor.flavor == Flavor::Torch) || matches!(value, Value::Alias(_))
}

fn is_named<D>(value: &Value<D>, names: &[Name]) -> bool {
    matches!(value, Value::Named { name, .. } if names.contains(name))
}

fn is_torch_dtype<D>(value: &Value<D>) -> bool {
    matches!(value, Value::Text(dtype) if dtype::width(Flavor::Torch, dtype).is_ok())
}

fn is_scalar<D>(value: &Value<D>, extra: &Value<D>) -> bool {
    let (Value::Bytes(bytes), Value::Text(dtype)) = (value, extra) else {
        return false;
    };
    dtype::width(Flavor::Numpy, dtype) == Ok(bytes.len() as u64)
}

fn is_coo<D>(value: &Value<D>) -> bool {
    let Value::Map(parts) = value else {
        return false;
    };
    let known = |key: &Key| matches!(key, Key::Text(text) if text == "indices" || text == "values");
    parts.len() == 2 && parts.iter().all(|(key, _)| known(key))
}

impl FromStr for Name {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self, ObjectError> {
        let found = Self::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| ObjectError::UnknownName { name: text.chars().take(64).collect() })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
