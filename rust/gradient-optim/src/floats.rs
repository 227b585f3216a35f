//! Floats in memory, in the widths that parameters have; a step computes in 32 bits.
//!
//! A value that is written in 16 bits is rounded to the nearest, ties to even.

use gradient_codec::quantize::BLOCK;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Floats that a step changes.
#[derive(Debug)]
pub enum Floats<'a> {
    /// `float32`.
    F32(&'a mut [f32]),
    /// `bfloat16`.
    Bf16(&'a mut [bf16]),
    /// `float16`.
    F16(&'a mut [f16]),
}

/// Floats that a step only reads.
#[derive(Clone, Copy, Debug)]
pub enum Fixed<'a> {
    /// `float32`.
    F32(&'a [f32]),
    /// `bfloat16`.
    Bf16(&'a [bf16]),
    /// `float16`.
    F16(&'a [f16]),
}

impl Default for Floats<'_> {
    fn default() -> Self {
        Self::F32(&mut [])
    }
}

impl Floats<'_> {
    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(floats) => floats.len(),
            Self::Bf16(floats) => floats.len(),
            Self::F16(floats) => floats.len(),
        }
    }

    /// Says that there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes off the first `num`, if there are so many.
    pub(crate) fn split_off(&mut self, num: usize) -> Option<Self> {
        Some(match self {
            Self::F32(floats) => Self::F32(floats.split_off_mut(..num)?),
            Self::Bf16(floats) => Self::Bf16(floats.split_off_mut(..num)?),
            Self::F16(floats) => Self::F16(floats.split_off_mut(..num)?),
        })
    }

    /// Reads `len` floats, a block at most; what is not there is zero.
    pub(crate) fn read(&self, first: usize, len: usize) -> [f32; BLOCK] {
        match self {
            Self::F32(floats) => Fixed::F32(floats),
            Self::Bf16(floats) => Fixed::Bf16(floats),
            Self::F16(floats) => Fixed::F16(floats),
        }
        .read(first, len)
    }

    /// Writes `len` floats, a block at most.
    pub(crate) fn write(&mut self, first: usize, len: usize, block: &[f32; BLOCK]) {
        let block = &block[..len];
        match self {
            Self::F32(floats) => floats[first..first + len].copy_from_slice(block),
            Self::Bf16(floats) => floats[first..first + len].convert_from_f32_slice(block),
            Self::F16(floats) => floats[first..first + len].convert_from_f32_slice(block),
        }
    }
}

impl Fixed<'_> {
    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(floats) => floats.len(),
            Self::Bf16(floats) => floats.len(),
            Self::F16(floats) => floats.len(),
        }
    }

    /// Says that there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes off the first `num`, if there are so many.
    pub(crate) fn split_off(&mut self, num: usize) -> Option<Self> {
        Some(match self {
            Self::F32(floats) => Self::F32(floats.split_off(..num)?),
            Self::Bf16(floats) => Self::Bf16(floats.split_off(..num)?),
            Self::F16(floats) => Self::F16(floats.split_off(..num)?),
        })
    }

    /// Reads `len` floats, a block at most; what is not there is zero.
    pub(crate) fn read(&self, first: usize, len: usize) -> [f32; BLOCK] {
        let mut block = [0.0; BLOCK];
        let own = &mut block[..len];
        match self {
            Self::F32(floats) => own.copy_from_slice(&floats[first..first + len]),
            Self::Bf16(floats) => floats[first..first + len].convert_to_f32_slice(own),
            Self::F16(floats) => floats[first..first + len].convert_to_f32_slice(own),
        }
        block
    }
}
