//! Parts: the bytes of one plane, each coded in the way that suits it. Which way, the row before the parts says.

use crate::codecs::lz4::{decode_block, encode_block};
use crate::codecs::zstd::CHUNK_LEVEL;
use crate::codecs::zstd::{decode_frame, encode_frame, encode_literals};
use crate::few;
use crate::literals::append_frame;
use crate::output::Output;
use crate::sample::Counts;
use crate::{CodecError, Scratch};

/// Bytes of a row: coder and length.
pub(crate) const ROW_BYTES: usize = 5;

/// What the bytes of a plane are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaneOf {
    /// Bytes of floats, or what means left of them: nothing repeats before nearly all of them are the same.
    Floats,
    /// Bytes of anything else, also of differences.
    Others,
    /// Bytes of [`Coder::Few`].
    Few,
}

impl PlaneOf {
    /// From this share of one value on matches may be better friends than frequencies.
    fn repeating_share(self) -> f32 {
        if self == Self::Floats { 0.75 } else { 0.5 }
    }
}

/// With fewer zeros it takes longer to go from one to the next than to code all of them.
const FEW_SHARE_MIN: f32 = 0.85;

/// What is tried before a whole plane is coded.
const TRIED_BYTES: usize = 8 << 10;

/// How the bytes of a part stand for those of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Coder {
    /// As they are.
    Raw = 0,
    /// A zstd frame.
    Zstd = 1,
    /// An LZ4 block.
    Lz4 = 2,
    /// One byte that all are.
    Constant = 3,
    /// Bit 0 of each is zero and left out.
    Septets = 4,
    /// Those that are not zero, and the gaps between them.
    Few = 5,
}

impl Coder {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Raw,
            1 => Self::Zstd,
            2 => Self::Lz4,
            3 => Self::Constant,
            4 => Self::Septets,
            5 => Self::Few,
            _ => return None,
        })
    }
}

/// A row of a table of parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) coder: Coder,
    pub(crate) len: usize,
}

impl Row {
    pub(crate) fn encode(self) -> [u8; ROW_BYTES] {
        let [a, b, c, d] = (self.len as u32).to_le_bytes();
        [self.coder as u8, a, b, c, d]
    }

    /// Takes a row from the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn take(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        let ([coder, len @ ..], rest) = bytes.split_first_chunk::<ROW_BYTES>().ok_or("it ends within its rows")?;
        *bytes = rest;
        let coder = Coder::of(*coder).ok_or("it names an unknown coder")?;
        Ok(Self { coder, len: u32::from_le_bytes(*len) as usize })
    }

    /// Takes its part from the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn take_part<'a>(self, bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
        let (part, rest) = bytes.split_at_checked(self.len).ok_or("it ends within its parts")?;
        *bytes = rest;
        Ok(part)
    }
}

