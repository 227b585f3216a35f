//! Numbers that are not negative in eight bits: `scale * (code / 255)^4`, codes from 1 to 255; code 0 is zero, and no
//! other number is.
//!
//! Second moments lie many orders of magnitude apart; a fourth root spans nine of them.
//!
//! **Rounding.** An average that moves by a thousandth a step (beta2 = 0.999) never reaches the middle between two codes,
//! and would stay where it is for ever: there the code is drawn by lot, so that the *value* is right on average
//! ([`Rounding::Stochastic`]). The lots are a function of a key and of where a number is, so that they are the same on
//! every machine and for any number of threads.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use super::lanes::Lanes;
use super::{GROUPS, LANES, largest_of};

/// The largest code to the fourth power.
const FULL: f32 = 255.0 * 255.0 * 255.0 * 255.0;
/// 2^-94: scales below are stored as this (but for zero): their roots are far below any epsilon.
const SCALE_MIN: f32 = f32::from_bits((127 - 94) << 23);

/// How a number between two codes becomes one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The one whose root is nearer; for averages over at most some fifty steps.
    Nearest,
    /// Either, by lot, so that the value is right on average.
    Stochastic {
        /// Another one for each tensor and step.
        key: u32,
    },
}

impl Rounding {
    /// Returns what lots are drawn with: another key for each tensor, by its number, and for each of its steps.
    #[must_use]
    pub fn key(tensor: u64, step: u64) -> u32 {
        // SplitMix64 (Steele, Lea, Flood 2014), its high half.
        let mut word = tensor.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 32) as u32
    }
}

/// What [`decode`] gives is to be multiplied by the scale.
#[inline(always)]
pub fn decode<L: Lanes>(lanes: L, codes: &[u8; LANES]) -> L::Floats {
    let root = lanes.mul(lanes.of_unsigned(codes), lanes.splat(1.0 / 255.0));
    let square = lanes.mul(root, root);
    lanes.mul(square, square)
}

/// Codes block number `block` of a tensor, whose numbers have no sign, nor has zero; returns its scale.
#[inline(always)]
pub fn encode<L: Lanes>(
    lanes: L,
    values: [L::Floats; GROUPS],
    rounding: Rounding,
    block: u64,
    codes: &mut [[u8; LANES]; GROUPS],
) -> f32 {
    let largest = largest_of(lanes, values);
    let scale = if largest < SCALE_MIN { SCALE_MIN } else { largest };
    let factor = lanes.splat(FULL / scale);
    let key = match rounding {
        Rounding::Nearest => 0,
        Rounding::Stochastic { key } => key,
    };
    // One word for each four numbers; each sees it turned by eight bits more, so two share at most eight.
    let mut words = lanes.random((block as u32).wrapping_mul(LANES as u32), key ^ (block >> 28) as u32);
    for (value, codes) in values.into_iter().zip(codes) {
        let fourth = lanes.mul(value, factor);
        let fourth_of = |root| {
            let square = lanes.mul(root, root);
            lanes.mul(square, square)
        };
        let guess = lanes.guess_fourth_root(fourth);
        let root = match rounding {
            Rounding::Nearest => {
                // The nearest root or one less, so that one is added.
                let root = lanes.round(lanes.sub(guess, lanes.splat(0.25)));
                lanes.up_where_less(fourth_of(lanes.add(root, lanes.splat(0.5))), fourth, root)
            }
            Rounding::Stochastic { .. } => {
                // The root without its fraction or one more, so that one is taken off.
                let root = lanes.round(guess);
                let root = lanes.down_where_less(fourth, fourth_of(root), root);
                // With t = 2 root + 1 the next fourth power is t (t^2 + 1) / 2 away; this is a 65,536th of it.
                let t = lanes.mul_add(root, lanes.splat(2.0), lanes.splat(1.0));
                let part = lanes.splat(1.0 / 131_072.0);
                let gap = lanes.mul(t, lanes.mul_add(lanes.mul(t, t), part, part));
                let square = lanes.mul(root, root);
                let rest = lanes.mul_from(square, square, fourth);
                let lot = lanes.mul(lanes.low_odd(words), gap);
                words = lanes.turn(words);
                lanes.up_where_less(lot, rest, root)
            }
        };
        lanes.to_unsigned(codes, lanes.at_least_one_where_positive(value, root));
    }
    if largest == 0.0 { 0.0 } else { scale }
}
