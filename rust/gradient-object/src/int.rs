//! Integers of any size, in one form each.
//!
//! Held as CBOR writes them: `n` for an integer that is not negative, `n = -1 - value` for a negative one. `n` is a
//! `u64` when it fits and a byte string without leading zeros when it does not, so equal integers have equal fields.

use std::cmp::Ordering;
use std::fmt;

/// An integer of any size.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Int {
    /// Whether the value is `-1 - n`.
    negative: bool,
    n: Magnitude,
}

/// The number `n` of the module header.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Magnitude {
    Small(u64),
    /// Big-endian, at least 9 bytes, the first not zero.
    Big(Box<[u8]>),
}

/// An integer as the CBOR writer needs it: its major type or tag, and `n`.
pub(crate) enum Head<'a> {
    Small { negative: bool, n: u64 },
    Big { negative: bool, n: &'a [u8] },
}

impl Int {
    /// The integer of this sign and this absolute value, big-endian; leading zeros are fine, and so is minus zero.
    pub fn from_sign_magnitude(negative: bool, magnitude: &[u8]) -> Self {
        let magnitude = without_leading_zeros(magnitude);
        if !negative || magnitude.is_empty() {
            return Self::from_n(false, magnitude);
        }
        let mut n = magnitude.to_vec();
        for byte in n.iter_mut().rev() {
            let (lower, borrow) = byte.overflowing_sub(1);
            *byte = lower;
            if !borrow {
                break;
            }
        }
        Self::from_n(true, without_leading_zeros(&n))
    }

    /// `n`, or `-1 - n`, from big-endian bytes without leading zeros.
    pub(crate) fn from_n(negative: bool, n: &[u8]) -> Self {
        let n = if n.len() <= 8 {
            Magnitude::Small(n.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        } else {
            Magnitude::Big(n.into())
        };
        Self { negative, n }
    }

    /// `n`, or `-1 - n`.
    pub(crate) const fn from_small(negative: bool, n: u64) -> Self {
        Self { negative, n: Magnitude::Small(n) }
    }

    /// What the CBOR writer needs.
    pub(crate) fn head(&self) -> Head<'_> {
        let negative = self.negative;
        match &self.n {
            Magnitude::Small(n) => Head::Small { negative, n: *n },
            Magnitude::Big(n) => Head::Big { negative, n },
        }
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// The absolute value, big-endian without leading zeros; zero is empty.
    pub fn magnitude(&self) -> Vec<u8> {
        let mut bytes = match &self.n {
            Magnitude::Small(n) => without_leading_zeros(&n.to_be_bytes()).to_vec(),
            Magnitude::Big(n) => n.to_vec(),
        };
        if self.negative {
            let mut carry = true;
            for byte in bytes.iter_mut().rev() {
                (*byte, carry) = byte.overflowing_add(u8::from(carry));
            }
            if carry {
                bytes.insert(0, 1);
            }
        }
        bytes
    }

    /// The value, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self.n {
            Magnitude::Small(n) => {
                let n = i64::try_from(n).ok()?;
                Some(if self.negative { -1 - n } else { n })
            }
            Magnitude::Big(_) => None,
        }
    }

    /// The value, if it is not negative and fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self.n {
            Magnitude::Small(n) if !self.negative => Some(n),
            Magnitude::Small(_) | Magnitude::Big(_) => None,
        }
    }

    /// Order of the canonical bytes, not of the numbers.
    pub(crate) fn cmp_canonical(&self, other: &Self) -> Ordering {
        let rank = |int: &Self| match &int.n {
            Magnitude::Small(_) => u8::from(int.negative),
            Magnitude::Big(_) => 2 + u8::from(int.negative),
        };
        rank(self).cmp(&rank(other)).then_with(|| match (&self.n, &other.n) {
            (Magnitude::Small(a), Magnitude::Small(b)) => a.cmp(b),
            (Magnitude::Big(a), Magnitude::Big(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            // Their ranks differ.
            (Magnitude::Small(_), Magnitude::Big(_)) | (Magnitude::Big(_), Magnitude::Small(_)) => Ordering::Equal,
        })
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

impl From<u64> for Int {
    fn from(value: u64) -> Self {
        Self::from_small(false, value)
    }
}

impl From<i64> for Int {
    fn from(value: i64) -> Self {
        if value < 0 {
            Self::from_small(true, !value.cast_unsigned())
        } else {
            Self::from_small(false, value.cast_unsigned())
        }
    }
}

impl From<u32> for Int {
    fn from(value: u32) -> Self {
        Self::from(u64::from(value))
    }
}

impl From<i32> for Int {
    fn from(value: i32) -> Self {
        Self::from(i64::from(value))
    }
}

impl fmt::Debug for Int {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n {
            Magnitude::Small(n) if self.negative => write!(formatter, "{}", -1 - i128::from(n)),
            Magnitude::Small(n) => write!(formatter, "{n}"),
            Magnitude::Big(_) => {
                formatter.write_str(if self.negative { "-0x" } else { "0x" })?;
                let bytes = self.magnitude();
                bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_edge_of_64_bits() {
        for value in [0, 1, -1, 255, -256, i64::MAX, i64::MIN] {
            let int = Int::from(value);
            assert_eq!(int.as_i64(), Some(value));
            assert_eq!(int, Int::from_sign_magnitude(value < 0, &value.unsigned_abs().to_be_bytes()));
            assert_eq!(int.as_u64(), u64::try_from(value).ok());
            assert_eq!(format!("{int:?}"), value.to_string());
        }
        assert_eq!(Int::from(u64::MAX).as_u64(), Some(u64::MAX));
        assert_eq!(Int::from(u64::MAX).as_i64(), None);
    }

    #[test]
    fn minus_two_to_the_64_is_the_last_without_a_tag() {
        let power = [1, 0, 0, 0, 0, 0, 0, 0, 0];
        let last = Int::from_sign_magnitude(true, &power);
        assert!(matches!(last.head(), Head::Small { negative: true, n: u64::MAX }));
        assert_eq!(last.magnitude(), power);
        assert!(matches!(Int::from_sign_magnitude(false, &power).head(), Head::Big { negative: false, .. }));
        let next = Int::from_sign_magnitude(true, &[1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(matches!(next.head(), Head::Big { negative: true, n } if n == power));
    }

    #[test]
    fn zero_has_one_form() {
        assert_eq!(Int::from_sign_magnitude(true, &[0, 0]), Int::from(0_u64));
        assert!(!Int::from_sign_magnitude(true, &[]).is_negative());
    }
}
