//! XOR: each byte combined with that of the base. No parameters, one base.

use super::{Codec, DeltaCodec, one_base, require_no_params};
use crate::pipeline::require_len;
use crate::{CodecError, Scratch};

const NAME: &str = "xor";

/// The codec.
pub(crate) struct Xor;

impl Codec for Xor {
    fn id(&self) -> u8 {
        4
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn as_delta(&self) -> Option<&dyn DeltaCodec> {
        Some(self)
    }

    fn encode(
        &self,
        params: &[u8],
        bases: &[&[u8]],
        raw: &[u8],
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        out.clear();
        out.extend_from_slice(raw);
        self.undo(params, one_base(bases)?, out)
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        require_no_params(NAME, params)?;
        Ok(encoded.len() as u64)
    }

    fn decode(&self, params: &[u8], bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        require_len(out.len(), encoded.len())?;
        out.copy_from_slice(encoded);
        self.undo(params, one_base(bases)?, out)
    }
}

impl DeltaCodec for Xor {
    fn width(&self, params: &[u8]) -> Result<usize, CodecError> {
        require_no_params(NAME, params)?;
        Ok(1)
    }

    fn undo(&self, params: &[u8], base: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
        require_no_params(NAME, params)?;
        for (byte, base) in bytes.iter_mut().zip(base) {
            *byte ^= base;
        }
        Ok(())
    }

    fn undo_one(&self, _params: &[u8], difference: u64, element: &mut [u8]) {
        for (byte, of_difference) in element.iter_mut().zip(difference.to_le_bytes()) {
            *byte ^= of_difference;
        }
    }
}
