//! Tensors as a tree holds them: dtype, shape, memory order, and the bytes or their chunks.
//!
//! - The raw bytes are the elements in row-major order of the shape, little-endian.
//! - At most [`INLINE_BYTES_MAX`] bytes lie in the tree; more are cut into chunks of [`CHUNK_BYTES`], the last shorter.
//! - An order is a permutation of the dimensions and never the row-major one, which is written as none.

use crate::dtype;
use crate::error::ObjectError;
use crate::id::ChunkId;
use crate::{CHUNK_BYTES, INLINE_BYTES_MAX, RANK_MAX};

/// A tensor or array. `D` is where its bytes are: [`TensorData`] in an object, anything else on the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor<D = TensorData> {
    /// Whose tensor it is.
    pub flavor: Flavor,
    /// Torch: the name without `torch.`; numpy: `dtype.str`.
    pub dtype: String,
    /// The dimensions.
    pub shape: Vec<u64>,
    /// None for row-major memory, else the dimensions from the largest to the smallest stride.
    pub order: Option<Vec<u32>>,
    /// The bytes.
    pub data: D,
}

/// Whose tensor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// A torch tensor.
    Torch,
    /// A numpy array.
    Numpy,
}

/// The bytes of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorData {
    /// The bytes themselves, at most [`INLINE_BYTES_MAX`].
    Inline(Vec<u8>),
    /// Ids of the chunks, in order.
    Chunks(Vec<ChunkId>),
}

impl<D> Tensor<D> {
    /// Length of the raw bytes: the number of elements times the width of the dtype.
    ///
    /// # Errors
    /// [`ObjectError::BadDtype`], or [`ObjectError::BadShape`] when it does not fit in 64 bits.
    pub fn raw_len(&self) -> Result<u64, ObjectError> {
        let width = dtype::width(self.flavor, &self.dtype)?;
        if self.shape.contains(&0) {
            return Ok(0);
        }
        let mut dims = self.shape.iter();
        dims.try_fold(width, |len, dim| len.checked_mul(*dim))
            .ok_or_else(|| ObjectError::BadShape { dtype: self.dtype.clone(), shape: self.shape.clone() })
    }

    /// Whether the bytes lie in the tree and not in chunks.
    ///
    /// # Errors
    /// As [`Self::raw_len`].
    pub fn is_inline(&self) -> Result<bool, ObjectError> {
        Ok(self.raw_len()? <= INLINE_BYTES_MAX as u64)
    }

    /// Number of chunks: none for an inlined tensor.
    ///
    /// # Errors
    /// As [`Self::raw_len`].
    pub fn num_chunks(&self) -> Result<u64, ObjectError> {
        let raw_len = self.raw_len()?;
        if raw_len <= INLINE_BYTES_MAX as u64 {
            return Ok(0);
        }
        Ok(raw_len.div_ceil(CHUNK_BYTES as u64))
    }

    /// The same tensor with other data, made from this one's.
    ///
    /// # Errors
    /// The error of `f`, which gets the tensor without data, and the data.
    pub fn map_data<E, Err>(self, f: &mut impl FnMut(&Tensor<()>, D) -> Result<E, Err>) -> Result<Tensor<E>, Err> {
        let bare = Tensor { flavor: self.flavor, dtype: self.dtype, shape: self.shape, order: self.order, data: () };
        let data = f(&bare, self.data)?;
        Ok(Tensor { flavor: bare.flavor, dtype: bare.dtype, shape: bare.shape, order: bare.order, data })
    }

    /// Checks all but the data: dtype, rank, length and order. Returns the length of the raw bytes.
    ///
    /// # Errors
    /// As [`Self::raw_len`]; [`ObjectError::TooLarge`] for the rank, [`ObjectError::BadOrder`].
    pub fn check_layout(&self) -> Result<u64, ObjectError> {
        let rank = self.shape.len();
        if rank > RANK_MAX {
            return Err(ObjectError::TooLarge {
                what: "dimensions of a tensor",
                actual: rank as u64,
                max: RANK_MAX as u64,
            });
        }
        if let Some(order) = &self.order
            && !is_order(order, rank)
        {
            return Err(ObjectError::BadOrder { order: order.clone(), rank });
        }
        self.raw_len()
    }
}

/// Whether `order` is a permutation of `rank <= RANK_MAX` dimensions, and not the identity.
fn is_order(order: &[u32], rank: usize) -> bool {
    if order.len() != rank || order.is_sorted() {
        return false;
    }
    let mut seen = 0_u64;
    order.iter().all(|dim| {
        let bit = 1_u64.checked_shl(*dim).unwrap_or(0);
        let new = (*dim as usize) < rank && seen & bit == 0;
        seen |= bit;
        new
    })
}

impl Tensor<TensorData> {
    /// Checks everything that the format asks of a tensor.
    ///
    /// # Errors
    /// As [`Self::check_layout`]; [`ObjectError::BadInline`], [`ObjectError::LengthMismatch`].
    pub fn check(&self) -> Result<(), ObjectError> {
        let raw_len = self.check_layout()?;
        let inlined = matches!(self.data, TensorData::Inline(_));
        if inlined != (raw_len <= INLINE_BYTES_MAX as u64) {
            return Err(ObjectError::BadInline { raw_len, inlined });
        }
        let (what, expected, actual) = match &self.data {
            TensorData::Inline(bytes) => ("inlined bytes", raw_len, bytes.len()),
            TensorData::Chunks(ids) => ("chunks", raw_len.div_ceil(CHUNK_BYTES as u64), ids.len()),
        };
        if expected == actual as u64 {
            return Ok(());
        }
        Err(ObjectError::LengthMismatch { what, expected, actual: actual as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: &str, shape: &[u64]) -> Tensor<()> {
        Tensor { flavor: Flavor::Torch, dtype: dtype.to_owned(), shape: shape.to_vec(), order: None, data: () }
    }

    #[test]
    fn counts_bytes_and_chunks_at_their_edges() {
        for (shape, raw_len, num_chunks) in [
            (&[][..], 4, 0),
            (&[0, u64::MAX, u64::MAX], 0, 0),
            (&[63], 252, 0),
            (&[64], 256, 1),
            (&[1 << 18], 1 << 20, 1),
            (&[(1 << 18) + 1], (1 << 20) + 4, 2),
            (&[1 << 31, 1 << 30], 1 << 63, 1 << 43),
        ] {
            let tensor = tensor("float32", shape);
            assert_eq!((tensor.raw_len(), tensor.num_chunks()), (Ok(raw_len), Ok(num_chunks)), "{shape:?}");
        }
        assert!(matches!(tensor("float32", &[1 << 62]).raw_len(), Err(ObjectError::BadShape { .. })));
    }

    #[test]
    fn takes_every_order_but_the_row_major_one() {
        let takes = |order: &[u32]| is_order(order, 3);
        assert!(takes(&[0, 2, 1]) && takes(&[2, 1, 0]) && takes(&[1, 2, 0]));
        for bad in
            [&[0, 1, 2][..], &[0, 0, 1], &[1, 0], &[2, 1, 1], &[3, 1, 0], &[1, 0, 2, 3], &[u32::MAX, 1, 0], &[64, 1, 0]]
        {
            assert!(!takes(bad), "{bad:?}");
        }
        let descending: Vec<u32> = (0..64).rev().collect();
        assert!(is_order(&descending, 64));
        assert!(!is_order(&[], 0) && !is_order(&[0], 1));
    }
}
