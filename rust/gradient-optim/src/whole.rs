//! Whole moments as codes and back, outside of a step.
//!
//! The codes are those that a step would write, to the bit. Elements are read and written in blocks, so nothing is ever
//! in memory twice.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use std::sync::atomic::{AtomicBool, Ordering};

use gradient_codec::quantize::lanes::{LaneKind, Lanes, OnLanes, dispatch};
use gradient_codec::quantize::variance::Rounding;
use gradient_codec::quantize::{BLOCK, Blocks, GROUPS, Part, groups, groups_mut, momentum, variance};

use crate::tensor::{Codes, TILE};
use crate::{Crew, Fixed, Floats, OptimError};

/// Numbers in eight bits that are only read.
#[derive(Clone, Copy, Debug)]
pub struct FixedCodes<'a, C> {
    /// Elements, row after row.
    pub codes: &'a [C],
    /// One for each block.
    pub scales: &'a [f32],
}

/// Codes first moments.
///
/// # Errors
/// [`OptimError::NoRows`], [`OptimError::WrongLength`]: lengths do not belong together; nothing was written.
pub fn encode_momentum(
    values: Fixed<'_>,
    codes: Codes<'_, i8>,
    row_len: usize,
    kind: LaneKind,
    crew: &Crew,
) -> Result<(), OptimError> {
    let numel = values.len();
    let tiles = tiles_to_encode(values, codes, row_len)?;
    crew.each(tiles, numel, |tile| dispatch(kind, EncodeMomentum(tile)));
    Ok(())
}

/// Codes second moments likewise, with lots where `key` is one.
///
/// # Errors
/// As [`encode_momentum`]; and [`OptimError::Negative`]: a number is less than zero; what was written is of no use.
pub fn encode_variance(
    values: Fixed<'_>,
    codes: Codes<'_, u8>,
    row_len: usize,
    key: Option<u32>,
    kind: LaneKind,
    crew: &Crew,
) -> Result<(), OptimError> {
    let numel = values.len();
    let tiles = tiles_to_encode(values, codes, row_len)?;
    let rounding = key.map_or(Rounding::Nearest, |key| Rounding::Stochastic { key });
    let is_negative = AtomicBool::new(false);
    crew.each(tiles, numel, |tile| {
        if dispatch(kind, EncodeVariance(tile, rounding)) {
            is_negative.store(true, Ordering::Relaxed);
        }
    });
    if is_negative.into_inner() { Err(OptimError::Negative) } else { Ok(()) }
}

/// Gives first moments back.
///
/// # Errors
/// As [`encode_momentum`].
pub fn decode_momentum(
    codes: FixedCodes<'_, i8>,
    values: Floats<'_>,
    row_len: usize,
    kind: LaneKind,
    crew: &Crew,
) -> Result<(), OptimError> {
    decode(codes, values, row_len, kind, crew, DecodeMomentum)
}

/// Gives second moments back.
///
/// # Errors
/// As [`encode_momentum`].
pub fn decode_variance(
    codes: FixedCodes<'_, u8>,
    values: Floats<'_>,
    row_len: usize,
    kind: LaneKind,
    crew: &Crew,
) -> Result<(), OptimError> {
    decode(codes, values, row_len, kind, crew, DecodeVariance)
}

/// Says what has another length than it should.
fn check(numel: usize, row_len: usize, num_codes: usize, num_scales: usize) -> Result<Blocks, OptimError> {
    let Some(blocks) = Blocks::new(numel, row_len) else {
        return Err(OptimError::NoRows { tensor: 0, numel, row_len });
    };
    let lens = [("the codes", numel, num_codes), ("the scales", blocks.num(), num_scales)];
    match lens.into_iter().find(|(_, expected, actual)| expected != actual) {
        Some((what, expected, actual)) => Err(OptimError::WrongLength { tensor: 0, what, expected, actual }),
        None => Ok(blocks),
    }
}

/// What a thread codes at a time.
struct Uncoded<'a, C> {
    values: Fixed<'a>,
    codes: Codes<'a, C>,
    part: Part,
}

fn tiles_to_encode<'a, C: Default>(
    mut values: Fixed<'a>,
    mut codes: Codes<'a, C>,
    row_len: usize,
) -> Result<Vec<Uncoded<'a, C>>, OptimError> {
    let blocks = check(values.len(), row_len, codes.codes.len(), codes.scales.len())?;
    let cut = |part: Part| {
        Some(Uncoded {
            values: values.split_off(part.numel())?,
            codes: codes.split_off(part.numel(), part.num())?,
            part,
        })
    };
    Ok(blocks.parts(TILE).map_while(cut).collect())
}

