//! Canonical bytes of a value, and back.

use crate::error::ObjectError;
use crate::value::Value;

/// Canonical bytes.
///
/// # Errors
/// Whatever a reader would refuse.
pub fn encode(_value: &Value) -> Result<Vec<u8>, ObjectError> {
    todo!()
}

/// The value of these canonical bytes.
///
/// # Errors
/// Bytes that are not the canonical bytes of a value, or break a limit.
pub fn decode(_bytes: &[u8]) -> Result<Value, ObjectError> {
    todo!()
}

/// [`decode`] without encoding again, for bytes under a checksum of our own.
///
/// # Errors
/// As [`decode`].
pub fn decode_trusted(_bytes: &[u8]) -> Result<Value, ObjectError> {
    todo!()
}

pub(crate) fn same_elements<D>(_a: &[Value<D>], _b: &[Value<D>]) -> bool {
    todo!()
}
