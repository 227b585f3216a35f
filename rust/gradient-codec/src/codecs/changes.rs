//! Changes: floats of which few are others than those of the base, told by the exponent of what they were.
//!
//! A step of training moves all weights about as far, and a number of few bits moves if that is enough for its last one:
//! how likely that is, its exponent says. So elements are put into classes by the exponents of the base, which the
//! decoder has, and each class has gaps between its changes, their directions and their distances of its own kind.
//!
//! Everything is counted in blocks of 64 elements: a word says which of them are in a class.

use std::borrow::Cow;

use super::{Codec, one_base, read_width, require_elements};
use crate::members::{BLOCK, NUM_CLASSES, Planes, all_of, compare, flips_of, members_of, sort};
use crate::numbers::{BitReader, BitWriter, NumbersReader, NumbersWriter};
use crate::output::{Output, into_vec};
use crate::pipeline::{begin_with, require_len, zeroed};
use crate::processor::for_processor;
use crate::sample::entropy_of;
use crate::{CodecError, Scratch};

const NAME: &str = "changes";

const SHIFT_MAX: u8 = 3;

/// So much of the base may have larger exponents than the first class begins with.
const TOP_SHARE: usize = 100;

/// The codec.
pub(crate) struct Changes;

/// How elements are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Params {
    width: usize,
    /// A class has 2 to the power of this of what bits 1 to 8 below the sign may be.
    shift: u8,
    /// The largest of them in the base, but for few.
    top: u8,
}

impl Params {
    fn read(params: &[u8]) -> Result<Self, CodecError> {
        match *params {
            [_, shift @ 0..=SHIFT_MAX, top] => Ok(Self { width: read_width(NAME, params)?, shift, top }),
            _ => Err(CodecError::BadParams { codec: NAME, len: params.len() }),
        }
    }

    fn encode(self) -> Vec<u8> {
        vec![self.width as u8, self.shift, self.top]
    }

    /// About how many bits an element of a sample takes.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn bits<const WIDTH: usize>(self, base: &[[u8; WIDTH]], raw: &[[u8; WIDTH]]) -> f32 {
        // Elements, those that changed, and the sum of what is more than a step.
        let mut sums = [(0.0, 0.0, 0.0); NUM_CLASSES];
        for (base, raw) in base.iter().zip(raw) {
            let (all, changed, steps) = &mut sums[usize::from(self.class(*base))];
            *all += 1.0;
            let distance = distance(*raw, *base);
            if distance != 0 {
                *changed += 1.0;
                *steps += (distance.unsigned_abs() - 1) as f32;
            }
        }
        let of_class = |&(all, changed, steps): &(f32, f32, f32)| {
            // No sample shows that none changed.
            let of_changes = all * entropy_of((changed + 0.5) / (all + 1.0));
            // As long as numbers of this mean that get rarer by the same factor each.
            let of_steps = (changed + steps) * entropy_of(changed / (changed + steps).max(1.0));
            of_changes + changed + of_steps
        };
        sums.iter().map(of_class).sum::<f32>() / base.len().max(1) as f32
    }

    /// The class of an element.
    #[inline]
    fn class<const WIDTH: usize>(self, element: [u8; WIDTH]) -> u8 {
        (self.top.saturating_sub(exponent(element)) >> self.shift).min(NUM_CLASSES as u8 - 1)
    }
}

