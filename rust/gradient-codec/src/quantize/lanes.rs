//! Sixteen floats at a time, on each kind of processor.
//!
//! [`Lanes`] are operations; whoever is generic over them is compiled once for each kind that there is, and
//! [`dispatch`] chooses by what the processor says it can. All kinds give the same bits, NaNs apart, of which only is
//! promised that they are NaNs.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use plain::Plain;

use super::{GROUPS, LANES};

/// Operations on sixteen floats. A value of it is the proof that the processor has them.
///
/// Arithmetic is IEEE with one rounding, to nearest and ties to even.
pub trait Lanes: Copy + Send + Sync {
    /// Sixteen floats.
    type Floats: Copy;
    /// Sixteen random words.
    type Words: Copy;

    /// Whether registers hold both moments of a block.
    const HOLD_BLOCKS: bool;

    /// Runs a function that was compiled for this processor; what it calls has to be inlined.
    fn run<R>(self, function: impl FnOnce() -> R) -> R;

    /// The same in every lane.
    fn splat(self, value: f32) -> Self::Floats;
    /// Reads floats.
    fn load(self, from: &[f32; LANES]) -> Self::Floats;
    /// Writes floats.
    fn store(self, to: &mut [f32; LANES], floats: Self::Floats);
    /// Reads the bits of `bfloat16`.
    fn of_bf16(self, bits: &[u16; LANES]) -> Self::Floats;
    /// Writes them, rounded to the nearest, ties to even.
    fn to_bf16(self, bits: &mut [u16; LANES], floats: Self::Floats);
    /// Reads signed bytes.
    fn of_signed(self, codes: &[i8; LANES]) -> Self::Floats;
    /// Reads unsigned bytes.
    fn of_unsigned(self, codes: &[u8; LANES]) -> Self::Floats;
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a - b`.
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a / b`.
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The square root.
    fn sqrt(self, a: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once.
    fn mul_from(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `a * b - c`, rounded once: negative where `a * b` is less than `c`, to the last bit.
    fn mul_less(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Without its sign.
    fn abs(self, a: Self::Floats) -> Self::Floats;
    /// Gives `a`, which is not negative, the sign of `sign`.
    fn with_sign(self, a: Self::Floats, sign: Self::Floats) -> Self::Floats;
    /// Where `a` is larger than zero, `floats`, but 1 at least, and 1 for a NaN; else zero.
    fn at_least_one_where_positive(self, a: Self::Floats, floats: Self::Floats) -> Self::Floats;
    /// Where `a < b`, whichever of `x` and `y` is nearer to zero, else `x`; both have one sign.
    fn nearer_zero_where_less(self, a: Self::Floats, b: Self::Floats, x: Self::Floats, y: Self::Floats)
    -> Self::Floats;
    /// The larger of two that have no sign, but for NaNs; a NaN if there is one.
    fn larger(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The largest of what has no sign, but for NaNs, in every lane; a NaN if there is one.
    fn largest(self, a: Self::Floats) -> Self::Floats;
    /// What the first lane has.
    fn first(self, a: Self::Floats) -> f32;
    /// The larger of a number and a limit; of a NaN, the limit.
    fn at_least(self, a: Self::Floats, limit: Self::Floats) -> Self::Floats;
    /// The smaller of a number and a limit; of a NaN, the limit.
    fn at_most(self, a: Self::Floats, limit: Self::Floats) -> Self::Floats;

    /// The square root of what is larger than zero, to about a thousandth.
    fn guess_root(self, a: Self::Floats) -> Self::Floats;
    /// The fourth root of what is not negative, to about a thousandth.
    fn guess_fourth_root(self, a: Self::Floats) -> Self::Floats;

    /// The nearest whole numbers, of what is no NaN and not large.
    fn nearest(self, a: Self::Floats) -> Self::Words;
    /// Words that are small as floats.
    fn floats(self, words: Self::Words) -> Self::Floats;
    /// Writes half of words from 0 to 254, rounded down, of 1 more where `rest` has a sign; negative where a value is.
    /// Words have to be zero where a value has no bits.
    fn halves_to_signed(self, codes: &mut [[i8; LANES]; GROUPS], of: Rests<Self>);
    /// Writes half of words from 0 to 510, likewise; of a value that is not zero, 1 at least.
    fn halves_to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>);
    /// Writes words from -1, which is written as 0, to 255, 1 more where `rest` has a sign; of a value that is not zero, 1 at least.
    fn to_unsigned(self, codes: &mut [[u8; LANES]; GROUPS], of: Rests<Self>);

    /// Words for the numbers `from` to `from + 15`, evenly distributed and unlike those of another key.
    fn random(self, from: u32, key: u32) -> Self::Words;
    /// Four lots of each word: the low 16 bits of it, and of it turned right by 8, 16 and 24 bits, in steps of four, from
    /// 2 to 65,534. What was decoded is off by less than 2 of 65,536 parts of the way to the next code: it is always coded
    /// as it was.
    fn lots(self, words: Self::Words) -> [Self::Floats; GROUPS];

    /// Says that what lies so many bytes after something, whatever that is, will be needed soon.
    fn prefetch<T>(self, near: &T, ahead: usize);
}

/// Which bytes of four words a shuffle takes so that the low half of each becomes two bytes of it, the second one above
/// the first; the high half becomes zero.
#[cfg(target_arch = "x86_64")]
const fn low_half(first: i32, second: i32) -> [i32; 4] {
    const ZERO: i32 = 0x8080_u32.cast_signed() << 16;
    let pair = ZERO | second << 8 | first;
    [pair, pair + 0x0404, pair + 0x0808, pair + 0x0c0c]
}

/// A block that is almost coded.
#[derive(Clone, Copy, Debug)]
pub struct Rests<L: Lanes> {
    /// What codes are made of.
    pub words: [L::Words; GROUPS],
    /// What is left to be seen of them is a sign.
    pub rest: [L::Floats; GROUPS],
    /// What is coded.
    pub values: [L::Floats; GROUPS],
}

/// What runs on any kind of lanes.
pub trait OnLanes {
    /// What it returns.
    type Output;

    /// Does it; always inlined.
    fn on<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Which kind of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// AVX-512 as of Skylake-X and Zen 4.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// Any processor; this is what the others are held to.
    Plain,
}

impl LaneKind {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Plain];

    /// Returns the fastest kind that this processor has.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|kind| kind.is_available()).unwrap_or(Self::Plain)
    }

    /// Says whether this processor has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Plain => true,
        }
    }
}

/// Runs `what` on lanes of a kind, or plainly if the processor does not have it.
#[inline]
pub fn dispatch<O: OnLanes>(kind: LaneKind, what: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    match kind {
        LaneKind::Avx512 => {
            if let Some(lanes) = Avx512::new() {
                return lanes.run(
                    #[inline(always)]
                    || what.on(lanes),
                );
            }
        }
        LaneKind::Avx2 => {
            if let Some(lanes) = Avx2::new() {
                return lanes.run(
                    #[inline(always)]
                    || what.on(lanes),
                );
            }
        }
        LaneKind::Plain => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = kind;
    what.on(Plain)
}
