//! Members: which elements belong to a class, 64 of them in a word, the first one lowest.

use crate::processor::for_processor;

/// Elements of a block.
pub(crate) const BLOCK: usize = 64;

/// Bits of a class.
pub(crate) const CLASS_BITS: usize = 4;

/// Classes, from 0 on.
pub(crate) const NUM_CLASSES: usize = 1 << CLASS_BITS;

/// Of a block, for each bit of a class, the elements whose class has it.
pub(crate) type Planes = [u64; CLASS_BITS];

for_processor! {
    /// Puts the lowest bit of all bytes of a block together, then the next one.
    fn gather_all(classes: &[[u8; BLOCK]], planes: &mut [Planes])
        = ["avx512f", "avx512bw"] => wide::gather_all, else gather_all_plain;
}

for_processor! {
    /// Says which bytes are not zero.
    fn gather_any(bytes: &[[u8; BLOCK]], words: &mut [u64])
        = ["avx512f", "avx512bw"] => wide::gather_any, else gather_any_plain;
}

/// Blocks that are looked at together: what is said of each element stays in the nearest cache.
const BLOCKS: usize = 32;

/// Sorts elements into classes.
pub(crate) fn sort<const WIDTH: usize>(
    elements: &[[u8; WIDTH]],
    planes: &mut [Planes],
    class: impl Fn([u8; WIDTH]) -> u8,
) {
    for (elements, planes) in elements.chunks(BLOCKS * BLOCK).zip(planes.chunks_mut(BLOCKS)) {
        let mut classes = [[0; BLOCK]; BLOCKS];
        for (of_element, element) in classes.as_flattened_mut().iter_mut().zip(elements) {
            *of_element = class(*element);
        }
        gather_all(&classes, planes);
    }
}

/// Finds elements that are others than they were.
pub(crate) fn compare<const WIDTH: usize>(base: &[[u8; WIDTH]], raw: &[[u8; WIDTH]], changed: &mut [u64]) {
    let both = base.chunks(BLOCKS * BLOCK).zip(raw.chunks(BLOCKS * BLOCK));
    for ((base, raw), changed) in both.zip(changed.chunks_mut(BLOCKS)) {
        let mut differs = [[0; BLOCK]; BLOCKS];
        for (differs, (base, raw)) in differs.as_flattened_mut().iter_mut().zip(base.iter().zip(raw)) {
            *differs = u8::from(base != raw);
        }
        gather_any(&differs, changed);
    }
}

/// What planes are combined with, so that the members of a class are in all of them.
#[inline]
pub(crate) fn flips_of(class: usize) -> Planes {
    let mut flips = [0; CLASS_BITS];
    for (bit, flip) in flips.iter_mut().enumerate() {
        *flip = if class >> bit & 1 == 1 { 0 } else { u64::MAX };
    }
    flips
}

/// The members of a class in a block, and what is behind the end of the last one.
#[inline]
pub(crate) fn members_of(flips: Planes, planes: Planes) -> u64 {
    (planes[0] ^ flips[0]) & (planes[1] ^ flips[1]) & (planes[2] ^ flips[2]) & (planes[3] ^ flips[3])
}

/// All elements of a block of so many.
#[inline]
pub(crate) fn all_of(len: usize) -> u64 {
    u64::MAX >> (BLOCK - len)
}

/// Eight bytes are a square of bits; turned, byte i holds bit i of each.
fn gather_all_plain(classes: &[[u8; BLOCK]], planes: &mut [Planes]) {
    for (classes, planes) in classes.iter().zip(planes) {
        let mut words = [0; CLASS_BITS];
        for (place, eight) in classes.as_chunks::<8>().0.iter().enumerate() {
            let x = u64::from_le_bytes(*eight);
            let x = exchange(x, 0x00aa_00aa_00aa_00aa, 7);
            let x = exchange(x, 0x0000_cccc_0000_cccc, 14);
            let square = exchange(x, 0x0000_0000_f0f0_f0f0, 28);
            for (bit, word) in words.iter_mut().enumerate() {
                *word |= (square >> (8 * bit) & 255) << (8 * place);
            }
        }
        *planes = words;
    }
}