impl Codec for Changes {
    fn id(&self) -> u8 {
        7
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn wants_bases(&self) -> bool {
        true
    }

    fn encode(
        &self,
        params: &[u8],
        bases: &[&[u8]],
        raw: &[u8],
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let base = one_base(bases)?;
        into_vec(NAME, raw.len(), out, |out| append(params, base, raw, out))
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        let params = Params::read(params)?;
        let (n, _) = encoded.split_first_chunk().ok_or(damaged("it is shorter than its length"))?;
        Ok(u64::from(u32::from_le_bytes(*n)) * params.width as u64)
    }

    fn decode(&self, params: &[u8], bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        let base = one_base(bases)?;
        begin_with(base, out);
        patch(params, encoded, out)
    }
}

/// The parameters that suit a sample of elements of the base and of what became of them, and about how many bits an
/// element takes then. None: more than such a share changed.
pub(crate) fn estimate(width: usize, base: &[u8], raw: &[u8], share_max: f32) -> Option<(Vec<u8>, f32)> {
    match width {
        1 => estimate_of::<1>(base, raw, share_max),
        2 => estimate_of::<2>(base, raw, share_max),
        4 => estimate_of::<4>(base, raw, share_max),
        _ => estimate_of::<8>(base, raw, share_max),
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of a sample")]
fn estimate_of<const WIDTH: usize>(base: &[u8], raw: &[u8], share_max: f32) -> Option<(Vec<u8>, f32)> {
    let (base, raw) = (base.as_chunks::<WIDTH>().0, raw.as_chunks::<WIDTH>().0);
    let num_changed = base.iter().zip(raw).filter(|(base, raw)| base != raw).count();
    if num_changed as f32 > share_max * base.len() as f32 {
        return None;
    }
    let mut exponents = [0; 256];
    for element in base {
        exponents[usize::from(exponent(*element))] += 1;
    }
    let mut above = 0;
    let is_top = |exponent: &u8| {
        above += exponents[usize::from(*exponent)];
        above > base.len() / TOP_SHARE
    };
    let top = (0..=u8::MAX).rev().find(is_top).unwrap_or(u8::MAX);
    // A class for each exponent of bf16 and fp32; of fp16 and fp8 eight of these bytes are about one.
    let estimate = |shift| {
        let params = Params { width: WIDTH, shift, top };
        (params.encode(), params.bits(base, raw))
    };
    let (each, eight) = (estimate(0), estimate(SHIFT_MAX));
    Some(if each.1 <= eight.1 { each } else { eight })
}

/// Appends the payload for `raw` to `out`. None: it does not fit.
///
/// # Errors
/// As [`Codec::encode`].
pub(crate) fn append(params: &[u8], base: &[u8], raw: &[u8], out: &mut Output<'_>) -> Result<Option<()>, CodecError> {
    let params = Params::read(params)?;
    require_elements(raw.len(), params.width)?;
    let base = match base.get(..raw.len()) {
        Some(base) => Cow::Borrowed(base),
        None => Cow::Owned([base, &zeroed((raw.len() - base.len()) as u64, raw.len())?].concat()),
    };
    if out.put(&((raw.len() / params.width) as u32).to_le_bytes()).is_none() {
        return Ok(None);
    }
    append_stream(params, &base, raw, out)
}

for_processor! {
    /// Appends all classes.
    fn append_stream(params: Params, base: &[u8], raw: &[u8], out: &mut Output<'_>) -> Result<Option<()>, CodecError>
        = ["avx2", "bmi1", "bmi2", "lzcnt", "popcnt"] => append_of_width, else append_of_width;
}

#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn append_of_width(params: Params, base: &[u8], raw: &[u8], out: &mut Output<'_>) -> Result<Option<()>, CodecError> {
    match params.width {
        1 => append_classes::<1>(params, base, raw, out),
        2 => append_classes::<2>(params, base, raw, out),
        4 => append_classes::<4>(params, base, raw, out),
        _ => append_classes::<8>(params, base, raw, out),
    }
}

#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn append_classes<const WIDTH: usize>(
    params: Params,
    base: &[u8],
    raw: &[u8],
    out: &mut Output<'_>,
) -> Result<Option<()>, CodecError> {
    let found = find_changes::<WIDTH>(params, base.as_chunks().0, raw.as_chunks().0)?;
    let mut bits = BitWriter::new(out);
    for OfClass { len, changed } in &found {
        let mut gaps = NumbersWriter::new();
        let mut next = 0;
        for (place, _) in changed {
            gaps.put(u64::from(place - next), &mut bits);
            next = place + 1;
        }
        gaps.put(u64::from(len - next), &mut bits);
        gaps.finish(&mut bits);
        for (_, distance) in changed {
            bits.put(u64::from(*distance < 0), 1);
        }
        let mut numbers = NumbersWriter::new();
        for (_, distance) in changed {
            numbers.put(distance.unsigned_abs() - 1, &mut bits);
        }
        numbers.finish(&mut bits);
        if bits.is_full() {
            return Ok(None);
        }
    }
    Ok(bits.finish())
}

/// What there is of a class.
#[derive(Debug, Default)]
struct OfClass {
    /// Its elements.
    len: u32,
    /// Of those that changed, how many elements of the class are before it, and how far it moved.
    changed: Vec<(u32, i64)>,
}

#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn find_changes<const WIDTH: usize>(
    params: Params,
    base: &[[u8; WIDTH]],
    raw: &[[u8; WIDTH]],
) -> Result<[OfClass; NUM_CLASSES], CodecError> {
    let num_blocks = base.len().div_ceil(BLOCK);
    let (mut planes, mut changed) = (zeros::<Planes>(num_blocks)?, zeros(num_blocks)?);
    sort(base, &mut planes, |element| params.class(element));
    compare(base, raw, &mut changed);
    let mut found: [OfClass; NUM_CLASSES] = Default::default();
    for (block, (mut changed, planes)) in changed.into_iter().zip(planes).enumerate() {
        let (first, inside) = (block * BLOCK, all_of(BLOCK.min(base.len() - block * BLOCK)));
        let mut members = [0; NUM_CLASSES];
        for (class, members) in members.iter_mut().enumerate() {
            *members = members_of(flips_of(class), planes) & inside;
        }
        while changed != 0 {
            let at = first + changed.trailing_zeros() as usize;
            let lowest = changed & changed.wrapping_neg();
            changed ^= lowest;
            let class = usize::from(params.class(base[at]));
            let of_class = &mut found[class];
            let place = of_class.len + (members[class] & (lowest - 1)).count_ones();
            of_class.changed.push((place, distance(raw[at], base[at])));
        }
        for (of_class, members) in found.iter_mut().zip(members) {
            of_class.len += members.count_ones();
        }
    }
    Ok(found)
}

/// Turns the base in `bytes` into what was encoded, and touches only what differs.
///
/// # Errors
/// As [`Codec::decode`].
pub(crate) fn patch(params: &[u8], encoded: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
    let params = Params::read(params)?;
    require_elements(bytes.len(), params.width)?;
    let (n, stream) = encoded.split_first_chunk().ok_or(damaged("it is shorter than its length"))?;
    require_len(bytes.len() / params.width, u32::from_le_bytes(*n) as usize)?;
    patch_stream(params, stream, bytes)
}

for_processor! {
    /// Reads all classes.
    fn patch_stream(params: Params, stream: &[u8], bytes: &mut [u8]) -> Result<(), CodecError>
        = ["avx2", "bmi1", "bmi2", "lzcnt", "popcnt"] => patch_of_width, else patch_of_width;
}

#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn patch_of_width(params: Params, stream: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
    match params.width {
        1 => patch_classes::<1>(params, stream, bytes),
        2 => patch_classes::<2>(params, stream, bytes),
        4 => patch_classes::<4>(params, stream, bytes),
        _ => patch_classes::<8>(params, stream, bytes),
    }
}

