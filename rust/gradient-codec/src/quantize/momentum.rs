//! Signed numbers in eight bits: `scale * (code / 127) * |code / 127|`, codes from -127 to 127.
//!
//! A momentum is dense near zero: with square roots its codes are too. Of what is measured in eight bits this errs least
//! (a quarter of what evenly spaced codes do).
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use super::lanes::{Lanes, Rests};
use super::{GROUPS, LANES, Scale, both, each, largest};

/// The largest code, squared.
const FULL: f32 = 127.0 * 127.0;
/// 2^-112: scales below are stored as this (but for zero): what they stand for is less than any step of training.
const SCALE_MIN: f32 = f32::from_bits((127 - 112) << 23);

/// What [`squares`] are to be multiplied by, and the scale.
pub const UNIT: f32 = 1.0 / FULL;

/// What it gives is to be multiplied by the scale.
#[inline(always)]
pub fn decode<L: Lanes>(lanes: L, codes: &[i8; LANES]) -> L::Floats {
    lanes.mul(squares(lanes, codes), lanes.splat(UNIT))
}

/// Codes times their absolute values, which are whole numbers.
#[inline(always)]
pub fn squares<L: Lanes>(lanes: L, codes: &[i8; LANES]) -> L::Floats {
    let code = lanes.of_signed(codes);
    lanes.mul(code, lanes.abs(code))
}

/// Less than [`squares`] by just so much that each becomes the code below when it is coded again; zeros stay.
#[inline(always)]
pub fn squares_below<L: Lanes>(lanes: L, codes: &[i8; LANES]) -> L::Floats {
    let code = lanes.of_signed(codes);
    // Codes c - 1 and c meet at (c - 1/2)^2, which is a quarter more than c^2 - c.
    lanes.sub(lanes.mul(code, lanes.abs(code)), code)
}

/// Codes a block; returns its scale.
#[inline(always)]
pub fn encode<L: Lanes>(lanes: L, values: [L::Floats; GROUPS], codes: &mut [[i8; LANES]; GROUPS]) -> f32 {
    let scale = scale(lanes, largest(lanes, each(values, |value| lanes.abs(value))));
    code(lanes, values, scale.factor, codes);
    scale.kept
}

/// Returns the scale that a block is coded with of which these are the largest absolute values, lane by lane.
#[inline(always)]
pub fn scale<L: Lanes>(lanes: L, largest: L::Floats) -> Scale<L> {
    Scale::of(lanes, largest, SCALE_MIN, 4.0 * FULL)
}

/// Codes a block, with the factor of its [`scale`].
#[inline(always)]
pub fn code<L: Lanes>(lanes: L, values: [L::Floats; GROUPS], factor: L::Floats, codes: &mut [[i8; LANES]; GROUPS]) {
    // Twice the root is a whole number where one code ends and the next begins. Any guess that is less than a quarter of
    // a code off, rounded to such a number, is that edge or lies beside the root; only there a half is up or down.
    let tiny = lanes.splat(f32::MIN_POSITIVE);
    let square = each(values, |value| lanes.at_least(lanes.mul(lanes.abs(value), factor), tiny));
    let twice = each(square, |square| lanes.nearest(lanes.guess_root(square)));
    let edge = each(twice, |twice| lanes.floats(twice));
    // At the edge the smaller one.
    let rest = both(edge, square, |edge, square| lanes.mul_less(edge, edge, square));
    lanes.halves_to_signed(codes, Rests { words: twice, rest, values });
}