/// Exchanges the bits of a mask with those so many places above them.
#[inline]
fn exchange(x: u64, mask: u64, by: u32) -> u64 {
    let differs = (x ^ x >> by) & mask;
    x ^ differs ^ differs << by
}

/// Each byte is 0 or 1.
fn gather_any_plain(bytes: &[[u8; BLOCK]], words: &mut [u64]) {
    /// Brings bit 0 of byte i to bit 56 + i, and nothing else there.
    const TOGETHER: u64 = 0x0102_0408_1020_4080;
    for (bytes, word) in bytes.iter().zip(words) {
        let mut all = 0;
        for (place, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
            all |= u64::from_le_bytes(*eight).wrapping_mul(TOGETHER) >> 56 << (8 * place);
        }
        *word = all;
    }
}

/// The same with vectors of 64 bytes.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{_mm512_movepi8_mask, _mm512_slli_epi16, _mm512_test_epi8_mask};

    use super::{BLOCK, Planes};
    use crate::processor::to_vector;

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn gather_all(classes: &[[u8; BLOCK]], planes: &mut [Planes]) {
        for (classes, planes) in classes.iter().zip(planes) {
            let classes = to_vector(classes);
            // To the highest of each byte; what crosses over to the next byte stays below it.
            *planes = [
                _mm512_movepi8_mask(_mm512_slli_epi16(classes, 7)),
                _mm512_movepi8_mask(_mm512_slli_epi16(classes, 6)),
                _mm512_movepi8_mask(_mm512_slli_epi16(classes, 5)),
                _mm512_movepi8_mask(_mm512_slli_epi16(classes, 4)),
            ];
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn gather_any(bytes: &[[u8; BLOCK]], words: &mut [u64]) {
        for (bytes, word) in bytes.iter().zip(words) {
            let bytes = to_vector(bytes);
            *word = _mm512_test_epi8_mask(bytes, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members of classes found one by one.
    fn members(classes: &[u8], class: u8) -> u64 {
        classes.iter().enumerate().map(|(i, of_element)| u64::from(*of_element == class) << i).sum()
    }

    #[test]
    fn every_element_is_in_its_class_and_in_no_other_whatever_the_processor() {
        let elements: Vec<[u8; 1]> = (0..5000_u32).map(|i| [(i * i / 7 % 251) as u8]).collect();
        let num_blocks = elements.len().div_ceil(BLOCK);
        let mut sorted = vec![[0; CLASS_BITS]; num_blocks];
        sort(&elements, &mut sorted, |[byte]| byte % 16);
        for (elements, planes) in elements.chunks(BLOCK).zip(&sorted) {
            let mut classes = [0; BLOCK];
            for (class, [byte]) in classes.iter_mut().zip(elements) {
                *class = byte % 16;
            }
            let mut plain = [[0; CLASS_BITS]];
            gather_all_plain(&[classes], &mut plain);
            assert_eq!(plain, [*planes]);
            for class in 0..16 {
                let found = members_of(flips_of(class), *planes) & all_of(elements.len());
                assert_eq!(found, members(&classes[..elements.len()], class as u8));
            }
        }
    }

    #[test]
    fn elements_that_differ_are_found_whatever_the_processor() {
        let base: Vec<[u8; 4]> = (0..5000_u32).map(u32::to_le_bytes).collect();
        let raw: Vec<[u8; 4]> = (0..5000_u32).map(|i| (i | u32::from(i % 7 == 3) << (i % 32)).to_le_bytes()).collect();
        let mut changed = vec![0; base.len().div_ceil(BLOCK)];
        compare(&base, &raw, &mut changed);
        for ((base, raw), changed) in base.chunks(BLOCK).zip(raw.chunks(BLOCK)).zip(changed) {
            let mut differs = [0; BLOCK];
            for (differs, (base, raw)) in differs.iter_mut().zip(base.iter().zip(raw)) {
                *differs = u8::from(base != raw);
            }
            let mut plain = [0];
            gather_any_plain(&[differs], &mut plain);
            assert_eq!((plain, changed), ([changed], members(&differs, 1)));
        }
    }
}
