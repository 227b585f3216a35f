//! Lanes of AVX2: two registers.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use core::arch::x86_64::{__m128i, __m256, __m256i, _CMP_GT_OQ, _CMP_NLT_UQ, _CMP_UNORD_Q, _MM_HINT_T0};
use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast};

use super::{Lanes, Rests, low_half};
use crate::quantize::{self, GROUPS, LANES};

/// Operations on two registers.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(V3);

type Floats = [__m256; 2];
type Words = [__m256i; 2];

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
    fn eight_lots(self, words: __m256i) -> [__m256; GROUPS] {
        let (avx, op) = (self.0.avx, self.0.avx2);
        let splat = |word: u32| avx._mm256_set1_epi32(word.cast_signed());
        // Two, or the word where the mask is set: where a lot's low byte is.
        let by_fours = |two, mask| op._mm256_or_si256(op._mm256_and_si256(words, splat(mask)), splat(two));
        let (even, odd) = (by_fours(0x0002_0002, 0xfffc_fffc), by_fours(0x0200_0200, 0xfcff_fcff));
        let to_low = |[a, b, c, d]: [i32; 4]| op._mm256_shuffle_epi8(odd, avx._mm256_set_epi32(d, c, b, a, d, c, b, a));
        let lots = [
            op._mm256_and_si256(even, splat(0xffff)),
            to_low(const { low_half(1, 2) }),
            op._mm256_srli_epi32::<16>(even),
            to_low(const { low_half(3, 0) }),
        ];
        quantize::each(lots, |lot| avx._mm256_cvtepi32_ps(lot))
    }

    #[inline(always)]
    fn abs_of(self, a: __m256) -> __m256 {
        let op = self.0.avx;
        op._mm256_andnot_ps(op._mm256_set1_ps(-0.0), a)
    }

    /// Words as words of 16 bits, whose quarters are out of order; too large ones as the largest, with their sign.
    #[inline(always)]
    fn narrow(self, [[a, b], [c, d]]: [Words; 2]) -> [__m256i; 2] {
        let op = self.0.avx2;
        [op._mm256_packs_epi32(a, b), op._mm256_packs_epi32(c, d)]
    }

    /// Floats likewise, as far as their signs go and that zero is zero and nothing else is.
    #[inline(always)]
    fn narrow_signs(self, [[a, b], [c, d]]: [Floats; 2]) -> [__m256i; 2] {
        self.narrow([[cast(a), cast(b)], [cast(c), cast(d)]])
    }

    /// The signs of floats as bytes, in the order of [`Self::narrow`]; zero is zero, and nothing else is.
    #[inline(always)]
    fn signs(self, floats: [Floats; 2]) -> __m256i {
        let [low, high] = self.narrow_signs(floats);
        self.0.avx2._mm256_packs_epi16(low, high)
    }

    /// Half of words and where the rest has a sign 1 more, as bytes.
    #[inline(always)]
    fn half(self, of: &HalfRests) -> __m256i {
        let op = self.0.avx2;
        let (words, rest) = (self.narrow(of.words), self.narrow_signs(of.rest));
        let half =
            |words, rest| op._mm256_srli_epi16::<1>(op._mm256_add_epi16(words, op._mm256_srli_epi16::<15>(rest)));
        op._mm256_packus_epi16(half(words[0], rest[0]), half(words[1], rest[1]))
    }

    #[inline(always)]
    fn signed_halves(self, of: &HalfRests) -> __m256i {
        // Where a value has no bits it gives zero.
        self.in_order(self.0.avx2._mm256_sign_epi8(self.half(of), self.signs(of.values)))
    }

    #[inline(always)]
    fn unsigned_halves(self, of: &HalfRests) -> __m256i {
        self.at_least_one(self.half(of), of.values)
    }

    #[inline(always)]
    fn unsigned(self, of: &HalfRests) -> __m256i {
        let op = self.0.avx2;
        let [low, high] = self.narrow(of.words);
        let bytes = op._mm256_packus_epi16(low, high);
        let is_more = op._mm256_cmpgt_epi8(self.0.avx._mm256_setzero_si256(), self.signs(of.rest));
        self.at_least_one(op._mm256_sub_epi8(bytes, is_more), of.values)
    }

    /// Bytes in order, 1 instead of zero where a value is not zero.
    #[inline(always)]
    fn at_least_one(self, bytes: __m256i, values: [Floats; 2]) -> __m256i {
        let (avx, op) = (self.0.avx, self.0.avx2);
        let one = op._mm256_min_epi8(self.signs(values), avx._mm256_set1_epi8(1));
        self.in_order(op._mm256_max_epu8(bytes, one))
    }

    /// Rounds to the nearest `bfloat16`; its bits are the low half of each word.
    #[inline(always)]
    fn bf16_words(self, floats: __m256) -> __m256i {
        let (avx, op) = (self.0.avx, self.0.avx2);
        let words: __m256i = cast(floats);
        let even = op._mm256_and_si256(op._mm256_srli_epi32::<16>(words), avx._mm256_set1_epi32(1));
        let rounded = op._mm256_add_epi32(op._mm256_add_epi32(words, avx._mm256_set1_epi32(0x7fff)), even);
        let nan = op._mm256_or_si256(words, avx._mm256_set1_epi32(0x0040_0000));
        let is_nan = avx._mm256_cmp_ps::<_CMP_UNORD_Q>(floats, floats);
        let rounded = op._mm256_blendv_epi8(rounded, nan, cast(is_nan));
        op._mm256_srli_epi32::<16>(rounded)
    }

    /// Puts in order what was packed twice, which goes by halves of a register.
    #[inline(always)]
    fn in_order(self, bytes: __m256i) -> __m256i {
        self.0.avx2._mm256_permutevar8x32_epi32(bytes, self.0.avx._mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0))
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

