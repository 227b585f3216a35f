//! The object database: joins bytes that have ids, codecs, and files.
//!
//! | part            | what it is                                                                     |
//! |-----------------|--------------------------------------------------------------------------------|
//! | [`Odb`]         | reads any object of a repository, checked; knows where each lies               |
//! | [`Transaction`] | writes one pack: copy, hash, look up, encode, verify, append, seal             |
//! | [`CommitRows`]  | every commit with the bytes it added, for `log`                                |
//! | [`PackReport`]  | what a full check of one pack found                                            |
//!
//! A pack is sealed or absent, and an object read from here hashed to its id after its last copy. What this crate does
//! not know is refs: which objects are *wanted* is decided above.
//!
//! Specified in `docs/format/pack.md` and `docs/format/caches.md`.
#![forbid(unsafe_code)]

mod arena;
mod cache;
#[cfg(feature = "simulated")]
pub mod canary;
mod chunks;
mod commits;
mod error;
mod find;
mod index;
mod ingest;
mod layout;
mod line;
mod memory;
mod merge;
mod metadata;
mod name;
mod odb;
mod pack;
mod pool;
mod progress;
mod read;
#[cfg(feature = "simulated")]
pub mod readers;
mod transaction;
#[cfg(test)]
mod vectors;
mod verify;

pub use cache::damaged_caches;
pub use commits::CommitRows;
pub use error::OdbError;
pub use layout::TensorLayout;
pub use line::{Line, Updates};
pub use memory::{ByteSink, ByteSource, Source};
pub use merge::{MergeLimits, Merged};
pub use name::{Kind, ObjectName, PackId};
pub use odb::Odb;
#[cfg(feature = "simulated")]
pub use pool::work_alone;
pub use progress::Progress;
pub use transaction::{Coding, Compression, Deltas, Relied, Sealed, Transaction};
pub use verify::{Damage, PackReport, VerifyLevel};
