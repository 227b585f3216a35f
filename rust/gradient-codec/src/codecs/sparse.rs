//! Sparse: the elements that are not zero, and how many zeros lie between them.

use super::planes::{self, Params, decode_planes};
use super::{Codec, DeltaCodec, read_width, require_elements};
use crate::gaps::{self, Gaps, num_values, take_apart};
use crate::output::{Output, into_vec};
use crate::parts::{PlaneOf, Row, append_part, decode_part};
use crate::pipeline::{require_len, zeroed};
use crate::{CodecError, Scratch};

const NAME: &str = "sparse";

/// The codec.
pub(crate) struct Sparse;

/// Makes the parameters.
pub(crate) fn params(width: usize) -> Vec<u8> {
    vec![width as u8]
}

impl Codec for Sparse {
    fn id(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(
        &self,
        params: &[u8],
        _bases: &[&[u8]],
        raw: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let width = read_only_width(params)?;
        into_vec(NAME, raw.len(), out, |out| append(width, raw, scratch, out))
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        let width = read_only_width(params)?;
        let (len, _) = encoded.split_first_chunk().ok_or(damaged("it is shorter than its length"))?;
        Ok(u64::from(u32::from_le_bytes(*len)) * width as u64)
    }

    fn decode(&self, params: &[u8], _bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        let elements = Elements::decode(read_only_width(params)?, encoded, out.len())?;
        out.fill(0);
        elements.each(|at, value| out[at..at + value.len()].copy_from_slice(value))
    }
}

/// Appends the payload for `raw` to `out`. None: it does not fit.
pub(crate) fn append(
    width: usize,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Option<()>, CodecError> {
    require_elements(raw.len(), width)?;
    let mut taken = scratch.take_gaps();
    let Gaps { gaps, values } = &mut taken;
    match width {
        1 => take_apart::<1>(raw, gaps, values),
        2 => take_apart::<2>(raw, gaps, values),
        4 => take_apart::<4>(raw, gaps, values),
        _ => take_apart::<8>(raw, gaps, values),
    }
    let outcome = append_taken(width, raw.len(), &taken, scratch, out);
    scratch.give_gaps(taken);
    outcome
}

fn append_taken(
    width: usize,
    raw_len: usize,
    Gaps { gaps, values }: &Gaps,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Option<()>, CodecError> {
    let put = out.put(&((raw_len / width) as u32).to_le_bytes());
    if put.and_then(|()| out.put(&(gaps.len() as u32).to_le_bytes())).is_none()
        || append_part(gaps, PlaneOf::Others, scratch, out)?.is_none()
    {
        return Ok(None);
    }
    Ok(planes::append(Params { width, rotate: false, means: None }, None, values, scratch, out)?.map(drop))
}

/// Says whether an element of this codec is one or several whole ones of a delta.
pub(crate) fn fits(params: &[u8], delta: &dyn DeltaCodec, delta_params: &[u8]) -> bool {
    let widths = (delta.width(delta_params), read_only_width(params));
    matches!(widths, (Ok(of_delta), Ok(width)) if width.is_multiple_of(of_delta))
}

/// Turns the base in `bytes` into what was encoded: `delta` is undone where the elements of the payload lie, and nowhere
/// else.
///
/// # Errors
/// As [`Codec::decode`].
pub(crate) fn patch(
    params: &[u8],
    encoded: &[u8],
    delta: &dyn DeltaCodec,
    delta_params: &[u8],
    bytes: &mut [u8],
) -> Result<(), CodecError> {
    if !fits(params, delta, delta_params) {
        return Err(CodecError::BadParams { codec: NAME, len: params.len() });
    }
    let width = read_only_width(params)?;
    let elements = Elements::decode(width, encoded, bytes.len())?;
    elements.each(|at, value| {
        let mut difference = [0; 8];
        difference[..value.len()].copy_from_slice(value);
        delta.undo_one(delta_params, u64::from_le_bytes(difference), &mut bytes[at..at + value.len()]);
    })
}

/// Elements that are not zero.
struct Elements {
    width: usize,
    gaps: Vec<u8>,
    values: Vec<u8>,
    len: usize,
}

impl Elements {
    /// Reads a payload of `len` bytes when decoded.
    fn decode(width: usize, encoded: &[u8], len: usize) -> Result<Self, CodecError> {
        require_elements(len, width)?;
        let short = || damaged("it is shorter than its lengths");
        let (n, rest) = encoded.split_first_chunk().ok_or_else(short)?;
        require_len(len / width, u32::from_le_bytes(*n) as usize)?;
        let (num_gap_bytes, mut rest) = rest.split_first_chunk().ok_or_else(short)?;
        let num_gap_bytes = u32::from_le_bytes(*num_gap_bytes);
        let row = Row::take(&mut rest).map_err(damaged)?;
        let part = row.take_part(&mut rest).map_err(damaged)?;
        // Each gap byte stands for an element, or for 255 zeros.
        let mut gaps = zeroed(u64::from(num_gap_bytes), len / width)?;
        decode_part(NAME, row.coder, part, &mut gaps)?;
        let mut values = zeroed((num_values(&gaps) * width) as u64, len)?;
        decode_planes(Params { width, rotate: false, means: None }, rest, &mut values)?;
        Ok(Self { width, gaps, values, len })
    }

    /// Calls `then` with the offset and the bytes of each element.
    fn each(&self, then: impl FnMut(usize, &[u8])) -> Result<(), CodecError> {
        gaps::each(&self.gaps, &self.values, self.width, self.len, then).map_err(damaged)
    }
}

fn read_only_width(params: &[u8]) -> Result<usize, CodecError> {
    match params {
        [_] => read_width(NAME, params),
        _ => Err(CodecError::BadParams { codec: NAME, len: params.len() }),
    }
}

fn damaged(what: &'static str) -> CodecError {
    CodecError::Damaged { codec: NAME, what }
}
