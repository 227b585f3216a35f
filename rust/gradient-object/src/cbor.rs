//! Canonical bytes of a value, and back: RFC 8949 section 4.2.1, with floats always 8 bytes and their bits untouched.
//!
//! [`decode`] reads strictly (shortest heads, definite lengths, sorted keys), then encodes again and compares, so that
//! two byte strings never stand for one value even if the reader has a gap. Both directions share their limits: what
//! can be encoded can be read back. Recursion is bounded by [`crate::NESTING_MAX`]; the deepest values of
//! `tests/limits.rs` need 192 KiB of stack at opt-level 1, and the test gives them 512.
//!
//! The tokens are our own (`token.rs`): minicbor widens short floats and takes long heads and indefinite lengths without
//! a word, and its writer can fail. It reads what we write in `tests/property.rs` as a second opinion.
//! Specified in `docs/format/objects.md`.

mod bounds;
mod read;
mod token;
mod write;

use crate::METADATA_BYTES_MAX;
use crate::error::ObjectError;
use crate::value::Value;

pub(crate) use bounds::{Place, check_name};
pub(crate) use read::Reader;
pub(crate) use token::Token;
pub(crate) use write::Writer;

/// Tags of the format.
pub(crate) mod tag {
    pub(crate) const BIG: u64 = 2;
    pub(crate) const BIG_NEGATIVE: u64 = 3;
    pub(crate) const MAPPING: u64 = 60001;
    pub(crate) const TUPLE: u64 = 60002;
    pub(crate) const SET: u64 = 60003;
    pub(crate) const FROZEN_SET: u64 = 60004;
    pub(crate) const COMPLEX: u64 = 60005;
    pub(crate) const TENSOR: u64 = 60006;
    pub(crate) const ARRAY: u64 = 60007;
    pub(crate) const ALIAS: u64 = 60008;
    pub(crate) const NAMED: u64 = 60009;
    pub(crate) const SUBTREE: u64 = 60010;
}

/// Canonical bytes.
///
/// # Errors
/// Whatever a reader would refuse: a limit ([`ObjectError::TooLarge`], [`ObjectError::TooDeep`]), a tensor that breaks
/// a rule, a named value against its table, a duplicate or a value that can not be in a set, an alias without a path.
pub fn encode(value: &Value) -> Result<Vec<u8>, ObjectError> {
    let mut writer = Writer::new(Place::Value);
    writer.root_value(value)?;
    writer.finish()
}

/// The value of these canonical bytes.
///
/// # Errors
/// [`ObjectError::Malformed`] and [`ObjectError::NotCanonical`] with the byte where it shows; otherwise as [`encode`].
pub fn decode(bytes: &[u8]) -> Result<Value, ObjectError> {
    let value = decode_trusted(bytes)?;
    check_canonical(bytes, &encode(&value)?)?;
    Ok(value)
}

/// [`decode`] without encoding again, for bytes under a checksum of our own.
///
/// # Errors
/// As [`decode`].
pub fn decode_trusted(bytes: &[u8]) -> Result<Value, ObjectError> {
    let mut reader = Reader::new(bytes, Place::Value)?;
    let value = reader.root_value()?;
    reader.finish()?;
    Ok(value)
}

/// The length of the first item of `bytes`, whatever follows it. What the item means is not looked at.
///
/// # Errors
/// [`ObjectError::Malformed`] and [`ObjectError::NotCanonical`] with the byte where it shows.
pub fn first_len(bytes: &[u8]) -> Result<usize, ObjectError> {
    let mut tokens = token::Tokens::new(bytes);
    let mut num_open: u64 = 1;
    while num_open > 0 {
        num_open -= 1;
        let inside = match tokens.next()? {
            Token::Array(len) => len as u64,
            Token::Map(len) => 2 * len as u64,
            Token::Tag(_) => 1,
            Token::Unsigned(_)
            | Token::Negative(_)
            | Token::Bytes(_)
            | Token::Text(_)
            | Token::Bool(_)
            | Token::Null
            | Token::Float(_) => 0,
        };
        num_open = num_open.saturating_add(inside);
    }
    Ok(tokens.offset())
}

/// Checks that an object encodes to the bytes that it was read from.
pub(crate) fn check_canonical(bytes: &[u8], encoded: &[u8]) -> Result<(), ObjectError> {
    #[cfg(feature = "simulated")]
    if crate::canary::accepts_non_canonical() {
        return Ok(());
    }
    if bytes == encoded {
        return Ok(());
    }
    let same = bytes.iter().zip(encoded).take_while(|(a, b)| a == b).count();
    Err(ObjectError::NotCanonical { what: "the object encodes to other bytes", offset: same })
}

/// Checks the length of a whole object.
fn check_object_len(len: usize) -> Result<(), ObjectError> {
    if len <= METADATA_BYTES_MAX {
        return Ok(());
    }
    Err(ObjectError::TooLarge {
        what: "bytes of a metadata object",
        actual: len as u64,
        max: METADATA_BYTES_MAX as u64,
    })
}
