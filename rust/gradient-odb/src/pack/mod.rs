//! Packs: header, entries, metadata blocks, index, footer (`docs/format/pack.md`).
//!
//! | part            | size | read and written by         |
//! |-----------------|------|-----------------------------|
//! | header          | 32   | [`frame`]                   |
//! | entries         |      | [`entry`]                   |
//! | metadata blocks |      | [`blocks`]                  |
//! | index           |      | [`index`]                   |
//! | footer          | 128  | [`frame`]                   |
//!
//! [`writer`] makes a whole pack, [`tail`] reads and checks everything of one but its entries, [`walk`] finds
//! what is left of one without an index.

pub(crate) mod blocks;
pub(crate) mod entry;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod tail;
pub(crate) mod walk;
pub(crate) mod writer;

use crate::{OdbError, PackId};

/// Version of the format that this crate writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Entries begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Most bases of an entry.
pub(crate) const BASES_MAX: usize = 8;
/// Metadata blocks are cut before they hold more raw bytes, unless one object alone is larger.
pub(crate) const BLOCK_BYTES_MAX: usize = 4 << 20;

/// Returns `N` bytes at `at` of a record whose length the caller has checked.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice was cut to N bytes")
}

/// Reads a `u32` of a record whose length the caller has checked.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// Reads a `u64` of a record whose length the caller has checked.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// Says what is wrong with a pack, and where.
pub(crate) fn damaged(pack: PackId, offset: u64, what: impl Into<String>) -> OdbError {
    OdbError::PackDamaged { pack, offset, what: what.into() }
}
