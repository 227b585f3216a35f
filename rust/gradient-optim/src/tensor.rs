//! A parameter and its state, as a step takes them, and as threads do.

use gradient_codec::quantize::{Blocks, Part};

use crate::{Fixed, Floats, OptimError};

/// Elements that one thread takes at a time, about: long enough to be worth handing over, short enough for its cache.
pub(crate) const TILE: usize = 64 << 10;

/// Numbers in eight bits each, and a scale for each block of them.
#[derive(Debug, Default)]
pub struct Codes<'a, C> {
    /// Elements, row after row.
    pub codes: &'a mut [C],
    /// One for each block.
    pub scales: &'a mut [f32],
}

/// One of the moments of a parameter, as it is kept.
#[derive(Debug, Default)]
pub enum Moment<'a, C> {
    /// There is none.
    #[default]
    None,
    /// In eight bits.
    Codes(Codes<'a, C>),
    /// In full.
    Floats(Floats<'a>),
}

/// One parameter, its gradient and its state.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Elements, row after row.
    pub param: Floats<'a>,
    /// As many.
    pub grad: Fixed<'a>,
    /// First moments.
    pub momentum: Moment<'a, i8>,
    /// Second moments; none for optimizers that have none.
    pub variance: Moment<'a, u8>,
    /// Elements of a row: the product of all dimensions but the first.
    pub row_len: usize,
    /// What its lots are drawn with.
    pub key: u32,
}

/// What a thread takes at a time.
pub(crate) struct Tile<'a> {
    pub(crate) param: Floats<'a>,
    pub(crate) grad: Fixed<'a>,
    pub(crate) momentum: Moment<'a, i8>,
    pub(crate) variance: Moment<'a, u8>,
    pub(crate) part: Part,
    pub(crate) key: u32,
}

impl<C: Default> Codes<'_, C> {
    /// Takes off the first `num` blocks, which have `numel` elements.
    pub(crate) fn split_off(&mut self, numel: usize, num: usize) -> Option<Self> {
        Some(Self { codes: self.codes.split_off_mut(..numel)?, scales: self.scales.split_off_mut(..num)? })
    }
}

impl<C: Default> Moment<'_, C> {
    /// Says that it is coded, or not there where it need not be.
    pub(crate) fn is_coded_if(&self, needed: bool) -> bool {
        matches!((self, needed), (Self::Codes(_), true) | (Self::None, false))
    }

    /// Returns how many elements and scales there are; no scales are none too many where none are needed.
    fn lens(&self, num: usize) -> (usize, usize) {
        match self {
            Self::None => (0, num),
            Self::Codes(codes) => (codes.codes.len(), codes.scales.len()),
            Self::Floats(floats) => (floats.len(), num),
        }
    }

    /// Takes off the first `num` blocks, which have `numel` elements; nothing where there is nothing.
    fn split_off(&mut self, numel: usize, num: usize) -> Option<Self> {
        Some(match self {
            Self::None => Self::None,
            Self::Codes(codes) => Self::Codes(codes.split_off(numel, num)?),
            Self::Floats(floats) => Self::Floats(floats.split_off(numel)?),
        })
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
        let (of_momentum, of_variance) = (momentum.lens(blocks.num()), variance.lens(blocks.num()));
        let lens = [
            ("the gradient", numel, grad.len()),
            ("the first moment", numel, of_momentum.0),
            ("the scales of the first moment", blocks.num(), of_momentum.1),
            ("the second moment", if has_variance { numel } else { 0 }, of_variance.0),
            ("the scales of the second moment", blocks.num(), of_variance.1),
        ];
        if let Some((what, expected, actual)) = lens.into_iter().find(|(_, expected, actual)| expected != actual) {
            return Err(OptimError::WrongLength { tensor: number, what, expected, actual });
        }
        let cut = |part: Part| {
            let (numel, num) = (part.numel(), part.num());
            Some(Tile {
                param: param.split_off(numel)?,
                grad: grad.split_off(numel)?,
                momentum: momentum.split_off(numel, num)?,
                variance: variance.split_off(numel, num)?,
                part,
                key,
            })
        };
        Ok(blocks.parts(TILE).map_while(cut).collect())
    }
}
