//! Pipelines: codecs in the order of encoding, and how they are run backwards.

use std::borrow::Cow;

use crate::codecs::changes::{self, Changes};
use crate::codecs::planes::{self, Planes};
use crate::codecs::sparse::{self, Sparse};
use crate::codecs::{Codec, find_codec, one_base};
use crate::{CodecError, Scratch};

/// How much longer than the raw bytes the output of a stage in the middle of a pipeline may be.
///
/// Every codec makes bytes fewer or adds a few a block; twice the raw length and this is more than any needs.
const INTERMEDIATE_SLACK_BYTES: usize = 64 << 10;

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    /// The number of the codec in the table.
    pub codec: u8,
    /// What the codec has to know beside the bytes; often nothing.
    pub params: Vec<u8>,
}

/// Runs `pipeline` backwards over `payload` and writes the raw bytes to `out`.
///
/// `raw_len` is the declared length, which `out` must have; `bases` are the decoded bases of the entry, handed to the
/// stages that want them. No stage means that the payload is the raw bytes. A pipeline of one stage allocates nothing
/// but a context, once a thread; changes, what finds the classes. What `out` holds after an error is unspecified.
///
/// The result is *not* proved to be what was encoded: the caller holds it to the chunk's id.
///
/// # Errors
/// - [`CodecError::WrongLength`]: the payload gives more or fewer bytes, or `out` has another length.
/// - [`CodecError::UnknownCodec`], [`CodecError::BadParams`], [`CodecError::UnwantedBases`].
/// - [`CodecError::Damaged`]: a payload that no encoder wrote.
/// - [`CodecError::TooLarge`]: a stage in the middle claims more than it could have been given.
/// - [`CodecError::OutOfMemory`].
pub fn decode(
    pipeline: &[Stage],
    payload: &[u8],
    raw_len: usize,
    bases: &[&[u8]],
    out: &mut [u8],
) -> Result<(), CodecError> {
    require_len(raw_len, out.len())?;
    require_wanted(pipeline, bases)?;
    // Codecs that keep the length are undone where the bytes are to be.
    let mut num_deltas = 0;
    for stage in pipeline {
        if find_codec(stage.codec)?.as_delta().is_none() {
            break;
        }
        num_deltas += 1;
    }
    let (deltas, others) = pipeline.split_at(num_deltas);
    decode_others(others, payload, raw_len, bases, out)?;
    for stage in deltas.iter().rev() {
        if let Some(delta) = find_codec(stage.codec)?.as_delta() {
            delta.undo(&stage.params, one_base(bases)?, out)?;
        }
    }
    Ok(())
}

fn decode_others(
    pipeline: &[Stage],
    payload: &[u8],
    raw_len: usize,
    bases: &[&[u8]],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let Some((first, later)) = pipeline.split_first() else {
        require_len(raw_len, payload.len())?;
        out.copy_from_slice(payload);
        return Ok(());
    };
    let max = raw_len.saturating_mul(2).saturating_add(INTERMEDIATE_SLACK_BYTES);
    let mut encoded = Cow::Borrowed(payload);
    for stage in later.iter().rev() {
        let codec = find_codec(stage.codec)?;
        let len = codec.decoded_len(&stage.params, &encoded)?;
        let mut decoded = zeroed(len, max)?;
        codec.decode(&stage.params, bases, &encoded, &mut decoded)?;
        encoded = Cow::Owned(decoded);
    }
    find_codec(first.codec)?.decode(&first.params, bases, &encoded, out)
}

/// Says whether [`patch`] can run this pipeline backwards: changes, or a delta of elements of which most are zero.
pub fn is_patch(pipeline: &[Stage]) -> bool {
    let (first, second) = match pipeline {
        [only] => return only.codec == Changes.id(),
        [first, second] => (first, second),
        _ => return false,
    };
    let delta = find_codec(first.codec).ok().and_then(Codec::as_delta);
    second.codec == Sparse.id() && delta.is_some_and(|delta| sparse::fits(&second.params, delta, &first.params))
}

/// As [`decode`] with one base, which is what `bytes` holds: touches only what differs from it.
///
/// `bytes` has the raw length: a base that is shorter is continued by zeros, a longer one cut.
///
/// # Errors
/// As [`decode`]; [`CodecError::UnknownCodec`] for a pipeline that is no patch.
pub fn patch(pipeline: &[Stage], payload: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
    if let [first, second] = pipeline
        && second.codec == Sparse.id()
        && let Some(delta) = find_codec(first.codec)?.as_delta()
    {
        return sparse::patch(&second.params, payload, delta, &first.params, bytes);
    }
    if let [only] = pipeline
        && only.codec == Changes.id()
    {
        return changes::patch(&only.params, payload, bytes);
    }
    Err(CodecError::UnknownCodec { id: pipeline.last().map_or(0, |stage| stage.codec) })
}

