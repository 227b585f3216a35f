//! How a tensor is cut into blocks.

use super::BLOCK;

/// The blocks of a tensor.
///
/// They lie inside rows, a row being everything after dimension 0, so that a tensor which is cut along that dimension has
/// the same blocks as the whole. The last block of a row is as short as it has to be. Rows that are shorter than a block
/// are one long row; such a tensor can not be cut everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    numel: usize,
    row_len: usize,
}

impl Blocks {
    /// Returns those of a tensor of `numel` elements, `row_len` in each row; none if these are no whole rows.
    #[must_use]
    pub fn new(numel: usize, row_len: usize) -> Option<Self> {
        let is_whole = numel == 0 || (row_len > 0 && numel.is_multiple_of(row_len));
        is_whole.then(|| Self { numel, row_len: if row_len < BLOCK { numel.max(1) } else { row_len } })
    }

    /// Returns how many blocks it has, and scales.
    #[must_use]
    pub fn num(self) -> usize {
        self.numel / self.row_len * self.row_len.div_ceil(BLOCK)
    }

    /// Says that no block is shorter than others.
    #[must_use]
    pub fn are_whole(self) -> bool {
        self.row_len.is_multiple_of(BLOCK)
    }

    /// Returns the parts of about `len` elements that the tensor is cut into.
    pub fn parts(self, len: usize) -> impl Iterator<Item = Part> {
        let mut first = 0;
        std::iter::from_fn(move || {
            let part = Part { first, len: self.part_len(first, len).min(self.numel - first), blocks: self };
            first += part.len;
            (part.len > 0).then_some(part)
        })
    }

    /// Returns how long the part from an element on is, of about `len`: it ends with a block, and what begins within a row
    /// that ends with a short one does not go on into the next.
    fn part_len(self, first: usize, len: usize) -> usize {
        if self.are_whole() {
            len.next_multiple_of(BLOCK)
        } else if self.row_len <= len {
            len / self.row_len * self.row_len
        } else {
            len.next_multiple_of(BLOCK).min(self.row_len - first % self.row_len)
        }
    }
}

/// Whole blocks of a tensor, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    first: usize,
    len: usize,
    blocks: Blocks,
}

impl Part {
    /// Returns how many elements it has.
    #[must_use]
    pub fn numel(self) -> usize {
        self.len
    }

    /// Returns how many blocks it has.
    #[must_use]
    pub fn num(self) -> usize {
        self.number_at(self.first + self.len) - self.number_at(self.first)
    }

    /// Returns the number that its first block has in the tensor.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number_at(self.first) as u64
    }

    /// Says that no block is shorter than others.
    #[must_use]
    pub fn are_whole(self) -> bool {
        self.blocks.are_whole()
    }

    /// Returns where each block begins and ends, in elements of the part.
    pub fn ranges(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at;
            let left_of_row = self.blocks.row_len - (self.first + at) % self.blocks.row_len;
            at += left_of_row.min(BLOCK).min(self.len - at);
            (at > start).then_some(start..at)
        })
    }

    /// Returns the number of the block that begins with an element.
    fn number_at(self, element: usize) -> usize {
        let row_len = self.blocks.row_len;
        element / row_len * row_len.div_ceil(BLOCK) + (element % row_len).div_ceil(BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lengths of the blocks of a tensor, part by part.
    fn lens(numel: usize, row_len: usize, part_len: usize) -> Vec<Vec<usize>> {
        let blocks = Blocks::new(numel, row_len).expect("whole rows");
        let parts: Vec<_> = blocks.parts(part_len).collect();
        let mut number = 0;
        for part in &parts {
            assert_eq!(part.number(), number);
            assert_eq!(part.ranges().count(), part.num());
            number += part.num() as u64;
        }
        assert_eq!(number, blocks.num() as u64);
        parts.into_iter().map(|part| part.ranges().map(|range| range.len()).collect()).collect()
    }

    #[test]
    fn blocks_end_with_their_row() {
        assert_eq!(lens(256, 128, 1024), [[64, 64, 64, 64]]);
        assert_eq!(lens(2 * 130, 130, 1024), [[64, 64, 2, 64, 64, 2]]);
        assert_eq!(lens(3 * 65, 65, 1024), [[64, 1, 64, 1, 64, 1]]);
    }

    #[test]
    fn short_rows_are_one() {
        assert_eq!(lens(10 * 9, 9, 1024), [[64, 26]]);
        assert_eq!(lens(63, 63, 1024), [[63]]);
        assert_eq!(lens(5, 1, 1024), [[5]]);
    }

    #[test]
    fn parts_are_cut_between_blocks() {
        assert_eq!(lens(384, 128, 128), [[64, 64], [64, 64], [64, 64]]);
        assert_eq!(lens(4 * 65, 65, 130), [[64, 1, 64, 1], [64, 1, 64, 1]]);
        assert_eq!(lens(2 * 200, 200, 128), [vec![64, 64], vec![64, 8], vec![64, 64], vec![64, 8]]);
        assert_eq!(lens(20 * 10, 10, 64), [vec![64], vec![64], vec![64], vec![8]]);
    }

    #[test]
    fn an_empty_tensor_has_none() {
        for row_len in [0, 1, 64, 100] {
            assert_eq!(lens(0, row_len, 64), Vec::<Vec<usize>>::new());
        }
    }

    #[test]
    fn rows_have_to_be_whole() {
        assert_eq!(Blocks::new(100, 64), None);
        assert_eq!(Blocks::new(100, 0), None);
    }
}
