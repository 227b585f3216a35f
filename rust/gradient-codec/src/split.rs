//! Elements to planes and back: plane p holds byte p of each element, after a rotation by one bit if wanted.
//!
//! For all processors bytes are parted into those at even and at odd places, once for each doubling of the width: of
//! that, and of a rotation by a number that is known, the compiler makes vector code even for the oldest x86-64 (13 and
//! 16 GB/s there, of planes taken by shifts it makes 3 to 6). With vectors of 64 bytes it is the other way round: shifts
//! split as fast as memory is copied.

use crate::processor::for_processor;

/// Elements of a block: the loops are over blocks of a fixed length.
const BLOCK: usize = 64;

for_processor! {
    /// Splits elements of `planes.len()` bytes.
    pub(crate) fn split(raw: &[u8], rotate: bool, planes: &mut [&mut [u8]])
        = ["avx512f", "avx512bw", "avx512vl", "avx512vbmi"] => split_by_shifts, else split_by_halves;
}

for_processor! {
    /// Puts planes together again.
    pub(crate) fn merge(planes: &[&[u8]], rotate: bool, raw: &mut [u8])
        = ["avx512f", "avx512bw", "avx512vl", "avx512vbmi"] => merge_by_shifts, else merge_by_halves;
}

/// Splits four bytes at a time; other widths as everywhere.
#[cfg(any(target_arch = "x86_64", test))]
#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn split_by_shifts(raw: &[u8], rotate: bool, planes: &mut [&mut [u8]]) {
    let [p0, p1, p2, p3] = planes else { return split_by_halves(raw, rotate, planes) };
    let by = u32::from(rotate);
    let num_whole = raw.len() / (4 * BLOCK) * BLOCK;
    let blocks = raw.as_chunks::<{ 4 * BLOCK }>().0.iter();
    for ((((block, p0), p1), p2), p3) in blocks
        .zip(p0.as_chunks_mut::<BLOCK>().0)
        .zip(p1.as_chunks_mut::<BLOCK>().0)
        .zip(p2.as_chunks_mut::<BLOCK>().0)
        .zip(p3.as_chunks_mut::<BLOCK>().0)
    {
        for (i, element) in block.as_chunks::<4>().0.iter().enumerate() {
            let bits = u32::from_le_bytes(*element).rotate_left(by);
            p0[i] = bits as u8;
            p1[i] = (bits >> 8) as u8;
            p2[i] = (bits >> 16) as u8;
            p3[i] = (bits >> 24) as u8;
        }
    }
    let mut rest = [p0, p1, p2, p3].map(|plane| &mut plane[num_whole..]);
    split_by_halves(&raw[4 * num_whole..], rotate, &mut rest);
}

/// Merges four bytes at a time; other widths as everywhere.
#[cfg(any(target_arch = "x86_64", test))]
#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn merge_by_shifts(planes: &[&[u8]], rotate: bool, raw: &mut [u8]) {
    let [p0, p1, p2, p3] = planes else { return merge_by_halves(planes, rotate, raw) };
    let by = u32::from(rotate);
    let num_whole = raw.len() / (4 * BLOCK) * BLOCK;
    let (whole, rest) = raw.split_at_mut(4 * num_whole);
    for ((((block, p0), p1), p2), p3) in whole
        .as_chunks_mut::<{ 4 * BLOCK }>()
        .0
        .iter_mut()
        .zip(p0.as_chunks::<BLOCK>().0)
        .zip(p1.as_chunks::<BLOCK>().0)
        .zip(p2.as_chunks::<BLOCK>().0)
        .zip(p3.as_chunks::<BLOCK>().0)
    {
        for (i, element) in block.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *element = u32::from_le_bytes([p0[i], p1[i], p2[i], p3[i]]).rotate_right(by).to_le_bytes();
        }
    }
    merge_by_halves(&[p0, p1, p2, p3].map(|plane| &plane[num_whole..]), rotate, rest);
}

fn split_by_halves(raw: &[u8], rotate: bool, planes: &mut [&mut [u8]]) {
    match (planes, rotate) {
        ([p0], false) => split_1::<0>(raw, [p0]),
        ([p0], true) => split_1::<1>(raw, [p0]),
        ([p0, p1], false) => split_2::<0>(raw, [p0, p1]),
        ([p0, p1], true) => split_2::<1>(raw, [p0, p1]),
        ([p0, p1, p2, p3], false) => split_4::<0>(raw, [p0, p1, p2, p3]),
        ([p0, p1, p2, p3], true) => split_4::<1>(raw, [p0, p1, p2, p3]),
        ([p0, p1, p2, p3, p4, p5, p6, p7], false) => split_8::<0>(raw, [p0, p1, p2, p3, p4, p5, p6, p7]),
        ([p0, p1, p2, p3, p4, p5, p6, p7], true) => split_8::<1>(raw, [p0, p1, p2, p3, p4, p5, p6, p7]),
        _ => {}
    }
}

