//! Why a call of the object database failed. Variants carry facts; words for people are made above.

use gradient_codec::CodecError;
use gradient_object::ObjectError;
use gradient_storage::StorageError;

use crate::{ObjectName, PackId};

/// A failure of the object database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OdbError {
    /// No pack of the repository holds the object.
    #[error("{object} is not in this repository")]
    NotFound {
        /// What was looked for.
        object: ObjectName,
    },
    /// The object is stored, but not as it was written, and no other pack has a good copy.
    #[error("{object} is damaged: {what} (pack {pack}, byte {offset})")]
    ObjectDamaged {
        /// The object.
        object: ObjectName,
        /// The pack that holds it.
        pack: PackId,
        /// Where in the pack its entry or block begins.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The tail or header of a pack is not as it was written.
    #[error("pack {pack} is damaged: {what} (byte {offset})")]
    PackDamaged {
        /// The pack.
        pack: PackId,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A pack was written by a version that this release does not know.
    #[error("pack {pack} has format version {found}, this release knows {supported}")]
    Unsupported {
        /// The pack.
        pack: PackId,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A delta chain loops or was never cut.
    #[error("{object} hangs on a delta chain of more than {max} links")]
    ChainTooLong {
        /// The object that was read.
        object: ObjectName,
        /// The limit.
        max: u32,
    },
    /// A tensor and the memory or chunk that belongs to it have different lengths.
    #[error("{what} has {actual} bytes where the tensor has {expected}")]
    WrongLength {
        /// The memory or the chunk.
        what: String,
        /// What the tensor says.
        expected: u64,
        /// What it has.
        actual: u64,
    },
    /// Something is larger than the format allows.
    #[error("{what} is too large: {actual}, at most {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it is.
        actual: u64,
        /// How large it may be.
        max: u64,
    },
    /// Coding a chunk and decoding it again gave other bytes: the machine is not to be trusted.
    #[error("{object} did not survive its own coding; this points to faulty memory or a faulty processor")]
    CodingNotReversible {
        /// The chunk.
        object: ObjectName,
    },
    /// The work was stopped through [`Progress::cancel`](crate::Progress::cancel).
    #[error("cancelled")]
    Cancelled,
    /// An earlier call of this transaction failed; it can only be dropped.
    #[error("this transaction has failed before")]
    TransactionFailed,
    /// The operating system gave no random bytes for a pack's name.
    #[error("no random bytes: {0}")]
    Random(String),
    /// An object could not be written or read as what it should be.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A codec failed while encoding, or memory was short while it decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl OdbError {
    /// Says whether bytes at rest are not what they were, as opposed to being absent or out of reach.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::ObjectDamaged { .. }
            | Self::PackDamaged { .. }
            | Self::ChainTooLong { .. }
            | Self::Object(_)
            | Self::Storage(StorageError::Truncated { .. }) => true,
            Self::Codec(error) => !error.is_shortage(),
            Self::NotFound { .. }
            | Self::Unsupported { .. }
            | Self::WrongLength { .. }
            | Self::TooLarge { .. }
            | Self::CodingNotReversible { .. }
            | Self::Cancelled
            | Self::TransactionFailed
            | Self::Random(_)
            | Self::Storage(_) => false,
        }
    }

    /// Says whether a file was not there.
    pub(crate) fn is_missing_file(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_not_found())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::odb::damage_of;

    #[test]
    fn memory_that_is_short_damages_no_pack_and_bytes_that_do_not_decode_do() {
        let pack = PackId::from_bytes([7; 16]);
        let short = || OdbError::Codec(CodecError::OutOfMemory { len: 1 << 20 });
        assert!(!short().is_damage());
        assert!(matches!(damage_of(pack, short()), Err(OdbError::Codec(_))));
        let torn = || OdbError::Codec(CodecError::Damaged { codec: "zstd", what: "no frame" });
        assert!(torn().is_damage());
        assert!(damage_of(pack, torn()).is_ok());
    }
}
