//! Means of columns and rows, taken from the exponents of a matrix: neurons and features differ by factors.

/// Rows of a matrix of which a chunk has the elements from the first row's `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// Elements of a row, not 0.
    pub(crate) len: usize,
    /// Elements of the first row that are not here, less than `len`.
    pub(crate) offset: usize,
}

impl Rows {
    /// Returns of how many rows there are elements among `num_elements`.
    pub(crate) fn count(self, num_elements: usize) -> usize {
        if num_elements == 0 { 0 } else { (self.offset + num_elements).div_ceil(self.len) }
    }

    /// Returns how many means `num_elements` have; none if that is more than a payload of `num_bytes` raw ones may have.
    pub(crate) fn num_means(self, num_elements: usize, num_bytes: usize) -> Option<usize> {
        let num = self.len.saturating_add(self.count(num_elements));
        (num <= num_bytes.saturating_add(2)).then_some(num)
    }

    /// Calls `then` with each row's part of the plane and the columns that it has.
    fn each<'a>(self, plane: &'a mut [u8], columns: &[u8], mut then: impl FnMut(usize, &'a mut [u8], &[u8])) {
        let mut rest = plane;
        let mut offset = self.offset;
        let mut row = 0;
        while !rest.is_empty() {
            let len = (self.len - offset).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            then(row, part, &columns[offset..offset + len]);
            (rest, offset, row) = (after, 0, row + 1);
        }
    }
}

/// Rows that the means of columns are taken of, at most.
const ROWS_LOOKED_AT: usize = 128;

/// Takes the means from a plane: of each column, then of what is left of each row. Returns them, columns first.
pub(crate) fn take(rows: Rows, plane: &mut [u8]) -> Vec<u8> {
    let mut means = columns_of(rows, plane);
    let of_all_columns = sum_of(&means);
    let mut of_rows = Vec::with_capacity(rows.count(plane.len()));
    rows.each(plane, &means, |_, part, columns| {
        let of_columns = if columns.len() == rows.len { of_all_columns } else { sum_of(columns) };
        let mean = rounded(sum_of(part) - of_columns, part.len());
        for (byte, column) in part.iter_mut().zip(columns) {
            *byte = byte.wrapping_sub(*column).wrapping_sub(mean);
        }
        of_rows.push(mean);
    });
    means.extend_from_slice(&of_rows);
    means
}

/// The sum of bytes, which are not more than a chunk has.
fn sum_of(bytes: &[u8]) -> i64 {
    let of_block = |block: &[u8; 64]| block.iter().map(|byte| u16::from(*byte)).sum::<u16>();
    let (blocks, rest) = bytes.as_chunks::<64>();
    let of_blocks: u32 = blocks.iter().map(|block| u32::from(of_block(block))).sum();
    i64::from(of_blocks) + rest.iter().map(|byte| i64::from(*byte)).sum::<i64>()
}

/// Gives them back.
pub(crate) fn put(rows: Rows, means: &[u8], plane: &mut [u8]) {
    let (columns, of_rows) = means.split_at(rows.len);
    rows.each(plane, columns, |row, part, columns| {
        let mean = of_rows[row];
        for (byte, column) in part.iter_mut().zip(columns) {
            *byte = byte.wrapping_add(*column).wrapping_add(mean);
        }
    });
}

/// About the mean of each column, from some of the rows; 0 of one that is not there.
fn columns_of(rows: Rows, plane: &[u8]) -> Vec<u8> {
    let missing = (rows.len - rows.offset) % rows.len;
    let whole = plane.get(missing..).unwrap_or_default();
    let num_whole = whole.len() / rows.len;
    if num_whole == 0 {
        let mut columns = vec![0; rows.len];
        for (i, byte) in plane.iter().enumerate() {
            columns[(rows.offset + i) % rows.len] = *byte;
        }
        return columns;
    }
    let every = num_whole.div_ceil(ROWS_LOOKED_AT);
    let mut sums = vec![0_u16; rows.len];
    let mut count = 0;
    for row in whole.chunks_exact(rows.len).step_by(every) {
        for (sum, byte) in sums.iter_mut().zip(row) {
            *sum += u16::from(*byte);
        }
        count += 1;
    }
    sums.into_iter().map(|sum| rounded(i64::from(sum), count)).collect()
}

/// The nearest integer to a mean, modulo 256; 0 of nothing.
fn rounded(sum: i64, count: usize) -> u8 {
    let count = i64::from(count as u32);
    if count == 0 { 0 } else { (2 * sum + count).div_euclid(2 * count).to_le_bytes()[0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_wherever_the_chunk_begins_in_a_row() {
        for (len, offset, num) in
            [(1, 0, 5), (7, 0, 70), (7, 3, 61), (7, 6, 1), (300, 299, 2), (16, 5, 4096), (3, 1, 2000), (5, 4, 0)]
        {
            let rows = Rows { len, offset };
            let plane: Vec<u8> = (0..num).map(|i: usize| (i * i % 251) as u8).collect();
            let mut left = plane.clone();
            let means = take(rows, &mut left);
            assert_eq!(means.len(), len + rows.count(num));
            put(rows, &means, &mut left);
            assert_eq!(left, plane, "{rows:?}");
        }
    }

    #[test]
    fn of_a_sum_of_a_row_and_a_column_nothing_is_left() {
        let rows = Rows { len: 100, offset: 0 };
        let mut plane: Vec<u8> = (0..100_000_u32).map(|i| (i / 100 % 50 + i % 100) as u8).collect();
        take(rows, &mut plane);
        let most = plane.iter().map(|byte| byte.wrapping_add(1)).max();
        assert!(most <= Some(2), "{most:?}");
    }
}