#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn patch_classes<const WIDTH: usize>(params: Params, stream: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
    let elements = bytes.as_chunks_mut::<WIDTH>().0;
    let len = elements.len();
    let num_blocks = len.div_ceil(BLOCK);
    let mut planes = zeros::<Planes>(num_blocks)?;
    sort(elements, &mut planes, |element| params.class(element));
    let mut bits = BitReader::new(stream);
    let mut of_class = zeros(num_blocks)?;
    let mut changed = Vec::new();
    for class in 0..NUM_CLASSES {
        let flips = flips_of(class);
        for (members, planes) in of_class.iter_mut().zip(&planes) {
            *members = members_of(flips, *planes);
        }
        if let Some(last) = of_class.last_mut() {
            *last &= all_of(len - (num_blocks - 1) * BLOCK);
        }
        take_changed(&of_class, &mut bits, &mut changed)?;
        let mut directions = bits.clone();
        bits.skip(changed.len());
        if bits.is_over() {
            break;
        }
        let mut numbers = NumbersReader::new();
        for at in &changed {
            let element = &mut elements[*at as usize];
            let (steps, is_down) = (numbers.take(&mut bits) + 1, directions.take(1) == 1);
            if (steps - u64::from(is_down)) >> (8 * WIDTH - 1) != 0 {
                return Err(damaged("a change is larger than an element"));
            }
            *element = moved(*element, if is_down { steps.wrapping_neg() } else { steps });
        }
    }
    if bits.is_at_end() { Ok(()) } else { Err(damaged("it has another length than its changes")) }
}

