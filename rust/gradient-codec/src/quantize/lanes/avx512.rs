//! Lanes of AVX-512: one register.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use core::arch::x86_64::{__m512, __m512i, _CMP_GT_OQ, _CMP_LT_OQ, _CMP_UNORD_Q, _MM_HINT_T0};

use pulp::cast;
use pulp::x86::V4;

use super::avx2::Function;
use super::{Lanes, Rests, low_half};
use crate::quantize::{GROUPS, LANES, each};

/// Operations on one register.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(V4);

/// The bit that is a float's sign.
const SIGN: i32 = i32::MIN;

impl Avx512 {
    /// Returns them if the processor has them.
    pub(super) fn new() -> Option<Self> {
        V4::try_new().map(Self)
    }

    /// Words as words of 16 bits, whose quarters are out of order; too large ones as the largest, with their sign.
    #[inline(always)]
    fn narrow(self, [a, b, c, d]: [__m512i; GROUPS]) -> [__m512i; 2] {
        let op = self.0.avx512bw;
        [op._mm512_packs_epi32(a, b), op._mm512_packs_epi32(c, d)]
    }

    /// The signs of floats as bytes, in the order of [`Self::narrow`]; zero is zero, and nothing else is.
    #[inline(always)]
    fn signs(self, [a, b, c, d]: [__m512; GROUPS]) -> __m512i {
        let [low, high] = self.narrow([cast(a), cast(b), cast(c), cast(d)]);
        self.0.avx512bw._mm512_packs_epi16(low, high)
    }

    /// Puts in order what was packed twice, which goes by quarters of a register.
    #[inline(always)]
    fn in_order(self, bytes: __m512i) -> __m512i {
        let op = self.0.avx512f;
        let order = op._mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
        op._mm512_permutexvar_epi32(order, bytes)
    }

    /// Half of words and where the rest has a sign 1 more, as bytes.
    #[inline(always)]
    fn halves(self, of: &Rests<Self>) -> __m512i {
        let op = self.0.avx512bw;
        let [a, b, c, d] = of.rest;
        let (words, rest) = (self.narrow(of.words), self.narrow([cast(a), cast(b), cast(c), cast(d)]));
        let half =
            |words, rest| op._mm512_srli_epi16::<1>(op._mm512_add_epi16(words, op._mm512_srli_epi16::<15>(rest)));
        op._mm512_packus_epi16(half(words[0], rest[0]), half(words[1], rest[1]))
    }

    /// Bytes in order, 1 instead of zero where a value is not zero.
    #[inline(always)]
    fn at_least_one(self, bytes: __m512i, values: [__m512; GROUPS]) -> __m512i {
        let op = self.0.avx512bw;
        let one = op._mm512_min_epi8(self.signs(values), self.0.avx512f._mm512_set1_epi8(1));
        self.in_order(op._mm512_max_epu8(bytes, one))
    }
}

impl Lanes for Avx512 {
    type Floats = __m512;
    type Words = __m512i;

    const HOLD_BLOCKS: bool = true;

