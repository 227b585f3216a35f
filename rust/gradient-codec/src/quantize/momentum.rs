//! Signed numbers in eight bits: `scale * (code / 127) * |code / 127|`, codes from -127 to 127.
//!
//! A momentum is dense near zero: with square roots its codes are too. Of what is measured in eight bits this errs least
//! (a quarter of what evenly spaced codes do).
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use super::lanes::Lanes;
use super::{GROUPS, LANES, largest_of, magnitudes};

/// The largest code, squared.
const FULL: f32 = 127.0 * 127.0;
/// 2^-112: scales below are stored as this (but for zero): what they stand for is less than any step of training.
const SCALE_MIN: f32 = f32::from_bits((127 - 112) << 23);

/// What [`decode`] gives is to be multiplied by the scale.
#[inline(always)]
pub fn decode<L: Lanes>(lanes: L, codes: &[i8; LANES]) -> L::Floats {
    let code = lanes.of_signed(codes);
    lanes.mul(lanes.mul(code, lanes.abs(code)), lanes.splat(1.0 / FULL))
}

/// Codes a block; returns its scale.
#[inline(always)]
pub fn encode<L: Lanes>(lanes: L, values: [L::Floats; GROUPS], codes: &mut [[i8; LANES]; GROUPS]) -> f32 {
    let magnitudes = magnitudes(lanes, values);
    let largest = largest_of(lanes, magnitudes);
    let scale = if largest < SCALE_MIN { SCALE_MIN } else { largest };
    let factor = lanes.splat(FULL / scale);
    for ((value, magnitude), codes) in values.into_iter().zip(magnitudes).zip(codes) {
        let square = lanes.mul(magnitude, factor);
        // The nearest root or one less, so that one is added; at the edge between two codes the smaller one.
        let root = lanes.round(lanes.guess_root_less_quarter(square));
        let edge = lanes.mul_add(root, root, lanes.add(root, lanes.splat(0.25)));
        let root = lanes.up_where_less(edge, square, root);
        lanes.to_signed(codes, lanes.with_sign(root, value));
    }
    if largest == 0.0 { 0.0 } else { scale }
}
