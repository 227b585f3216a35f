//! What is stored: ids, values, trees, commits and their canonical bytes.
//!
//! | module | subject |
//! |---|---|
//! | [`id`] | typed 32-byte ids |
//! | [`value`], [`mapping`], [`key`], [`int`] | what a tree can hold |
//! | [`tensor`], [`dtype`] | tensors, how long they are, how they are cut into chunks |
//! | [`named`] | the closed table of named values |
//! | [`cbor`] | canonical bytes of a value, and back |
//! | [`tree`], [`commit`] | the two metadata objects |
//!
//! Nothing here opens a file, knows a codec or executes what it reads. Every reader is bounded by the constants below
//! before it allocates. Specified in `docs/format/objects.md`.
#![forbid(unsafe_code)]

#[cfg(feature = "simulated")]
pub mod canary;
pub mod cbor;
pub mod commit;
pub mod dtype;
pub mod error;
pub mod id;
pub mod int;
pub mod key;
pub mod mapping;
pub mod named;
pub mod tensor;
pub mod tree;
pub mod value;

pub use cbor::{decode, decode_trusted, encode};
pub use commit::{Commit, CommitKind, Metric};
pub use error::ObjectError;
pub use id::{ChunkId, CommitId, OperationId, TreeId};
pub use int::Int;
pub use key::Key;
pub use mapping::Mapping;
pub use named::Name;
pub use tensor::{Flavor, Tensor, TensorData};
pub use tree::{RootTree, SECTIONS, Tree};
pub use value::Value;

/// Raw length of every chunk of a tensor but its last.
pub const CHUNK_BYTES: usize = 1 << 20;
/// A tensor of at most this many bytes lies in its tree; a longer one never does.
pub const INLINE_BYTES_MAX: usize = 255;
/// Longest tree, commit or operation.
pub const METADATA_BYTES_MAX: usize = 64 << 20;
/// Most containers that may be open at once inside a value.
pub const NESTING_MAX: usize = 128;
/// Most values and keys of one object, at every level together; a tensor counts as one.
pub const ELEMENTS_MAX: usize = 1 << 20;
/// Most dimensions of a tensor.
pub const RANK_MAX: usize = 64;
/// Longest name of a branch, tag, section or component, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