    #[inline(always)]
    fn run<R>(self, function: impl FnOnce() -> R) -> R {
        self.0.vectorize(Function(function))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        self.0.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        cast(*from)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], floats: __m512) {
        *to = cast(floats);
    }

    #[inline(always)]
    fn of_bf16(self, bits: &[u16; LANES]) -> __m512 {
        let op = self.0.avx512f;
        cast(op._mm512_slli_epi32::<16>(op._mm512_cvtepu16_epi32(cast(*bits))))
    }

    #[inline(always)]
    fn to_bf16(self, bits: &mut [u16; LANES], floats: __m512) {
        let op = self.0.avx512f;
        let words: __m512i = cast(floats);
        let even = op._mm512_and_si512(op._mm512_srli_epi32::<16>(words), op._mm512_set1_epi32(1));
        let rounded = op._mm512_add_epi32(op._mm512_add_epi32(words, op._mm512_set1_epi32(0x7fff)), even);
        let is_nan = op._mm512_cmp_ps_mask::<_CMP_UNORD_Q>(floats, floats);
        let rounded = op._mm512_mask_or_epi32(rounded, is_nan, words, op._mm512_set1_epi32(0x0040_0000));
        *bits = cast(op._mm512_cvtepi32_epi16(op._mm512_srli_epi32::<16>(rounded)));
    }

    #[inline(always)]
    fn of_signed(self, codes: &[i8; LANES]) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_cvtepi32_ps(op._mm512_cvtepi8_epi32(cast(*codes)))
    }

    #[inline(always)]
    fn of_unsigned(self, codes: &[u8; LANES]) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_cvtepi32_ps(op._mm512_cvtepu8_epi32(cast(*codes)))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_mul_ps(a, b)
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_div_ps(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        self.0.avx512f._mm512_sqrt_ps(a)
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.0.avx512f._mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn mul_from(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.0.avx512f._mm512_fnmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn mul_less(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.0.avx512f._mm512_fmsub_ps(a, b, c)
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        self.0.avx512f._mm512_abs_ps(a)
    }

    #[inline(always)]
    fn with_sign(self, a: __m512, sign: __m512) -> __m512 {
        let op = self.0.avx512f;
        // Where the mask is set, the bit of `sign`, else that of `a`.
        cast(op._mm512_ternarylogic_epi32::<0xd8>(cast(a), cast(sign), op._mm512_set1_epi32(SIGN)))
    }

    #[inline(always)]
    fn at_least_one_where_positive(self, a: __m512, floats: __m512) -> __m512 {
        let op = self.0.avx512f;
        let is_positive = op._mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, self.splat(0.0));
        // Of a NaN and something the maximum is the second.
        op._mm512_maskz_max_ps(is_positive, floats, self.splat(1.0))
    }

    #[inline(always)]
    fn nearer_zero_where_less(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        let op = self.0.avx512f;
        // Of one sign, the one with the smaller bits.
        let is_less = op._mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        cast(op._mm512_mask_min_epu32(cast(x), is_less, cast(x), cast(y)))
    }

    #[inline(always)]
    fn larger(self, a: __m512, b: __m512) -> __m512 {
        cast(self.0.avx512f._mm512_max_epu32(cast(a), cast(b)))
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> __m512 {
        let op = self.0.avx512f;
        let a: __m512i = cast(a);
        // Of halves, of quarters, of pairs, of both.
        let a = op._mm512_max_epu32(a, op._mm512_shuffle_i64x2::<0b01_00_11_10>(a, a));
        let a = op._mm512_max_epu32(a, op._mm512_shuffle_i64x2::<0b10_11_00_01>(a, a));
        let a = op._mm512_max_epu32(a, op._mm512_shuffle_epi32::<0b01_00_11_10>(a));
        cast(op._mm512_max_epu32(a, op._mm512_shuffle_epi32::<0b10_11_00_01>(a)))
    }

    #[inline(always)]
    fn first(self, a: __m512) -> f32 {
        let floats: [f32; LANES] = cast(a);
        floats[0]
    }

    #[inline(always)]
    fn at_least(self, a: __m512, limit: __m512) -> __m512 {
        // Of a NaN and something the maximum is the second.
        self.0.avx512f._mm512_max_ps(a, limit)
    }

    #[inline(always)]
    fn at_most(self, a: __m512, limit: __m512) -> __m512 {
        self.0.avx512f._mm512_min_ps(a, limit)
    }

    #[inline(always)]
    fn guess_root(self, a: __m512) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_mul_ps(a, op._mm512_rsqrt14_ps(a))
    }

    #[inline(always)]
    fn guess_fourth_root(self, a: __m512) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_rsqrt14_ps(op._mm512_rsqrt14_ps(a))
    }

    #[inline(always)]
    fn nearest(self, a: __m512) -> __m512i {
        self.0.avx512f._mm512_cvtps_epi32(a)
    }

    #[inline(always)]
    fn floats(self, words: __m512i) -> __m512 {
        self.0.avx512f._mm512_cvtepi32_ps(words)
    }

    #[inline(always)]
    fn halves_to_signed(self, codes: &mut [[i8; LANES]; GROUPS], of: Rests<Self>) {
        let op = self.0.avx512bw;
        let halves = self.halves(&of);
        let is_negative = op._mm512_movepi8_mask(self.signs(of.values));
        let zero = self.0.avx512f._mm512_setzero_si512();
        *codes = cast(self.in_order(op._mm512_mask_sub_epi8(halves, is_negative, zero, halves)));
    }

    #[inline(always)]
    fn halves_to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>) {
        *codes = cast(self.at_least_one(self.halves(&of), of.values));
    }

    #[inline(always)]
    fn to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>) {
        let op = self.0.avx512bw;
        let [low, high] = self.narrow(of.words);
        let bytes = op._mm512_packus_epi16(low, high);
        let is_more = op._mm512_movepi8_mask(self.signs(of.rest));
        let bytes = op._mm512_mask_add_epi8(bytes, is_more, bytes, self.0.avx512f._mm512_set1_epi8(1));
        *codes = cast(self.at_least_one(bytes, of.values));
    }

    #[inline(always)]
    fn random(self, from: u32, key: u32) -> __m512i {
        let op = self.0.avx512f;
        let splat = |word: u32| op._mm512_set1_epi32(word.cast_signed());
        let numbers =
            op._mm512_add_epi32(op._mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), splat(from));
        let mut words = op._mm512_xor_si512(numbers, splat(key));
        words = op._mm512_xor_si512(words, op._mm512_srli_epi32::<16>(words));
        words = op._mm512_mullo_epi32(words, splat(0x21f0_aaad));
        words = op._mm512_xor_si512(words, op._mm512_srli_epi32::<15>(words));
        words = op._mm512_mullo_epi32(words, splat(0x735a_2d97));
        op._mm512_xor_si512(words, op._mm512_srli_epi32::<15>(words))
    }

    #[inline(always)]
    fn lots(self, words: __m512i) -> [__m512; GROUPS] {
        let (op, bytes) = (self.0.avx512f, self.0.avx512bw);
        // Two, or the word where the mask is set: where a lot's low byte is.
        let by_fours = |two: u32, mask: u32| {
            let (two, mask) = (op._mm512_set1_epi32(two.cast_signed()), op._mm512_set1_epi32(mask.cast_signed()));
            op._mm512_ternarylogic_epi32::<0xf8>(two, words, mask)
        };
        let (even, odd) = (by_fours(0x0002_0002, 0xfffc_fffc), by_fours(0x0200_0200, 0xfcff_fcff));
        let to_low = |[a, b, c, d]: [i32; 4]| bytes._mm512_shuffle_epi8(odd, op._mm512_set4_epi32(d, c, b, a));
        let lots = [
            by_fours(2, 0xfffc),
            to_low(const { low_half(1, 2) }),
            op._mm512_srli_epi32::<16>(even),
            to_low(const { low_half(3, 0) }),
        ];
        each(lots, |lot| op._mm512_cvtepi32_ps(lot))
    }

    #[inline(always)]
    fn prefetch<T>(self, near: &T, ahead: usize) {
        let at = core::ptr::from_ref(near).cast::<i8>().wrapping_add(ahead);
        self.0.sse._mm_prefetch::<_MM_HINT_T0>(at);
    }
}
