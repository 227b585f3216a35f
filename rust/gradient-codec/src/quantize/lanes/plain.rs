//! Lanes of any processor: what each operation means.

use std::array;

use super::Lanes;
use crate::quantize::LANES;

/// Operations one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

type Floats = [f32; LANES];
type Words = [u32; LANES];

fn zip(a: Floats, b: Floats, of: impl Fn(f32, f32) -> f32) -> Floats {
    array::from_fn(|i| of(a[i], b[i]))
}

impl Lanes for Plain {
    type Floats = Floats;
    type Words = Words;

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

    fn of_signed(self, codes: &[i8; LANES]) -> Floats {
        codes.map(f32::from)
    }

    fn of_unsigned(self, codes: &[u8; LANES]) -> Floats {
        codes.map(f32::from)
    }

    fn to_signed(self, codes: &mut [i8; LANES], floats: Floats) {
        // A NaN becomes what vector instructions make of it.
        *codes = floats.map(|float| if float.is_nan() { i8::MIN } else { float as i8 });
    }

    #[expect(clippy::cast_sign_loss, reason = "what is given is not negative")]
    fn to_unsigned(self, codes: &mut [u8; LANES], floats: Floats) {
        *codes = floats.map(|float| float as u8);
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

    fn abs(self, a: Floats) -> Floats {
        a.map(f32::abs)
    }

    fn with_sign(self, a: Floats, sign: Floats) -> Floats {
        zip(a, sign, f32::copysign)
    }

    fn round(self, a: Floats) -> Floats {
        a.map(f32::round_ties_even)
    }

    fn up_where_less(self, a: Floats, b: Floats, floats: Floats) -> Floats {
        array::from_fn(|i| if a[i] < b[i] { floats[i] + 1.0 } else { floats[i] })
    }

    fn down_where_less(self, a: Floats, b: Floats, floats: Floats) -> Floats {
        array::from_fn(|i| if a[i] < b[i] { floats[i] - 1.0 } else { floats[i] })
    }

    fn at_least_one_where_positive(self, a: Floats, floats: Floats) -> Floats {
        // Of a NaN and 1 it is 1.
        zip(a, floats, |a, float| if a > 0.0 { float.max(1.0) } else { 0.0 })
    }

    fn larger(self, a: Floats, b: Floats) -> Floats {
        // As numbers, the bits of floats without a sign are in the order of the floats, and those of NaNs behind them.
        zip(a, b, |a, b| f32::from_bits(a.to_bits().max(b.to_bits())))
    }

    fn largest(self, a: Floats) -> f32 {
        f32::from_bits(a.into_iter().map(f32::to_bits).max().unwrap_or(0))
    }

    fn guess_root_less_quarter(self, a: Floats) -> Floats {
        a.map(|a| a.sqrt() - 0.25)
    }

    fn guess_fourth_root(self, a: Floats) -> Floats {
        a.map(|a| a.sqrt().sqrt())
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

    fn turn(self, words: Words) -> Words {
        words.map(|word| word.rotate_right(8))
    }

    fn low_odd(self, words: Words) -> Floats {
        words.map(|word| f32::from((word as u16) | 1))
    }

    fn prefetch<T>(self, _near: &T, _ahead: usize) {}
}