/// Reads which elements of a class changed.
#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn take_changed(of_class: &[u64], bits: &mut BitReader<'_>, changed: &mut Vec<u32>) -> Result<(), CodecError> {
    changed.clear();
    let mut gaps = NumbersReader::new();
    let mut gap = gaps.take(bits);
    for (block, members) in of_class.iter().enumerate() {
        let mut count = u64::from(members.count_ones());
        let mut left = *members;
        while gap < count {
            count -= gap + 1;
            for _ in 0..gap {
                left &= left - 1;
            }
            changed.push((BLOCK * block) as u32 + left.trailing_zeros());
            left &= left - 1;
            gap = gaps.take(bits);
        }
        gap -= count;
    }
    // The last one leads to the end.
    if gap == 0 { Ok(()) } else { Err(damaged("its gaps are longer than the chunk")) }
}

/// Returns so many zeros.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>, CodecError> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(len).map_err(|_| CodecError::OutOfMemory { len: len * size_of::<T>() })?;
    zeros.resize(len, T::default());
    Ok(zeros)
}

/// The eight bits below the sign.
#[inline]
fn exponent<const WIDTH: usize>(element: [u8; WIDTH]) -> u8 {
    let below = if WIDTH > 1 { element[WIDTH - 2] >> 7 } else { 0 };
    element[WIDTH - 1] << 1 | below
}

/// As a number that rises with the value, as in *difference*. Its own inverse.
#[inline]
fn ordered<const WIDTH: usize>(element: [u8; WIDTH]) -> u64 {
    let mut eight = [0; 8];
    eight[..WIDTH].copy_from_slice(&element);
    let bits = u64::from_le_bytes(eight);
    let sign = 1 << (8 * WIDTH - 1);
    if bits & sign == 0 { bits } else { bits ^ (sign - 1) }
}

/// How far it is from an element of the base to what it became.
fn distance<const WIDTH: usize>(element: [u8; WIDTH], base: [u8; WIDTH]) -> i64 {
    let unused = 64 - 8 * WIDTH;
    (ordered(element).wrapping_sub(ordered(base)) << unused).cast_signed() >> unused
}

/// The element so far up from another one.
#[inline]
fn moved<const WIDTH: usize>(element: [u8; WIDTH], up: u64) -> [u8; WIDTH] {
    let to = ordered::<WIDTH>(lowest_bytes(ordered(element).wrapping_add(up)));
    lowest_bytes(to)
}

#[inline]
fn lowest_bytes<const WIDTH: usize>(bits: u64) -> [u8; WIDTH] {
    let mut bytes = [0; WIDTH];
    bytes.copy_from_slice(&bits.to_le_bytes()[..WIDTH]);
    bytes
}

fn damaged(what: &'static str) -> CodecError {
    CodecError::Damaged { codec: NAME, what }
}
