//! Building and reading the fixed-schema records of operations, leases and the `format` file.
//!
//! A record is a mapping with exactly the keys its format page names, in sorted order: one record has one encoding.
//! Reading one refuses missing and unknown keys.

use gradient_object::{Key, Mapping, Value, cbor};

use crate::error::{RepoError, Result};

/// A text value.
pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A byte-string value.
pub(crate) fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}

/// An integer value.
pub(crate) fn int(value: u64) -> Value {
    Value::Int(value.into())
}

/// A mapping in the order of its keys' encodings: shorter names first, equal lengths bytewise.
pub(crate) fn mapping<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Result<Value> {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
    let mut map = Mapping::new();
    for (key, value) in pairs {
        map.insert(Key::from(key), value)?;
    }
    Ok(Value::Map(map))
}

/// The fields of a record while it is read: each is taken once, and none may be left.
pub(crate) struct Fields<'a> {
    file: &'a str,
    rows: Vec<(String, Value)>,
}

impl<'a> Fields<'a> {
    /// Reads canonical bytes of `file` as a record.
    ///
    /// # Errors
    /// [`RepoError::Damaged`]: not canonical, no mapping, a key that is no text, or keys that do not rise.
    pub(crate) fn parse(payload: &[u8], file: &'a str) -> Result<Self> {
        match cbor::decode(payload) {
            Ok(value) => Self::of(value, file),
            Err(source) => Err(RepoError::Damaged { file: file.to_owned(), reason: source.to_string() }),
        }
    }

    /// Takes a decoded value as a record.
    pub(crate) fn of(value: Value, file: &'a str) -> Result<Self> {
        let mut fields = Self { file, rows: Vec::new() };
        let Value::Map(map) = value else { return Err(fields.damaged("a record is no mapping")) };
        if !is_sorted(&map) {
            return Err(fields.damaged("its keys do not rise"));
        }
        for (key, value) in map.into_entries() {
            match key {
                Key::Text(key) => fields.rows.push((key, value)),
                _ => return Err(fields.damaged("a key is no text")),
            }
        }
        Ok(fields)
    }

    /// Takes the value of `key`.
    pub(crate) fn take(&mut self, key: &str) -> Result<Value> {
        let at = self.rows.iter().position(|(name, _)| name == key);
        let at = at.ok_or_else(|| self.damaged(&format!("it has no {key}")))?;
        Ok(self.rows.swap_remove(at).1)
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, key: &str) -> Result<String> {
        match self.take(key)? {
            Value::Text(value) => Ok(value),
            _ => Err(self.damaged(&format!("{key} is no text"))),
        }
    }

    /// Takes an integer that is not negative.
    pub(crate) fn uint(&mut self, key: &str) -> Result<u64> {
        let value = self.take(key)?;
        as_uint(&value).ok_or_else(|| self.damaged(&format!("{key} is no such integer")))
    }

    /// Takes an integer.
    pub(crate) fn int(&mut self, key: &str) -> Result<i64> {
        match self.take(key)? {
            Value::Int(value) => value.as_i64().ok_or_else(|| self.damaged(&format!("{key} is out of range"))),
            _ => Err(self.damaged(&format!("{key} is no integer"))),
        }
    }

    /// Takes a bool.
    pub(crate) fn bool(&mut self, key: &str) -> Result<bool> {
        match self.take(key)? {
            Value::Bool(value) => Ok(value),
            _ => Err(self.damaged(&format!("{key} is no bool"))),
        }
    }

    /// Takes a list.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Value>> {
        match self.take(key)? {
            Value::List(items) => Ok(items),
            _ => Err(self.damaged(&format!("{key} is no list"))),
        }
    }

    /// Takes `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, key: &str) -> Result<[u8; N]> {
        let value = self.take(key)?;
        as_array(&value).ok_or_else(|| self.damaged(&format!("{key} is not {N} bytes")))
    }

    /// Ends the record.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] if a key is left that no field answers to.
    pub(crate) fn end(self) -> Result<()> {
        match self.rows.first() {
            Some((key, _)) => Err(self.damaged(&format!("it has an unknown key {key:?}"))),
            None => Ok(()),
        }
    }

    /// The error for this record.
    pub(crate) fn damaged(&self, reason: &str) -> RepoError {
        RepoError::Damaged { file: self.file.to_owned(), reason: reason.to_owned() }
    }
}

/// Says whether the text keys of a mapping were inserted in the order of their encodings. (A mapping in another order
/// is canonical too, as a value of a state: it carries its order with it.)
pub(crate) fn is_sorted(map: &Mapping) -> bool {
    let texts = map.iter().map(|(key, _)| match key {
        Key::Text(key) => key.as_str(),
        _ => "",
    });
    texts.is_sorted_by(|a, b| (a.len(), a.as_bytes()) <= (b.len(), b.as_bytes()))
}

/// `value` as an integer that is not negative.
pub(crate) fn as_uint(value: &Value) -> Option<u64> {
    match value {
        Value::Int(value) => value.as_u64(),
        _ => None,
    }
}

/// `value` as exactly `N` bytes.
pub(crate) fn as_array<const N: usize>(value: &Value) -> Option<[u8; N]> {
    match value {
        Value::Bytes(value) => value.as_slice().try_into().ok(),
        _ => None,
    }
}
