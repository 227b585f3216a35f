//! The table of codecs. A new one is a file here, its `mod` line and its row; the number goes into `docs/format/pack.md`.
//!
//! A number is never used for another codec: old packs keep it for ever.

use crate::{CodecError, Scratch};

pub(crate) mod changes;
pub(crate) mod difference;
pub(crate) mod lz4;
pub(crate) mod planes;
pub(crate) mod sparse;
pub(crate) mod xor;
pub(crate) mod zstd;

/// Every codec, by rising number.
static CODECS: [&dyn Codec; 7] =
    [&zstd::Zstd, &lz4::Lz4, &planes::Planes, &xor::Xor, &difference::Difference, &sparse::Sparse, &changes::Changes];

/// A reversible transform of bytes.
///
/// `decode` after `encode` with the same parameters and bases gives the same bytes, for all bytes. `decode` meets
/// whatever lies on a disk: it checks before it believes, and never panics.
pub trait Codec: Sync {
    /// Returns the number that stands for it on disk.
    fn id(&self) -> u8;

    /// Returns its name, for people.
    fn name(&self) -> &'static str;

    /// Says whether it encodes against the base of an entry. Such a codec keeps the length, and is undone where the
    /// encoded bytes lie.
    fn as_delta(&self) -> Option<&dyn DeltaCodec> {
        None
    }

    /// Says whether it encodes against the bases of an entry.
    fn wants_bases(&self) -> bool {
        self.as_delta().is_some()
    }

    /// Encodes `raw` into `out`, in place of what was there. The result may be longer than `raw`.
    ///
    /// # Errors
    /// - [`CodecError::BadParams`].
    /// - [`CodecError::NotEncoded`], [`CodecError::OutOfMemory`].
    fn encode(
        &self,
        params: &[u8],
        bases: &[&[u8]],
        raw: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError>;

    /// Returns how many bytes an encoded payload says it decodes to. A claim, to be held against a limit.
    ///
    /// # Errors
    /// - [`CodecError::Damaged`], [`CodecError::BadParams`].
    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError>;

    /// Decodes all of `encoded` to exactly all of `out`.
    ///
    /// # Errors
    /// - [`CodecError::Damaged`], [`CodecError::WrongLength`], [`CodecError::BadParams`].
    /// - [`CodecError::OutOfMemory`].
    fn decode(&self, params: &[u8], bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError>;
}

/// A codec that keeps the length and takes one base: of each element what differs from the base's.
pub trait DeltaCodec: Sync {
    /// Returns the width of the elements that it works on.
    ///
    /// # Errors
    /// [`CodecError::BadParams`].
    fn width(&self, params: &[u8]) -> Result<usize, CodecError>;

    /// Turns differences into what was encoded. A base that is shorter counts as continued by zeros.
    ///
    /// # Errors
    /// [`CodecError::BadParams`], [`CodecError::WrongLength`].
    fn undo(&self, params: &[u8], base: &[u8], bytes: &mut [u8]) -> Result<(), CodecError>;

    /// Turns some elements of the base, up to 8 bytes, into what was encoded as `difference`.
    fn undo_one(&self, params: &[u8], difference: u64, element: &mut [u8]);
}

/// Returns the table.
pub fn codecs() -> &'static [&'static dyn Codec] {
    &CODECS
}

/// Returns the codec of that number.
///
/// # Errors
/// [`CodecError::UnknownCodec`]: there is none.
pub fn find_codec(id: u8) -> Result<&'static dyn Codec, CodecError> {
    CODECS.iter().copied().find(|codec| codec.id() == id).ok_or(CodecError::UnknownCodec { id })
}

/// Refuses parameters of a codec that has none.
fn require_no_params(codec: &'static str, params: &[u8]) -> Result<(), CodecError> {
    if params.is_empty() {
        return Ok(());
    }
    Err(CodecError::BadParams { codec, len: params.len() })
}

/// Reads the width of elements.
fn read_width(codec: &'static str, params: &[u8]) -> Result<usize, CodecError> {
    match params.first() {
        Some(width @ (1 | 2 | 4 | 8)) => Ok(usize::from(*width)),
        _ => Err(CodecError::BadParams { codec, len: params.len() }),
    }
}

/// Refuses bytes that are no whole elements.
fn require_elements(len: usize, width: usize) -> Result<(), CodecError> {
    crate::pipeline::require_len(len / width * width, len)
}

/// Returns the one base.
pub(crate) fn one_base<'a>(bases: &[&'a [u8]]) -> Result<&'a [u8], CodecError> {
    match bases {
        [base] => Ok(base),
        _ => Err(CodecError::WrongNumberOfBases { expected: 1, actual: bases.len() }),
    }
}
