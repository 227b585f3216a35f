//! Optimizer steps on state that stays in eight bits: read, decoded, updated, coded and written in one pass.
//!
//! | part                          | what it does                                                        |
//! |-------------------------------|---------------------------------------------------------------------|
//! | [`AdamW`], [`Sgd`], [`Lion`]  | what a step computes, one file each                                  |
//! | [`Tensor`]                    | a parameter, its gradient and its state                              |
//! | [`Floats`], [`Fixed`]         | parameters and gradients in 32 or 16 bits                            |
//! | [`Crew`], [`Team`]            | the threads that share a step                                        |
//! | `pass`                        | the one pass over all of them, block by block and in parallel        |
//! | `whole`                       | a whole moment as codes and back, outside of a step                  |
//!
//! The numbers are those of `gradient_codec::quantize`: the same bits on every processor and for any number of threads.
//! An update is made of the moments in full precision; what rounding makes of them is first seen by the next step.
#![forbid(unsafe_code)]

mod adamw;
mod crew;
mod error;
mod floats;
mod lion;
mod pass;
mod sgd;
mod tensor;
mod whole;

pub use adamw::AdamW;
pub use crew::{Crew, Team};
pub use error::OptimError;
pub use floats::{Fixed, Floats};
pub use gradient_codec::quantize::Blocks;
pub use gradient_codec::quantize::lanes::LaneKind;
pub use gradient_codec::quantize::variance::Rounding;
pub use lion::Lion;
pub use sgd::Sgd;
pub use tensor::{Codes, Moment, Tensor};
pub use whole::{FixedCodes, decode_momentum, decode_variance, encode_momentum, encode_variance};
