//! Typed ids: 32 bytes that name immutable content.
//!
//! A chunk's id is the BLAKE3 of its raw bytes. The id of a tree, commit or operation is BLAKE3 in key-derivation mode
//! over its canonical bytes, with one context string a kind: equal bytes of two kinds have different ids.

use std::fmt;

fn derive(context: &str, bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

/// Writes at most 32 bytes as hexadecimal digits.
fn write_hex(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [[0; 2]; 32];
    for (pair, byte) in text.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    let text = text.as_flattened().split_at(2 * bytes.len()).0;
    out.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $argument:ident, $of:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Bytes of an id.
            pub const LEN: usize = 32;

            /// The id of these bytes.
            pub fn of($argument: &[u8]) -> Self {
                Self($of)
            }

            /// The id that these bytes spell; any 32 bytes do.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads 64 lower-case hexadecimal digits; anything else is `None`.
            pub fn from_hex(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }

            /// All 64 hexadecimal digits, lower case.
            pub fn to_hex(&self) -> String {
                self.to_string()
            }

            /// The first 8 hexadecimal digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($name), "("))?;
                write_hex(&self.0[..4], formatter)?;
                formatter.write_str(")")
            }
        }
    };
}

typed_id!(
    /// Names a chunk: up to 1 MiB of raw little-endian element bytes.
    ChunkId,
    raw,
    *blake3::hash(raw).as_bytes()
);
typed_id!(
    /// Names a tree by its canonical bytes.
    TreeId,
    canonical,
    derive("gradient-store 2026-11 format 1 tree", canonical)
);
typed_id!(
    /// Names a commit by its canonical bytes.
    CommitId,
    canonical,
    derive("gradient-store 2026-11 format 1 commit", canonical)
);
typed_id!(
    /// Names an operation by its canonical bytes.
    OperationId,
    canonical,
    derive("gradient-store 2026-11 format 1 operation", canonical)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_the_hex_that_it_writes() {
        let id = TreeId::of(b"x");
        assert_eq!(TreeId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(id.short(), id.to_hex()[..8]);
        assert_eq!(format!("{id:?}"), format!("TreeId({})", id.short()));
    }

    #[test]
    fn refuses_hex_that_is_not_64_lower_case_digits() {
        let hex = ChunkId::of(b"").to_hex();
        for bad in [
            &hex[..63],
            &hex[..62],
            &format!("{hex}0"),
            &format!("{hex}00"),
            &hex.to_uppercase(),
            &format!("g{}", &hex[1..]),
            "",
            &format!("{}\u{e9}", &hex[..62]),
        ] {
            assert_eq!(ChunkId::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn equal_bytes_of_two_kinds_have_different_ids() {
        let bytes = b"same";
        let ids = [
            *ChunkId::of(bytes).as_bytes(),
            *TreeId::of(bytes).as_bytes(),
            *CommitId::of(bytes).as_bytes(),
            *OperationId::of(bytes).as_bytes(),
        ];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[..i].iter().all(|b| a != b));
        }
    }
}
