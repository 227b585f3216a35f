//! What things in the object database are called: packs, kinds, objects of any kind.

use std::fmt;

use gradient_object::{ChunkId, CommitId, TreeId};
use gradient_storage::Key;

use crate::OdbError;

/// The random name of a pack, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId([u8; 16]);

impl PackId {
    /// Bytes of a pack id.
    pub const LEN: usize = 16;

    /// Wraps the bytes of an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Draws a new id from the operating system.
    ///
    /// # Errors
    /// [`OdbError::Random`].
    pub fn random() -> Result<Self, OdbError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| OdbError::Random(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// Reads 32 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Reads the name of a file in `packs/`.
    pub fn from_file_name(name: &str) -> Option<Self> {
        Self::from_hex(name.strip_suffix(".pack")?)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns the key of the pack's file.
    pub fn key(&self) -> Key {
        Key::pack(&self.0)
    }
}

/// Returns the value of a lower-case hexadecimal digit.
pub(crate) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Raw tensor bytes.
    Chunk,
    /// Names to values.
    Tree,
    /// A tree, its parents, step, message.
    Commit,
}

impl Kind {
    /// Returns the number on disk.
    pub const fn number(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Tree => 2,
            Self::Commit => 3,
        }
    }

    /// Finds the kind of a number on disk.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Chunk),
            2 => Some(Self::Tree),
            3 => Some(Self::Commit),
            _ => None,
        }
    }

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Tree => "tree",
            Self::Commit => "commit",
        }
    }
}

/// Names any object: its kind and the bytes of its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// What it is.
    pub kind: Kind,
    /// The bytes of its id.
    pub id: [u8; 32],
}

impl ObjectName {
    /// Says whether `raw`, the object's raw bytes, hash to the id.
    pub(crate) fn is_of(&self, raw: &[u8]) -> bool {
        let hashed = match self.kind {
            Kind::Chunk => Self::from(ChunkId::of(raw)),
            Kind::Tree => Self::from(TreeId::of(raw)),
            Kind::Commit => Self::from(CommitId::of(raw)),
        };
        hashed == *self
    }
}

impl From<ChunkId> for ObjectName {
    fn from(id: ChunkId) -> Self {
        Self { kind: Kind::Chunk, id: *id.as_bytes() }
    }
}

impl From<TreeId> for ObjectName {
    fn from(id: TreeId) -> Self {
        Self { kind: Kind::Tree, id: *id.as_bytes() }
    }
}

impl From<CommitId> for ObjectName {
    fn from(id: CommitId) -> Self {
        Self { kind: Kind::Commit, id: *id.as_bytes() }
    }
}

impl fmt::Display for ObjectName {
    /// Writes the kind and all digits of the id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.name())?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_id_comes_back_from_its_file_name_and_from_no_other() {
        let id = PackId::from_bytes([0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(PackId::from_file_name(id.key().name()), Some(id));
        for name in ["", ".pack", "A0.pack", &format!("{id}"), &format!("{id}.tmp"), &format!("0{id}.pack")] {
            assert_eq!(PackId::from_file_name(name), None, "{name}");
        }
        assert_eq!(PackId::from_hex(&id.to_string().to_uppercase()), None);
    }
}
