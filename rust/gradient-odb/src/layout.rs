//! What a tensor's dtype and shape tell a codec about its chunks.

use gradient_codec::{ElementClass, Layout};
use gradient_object::{CHUNK_BYTES, Flavor, Tensor};

/// What the elements of a tensor are, and how long its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorLayout {
    width: usize,
    class: ElementClass,
    row_len: usize,
}

impl TensorLayout {
    /// Bytes of which nothing is known.
    pub const BYTES: Self = Self { width: 1, class: ElementClass::Bytes, row_len: 0 };

    /// Reads it from a tensor's dtype and shape; rows are those of the last dimension.
    pub fn of<D>(tensor: &Tensor<D>) -> Self {
        let (width, class, per_element) = match tensor.flavor {
            Flavor::Torch => of_torch(&tensor.dtype),
            Flavor::Numpy => of_numpy(&tensor.dtype),
        };
        let row_len = match tensor.shape.as_slice() {
            [_, .., last] => usize::try_from(*last).unwrap_or(0).saturating_mul(per_element),
            _ => 0,
        };
        Self { width, class, row_len }
    }

    /// Returns that of a chunk that begins `offset` bytes into the tensor.
    pub(crate) fn at(self, offset: usize) -> Layout {
        // A longer row has no second one in a chunk.
        let row_len = if self.row_len <= CHUNK_BYTES { self.row_len } else { 0 };
        let row_offset = if row_len == 0 { 0 } else { offset / self.width % row_len };
        Layout { width: self.width, class: self.class, row_len, row_offset }
    }
}

/// Width and class of what an element is made of, and of how many such it is.
fn of_torch(dtype: &str) -> (usize, ElementClass, usize) {
    use ElementClass::{Bytes, Float, Integer};
    match dtype {
        "float64" => (8, Float, 1),
        "float32" => (4, Float, 1),
        "float16" | "bfloat16" => (2, Float, 1),
        "complex128" => (8, Float, 2),
        "complex64" => (4, Float, 2),
        "complex32" | "bcomplex32" => (2, Float, 2),
        "int64" | "uint64" => (8, Integer, 1),
        "int32" | "uint32" => (4, Integer, 1),
        "int16" | "uint16" => (2, Integer, 1),
        "int8" | "uint8" => (1, Integer, 1),
        _ if dtype.starts_with("float8") => (1, Float, 1),
        _ => (1, Bytes, 1),
    }
}

fn of_numpy(dtype: &str) -> (usize, ElementClass, usize) {
    use ElementClass::{Bytes, Float, Integer};
    match dtype {
        "<f8" => (8, Float, 1),
        "<f4" => (4, Float, 1),
        "<f2" => (2, Float, 1),
        "<c16" => (8, Float, 2),
        "<c8" => (4, Float, 2),
        "<i8" | "<u8" => (8, Integer, 1),
        "<i4" | "<u4" => (4, Integer, 1),
        "<i2" | "<u2" => (2, Integer, 1),
        "|i1" | "|u1" => (1, Integer, 1),
        _ => (1, Bytes, 1),
    }
}
