//! Blocks of metadata: one zstd frame, at a level for text-like bytes.

use crate::codecs::zstd::{content_len, decode_frame, encode_frame, frame_len};
use crate::pipeline::{require_len, zeroed};
use crate::{CodecError, Scratch};

/// Metadata is small, read often and written once.
const METADATA_LEVEL: i32 = 3;

/// Encodes a block of metadata as one zstd frame.
///
/// # Errors
/// [`CodecError::OutOfMemory`], [`CodecError::NotEncoded`].
pub fn encode_metadata(raw: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    encode_frame(raw, METADATA_LEVEL, &mut Scratch::new(), &mut bytes)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// Decodes a block of metadata that was declared to be `raw_len` bytes and must not be more than `max`.
///
/// # Errors
/// - [`CodecError::TooLarge`]: `raw_len` is over `max`.
/// - [`CodecError::WrongLength`]: the frame says that it holds another number of bytes; nothing was allocated.
/// - [`CodecError::Damaged`], [`CodecError::OutOfMemory`].
pub fn decode_metadata(bytes: &[u8], raw_len: usize, max: usize) -> Result<Vec<u8>, CodecError> {
    if raw_len > max {
        return Err(CodecError::TooLarge { len: raw_len as u64, max: max as u64 });
    }
    let content = metadata_raw_len(bytes)?;
    require_len(raw_len, usize::try_from(content).unwrap_or(usize::MAX))?;
    let mut raw = zeroed(content, max)?;
    decode_frame(bytes, &mut raw)?;
    Ok(raw)
}

/// Returns how many bytes a block says it decodes to. A claim, to be held against a limit.
///
/// # Errors
/// [`CodecError::Damaged`]: it is no zstd frame, or does not say.
pub fn metadata_raw_len(bytes: &[u8]) -> Result<u64, CodecError> {
    content_len(bytes)
}

/// Returns how many bytes the block at the start of `bytes` takes, whatever follows it.
///
/// # Errors
/// [`CodecError::Damaged`]: no zstd frame begins there, or `bytes` ends within it.
pub fn metadata_encoded_len(bytes: &[u8]) -> Result<usize, CodecError> {
    frame_len(bytes)
}
