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

use super::lanes::{Lanes, Rests};
use super::{GROUPS, LANES, Scale, both, each, largest};

/// The largest code to the fourth power.
const FULL: f32 = 255.0 * 255.0 * 255.0 * 255.0;
/// 2^-92: scales below are stored as this (but for zero): their roots are far below any epsilon, and 16 [`FULL`] divided
/// by them would be infinite.
const SCALE_MIN: f32 = f32::from_bits((127 - 92) << 23);

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

/// What [`fourths`] are to be multiplied by, and the scale.
pub const UNIT: f32 = 1.0 / FULL;

/// The fourth powers of codes.
#[inline(always)]
pub fn fourths<L: Lanes>(lanes: L, codes: &[u8; LANES]) -> L::Floats {
    let code = lanes.of_unsigned(codes);
    let square = lanes.mul(code, code);
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
    let scale = scale(lanes, largest(lanes, values));
    code(lanes, values, scale.factor, rounding, block, codes);
    scale.kept
}

/// Returns the scale that a block is coded with of which these are the largest values, lane by lane.
#[inline(always)]
pub fn scale<L: Lanes>(lanes: L, largest: L::Floats) -> Scale<L> {
    Scale::of(lanes, largest, SCALE_MIN, FULL)
}

/// Codes block number `block`, with the factor of its [`scale`].
#[inline(always)]
pub fn code<L: Lanes>(
    lanes: L,
    values: [L::Floats; GROUPS],
    factor: L::Floats,
    rounding: Rounding,
    block: u64,
    codes: &mut [[u8; LANES]; GROUPS],
) {
    let square_of = |root| lanes.mul(root, root);
    match rounding {
        Rounding::Nearest => {
            // As momenta are, by twice the root.
            let (factor, most) = (lanes.mul(factor, lanes.splat(16.0)), lanes.splat(16.0 * FULL));
            let fourth = each(values, |value| lanes.at_most(lanes.mul(value, factor), most));
            let twice = each(fourth, |fourth| lanes.nearest(lanes.guess_fourth_root(fourth)));
            let square = each(each(twice, |twice| lanes.floats(twice)), square_of);
            let rest = both(square, fourth, |square, fourth| lanes.mul_less(square, square, fourth));
            lanes.halves_to_unsigned(codes, Rests { words: twice, rest, values });
        }
        Rounding::Stochastic { key } => {
            let most = lanes.splat(FULL);
            let fourth = each(values, |value| lanes.at_most(lanes.mul(value, factor), most));
            // Four numbers share a word; each sees it turned by eight bits more, so two share at most eight.
            let words = lanes.random((block as u32).wrapping_mul(LANES as u32), key ^ (block >> 28) as u32);
            let lots = lanes.lots(words);
            // With the lot u, code c + 1 begins at c^4 + u ((c + 1)^4 - c^4), whose root is u more than c, and by less
            // than a quarter more than that: for c = 1 by 0.23, then by less. So only the number nearest to root - u can
            // be such a c that it is not certain on which side the value is. (For c = 0 that does not hold, nor does it
            // matter: what is not zero is 1 at least.)
            let u = lanes.splat(1.0 / 65_536.0);
            let root = each(fourth, |fourth| lanes.guess_fourth_root(fourth));
            let near = both(lots, root, |lot, root| lanes.nearest(lanes.mul_from(lot, u, root)));
            let root = each(near, |near| lanes.floats(near));
            // The next fourth power is 4 root^3 + 6 root^2 + 4 root + 1 away; this is a 65,536th of it.
            let part = |part: f32| lanes.splat(part / 65_536.0);
            let gap = each(root, |root| lanes.mul_add(root, part(4.0), part(6.0)));
            let gap = both(gap, root, |gap, root| lanes.mul_add(gap, root, part(4.0)));
            let gap = both(gap, root, |gap, root| lanes.mul_add(gap, root, part(1.0)));
            let square = each(root, square_of);
            let rest = both(square, fourth, |square, fourth| lanes.mul_from(square, square, fourth));
            let mut rests = gap;
            for ((gap, lot), rest) in rests.iter_mut().zip(lots).zip(rest) {
                *gap = lanes.mul_less(lot, *gap, rest);
            }
            lanes.to_unsigned(codes, Rests { words: near, rest: rests, values });
        }
    }
}