/// Says whether a payload decodes to exactly `raw`: by [`patch`] if it is one, as it will be read; planes window by
/// window, of which each is looked at while it is in the processor's cache. The bases are those of [`decode`].
///
/// # Errors
/// As [`decode`].
pub fn decodes_to(
    pipeline: &[Stage],
    payload: &[u8],
    raw: &[u8],
    bases: &[&[u8]],
    scratch: &mut Scratch,
) -> Result<bool, CodecError> {
    if let Some((last, deltas)) = pipeline.split_last()
        && last.codec == Planes.id()
        && deltas.len() <= 1
    {
        require_wanted(pipeline, bases)?;
        let delta = match deltas.first() {
            Some(stage) => find_codec(stage.codec)?.as_delta().map(|delta| (delta, &stage.params)),
            None => None,
        };
        if delta.is_some() || deltas.is_empty() {
            return planes::all_windows(&last.params, payload, raw.len(), |start, window| {
                let raw = &raw[start..start + window.len()];
                if let Some((delta, params)) = delta {
                    let base = one_base(bases)?;
                    delta.undo(params, &base[start.min(base.len())..base.len().min(start + window.len())], window)?;
                }
                Ok(window == raw)
            });
        }
    }
    let mut decoded = scratch.take_decoded(raw.len())?;
    let bytes = &mut decoded[..raw.len()];
    let outcome = if let [base] = bases
        && is_patch(pipeline)
    {
        begin_with(base, bytes);
        patch(pipeline, payload, bytes)
    } else {
        decode(pipeline, payload, raw.len(), bases, bytes)
    };
    let is_same = bytes == raw;
    scratch.give_decoded(decoded);
    outcome.map(|()| is_same)
}

/// Fills `out` with the base, continued by zeros or cut.
pub(crate) fn begin_with(base: &[u8], out: &mut [u8]) {
    let common = base.len().min(out.len());
    out[..common].copy_from_slice(&base[..common]);
    out[common..].fill(0);
}

/// Returns `len` zero bytes, if they are at most `max` and there is memory for them.
pub(crate) fn zeroed(len: u64, max: usize) -> Result<Vec<u8>, CodecError> {
    let len = match usize::try_from(len) {
        Ok(len) if len <= max => len,
        Ok(_) | Err(_) => return Err(CodecError::TooLarge { len, max: max as u64 }),
    };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| CodecError::OutOfMemory { len })?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Refuses a length that is not the declared one.
pub(crate) fn require_len(expected: usize, actual: usize) -> Result<(), CodecError> {
    if expected == actual {
        return Ok(());
    }
    Err(CodecError::WrongLength { expected: expected as u64, actual: actual as u64 })
}

/// Refuses bases that nothing would use, or more than one stage: an entry that names them so was not written by us.
fn require_wanted(pipeline: &[Stage], bases: &[&[u8]]) -> Result<(), CodecError> {
    if bases.is_empty() {
        return Ok(());
    }
    let mut num_wanting = 0;
    for stage in pipeline {
        num_wanting += usize::from(find_codec(stage.codec)?.wants_bases());
    }
    if num_wanting == 1 { Ok(()) } else { Err(CodecError::UnwantedBases { num_bases: bases.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Base, DeltaGain, ElementClass, Layout, encode_best};

    /// Floats of many sizes, of which one in `every` is a little more than those of `base`; a length of several windows.
    fn floats(base: Option<&[u8]>, every: u32) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let fresh = |next: &mut dyn FnMut() -> u32| (118 + next() % 12) << 23 | next() >> 1;
        match base {
            None => (0..9_999).flat_map(|_| fresh(&mut next).to_le_bytes()).collect(),
            Some(base) => {
                let elements = base.as_chunks::<4>().0.iter().map(|element| u32::from_le_bytes(*element));
                elements
                    .flat_map(|bits| (bits + u32::from(next() % every == 0) * (1 + next() % 3)).to_le_bytes())
                    .collect()
            }
        }
    }

    /// The same floats, but for every other one of the smallest.
    fn small_ones_more(base: &[u8]) -> Vec<u8> {
        let elements = base.as_chunks::<4>().0.iter().map(|element| u32::from_le_bytes(*element));
        elements.flat_map(|bits| (bits + u32::from(bits >> 23 & 0xff == 118 && bits & 2 == 0)).to_le_bytes()).collect()
    }

    #[test]
    fn what_decodes_to_other_bytes_is_noticed_wherever_they_are() {
        let mut scratch = Scratch::new();
        let layout = Layout { width: 4, class: ElementClass::Float, row_len: 0, row_offset: 0 };
        let base = floats(None, 1);
        let text = b"one and the same words ".repeat(500);
        let mut kinds = std::collections::BTreeSet::new();
        for (raw, layout, base, anchor_len) in [
            (&base, layout, None, None),
            (&floats(Some(&base), 1), layout, Some(&base), None),
            (&small_ones_more(&base), layout, Some(&base), Some(base.len())),
            (&floats(Some(&base), 90), layout, Some(&base), None),
            (&text, Layout::BYTES, None, None),
        ] {
            let against = base.map(|bytes| Base { bytes, anchor_len });
            let mut payload = vec![0; raw.len()];
            let encoded = encode_best(raw, &layout, against.as_ref(), DeltaGain::Any, &mut scratch, &mut payload)
                .expect("encodes");
            let payload = &payload[..encoded.len.expect("it gets shorter")];
            let bases: Vec<&[u8]> = base.iter().map(|base| base.as_slice()).collect();
            let mut is = |raw: &[u8]| decodes_to(&encoded.pipeline, payload, raw, &bases, &mut scratch);
            kinds.insert(encoded.pipeline.iter().map(|stage| stage.codec).collect::<Vec<_>>());
            assert_eq!(is(raw), Ok(true));
            for at in [0, 1, 16_383, 16_384, raw.len() / 2, raw.len() - 1] {
                let mut other = raw.clone();
                let at = at.min(raw.len() - 1);
                other[at] ^= 0x10;
                assert_eq!(is(&other), Ok(false), "{:?}, byte {at}", encoded.pipeline);
            }
            is(&raw[4..]).expect_err("it is of another length");
            let other_bases: &[&[u8]] = if bases.is_empty() { &[b"base"] } else { &[] };
            decodes_to(&encoded.pipeline, payload, raw, other_bases, &mut scratch)
                .expect_err("a base too many or too few");
        }
        assert_eq!(kinds.len(), 5, "{kinds:?}");
    }
}