fn merge_by_halves(planes: &[&[u8]], rotate: bool, raw: &mut [u8]) {
    match (planes, rotate) {
        ([p0], false) => merge_1::<0>([p0], raw),
        ([p0], true) => merge_1::<1>([p0], raw),
        ([p0, p1], false) => merge_2::<0>([p0, p1], raw),
        ([p0, p1], true) => merge_2::<1>([p0, p1], raw),
        ([p0, p1, p2, p3], false) => merge_4::<0>([p0, p1, p2, p3], raw),
        ([p0, p1, p2, p3], true) => merge_4::<1>([p0, p1, p2, p3], raw),
        ([p0, p1, p2, p3, p4, p5, p6, p7], false) => merge_8::<0>([p0, p1, p2, p3, p4, p5, p6, p7], raw),
        ([p0, p1, p2, p3, p4, p5, p6, p7], true) => merge_8::<1>([p0, p1, p2, p3, p4, p5, p6, p7], raw),
        _ => {}
    }
}

/// Parts bytes at even places from those at odd ones.
#[inline]
fn part<const HALF: usize>(bytes: &[u8], even: &mut [u8; HALF], odd: &mut [u8; HALF]) {
    for ((pair, even), odd) in bytes.as_chunks::<2>().0.iter().zip(even).zip(odd) {
        let pair = u16::from_le_bytes(*pair);
        *even = pair as u8;
        *odd = (pair >> 8) as u8;
    }
}

/// Puts bytes at even and odd places together.
#[inline]
fn join<const HALF: usize>(even: &[u8; HALF], odd: &[u8; HALF]) -> [u16; HALF] {
    let mut pairs = [0; HALF];
    for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
        *pair = u16::from(*even) | u16::from(*odd) << 8;
    }
    pairs
}

#[inline]
fn split_block_1(block: &[u8; BLOCK], [p0]: [&mut [u8; BLOCK]; 1]) {
    *p0 = *block;
}

#[inline]
fn split_block_2(block: &[u8; 2 * BLOCK], [p0, p1]: [&mut [u8; BLOCK]; 2]) {
    part(block, p0, p1);
}

#[inline]
fn split_block_4(block: &[u8; 4 * BLOCK], [p0, p1, p2, p3]: [&mut [u8; BLOCK]; 4]) {
    let (mut even, mut odd) = ([0; 2 * BLOCK], [0; 2 * BLOCK]);
    part(block, &mut even, &mut odd);
    part(&even, p0, p2);
    part(&odd, p1, p3);
}

#[inline]
fn split_block_8(block: &[u8; 8 * BLOCK], [p0, p1, p2, p3, p4, p5, p6, p7]: [&mut [u8; BLOCK]; 8]) {
    let (mut even, mut odd) = ([0; 4 * BLOCK], [0; 4 * BLOCK]);
    part(block, &mut even, &mut odd);
    split_block_4(&even, [p0, p2, p4, p6]);
    split_block_4(&odd, [p1, p3, p5, p7]);
}

#[inline]
fn merge_block_1([p0]: [&[u8; BLOCK]; 1]) -> [u8; BLOCK] {
    *p0
}

#[inline]
fn merge_block_2([p0, p1]: [&[u8; BLOCK]; 2]) -> [u16; BLOCK] {
    join(p0, p1)
}

#[inline]
fn merge_block_4([p0, p1, p2, p3]: [&[u8; BLOCK]; 4]) -> [u32; BLOCK] {
    let (low, high) = (join(p0, p1), join(p2, p3));
    let mut numbers = [0; BLOCK];
    for ((number, low), high) in numbers.iter_mut().zip(&low).zip(&high) {
        *number = u32::from(*low) | u32::from(*high) << 16;
    }
    numbers
}