/// Appends a plane, coded by what is cheapest as far as a look at it tells. Raw, and then nothing is appended, if nothing
/// takes a fiftieth off or it does not fit.
///
/// # Errors
/// [`CodecError::OutOfMemory`], [`CodecError::NotEncoded`].
pub(crate) fn append_coded(
    plane: &[u8],
    kind: PlaneOf,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Row, CodecError> {
    let start = out.len();
    let mut part = std::mem::take(&mut scratch.part);
    let coder = append_by_coder(plane, kind, scratch, &mut part, out);
    scratch.part = part;
    let (coder, len) = (coder?, out.len() - start);
    if coder == Coder::Raw || (coder != Coder::Constant && len > plane.len() - plane.len() / 50) {
        out.truncate(start);
        return Ok(Row { coder: Coder::Raw, len: plane.len() });
    }
    Ok(Row { coder, len })
}

/// Appends a row and its part; none if they do not fit.
///
/// # Errors
/// As [`append_coded`].
pub(crate) fn append_part(
    plane: &[u8],
    kind: PlaneOf,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Option<()>, CodecError> {
    let at = out.len();
    if out.leave(ROW_BYTES).is_none() {
        return Ok(None);
    }
    let row = append_coded(plane, kind, scratch, out)?;
    if row.coder == Coder::Raw && out.put(plane).is_none() {
        return Ok(None);
    }
    out.written_mut()[at..][..ROW_BYTES].copy_from_slice(&row.encode());
    Ok(Some(()))
}

/// Appends nothing if it returns [`Coder::Raw`].
fn append_by_coder(
    plane: &[u8],
    kind: PlaneOf,
    scratch: &mut Scratch,
    part: &mut Vec<u8>,
    out: &mut Output<'_>,
) -> Result<Coder, CodecError> {
    let Some((first, rest)) = plane.split_first() else { return Ok(Coder::Raw) };
    let or_raw = |coder, put: Option<()>| if put.is_some() { coder } else { Coder::Raw };
    let counts = Counts::of_sample(plane);
    if counts.is_constant() && rest.iter().all(|byte| byte == first) {
        return Ok(or_raw(Coder::Constant, out.put(&[*first])));
    }
    let bits = counts.bits();
    if bits > 6.5 && counts.are_even() && is_even(plane) {
        return Ok(or_raw(Coder::Septets, append_septets(plane, out)));
    }
    if bits > 7.8 {
        return Ok(Coder::Raw);
    }
    if counts.largest_share() >= kind.repeating_share() || plane.len() <= TRIED_BYTES {
        // A run from the middle, where neither padding nor the first row is.
        let start = plane.len().saturating_sub(TRIED_BYTES) / 2;
        let tried = &plane[start..plane.len().min(start + TRIED_BYTES)];
        encode_literals(tried, scratch, part)?;
        let literals = part.len();
        encode_frame(tried, CHUNK_LEVEL, scratch, part)?;
        let matched = part.len();
        encode_block(tried, part)?;
        let block = part.len();
        let few = if kind == PlaneOf::Few || counts.share_of(0) < FEW_SHARE_MIN {
            None
        } else {
            few_len(tried, scratch, part)?
        };
        if few.is_some_and(|few| few < literals.min(block) && few <= matched + matched / 16) {
            return Ok(or_raw(Coder::Few, few::append(plane, scratch, out)?));
        }
        if block < literals && block <= matched + matched / 16 {
            encode_block(plane, part)?;
            return Ok(or_raw(Coder::Lz4, out.put(part)));
        }
        if matched < literals {
            encode_frame(plane, CHUNK_LEVEL, scratch, part)?;
            return Ok(or_raw(Coder::Zstd, out.put(part)));
        }
    }
    let of_ours = scratch.pairs().and_then(|pairs| append_frame(plane, pairs, out));
    if of_ours.is_some() {
        return Ok(Coder::Zstd);
    }
    encode_literals(plane, scratch, part)?;
    Ok(or_raw(Coder::Zstd, out.put(part)))
}

/// How long a plane is as few.
fn few_len(plane: &[u8], scratch: &mut Scratch, part: &mut Vec<u8>) -> Result<Option<usize>, CodecError> {
    part.resize(plane.len(), 0);
    let mut out = Output::new(part);
    Ok(few::append(plane, scratch, &mut out)?.map(|()| out.len()))
}

/// Says whether bit 0 of each byte is zero; without an early end, which would make it slower.
fn is_even(plane: &[u8]) -> bool {
    plane.iter().fold(0, |all, byte| all | byte) & 1 == 0
}

/// Decodes a part of a payload `of` that codec to exactly all of `out`.
///
/// # Errors
/// [`CodecError::Damaged`], [`CodecError::WrongLength`], [`CodecError::OutOfMemory`].
pub(crate) fn decode_part(of: &'static str, coder: Coder, part: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let damaged = |what| CodecError::Damaged { codec: of, what };
    match coder {
        Coder::Raw => {
            crate::pipeline::require_len(out.len(), part.len())?;
            out.copy_from_slice(part);
        }
        Coder::Zstd => decode_frame(part, out)?,
        Coder::Lz4 => decode_block(part, out)?,
        Coder::Constant => match part {
            [byte] => out.fill(*byte),
            _ => return Err(damaged("what stands for all bytes is not one byte")),
        },
        Coder::Few => few::decode(of, part, out)?,
        Coder::Septets => decode_septets(part, out).ok_or(damaged("septets of another number of bytes"))?,
    }
    Ok(())
}

/// Bytes that so many septets take.
fn septets_len(len: usize) -> usize {
    len / 8 * 7 + (len % 8 * 7).div_ceil(8)
}

/// Leaves out bit 0 of each byte, which is zero: eight become seven. None: it does not fit.
fn append_septets(plane: &[u8], out: &mut Output<'_>) -> Option<()> {
    let start = out.len();
    out.leave(septets_len(plane.len()))?;
    encode_septets(plane, &mut out.written_mut()[start..]);
    Some(())
}

fn encode_septets(plane: &[u8], out: &mut [u8]) {
    let (eights, rest) = plane.as_chunks::<8>();
    let (sevens, last) = out.as_chunks_mut::<7>();
    for (eight, seven) in eights.iter().zip(sevens) {
        seven.copy_from_slice(&close_up(u64::from_le_bytes(*eight)).to_le_bytes()[..7]);
    }
    if !rest.is_empty() {
        let mut eight = [0; 8];
        eight[..rest.len()].copy_from_slice(rest);
        let closed = close_up(u64::from_le_bytes(eight)).to_le_bytes();
        // Of seven bytes that are left, seven are needed: then they are a chunk of their own.
        let at = plane.len() / 8 * 7;
        let len = last.len();
        if len > 0 {
            last.copy_from_slice(&closed[..len]);
        } else {
            out[at..].copy_from_slice(&closed[..7]);
        }
    }
}

fn decode_septets(part: &[u8], out: &mut [u8]) -> Option<()> {
    if part.len() != septets_len(out.len()) {
        return None;
    }
    let (eights, rest) = out.as_chunks_mut::<8>();
    let (whole, last) = part.split_at(7 * eights.len());
    for (seven, eight) in whole.as_chunks::<7>().0.iter().zip(eights) {
        let mut closed = [0; 8];
        closed[..7].copy_from_slice(seven);
        *eight = spread(u64::from_le_bytes(closed)).to_le_bytes();
    }
    let mut closed = [0; 8];
    closed[..last.len()].copy_from_slice(last);
    let spread = spread(u64::from_le_bytes(closed)).to_le_bytes();
    rest.copy_from_slice(&spread[..rest.len()]);
    // Bits that stand for nothing are zero.
    spread[rest.len()..].iter().all(|byte| *byte == 0).then_some(())?;
    (u64::from_le_bytes(closed) >> 56 == 0).then_some(())
}

/// Closes the gaps of eight bytes whose lowest bits are zero.
fn close_up(eight: u64) -> u64 {
    let x = (eight >> 1) & 0x7f7f_7f7f_7f7f_7f7f;
    let x = (x & 0x007f_007f_007f_007f) | ((x & 0x7f00_7f00_7f00_7f00) >> 1);
    let x = (x & 0x0000_3fff_0000_3fff) | ((x & 0x3fff_0000_3fff_0000) >> 2);
    (x & 0x0fff_ffff) | ((x & 0x0fff_ffff_0000_0000) >> 4)
}

/// The other way round.
fn spread(closed: u64) -> u64 {
    let x = (closed & 0x0fff_ffff) | ((closed << 4) & 0x0fff_ffff_0000_0000);
    let x = (x & 0x0000_3fff_0000_3fff) | ((x << 2) & 0x3fff_0000_3fff_0000);
    let x = (x & 0x007f_007f_007f_007f) | ((x << 1) & 0x7f00_7f00_7f00_7f00);
    x << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn septets_of_every_number_come_back() {
        for len in 0..40_usize {
            let plane: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(37) << 1).collect();
            let mut part = vec![0; septets_len(len)];
            encode_septets(&plane, &mut part);
            assert_eq!(part.len(), (7 * len).div_ceil(8));
            let mut out = vec![1; len];
            decode_septets(&part, &mut out).expect("was just written");
            assert_eq!(out, plane);
        }
    }

    #[test]
    fn of_a_plane_that_is_nearly_empty_the_others_and_their_gaps_are_stored() {
        let mut plane = vec![0; 1 << 18];
        for i in 0..5000_usize {
            plane[i * i % (1 << 18)] = 1 + (i % 5) as u8;
        }
        let mut bytes = vec![0; plane.len()];
        let mut out = Output::new(&mut bytes);
        let row = append_coded(&plane, PlaneOf::Others, &mut Scratch::new(), &mut out).expect("encodes");
        assert_eq!(row.coder, Coder::Few);
        assert!(row.len < 8000, "{row:?}");
        let mut decoded = vec![1; plane.len()];
        decode_part("planes", row.coder, out.written_mut(), &mut decoded).expect("was just written");
        assert!(decoded == plane);
    }

    #[test]
    fn septets_with_bits_of_nothing_are_refused() {
        let mut part = [0; 3];
        encode_septets(&[2, 4, 254], &mut part);
        part[2] |= 0x80;
        assert_eq!(decode_septets(&part, &mut [0; 3]), None);
    }
}
