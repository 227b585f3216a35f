//! Numbers in eight bits each, a block of 64 at a time. Lossy: no codec of the table, and never chosen for a chunk.
//!
//! | part          | what it does                                                                              |
//! |---------------|-------------------------------------------------------------------------------------------|
//! | [`momentum`]  | signed numbers, finer near zero: one byte is a sign and a square root                      |
//! | [`variance`]  | numbers that are not negative, over many orders of magnitude: one byte is a fourth root    |
//! | [`Blocks`]    | how a tensor is cut into blocks                                                            |
//! | [`lanes`]     | sixteen floats at a time, on each kind of processor                                        |
//!
//! A block has one scale, its largest absolute value, which comes back exactly. Zero is zero and nothing else is: a
//! second moment that was rounded to zero would divide by it.
//!
//! **The same bits everywhere.** Every value is a function of IEEE operations in a fixed order: addition, multiplication,
//! division, square root and fused multiplication and addition, each rounded once. A code is decided by comparing with
//! the edges between codes, so how it was guessed does not matter, and guesses may be what a processor does best. What is
//! said to be an approximation in 14 bits is none that all processors agree on.
//!
//! A block with a number that is not finite has a scale that is not, and comes back as numbers that are none.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

mod blocks;
pub mod lanes;
pub mod momentum;
pub mod variance;

pub use blocks::{Blocks, Part};

/// Numbers that share a scale.
pub const BLOCK: usize = 64;
/// Numbers that are taken at a time.
pub const LANES: usize = 16;
/// Times that makes a block.
pub const GROUPS: usize = BLOCK / LANES;

/// A block as what is taken at a time.
#[must_use]
#[inline(always)]
pub fn groups<T>(block: &[T; BLOCK]) -> &[[T; LANES]; GROUPS] {
    let (groups, _) = block.as_chunks::<LANES>();
    groups.try_into().unwrap_or_else(|_| unreachable!("a block has so many"))
}

/// The same, to be written.
#[must_use]
#[inline(always)]
pub fn groups_mut<T>(block: &mut [T; BLOCK]) -> &mut [[T; LANES]; GROUPS] {
    let (groups, _) = block.as_chunks_mut::<LANES>();
    groups.try_into().unwrap_or_else(|_| unreachable!("a block has so many"))
}

/// Does it to all groups of a block.
#[inline(always)]
fn each<A: Copy, B>([a, b, c, d]: [A; GROUPS], of: impl Fn(A) -> B) -> [B; GROUPS] {
    [of(a), of(b), of(c), of(d)]
}

/// Does it to all groups of two.
#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; GROUPS], b: [B; GROUPS], of: impl Fn(A, B) -> C) -> [C; GROUPS] {
    [of(a[0], b[0]), of(a[1], b[1]), of(a[2], b[2]), of(a[3], b[3])]
}

/// What a block is coded with.
#[derive(Clone, Copy, Debug)]
pub struct Scale<L: lanes::Lanes> {
    /// What is kept with the codes: the largest absolute value, zero for a block of zeros.
    pub kept: f32,
    /// What values are multiplied by, in every lane.
    pub factor: L::Floats,
}

impl<L: lanes::Lanes> Scale<L> {
    /// Returns that of a block of which these are the largest, lane by lane, without signs; the largest of them is to
    /// become `full`.
    #[inline(always)]
    fn of(lanes: L, largest: L::Floats, min: f32, full: f32) -> Self {
        let largest = lanes.largest(largest);
        let scale = lanes.larger(largest, lanes.splat(min));
        // Numbers that have no sign are in the order of their bits.
        let bits = lanes.first(largest).to_bits();
        let kept = bits.max(u32::from(bits != 0) * min.to_bits());
        // One division, not one for each lane: dividers are what a step waits for.
        Self { kept: f32::from_bits(kept), factor: lanes.splat(full / lanes.first(scale)) }
    }
}

/// Returns the largest of a block, lane by lane; of what has no sign, but for NaNs.
#[inline(always)]
fn largest<L: lanes::Lanes>(lanes: L, [a, b, c, d]: [L::Floats; GROUPS]) -> L::Floats {
    lanes.larger(lanes.larger(a, b), lanes.larger(c, d))
}
