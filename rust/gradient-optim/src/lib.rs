//! Optimizer steps on state that stays in eight bits: read, decoded, updated, coded and written in one pass.
//!
//! | part          | what it does                                                       |
//! |---------------|--------------------------------------------------------------------|
//! | [`AdamW`]     | one step of Adam or AdamW on many tensors                           |
//!
//! The numbers are those of `gradient_codec::quantize`: the same bits on every processor and for any number of threads.
#![forbid(unsafe_code)]

mod adamw;
mod error;

pub use adamw::{AdamW, AdamWTensor};
pub use error::OptimError;
pub use gradient_codec::quantize::Blocks;
pub use gradient_codec::quantize::lanes::LaneKind;