struct EncodeMomentum<'a>(Uncoded<'a, i8>);

impl OnLanes for EncodeMomentum<'_> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self(Uncoded { values, codes: Codes { codes, scales }, part }) = self;
        for (range, scale) in part.ranges().zip(scales) {
            let mut own = [0; BLOCK];
            let block = load(lanes, &values.read(range.start, range.len()));
            *scale = momentum::encode(lanes, block, groups_mut(&mut own));
            let len = range.len();
            codes[range].copy_from_slice(&own[..len]);
        }
    }
}

struct EncodeVariance<'a>(Uncoded<'a, u8>, Rounding);

impl OnLanes for EncodeVariance<'_> {
    /// Whether a number is less than zero.
    type Output = bool;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> bool {
        let Self(Uncoded { values, codes: Codes { codes, scales }, part }, rounding) = self;
        let mut is_negative = false;
        for ((range, scale), number) in part.ranges().zip(scales).zip(part.number()..) {
            let mut own = [0; BLOCK];
            let block = values.read(range.start, range.len());
            is_negative |= block.iter().any(|value| *value < 0.0);
            let [a, b, c, d] = load(lanes, &block);
            let block = [lanes.abs(a), lanes.abs(b), lanes.abs(c), lanes.abs(d)];
            *scale = variance::encode(lanes, block, rounding, number, groups_mut(&mut own));
            let len = range.len();
            codes[range].copy_from_slice(&own[..len]);
        }
        is_negative
    }
}

#[inline(always)]
fn load<L: Lanes>(lanes: L, block: &[f32; BLOCK]) -> [L::Floats; GROUPS] {
    let [a, b, c, d] = groups(block);
    [lanes.load(a), lanes.load(b), lanes.load(c), lanes.load(d)]
}

/// How sixteen codes become numbers.
trait Decode: Copy + Send + Sync {
    type Code: Copy + Default + Sync;

    fn sixteen<L: Lanes>(lanes: L, codes: &[Self::Code; gradient_codec::quantize::LANES]) -> L::Floats;
}

#[derive(Clone, Copy)]
struct DecodeMomentum;

impl Decode for DecodeMomentum {
    type Code = i8;

    #[inline(always)]
    fn sixteen<L: Lanes>(lanes: L, codes: &[i8; gradient_codec::quantize::LANES]) -> L::Floats {
        momentum::decode(lanes, codes)
    }
}

#[derive(Clone, Copy)]
struct DecodeVariance;

impl Decode for DecodeVariance {
    type Code = u8;

    #[inline(always)]
    fn sixteen<L: Lanes>(lanes: L, codes: &[u8; gradient_codec::quantize::LANES]) -> L::Floats {
        variance::decode(lanes, codes)
    }
}

/// What a thread decodes at a time.
struct Coded<'a, D: Decode> {
    codes: FixedCodes<'a, D::Code>,
    values: Floats<'a>,
    part: Part,
}

fn decode<D: Decode>(
    mut codes: FixedCodes<'_, D::Code>,
    mut values: Floats<'_>,
    row_len: usize,
    kind: LaneKind,
    crew: &Crew,
    _how: D,
) -> Result<(), OptimError> {
    let numel = values.len();
    let blocks = check(numel, row_len, codes.codes.len(), codes.scales.len())?;
    let cut = |part: Part| {
        let own = codes.codes.split_off(..part.numel())?;
        let scales = codes.scales.split_off(..part.num())?;
        Some(Coded::<D> { codes: FixedCodes { codes: own, scales }, values: values.split_off(part.numel())?, part })
    };
    let tiles: Vec<_> = blocks.parts(TILE).map_while(cut).collect();
    crew.each(tiles, numel, |tile| dispatch(kind, tile));
    Ok(())
}

impl<D: Decode> OnLanes for Coded<'_, D> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self { codes: FixedCodes { codes, scales }, mut values, part } = self;
        for (range, scale) in part.ranges().zip(scales) {
            let (start, len) = (range.start, range.len());
            let (mut own, mut block) = ([D::Code::default(); BLOCK], [0.0; BLOCK]);
            own[..len].copy_from_slice(&codes[range]);
            for (codes, floats) in groups(&own).iter().zip(groups_mut(&mut block)) {
                lanes.store(floats, lanes.mul(D::sixteen(lanes, codes), lanes.splat(*scale)));
            }
            values.write(start, len, &block);
        }
    }
}
