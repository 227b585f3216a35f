//! Codes of 64 bytes at a time, looked up and put together in vectors.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpgt_epu64_mask, _mm512_mask_blend_epi8,
    _mm512_movepi8_mask, _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_permutexvar_epi8, _mm512_set1_epi8,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_slli_epi16, _mm512_sllv_epi32, _mm512_sllv_epi64,
    _mm512_srli_epi16, _mm512_srli_epi32, _mm512_srli_epi64, _mm512_sub_epi8,
};

use super::{Bits, Code, Pairs};
use crate::processor::{from_vector, to_vector};

/// So many bits can be put at once.
const PUT_MAX: i64 = 56;

/// Codes and how many bits they have, one behind the other, of as many bytes as a lane has.
#[derive(Clone, Copy)]
struct Lanes {
    codes: __m512i,
    lens: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2")]
pub(super) fn put_stream(stream: &[u8], code: &Code, pairs: Option<&Pairs>, place: &mut [u8]) -> Option<usize> {
    let tables = Tables::of(code);
    if tables.are_near {
        put_with::<true>(&tables, stream, code, pairs, place)
    } else {
        put_with::<false>(&tables, stream, code, pairs, place)
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2")]
fn put_with<const ARE_NEAR: bool>(
    tables: &Tables,
    stream: &[u8],
    code: &Code,
    pairs: Option<&Pairs>,
    place: &mut [u8],
) -> Option<usize> {
    let mut bits = Bits::new(place);
    let (blocks, rest) = stream.as_chunks::<64>();
    bits.put_bytes(rest, code, pairs)?;
    for block in blocks.iter().rev() {
        let [first, second] = tables.fours::<ARE_NEAR>(block);
        let lens = _mm512_add_epi64(first.lens, second.lens);
        if _mm512_cmpgt_epu64_mask(lens, _mm512_set1_epi64(PUT_MAX)) == 0 {
            let codes = _mm512_or_si512(second.codes, _mm512_sllv_epi64(first.codes, second.lens));
            let (codes, lens) = (from_vector(codes), from_vector(lens));
            for i in (0..8).rev() {
                bits.put(codes[i], lens[i] as u32)?;
            }
        } else {
            let (codes, lens) = (from_vector(first.codes), from_vector(first.lens));
            let (codes_second, lens_second) = (from_vector(second.codes), from_vector(second.lens));
            for i in (0..8).rev() {
                bits.put(codes_second[i], lens_second[i] as u32)?;
                bits.put(codes[i], lens[i] as u32)?;
            }
        }
    }
    bits.finish()
}

/// A code as tables by byte.
struct Tables {
    /// All bytes that have codes are among the 64 from `least` on: the first quarter of each table has them all.
    are_near: bool,
    least: __m512i,
    low: Table,
    high: Table,
    lens: Table,
}

/// Entries of 256 bytes, from the least on.
struct Table([__m512i; 4]);

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2")]
    fn of<const ARE_NEAR: bool>(&self, at: __m512i) -> __m512i {
        let Self([a, b, c, d]) = *self;
        if ARE_NEAR {
            return _mm512_permutexvar_epi8(at, a);
        }
        let (lower, upper) = (_mm512_permutex2var_epi8(a, at, b), _mm512_permutex2var_epi8(c, at, d));
        _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), lower, upper)
    }
}

impl Tables {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2")]
    fn of(code: &Code) -> Self {
        let of_byte = |byte: i8| code.codes[usize::from(byte.cast_unsigned())];
        let mut coded = (i8::MIN..=i8::MAX).filter(|byte| of_byte(*byte) > 0);
        let least = coded.next().unwrap_or(0);
        let are_near = coded.next_back().is_none_or(|most| most.abs_diff(least) < 64);
        let table = |part: fn(u32) -> u8| {
            let quarter = |quarter: usize| {
                to_vector(&std::array::from_fn(|i| {
                    part(of_byte(least.wrapping_add(((64 * quarter + i) as u8).cast_signed())))
                }))
            };
            Table([quarter(0), quarter(1), quarter(2), quarter(3)])
        };
        Self {
            are_near,
            least: _mm512_set1_epi8(least),
            low: table(|code| code as u8),
            high: table(|code| (code >> 8) as u8),
            lens: table(|code| (code >> 16) as u8),
        }
    }

    /// Four bytes in each half of a lane of eight: those of the first halves, and of the second.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2")]
    fn fours<const ARE_NEAR: bool>(&self, block: &[u8; 64]) -> [Lanes; 2] {
        let at = _mm512_sub_epi8(to_vector(block), self.least);
        let low = self.low.of::<ARE_NEAR>(at);
        let high = self.high.of::<ARE_NEAR>(at);
        let lens = self.lens.of::<ARE_NEAR>(at);
        // Of each two bytes the first, and the second.
        let of_first = _mm512_set1_epi16(0xff);
        let first = Lanes {
            codes: _mm512_or_si512(_mm512_and_si512(low, of_first), _mm512_slli_epi16::<8>(high)),
            lens: _mm512_and_si512(lens, of_first),
        };
        let second = Lanes {
            codes: _mm512_or_si512(
                _mm512_srli_epi16::<8>(low),
                _mm512_and_si512(high, _mm512_slli_epi16::<8>(of_first)),
            ),
            lens: _mm512_srli_epi16::<8>(lens),
        };
        // Of each four the first two, and the second two.
        let low_half = |x| _mm512_and_si512(x, _mm512_set1_epi32(0xffff));
        let two = |first: Lanes, second: Lanes| Lanes {
            codes: _mm512_or_si512(second.codes, _mm512_sllv_epi32(first.codes, second.lens)),
            lens: _mm512_add_epi32(first.lens, second.lens),
        };
        let lower = |of: Lanes| Lanes { codes: low_half(of.codes), lens: low_half(of.lens) };
        let upper =
            |of: Lanes| Lanes { codes: _mm512_srli_epi32::<16>(of.codes), lens: _mm512_srli_epi32::<16>(of.lens) };
        let (first, second) = (two(lower(first), lower(second)), two(upper(first), upper(second)));
        // Of each eight the first four, and the second four.
        let low_half = |x| _mm512_and_si512(x, _mm512_set1_epi64(0xffff_ffff));
        let four = |first: Lanes, second: Lanes| Lanes {
            codes: _mm512_or_si512(second.codes, _mm512_sllv_epi64(first.codes, second.lens)),
            lens: _mm512_add_epi64(first.lens, second.lens),
        };
        let lower = |of: Lanes| Lanes { codes: low_half(of.codes), lens: low_half(of.lens) };
        let upper =
            |of: Lanes| Lanes { codes: _mm512_srli_epi64::<32>(of.codes), lens: _mm512_srli_epi64::<32>(of.lens) };
        [four(lower(first), lower(second)), four(upper(first), upper(second))]
    }
}