#[inline]
fn merge_block_8([p0, p1, p2, p3, p4, p5, p6, p7]: [&[u8; BLOCK]; 8]) -> [u64; BLOCK] {
    let (low, high) = (merge_block_4([p0, p1, p2, p3]), merge_block_4([p4, p5, p6, p7]));
    let mut numbers = [0; BLOCK];
    for ((number, low), high) in numbers.iter_mut().zip(&low).zip(&high) {
        *number = u64::from(*low) | u64::from(*high) << 32;
    }
    numbers
}

/// Makes the loops of one width.
macro_rules! of_width {
    ($split:ident, $split_block:ident, $merge:ident, $merge_block:ident, $unsigned:ty, $width:literal) => {
        fn $split<const ROTATE: u32>(raw: &[u8], planes: [&mut [u8]; $width]) {
            let (blocks, last) = raw.as_chunks::<{ $width * BLOCK }>();
            let mut planes = planes.map(|plane| plane.as_chunks_mut::<BLOCK>());
            let mut rotated = [0; $width * BLOCK];
            for (at, block) in blocks.iter().enumerate() {
                let elements = block.as_chunks::<$width>().0.iter();
                for (rotated, element) in rotated.as_chunks_mut::<$width>().0.iter_mut().zip(elements) {
                    *rotated = <$unsigned>::from_le_bytes(*element).rotate_left(ROTATE).to_le_bytes();
                }
                $split_block(&rotated, planes.each_mut().map(|(plane, _)| &mut plane[at]));
            }
            for (at, element) in last.as_chunks::<$width>().0.iter().enumerate() {
                let bytes = <$unsigned>::from_le_bytes(*element).rotate_left(ROTATE).to_le_bytes();
                for ((_, plane), byte) in planes.iter_mut().zip(bytes) {
                    plane[at] = byte;
                }
            }
        }

        fn $merge<const ROTATE: u32>(planes: [&[u8]; $width], raw: &mut [u8]) {
            let (elements, _) = raw.as_chunks_mut::<$width>();
            let (blocks, last) = elements.as_chunks_mut::<BLOCK>();
            let planes = planes.map(|plane| plane.as_chunks::<BLOCK>());
            for (at, block) in blocks.iter_mut().enumerate() {
                let numbers = $merge_block(planes.map(|(plane, _)| &plane[at]));
                for (element, number) in block.iter_mut().zip(&numbers) {
                    *element = number.rotate_right(ROTATE).to_le_bytes();
                }
            }
            for (at, element) in last.iter_mut().enumerate() {
                let bytes = planes.map(|(_, plane)| plane[at]);
                *element = <$unsigned>::from_le_bytes(bytes).rotate_right(ROTATE).to_le_bytes();
            }
        }
    };
}

of_width!(split_1, split_block_1, merge_1, merge_block_1, u8, 1);
of_width!(split_2, split_block_2, merge_2, merge_block_2, u16, 2);
of_width!(split_4, split_block_4, merge_4, merge_block_4, u32, 4);
of_width!(split_8, split_block_8, merge_8, merge_block_8, u64, 8);

#[cfg(test)]
mod tests {
    use super::*;

    type Split = fn(&[u8], bool, &mut [&mut [u8]]);
    type Merge = fn(&[&[u8]], bool, &mut [u8]);

    /// For this processor, for all, and as for those that prefer shifts.
    fn ways() -> [(Split, Merge); 3] {
        [(split, merge), (split_by_halves, merge_by_halves), (split_by_shifts, merge_by_shifts)]
    }

    #[test]
    fn planes_hold_the_bytes_of_rotated_elements_and_come_back() {
        for width in [1, 2, 4, 8] {
            for n in [0, 1, 63, 64, 65, 200] {
                for rotate in [false, true] {
                    let raw: Vec<u8> = (0..n * width).map(|i| (i * i * 31 % 251) as u8).collect();
                    for (split, merge) in ways() {
                        let mut planes = vec![vec![0; n]; width];
                        split(&raw, rotate, &mut planes.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
                        for (i, element) in raw.chunks_exact(width).enumerate() {
                            let mut bits = element.iter().rev().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
                            if rotate {
                                let top = bits >> (8 * width - 1);
                                bits = bits << 1 | top;
                            }
                            for (p, plane) in planes.iter().enumerate() {
                                assert_eq!(plane[i], (bits >> (8 * p)) as u8, "width {width}, plane {p}");
                            }
                        }
                        let mut back = vec![1; n * width];
                        merge(&planes.iter().map(Vec::as_slice).collect::<Vec<_>>(), rotate, &mut back);
                        assert_eq!(back, raw);
                    }
                }
            }
        }
    }
}
