//! CBOR tokens, in the only form that the format allows.
//!
//! A head is one byte, `major << 5 | low`, and for `low` 24 to 27 a big-endian number of 1, 2, 4 or 8 bytes. The reader
//! refuses a head that could be shorter, an indefinite length, a float that is not 8 bytes, every simple value but
//! false, true and null, and a length that the bytes which are left can not hold.

use crate::error::ObjectError;

/// One token. An array or map says how many items or pairs follow, a tag is followed by one item.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token<'a> {
    Unsigned(u64),
    /// `-1 - n`
    Negative(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Array(usize),
    Map(usize),
    Tag(u64),
    Bool(bool),
    Null,
    Float(f64),
}

/// Major types.
pub(super) const UNSIGNED: u8 = 0;
pub(super) const NEGATIVE: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const ARRAY: u8 = 4;
pub(super) const MAP: u8 = 5;
pub(super) const TAG: u8 = 6;
/// First bytes of major type 7.
pub(super) const FALSE: u8 = 0xf4;
pub(super) const TRUE: u8 = 0xf5;
pub(super) const NULL: u8 = 0xf6;
pub(super) const FLOAT: u8 = 0xfb;

/// Appends the head of a token.
pub(super) fn write_head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    let number = n.to_be_bytes();
    let (low, width) = match n {
        // Lossless: below 24.
        0..24 => (n as u8, 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        0x1_0000_0000.. => (27, 8),
    };
    out.push(major | low);
    out.extend_from_slice(&number[8 - width..]);
}

/// Reads tokens one by one.
pub(crate) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next token starts.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The bytes from `start` to the next token.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Result<Token<'a>, ObjectError> {
        let start = self.at;
        let [first] = self.take()?;
        let (major, low) = (first >> 5, first & 31);
        if major == 7 {
            return match first {
                FALSE => Ok(Token::Bool(false)),
                TRUE => Ok(Token::Bool(true)),
                NULL => Ok(Token::Null),
                FLOAT => Ok(Token::Float(f64::from_bits(u64::from_be_bytes(self.take()?)))),
                0xf9 | 0xfa => Err(not_canonical("a float of less than 8 bytes", start)),
                _ => Err(malformed("no value of the format", start)),
            };
        }
        let (n, least) = match low {
            0..24 => (u64::from(low), 0),
            24 => (u64::from(u8::from_be_bytes(self.take()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.take()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.take()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.take()?), 1 << 32),
            31 => return Err(not_canonical("an indefinite length", start)),
            _ => return Err(malformed("a reserved head", start)),
        };
        #[cfg(feature = "simulated")]
        let least = if crate::canary::accepts_non_canonical() { 0 } else { least };
        if n < least {
            return Err(not_canonical("a head that could be shorter", start));
        }
        Ok(match major {
            UNSIGNED => Token::Unsigned(n),
            NEGATIVE => Token::Negative(n),
            BYTES => Token::Bytes(self.string(n, start)?),
            TEXT => match std::str::from_utf8(self.string(n, start)?) {
                Ok(text) => Token::Text(text),
                Err(_) => return Err(malformed("text that is not UTF-8", start)),
            },
            // An item is at least one byte, a pair at least two.
            ARRAY => Token::Array(self.fitting(n, 1, start)?),
            MAP => Token::Map(self.fitting(n, 2, start)?),
            _ => Token::Tag(n),
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ObjectError> {
        let Some((taken, _)) = self.bytes[self.at..].split_first_chunk::<N>() else {
            return Err(malformed("the object ends too early", self.bytes.len()));
        };
        self.at += N;
        Ok(*taken)
    }

    fn string(&mut self, len: u64, start: usize) -> Result<&'a [u8], ObjectError> {
        let len = self.fitting(len, 1, start)?;
        let string = &self.bytes[self.at..][..len];
        self.at += len;
        Ok(string)
    }

    /// `n`, if that many items of at least `item_len` bytes can follow.
    fn fitting(&self, n: u64, item_len: usize, start: usize) -> Result<usize, ObjectError> {
        let n = usize::try_from(n).ok();
        n.filter(|n| *n <= self.remaining() / item_len)
            .ok_or_else(|| malformed("a length beyond the end of the object", start))
    }
}

pub(super) fn malformed(what: &'static str, offset: usize) -> ObjectError {
    ObjectError::Malformed { what, offset }
}

pub(super) fn not_canonical(what: &'static str, offset: usize) -> ObjectError {
    ObjectError::NotCanonical { what, offset }
}
