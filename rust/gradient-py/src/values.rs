//! Python objects to values and back. Types are matched exactly: a subclass is not what it derives from.

use std::sync::Arc;

use gradient_object::{Flavor, Int, Key, Mapping, Name, Tensor, Value};
use gradient_repo::Staged;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

use crate::buffer::Source;
use crate::errors::{IntoPython, invalid};
use crate::tensors::{Alias, Named, StoredTensor, TensorLeaf};

/// Collects the buffers of the tensors met on the way.
#[derive(Default)]
pub(crate) struct Sources(pub Vec<Source>);

/// A value from a Python object; `depth` counts down.
pub(crate) fn to_value(object: &Bound<'_, PyAny>, sources: &mut Sources, depth: usize) -> PyResult<Staged> {
    let py = object.py();
    let Some(depth) = depth.checked_sub(1) else {
        return Err(invalid(py, "too-deep", "a value is nested too deeply"));
    };
    if let Some(key) = scalar(object)? {
        return Ok(match key {
            // A scalar is no tuple.
            Key::None | Key::Tuple(_) => Value::None,
            Key::Bool(value) => Value::Bool(value),
            Key::Int(value) => Value::Int(value),
            Key::Float(value) => Value::Float(value),
            Key::Complex(real, imaginary) => Value::Complex(real, imaginary),
            Key::Text(value) => Value::Text(value),
            Key::Bytes(value) => Value::Bytes(value),
        });
    }
    if let Ok(leaf) = object.cast_exact::<TensorLeaf>() {
        let leaf = leaf.get();
        sources.0.push(Source::new(leaf.data.bind(py))?);
        return Ok(Value::Tensor(Tensor {
            flavor: if leaf.is_numpy() { Flavor::Numpy } else { Flavor::Torch },
            dtype: leaf.dtype_name().to_owned(),
            shape: leaf.shape.clone(),
            order: leaf.order.clone(),
            data: sources.0.len() - 1,
        }));
    }
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        return Ok(Value::Map(to_mapping(dict, sources, depth)?));
    }
    let mut items = |object: &Bound<'_, PyAny>| -> PyResult<Vec<Staged>> {
        object.try_iter()?.map(|item| to_value(&item?, sources, depth)).collect()
    };
    if object.is_exact_instance_of::<PyList>() {
        Ok(Value::List(items(object)?))
    } else if object.is_exact_instance_of::<PyTuple>() {
        Ok(Value::Tuple(items(object)?))
    } else if object.is_exact_instance_of::<PySet>() {
        Ok(Value::Set { frozen: false, items: items(object)? })
    } else if object.is_exact_instance_of::<PyFrozenSet>() {
        Ok(Value::Set { frozen: true, items: items(object)? })
    } else if let Ok(alias) = object.cast_exact::<Alias>() {
        let path = alias.get().path.bind(py).iter();
        Ok(Value::Alias(path.map(|step| to_key(&step)).collect::<PyResult<_>>()?))
    } else if let Ok(named) = object.cast_exact::<Named>() {
        let named = named.get();
        let Some(name) = Name::ALL.into_iter().find(|name| name.as_str() == named.name) else {
            return Err(invalid(py, "unknown-name", &format!("{:?} is not in the table of named values", named.name)));
        };
        let value = Box::new(to_value(named.value.bind(py), sources, depth)?);
        let extra = Box::new(to_value(named.extra.bind(py), sources, depth)?);
        Ok(Value::Named { name, value, extra })
    } else {
        let kind = object.get_type().fully_qualified_name()?;
        Err(invalid(py, "unsupported-type", &format!("a value of type {kind} can not be stored")))
    }
}

/// A mapping from a dict, in its order.
pub(crate) fn to_mapping(dict: &Bound<'_, PyDict>, sources: &mut Sources, depth: usize) -> PyResult<Mapping<usize>> {
    let mut mapping = Mapping::with_capacity(dict.len());
    for (key, value) in dict {
        let value = to_value(&value, sources, depth)?;
        mapping.insert(to_key(&key)?, value).into_python(dict.py())?;
    }
    Ok(mapping)
}

fn to_key(object: &Bound<'_, PyAny>) -> PyResult<Key> {
    if let Some(key) = scalar(object)? {
        return Ok(key);
    }
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        return Ok(Key::Tuple(tuple.iter().map(|item| to_key(&item)).collect::<PyResult<_>>()?));
    }
    let kind = object.get_type().fully_qualified_name()?;
    Err(invalid(object.py(), "unsupported-type", &format!("a key of type {kind} can not be stored")))
}

