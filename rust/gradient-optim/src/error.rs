//! What can be wrong with what a step is given.

use thiserror::Error;

/// An error of a step. Nothing was written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OptimError {
    /// Parts of a tensor do not belong together.
    #[error("{what} of tensor {tensor} has {actual} elements where {expected} are needed")]
    WrongLength {
        /// Its place in the list.
        tensor: usize,
        /// Which part.
        what: &'static str,
        /// Elements it should have.
        expected: usize,
        /// Elements it has.
        actual: usize,
    },
    /// A tensor is not made of whole rows.
    #[error("tensor {tensor} has {numel} elements, which are no rows of {row_len}")]
    NoRows {
        /// Its place in the list.
        tensor: usize,
        /// Its elements.
        numel: usize,
        /// Those of a row.
        row_len: usize,
    },
    /// A second moment can not be less than zero.
    #[error("a second moment has a number that is less than zero")]
    Negative,
    /// Steps are counted from 1.
    #[error("a step has to have a number, 1 or more")]
    NoStep,
}
