//! Lanes of AVX2: two registers.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use core::arch::x86_64::{__m256, __m256i, _CMP_GT_OQ, _CMP_LT_OQ, _MM_HINT_T0};
use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast};

use super::Lanes;
use crate::quantize::LANES;

/// Operations on two registers.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(V3);

type Floats = [__m256; 2];
type Words = [__m256i; 2];

/// To round to nearest, ties to even, with no exceptions.
const NEAREST: i32 = 8;

/// A function as the processor's token takes it.
pub(super) struct Function<F>(pub(super) F);

impl<R, F: FnOnce() -> R> NullaryFnOnce for Function<F> {
    type Output = R;

    #[inline(always)]
    fn call(self) -> R {
        (self.0)()
    }
}

impl Avx2 {
    /// Returns them if the processor has them.
    pub(super) fn new() -> Option<Self> {
        V3::try_new().map(Self)
    }

    /// Ones where `a` is less than `b`.
    #[inline(always)]
    fn less(self, a: __m256, b: __m256) -> __m256 {
        self.0.avx._mm256_cmp_ps::<_CMP_LT_OQ>(a, b)
    }

    #[inline(always)]
    fn eight_random(self, from: u32, key: u32) -> __m256i {
        let (avx, op) = (self.0.avx, self.0.avx2);
        let numbers = op
            ._mm256_add_epi32(avx._mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), avx._mm256_set1_epi32(from.cast_signed()));
        let first = avx._mm256_set1_epi32(0x21f0_aaad_u32.cast_signed());
        let second = avx._mm256_set1_epi32(0x735a_2d97);
        let mut words = op._mm256_xor_si256(numbers, avx._mm256_set1_epi32(key.cast_signed()));
        words = op._mm256_xor_si256(words, op._mm256_srli_epi32::<16>(words));
        words = op._mm256_mullo_epi32(words, first);
        words = op._mm256_xor_si256(words, op._mm256_srli_epi32::<15>(words));
        words = op._mm256_mullo_epi32(words, second);
        op._mm256_xor_si256(words, op._mm256_srli_epi32::<15>(words))
    }

    #[inline(always)]
    fn abs_of(self, a: __m256) -> __m256 {
        let op = self.0.avx;
        op._mm256_andnot_ps(op._mm256_set1_ps(-0.0), a)
    }

    /// The nearest whole numbers, all 16, as words of 16 bits.
    #[inline(always)]
    fn narrow(self, floats: Floats) -> __m256i {
        let (avx, avx2) = (self.0.avx, self.0.avx2);
        let [low, high] = each(floats, |half| avx._mm256_cvtps_epi32(half));
        // Packing goes by halves of a register: their quarters have to be put in order.
        avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(avx2._mm256_packs_epi32(low, high))
    }
}

/// Does it to each register. (`array::map` is not always inlined, and what is not is compiled for any processor.)
#[inline(always)]
fn each<A: Copy, B>(a: [A; 2], of: impl Fn(A) -> B) -> [B; 2] {
    [of(a[0]), of(a[1])]
}

/// Does it to each register and the other's.
#[inline(always)]
fn both(a: Floats, b: Floats, of: impl Fn(__m256, __m256) -> __m256) -> Floats {
    [of(a[0], b[0]), of(a[1], b[1])]
}

/// Does it to each register and those of two others.
#[inline(always)]
fn all(a: Floats, b: Floats, c: Floats, of: impl Fn(__m256, __m256, __m256) -> __m256) -> Floats {
    [of(a[0], b[0], c[0]), of(a[1], b[1], c[1])]
}

impl Lanes for Avx2 {
    type Floats = Floats;
    type Words = Words;

