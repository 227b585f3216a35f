//! The table of codecs. A new one is a file here, its `mod` line and its row; the number goes into `docs/format/pack.md`.
//!
//! A number is never used for another codec: old packs keep it for ever.

use crate::{CodecError, Scratch};

pub(crate) mod zstd;

/// Every codec, by rising number.
static CODECS: [&dyn Codec; 1] = [&zstd::Zstd];

/// A reversible transform of bytes.
///
/// `decode` after `encode` with the same parameters and bases gives the same bytes, for all bytes. `decode` meets
/// whatever lies on a disk: it checks before it believes, and never panics.
pub trait Codec: Sync {
    /// Returns the number that stands for it on disk.
    fn id(&self) -> u8;

    /// Returns its name, for people.
    fn name(&self) -> &'static str;

    /// Says whether it encodes against the bases of an entry.
    fn wants_bases(&self) -> bool;

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
