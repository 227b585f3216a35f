//! Lanes of AVX-512: one register.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use core::arch::x86_64::{__m512, __m512i, _CMP_GT_OQ, _CMP_LT_OQ, _MM_HINT_T0};

use pulp::cast;
use pulp::x86::V4;

use super::Lanes;
use super::avx2::Function;
use crate::quantize::LANES;

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
}

impl Lanes for Avx512 {
    type Floats = __m512;
    type Words = __m512i;

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
    fn to_signed(self, codes: &mut [i8; LANES], floats: __m512) {
        let op = self.0.avx512f;
        *codes = cast(op._mm512_cvtsepi32_epi8(op._mm512_cvtps_epi32(floats)));
    }

    #[inline(always)]
    fn to_unsigned(self, codes: &mut [u8; LANES], floats: __m512) {
        let op = self.0.avx512f;
        *codes = cast(op._mm512_cvtusepi32_epi8(op._mm512_cvtps_epi32(floats)));
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
    fn round(self, a: __m512) -> __m512 {
        self.0.avx512f._mm512_roundscale_ps::<0>(a)
    }

    #[inline(always)]
    fn up_where_less(self, a: __m512, b: __m512, floats: __m512) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_mask_add_ps(floats, op._mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), floats, self.splat(1.0))
    }

    #[inline(always)]
    fn down_where_less(self, a: __m512, b: __m512, floats: __m512) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_mask_sub_ps(floats, op._mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), floats, self.splat(1.0))
    }

    #[inline(always)]
    fn at_least_one_where_positive(self, a: __m512, floats: __m512) -> __m512 {
        let op = self.0.avx512f;
        let is_positive = op._mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, self.splat(0.0));
        // Of a NaN and something the maximum is the second.
        op._mm512_maskz_max_ps(is_positive, floats, self.splat(1.0))
    }

    #[inline(always)]
    fn larger(self, a: __m512, b: __m512) -> __m512 {
        cast(self.0.avx512f._mm512_max_epu32(cast(a), cast(b)))
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        f32::from_bits(self.0.avx512f._mm512_reduce_max_epu32(cast(a)))
    }

    #[inline(always)]
    fn guess_root_less_quarter(self, a: __m512) -> __m512 {
        let op = self.0.avx512f;
        // Zero has no reciprocal root to multiply by.
        let reciprocal = op._mm512_rsqrt14_ps(op._mm512_max_ps(a, self.splat(f32::MIN_POSITIVE)));
        op._mm512_fmsub_ps(a, reciprocal, self.splat(0.25))
    }

    #[inline(always)]
    fn guess_fourth_root(self, a: __m512) -> __m512 {
        let op = self.0.avx512f;
        op._mm512_rsqrt14_ps(op._mm512_rsqrt14_ps(a))
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
    fn turn(self, words: __m512i) -> __m512i {
        self.0.avx512f._mm512_ror_epi32::<8>(words)
    }

    #[inline(always)]
    fn low_odd(self, words: __m512i) -> __m512 {
        let op = self.0.avx512f;
        let (one, mask) = (op._mm512_set1_epi32(1), op._mm512_set1_epi32(0xffff));
        // One, or the word where the mask is set.
        op._mm512_cvtepi32_ps(op._mm512_ternarylogic_epi32::<0xf8>(one, words, mask))
    }

    #[inline(always)]
    fn prefetch<T>(self, near: &T, ahead: usize) {
        let at = core::ptr::from_ref(near).cast::<i8>().wrapping_add(ahead);
        self.0.sse._mm_prefetch::<_MM_HINT_T0>(at);
    }
}