fn scalar(object: &Bound<'_, PyAny>) -> PyResult<Option<Key>> {
    Ok(Some(if object.is_none() {
        Key::None
    } else if let Ok(value) = object.cast_exact::<PyBool>() {
        Key::Bool(value.is_true())
    } else if object.is_exact_instance_of::<PyInt>() {
        Key::Int(to_int(object)?)
    } else if let Ok(value) = object.cast_exact::<PyFloat>() {
        Key::Float(value.value())
    } else if let Ok(value) = object.cast_exact::<PyString>() {
        let Ok(text) = value.extract::<String>() else {
            let shown = value.repr()?.to_string();
            return Err(invalid(object.py(), "not-unicode", &format!("the text {shown} has lone surrogates")));
        };
        Key::Text(text)
    } else if let Ok(value) = object.cast_exact::<PyBytes>() {
        Key::Bytes(value.as_bytes().to_vec())
    } else if let Ok(value) = object.cast_exact::<PyComplex>() {
        Key::Complex(value.real(), value.imag())
    } else {
        return Ok(None);
    }))
}

fn to_int(object: &Bound<'_, PyAny>) -> PyResult<Int> {
    if let Ok(small) = object.extract::<i64>() {
        return Ok(small.into());
    }
    let negative = object.lt(0)?;
    let magnitude = object.abs()?;
    let bits: usize = magnitude.call_method0("bit_length")?.extract()?;
    let bytes = magnitude.call_method1("to_bytes", (bits.div_ceil(8), "big"))?;
    Ok(Int::from_sign_magnitude(negative, bytes.cast_into::<PyBytes>()?.as_bytes()))
}

/// A Python object from a value; tensors come as `StoredTensor`.
pub(crate) fn from_value<'py>(
    py: Python<'py>,
    value: &Value,
    repository: &Arc<gradient_repo::Repository>,
) -> PyResult<Bound<'py, PyAny>> {
    let all = |items: &[Value]| -> PyResult<Vec<Bound<'py, PyAny>>> {
        items.iter().map(|item| from_value(py, item, repository)).collect()
    };
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Int(value) => from_int(py, value)?,
        Value::Float(value) => PyFloat::new(py, *value).into_any(),
        Value::Complex(real, imaginary) => PyComplex::from_doubles(py, *real, *imaginary).into_any(),
        Value::Text(value) => PyString::new(py, value).into_any(),
        Value::Bytes(value) => PyBytes::new(py, value).into_any(),
        Value::List(items) => PyList::new(py, all(items)?)?.into_any(),
        Value::Tuple(items) => PyTuple::new(py, all(items)?)?.into_any(),
        Value::Set { frozen: false, items } => PySet::new(py, all(items)?)?.into_any(),
        Value::Set { frozen: true, items } => PyFrozenSet::new(py, all(items)?)?.into_any(),
        Value::Map(mapping) => from_mapping(py, mapping, repository)?.into_any(),
        Value::Tensor(tensor) => Bound::new(py, StoredTensor::into_value(tensor, repository))?.into_any(),
        Value::Alias(path) => {
            let path = path.iter().map(|step| from_key(py, step)).collect::<PyResult<Vec<_>>>()?;
            Bound::new(py, Alias { path: PyTuple::new(py, path)?.unbind() })?.into_any()
        }
        Value::Named { name, value, extra } => {
            let value = from_value(py, value, repository)?.unbind();
            let extra = from_value(py, extra, repository)?.unbind();
            Bound::new(py, Named { name: name.as_str().to_owned(), value, extra })?.into_any()
        }
        Value::Subtree(id) => PyBytes::new(py, id.as_bytes()).into_any(),
    })
}

/// A dict from a mapping, in its order.
pub(crate) fn from_mapping<'py>(
    py: Python<'py>,
    mapping: &Mapping,
    repository: &Arc<gradient_repo::Repository>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in mapping.iter() {
        dict.set_item(from_key(py, key)?, from_value(py, value, repository)?)?;
    }
    // `True`, `1` and `1.0` are three keys to the format and one to Python: no dict could have been committed so.
    if dict.len() == mapping.len() {
        Ok(dict)
    } else {
        let facts = PyDict::new(py);
        facts.set_item("code", "malformed-object")?;
        Err(crate::errors::raise(py, "CorruptionError", "a mapping has keys that are equal in Python", &facts))
    }
}

fn from_key<'py>(py: Python<'py>, key: &Key) -> PyResult<Bound<'py, PyAny>> {
    Ok(match key {
        Key::None => py.None().into_bound(py),
        Key::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Key::Int(value) => from_int(py, value)?,
        Key::Float(value) => PyFloat::new(py, *value).into_any(),
        Key::Complex(real, imaginary) => PyComplex::from_doubles(py, *real, *imaginary).into_any(),
        Key::Text(value) => PyString::new(py, value).into_any(),
        Key::Bytes(value) => PyBytes::new(py, value).into_any(),
        Key::Tuple(items) => {
            let items = items.iter().map(|item| from_key(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyTuple::new(py, items)?.into_any()
        }
    })
}

fn from_int<'py>(py: Python<'py>, int: &Int) -> PyResult<Bound<'py, PyAny>> {
    if let Some(small) = int.as_i64() {
        return Ok(small.into_pyobject(py)?.into_any());
    }
    let magnitude = PyBytes::new(py, &int.magnitude());
    let value = py.get_type::<PyInt>().call_method1("from_bytes", (magnitude, "big"))?;
    if int.is_negative() { value.neg() } else { Ok(value) }
}
