//! Lanes of any processor: what each operation means.

use std::array;

use super::{Lanes, Rests};
use crate::quantize::{GROUPS, LANES};

/// Operations one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

type Floats = [f32; LANES];
type Words = [u32; LANES];

fn zip(a: Floats, b: Floats, of: impl Fn(f32, f32) -> f32) -> Floats {
    array::from_fn(|i| of(a[i], b[i]))
}

/// Codes of words, 1 more where the rest has a sign, and of values.
fn coded<C>(of: &Rests<Plain>, code: impl Fn(u32, f32) -> C) -> [[C; LANES]; GROUPS] {
    array::from_fn(|group| {
        let (words, rest, values) = (of.words[group], of.rest[group], of.values[group]);
        array::from_fn(|i| code(words[i].wrapping_add(rest[i].to_bits() >> 31), values[i]))
    })
}

impl Lanes for Plain {
    type Floats = Floats;
    type Words = Words;

    const HOLD_BLOCKS: bool = false;

    fn run<R>(self, function: impl FnOnce() -> R) -> R {
        function()
    }

    fn splat(self, value: f32) -> Floats {
        [value; LANES]
    }

    fn load(self, from: &[f32; LANES]) -> Floats {
        *from
    }

    fn store(self, to: &mut [f32; LANES], floats: Floats) {
        *to = floats;
    }

    fn of_bf16(self, bits: &[u16; LANES]) -> Floats {
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    fn to_bf16(self, bits: &mut [u16; LANES], floats: Floats) {
        *bits = floats.map(|float| {
            let bits = float.to_bits();
            let even = (bits >> 16) & 1;
            let rounded = if float.is_nan() { bits | 0x0040_0000 } else { bits + 0x7fff + even };
            (rounded >> 16) as u16
        });
    }

    fn of_signed(self, codes: &[i8; LANES]) -> Floats {
        codes.map(f32::from)
    }

    fn of_unsigned(self, codes: &[u8; LANES]) -> Floats {
        codes.map(f32::from)
    }

    fn add(self, a: Floats, b: Floats) -> Floats {
        zip(a, b, |a, b| a + b)
    }

    fn sub(self, a: Floats, b: Floats) -> Floats {
        zip(a, b, |a, b| a - b)
    }

    fn mul(self, a: Floats, b: Floats) -> Floats {
        zip(a, b, |a, b| a * b)
    }

    fn div(self, a: Floats, b: Floats) -> Floats {
        zip(a, b, |a, b| a / b)
    }

    fn sqrt(self, a: Floats) -> Floats {
        a.map(f32::sqrt)
    }

    fn mul_add(self, a: Floats, b: Floats, c: Floats) -> Floats {
        array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    fn mul_from(self, a: Floats, b: Floats, c: Floats) -> Floats {
        array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    fn mul_less(self, a: Floats, b: Floats, c: Floats) -> Floats {
        array::from_fn(|i| a[i].mul_add(b[i], -c[i]))
    }

    fn abs(self, a: Floats) -> Floats {
        a.map(f32::abs)
    }

    fn with_sign(self, a: Floats, sign: Floats) -> Floats {
        zip(a, sign, f32::copysign)
    }

    fn at_least_one_where_positive(self, a: Floats, floats: Floats) -> Floats {
        // Of a NaN and 1 it is 1.
        zip(a, floats, |a, float| if a > 0.0 { float.max(1.0) } else { 0.0 })
    }

    fn nearer_zero_where_less(self, a: Floats, b: Floats, x: Floats, y: Floats) -> Floats {
        let nearer = |x: f32, y: f32| f32::from_bits(x.to_bits().min(y.to_bits()));
        array::from_fn(|i| if a[i] < b[i] { nearer(x[i], y[i]) } else { x[i] })
    }

    fn larger(self, a: Floats, b: Floats) -> Floats {
        // As numbers, the bits of floats without a sign are in the order of the floats, and those of NaNs behind them.
        zip(a, b, |a, b| f32::from_bits(a.to_bits().max(b.to_bits())))
    }

    fn largest(self, a: Floats) -> Floats {
        [f32::from_bits(a.into_iter().map(f32::to_bits).max().unwrap_or(0)); LANES]
    }

    fn first(self, a: Floats) -> f32 {
        a[0]
    }

    fn at_least(self, a: Floats, limit: Floats) -> Floats {
        zip(a, limit, |a, limit| if a > limit { a } else { limit })
    }

    fn at_most(self, a: Floats, limit: Floats) -> Floats {
        zip(a, limit, |a, limit| if a < limit { a } else { limit })
    }

    fn guess_root(self, a: Floats) -> Floats {
        a.map(f32::sqrt)
    }

    fn guess_fourth_root(self, a: Floats) -> Floats {
        a.map(|a| a.sqrt().sqrt())
    }

    fn nearest(self, a: Floats) -> Words {
        a.map(|a| (a.round_ties_even() as i32).cast_unsigned())
    }

    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    fn floats(self, words: Words) -> Floats {
        words.map(|word| word.cast_signed() as f32)
    }

    fn halves_to_signed(self, codes: &mut [[i8; LANES]; GROUPS], of: Rests<Self>) {
        *codes = coded(&of, |word, value| {
            let half = (word >> 1) as i8;
            if value.is_sign_negative() { -half } else { half }
        });
    }

    fn halves_to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>) {
        *codes = coded(&of, |word, value| ((word >> 1) as u8).max(u8::from(value != 0.0)));
    }

    fn to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>) {
        *codes =
            coded(&of, |word, value| (word.cast_signed().max(0).cast_unsigned() as u8).max(u8::from(value != 0.0)));
    }

    fn random(self, from: u32, key: u32) -> Words {
        array::from_fn(|i| {
            // "lowbias32" of Chris Wellons' hash prospector, found by search: every bit of the input changes every bit
            // of the output about every second time.
            let mut word = from.wrapping_add(i as u32) ^ key;
            word = (word ^ (word >> 16)).wrapping_mul(0x21f0_aaad);
            word = (word ^ (word >> 15)).wrapping_mul(0x735a_2d97);
            word ^ (word >> 15)
        })
    }

    fn lots(self, words: Words) -> [Floats; GROUPS] {
        array::from_fn(|turn| words.map(|word| f32::from((word.rotate_right(8 * turn as u32) as u16 & 0xfffc) | 2)))
    }

    fn prefetch<T>(self, _near: &T, _ahead: usize) {}
}