/// Half of a block that is almost coded.
#[derive(Clone, Copy)]
struct HalfRests {
    words: [Words; 2],
    rest: [Floats; 2],
    values: [Floats; 2],
}

impl Rests<Avx2> {
    #[inline(always)]
    fn halves(&self) -> [HalfRests; 2] {
        let Self { words, rest, values } = self;
        [
            HalfRests { words: [words[0], words[1]], rest: [rest[0], rest[1]], values: [values[0], values[1]] },
            HalfRests { words: [words[2], words[3]], rest: [rest[2], rest[3]], values: [values[2], values[3]] },
        ]
    }
}

impl Lanes for Avx2 {
    type Floats = Floats;
    type Words = Words;

    const HOLD_BLOCKS: bool = false;

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
    fn of_bf16(self, bits: &[u16; LANES]) -> Floats {
        let op = self.0.avx2;
        let [low, high]: [__m128i; 2] = cast(*bits);
        let wide = |half| cast(op._mm256_slli_epi32::<16>(op._mm256_cvtepu16_epi32(half)));
        [wide(low), wide(high)]
    }

    #[inline(always)]
    fn to_bf16(self, bits: &mut [u16; LANES], [low, high]: Floats) {
        let op = self.0.avx2;
        let packed = op._mm256_packus_epi32(self.bf16_words(low), self.bf16_words(high));
        *bits = cast(op._mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
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
    fn mul_less(self, a: Floats, b: Floats, c: Floats) -> Floats {
        all(a, b, c, |a, b, c| self.0.fma._mm256_fmsub_ps(a, b, c))
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
    fn at_least_one_where_positive(self, a: Floats, floats: Floats) -> Floats {
        let op = self.0.avx;
        both(a, floats, |a, floats| {
            let is_positive = op._mm256_cmp_ps::<_CMP_GT_OQ>(a, op._mm256_setzero_ps());
            // Of a NaN and something the maximum is the second.
            op._mm256_and_ps(is_positive, op._mm256_max_ps(floats, op._mm256_set1_ps(1.0)))
        })
    }

    #[inline(always)]
    fn nearer_zero_where_less(self, a: Floats, b: Floats, x: Floats, y: Floats) -> Floats {
        let (avx, op) = (self.0.avx, self.0.avx2);
        // Where it is not less, more than any bits; of one sign, the one with the smaller bits is nearer.
        let limit = all(a, b, y, |a, b, y| avx._mm256_or_ps(avx._mm256_cmp_ps::<_CMP_NLT_UQ>(a, b), y));
        both(x, limit, |x, limit| cast(op._mm256_min_epu32(cast(x), cast(limit))))
    }

    #[inline(always)]
    fn larger(self, a: Floats, b: Floats) -> Floats {
        both(a, b, |a, b| cast(self.0.avx2._mm256_max_epu32(cast(a), cast(b))))
    }

    #[inline(always)]
    fn largest(self, a: Floats) -> Floats {
        let op = self.0.avx2;
        let a = op._mm256_max_epu32(cast(a[0]), cast(a[1]));
        // Of halves, of pairs, of both.
        let a = op._mm256_max_epu32(a, op._mm256_permute2x128_si256::<0x01>(a, a));
        let a = op._mm256_max_epu32(a, op._mm256_shuffle_epi32::<0b01_00_11_10>(a));
        [cast(op._mm256_max_epu32(a, op._mm256_shuffle_epi32::<0b10_11_00_01>(a))); 2]
    }

    #[inline(always)]
    fn first(self, a: Floats) -> f32 {
        self.0.avx._mm256_cvtss_f32(a[0])
    }

    #[inline(always)]
    fn at_least(self, a: Floats, limit: Floats) -> Floats {
        // Of a NaN and something the maximum is the second.
        both(a, limit, |a, limit| self.0.avx._mm256_max_ps(a, limit))
    }

    #[inline(always)]
    fn at_most(self, a: Floats, limit: Floats) -> Floats {
        both(a, limit, |a, limit| self.0.avx._mm256_min_ps(a, limit))
    }

    #[inline(always)]
    fn guess_root(self, a: Floats) -> Floats {
        let op = self.0.avx;
        each(a, |a| op._mm256_mul_ps(a, op._mm256_rsqrt_ps(a)))
    }

    #[inline(always)]
    fn guess_fourth_root(self, a: Floats) -> Floats {
        let op = self.0.avx;
        each(a, |a| op._mm256_rsqrt_ps(op._mm256_rsqrt_ps(a)))
    }

    #[inline(always)]
    fn nearest(self, a: Floats) -> Words {
        each(a, |a| self.0.avx._mm256_cvtps_epi32(a))
    }

    #[inline(always)]
    fn floats(self, words: Words) -> Floats {
        each(words, |words| self.0.avx._mm256_cvtepi32_ps(words))
    }

    #[inline(always)]
    fn halves_to_signed(self, codes: &mut [[i8; LANES]; GROUPS], of: Rests<Self>) {
        let [low, high] = of.halves();
        *codes = cast([self.signed_halves(&low), self.signed_halves(&high)]);
    }

    #[inline(always)]
    fn halves_to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>) {
        let [low, high] = of.halves();
        *codes = cast([self.unsigned_halves(&low), self.unsigned_halves(&high)]);
    }

    #[inline(always)]
    fn to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>) {
        let [low, high] = of.halves();
        *codes = cast([self.unsigned(&low), self.unsigned(&high)]);
    }

    #[inline(always)]
    fn random(self, from: u32, key: u32) -> Words {
        [self.eight_random(from, key), self.eight_random(from.wrapping_add(8), key)]
    }

    #[inline(always)]
    fn lots(self, [low, high]: Words) -> [Floats; GROUPS] {
        let (low, high) = (self.eight_lots(low), self.eight_lots(high));
        [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
    }

    #[inline(always)]
    fn prefetch<T>(self, near: &T, ahead: usize) {
        let at = core::ptr::from_ref(near).cast::<i8>().wrapping_add(ahead);
        self.0.sse._mm_prefetch::<_MM_HINT_T0>(at);
    }
}
