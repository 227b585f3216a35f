//! LZ4: the raw length, then one block. No parameters. For what repeats and is wanted fast: planes that are nearly empty.

use lz4_flex::block;

use super::{Codec, require_no_params};
use crate::pipeline::require_len;
use crate::{CodecError, Scratch};

const NAME: &str = "lz4";

/// Bytes of the raw length.
const LEN_BYTES: usize = 4;

/// The codec.
pub(crate) struct Lz4;

impl Codec for Lz4 {
    fn id(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(
        &self,
        params: &[u8],
        _bases: &[&[u8]],
        raw: &[u8],
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        require_no_params(NAME, params)?;
        let len = u32::try_from(raw.len()).map_err(|_| too_long())?;
        let mut block = Vec::new();
        encode_block(raw, &mut block)?;
        out.clear();
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&block);
        Ok(())
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        require_no_params(NAME, params)?;
        let (len, _) = encoded.split_first_chunk::<LEN_BYTES>().ok_or(cut())?;
        Ok(u64::from(u32::from_le_bytes(*len)))
    }

    fn decode(&self, params: &[u8], _bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        require_no_params(NAME, params)?;
        let (len, block) = encoded.split_first_chunk::<LEN_BYTES>().ok_or(cut())?;
        require_len(out.len(), u32::from_le_bytes(*len) as usize)?;
        decode_block(block, out)
    }
}

/// Encodes `raw` as one block into `out`, in place of what was there.
pub(crate) fn encode_block(raw: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let len = block::get_maximum_output_size(raw.len());
    out.clear();
    out.try_reserve(len).map_err(|_| CodecError::OutOfMemory { len })?;
    out.resize(len, 0);
    let written = block::compress_into(raw, out)
        .map_err(|_| CodecError::NotEncoded { codec: NAME, what: "the block is longer than it can be" })?;
    out.truncate(written);
    Ok(())
}

/// Decodes one block to exactly all of `out`.
pub(crate) fn decode_block(encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let written = block::decompress_into(encoded, out)
        .map_err(|_| CodecError::Damaged { codec: NAME, what: "it is no block of this length" })?;
    require_len(out.len(), written)
}

fn cut() -> CodecError {
    CodecError::Damaged { codec: NAME, what: "it is shorter than its length" }
}

fn too_long() -> CodecError {
    CodecError::NotEncoded { codec: NAME, what: "more than 4 GiB" }
}
