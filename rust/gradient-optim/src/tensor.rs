//! A parameter and its state, as a step takes them, and as threads do.

use gradient_codec::quantize::{Blocks, Part};

use crate::OptimError;

/// Elements that one thread takes at a time, about: long enough to be worth handing over, short enough for its cache.
const TILE: usize = 64 << 10;

/// Numbers in eight bits each, and a scale for each block of them.
#[derive(Debug, Default)]
pub struct Codes<'a, C> {
    /// Elements, row after row.
    pub codes: &'a mut [C],
    /// One for each block.
    pub scales: &'a mut [f32],
}

/// One parameter, its gradient and its state.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Elements, row after row.
    pub param: &'a mut [f32],
    /// As many.
    pub grad: &'a [f32],
    /// First moments.
    pub momentum: Codes<'a, i8>,
    /// Second moments; empty for optimizers that have none.
    pub variance: Codes<'a, u8>,
    /// Elements of a row: the product of all dimensions but the first.
    pub row_len: usize,
    /// What its lots are drawn with.
    pub key: u32,
}

/// What a thread takes at a time.
pub(crate) struct Tile<'a> {
    pub(crate) param: &'a mut [f32],
    pub(crate) grad: &'a [f32],
    pub(crate) momentum: Codes<'a, i8>,
    pub(crate) variance: Codes<'a, u8>,
    pub(crate) part: Part,
    pub(crate) key: u32,
}

impl<C: Default> Codes<'_, C> {
    /// Takes off the first `num` blocks, which have `numel` elements; nothing where there is nothing.
    fn split_off(&mut self, numel: usize, num: usize) -> Option<Self> {
        if self.codes.is_empty() {
            return Some(Self::default());
        }
        Some(Self { codes: self.codes.split_off_mut(..numel)?, scales: self.scales.split_off_mut(..num)? })
    }
}

impl<'a> Tensor<'a> {
    /// Cuts it into tiles, if all its parts have the lengths that they need.
    pub(crate) fn tiles(self, number: usize, has_variance: bool) -> Result<Vec<Tile<'a>>, OptimError> {
        let Self { mut param, mut grad, mut momentum, mut variance, row_len, key } = self;
        let numel = param.len();
        let Some(blocks) = Blocks::new(numel, row_len) else {
            return Err(OptimError::NoRows { tensor: number, numel, row_len });
        };
        let of_variance = if has_variance { (numel, blocks.num()) } else { (0, 0) };
        let lens = [
            ("the gradient", numel, grad.len()),
            ("the first moment", numel, momentum.codes.len()),
            ("the scales of the first moment", blocks.num(), momentum.scales.len()),
            ("the second moment", of_variance.0, variance.codes.len()),
            ("the scales of the second moment", of_variance.1, variance.scales.len()),
        ];
        if let Some((what, expected, actual)) = lens.into_iter().find(|(_, expected, actual)| expected != actual) {
            return Err(OptimError::WrongLength { tensor: number, what, expected, actual });
        }
        let cut = |part: Part| {
            let (numel, num) = (part.numel(), part.num());
            Some(Tile {
                param: param.split_off_mut(..numel)?,
                grad: grad.split_off(..numel)?,
                momentum: momentum.split_off(numel, num)?,
                variance: variance.split_off(numel, num)?,
                part,
                key,
            })
        };
        Ok(blocks.parts(TILE).map_while(cut).collect())
    }
}