    #[inline(always)]
    fn run<R>(self, function: impl FnOnce() -> R) -> R {
        self.0.vectorize(Function(function))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Floats {
        [self.0.avx._mm256_set1_ps(value); 2]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Floats {
        cast(*from)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], floats: Floats) {
        *to = cast(floats);
    }

    #[inline(always)]
    fn of_signed(self, codes: &[i8; LANES]) -> Floats {
        let halves: [i64; 2] = cast(*codes);
        each(halves, |half| {
            let eight = self.0.avx2._mm256_cvtepi8_epi32(self.0.sse2._mm_set_epi64x(0, half));
            self.0.avx._mm256_cvtepi32_ps(eight)
        })
    }

    #[inline(always)]
    fn of_unsigned(self, codes: &[u8; LANES]) -> Floats {
        let halves: [i64; 2] = cast(*codes);
        each(halves, |half| {
            let eight = self.0.avx2._mm256_cvtepu8_epi32(self.0.sse2._mm_set_epi64x(0, half));
            self.0.avx._mm256_cvtepi32_ps(eight)
        })
    }

    #[inline(always)]
    fn to_signed(self, codes: &mut [i8; LANES], floats: Floats) {
        let [low, high]: [_; 2] = cast(self.narrow(floats));
        *codes = cast(self.0.sse2._mm_packs_epi16(low, high));
    }

    #[inline(always)]
    fn to_unsigned(self, codes: &mut [u8; LANES], floats: Floats) {
        let [low, high]: [_; 2] = cast(self.narrow(floats));
        *codes = cast(self.0.sse2._mm_packus_epi16(low, high));
    }

    #[inline(always)]
    fn add(self, a: Floats, b: Floats) -> Floats {
        both(a, b, |a, b| self.0.avx._mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Floats, b: Floats) -> Floats {
        both(a, b, |a, b| self.0.avx._mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        both(a, b, |a, b| self.0.avx._mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Floats, b: Floats) -> Floats {
        both(a, b, |a, b| self.0.avx._mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn sqrt(self, a: Floats) -> Floats {
        each(a, |a| self.0.avx._mm256_sqrt_ps(a))
    }

    #[inline(always)]
    fn mul_add(self, a: Floats, b: Floats, c: Floats) -> Floats {
        all(a, b, c, |a, b, c| self.0.fma._mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn mul_from(self, a: Floats, b: Floats, c: Floats) -> Floats {
        all(a, b, c, |a, b, c| self.0.fma._mm256_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn abs(self, a: Floats) -> Floats {
        each(a, |a| self.abs_of(a))
    }

    #[inline(always)]
    fn with_sign(self, a: Floats, sign: Floats) -> Floats {
        let op = self.0.avx;
        both(a, sign, |a, sign| op._mm256_or_ps(a, op._mm256_and_ps(sign, op._mm256_set1_ps(-0.0))))
    }

    #[inline(always)]
    fn round(self, a: Floats) -> Floats {
        each(a, |a| self.0.avx._mm256_round_ps::<NEAREST>(a))
    }

    #[inline(always)]
    fn up_where_less(self, a: Floats, b: Floats, floats: Floats) -> Floats {
        let op = self.0.avx;
        all(a, b, floats, |a, b, floats| {
            op._mm256_add_ps(floats, op._mm256_and_ps(self.less(a, b), op._mm256_set1_ps(1.0)))
        })
    }

    #[inline(always)]
    fn down_where_less(self, a: Floats, b: Floats, floats: Floats) -> Floats {
        let op = self.0.avx;
        all(a, b, floats, |a, b, floats| {
            op._mm256_sub_ps(floats, op._mm256_and_ps(self.less(a, b), op._mm256_set1_ps(1.0)))
        })
    }

    #[inline(always)]
    fn at_least_one_where_positive(self, a: Floats, floats: Floats) -> Floats {
        let op = self.0.avx;
        both(a, floats, |a, floats| {
            let is_positive = op._mm256_cmp_ps::<_CMP_GT_OQ>(a, op._mm256_setzero_ps());
            // Of a NaN and something the maximum is the second.
            op._mm256_and_ps(is_positive, op._mm256_max_ps(floats, op._mm256_set1_ps(1.0)))
        })
    }

    #[inline(always)]
    fn larger(self, a: Floats, b: Floats) -> Floats {
        both(a, b, |a, b| cast(self.0.avx2._mm256_max_epu32(cast(a), cast(b))))
    }

    #[inline(always)]
    fn largest(self, a: Floats) -> f32 {
        let op = self.0.sse4_1;
        let larger = self.0.avx2._mm256_max_epu32(cast(a[0]), cast(a[1]));
        let [low, high]: [_; 2] = cast(larger);
        let four = op._mm_max_epu32(low, high);
        let two = op._mm_max_epu32(four, self.0.sse2._mm_shuffle_epi32::<0b11_10_11_10>(four));
        let one = op._mm_max_epu32(two, self.0.sse2._mm_shuffle_epi32::<0b01_01_01_01>(two));
        f32::from_bits(self.0.sse2._mm_cvtsi128_si32(one).cast_unsigned())
    }

    #[inline(always)]
    fn guess_root_less_quarter(self, a: Floats) -> Floats {
        let op = self.0.avx;
        each(a, |a| {
            let reciprocal = op._mm256_rsqrt_ps(op._mm256_max_ps(a, op._mm256_set1_ps(f32::MIN_POSITIVE)));
            self.0.fma._mm256_fmsub_ps(a, reciprocal, op._mm256_set1_ps(0.25))
        })
    }

    #[inline(always)]
    fn guess_fourth_root(self, a: Floats) -> Floats {
        let op = self.0.avx;
        each(a, |a| op._mm256_rsqrt_ps(op._mm256_rsqrt_ps(a)))
    }

    #[inline(always)]
    fn random(self, from: u32, key: u32) -> Words {
        [self.eight_random(from, key), self.eight_random(from.wrapping_add(8), key)]
    }

    #[inline(always)]
    fn turn(self, words: Words) -> Words {
        let op = self.0.avx2;
        each(words, |words| op._mm256_or_si256(op._mm256_srli_epi32::<8>(words), op._mm256_slli_epi32::<24>(words)))
    }

    #[inline(always)]
    fn low_odd(self, words: Words) -> Floats {
        let (avx, op) = (self.0.avx, self.0.avx2);
        each(words, |words| {
            let low = op._mm256_and_si256(words, avx._mm256_set1_epi32(0xffff));
            avx._mm256_cvtepi32_ps(op._mm256_or_si256(low, avx._mm256_set1_epi32(1)))
        })
    }

    #[inline(always)]
    fn prefetch<T>(self, near: &T, ahead: usize) {
        let at = core::ptr::from_ref(near).cast::<i8>().wrapping_add(ahead);
        self.0.sse._mm_prefetch::<_MM_HINT_T0>(at);
    }
}
