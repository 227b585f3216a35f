//! What a look at a few bytes of a plane tells about all of it.
#![expect(clippy::cast_precision_loss, reason = "numbers of a sample")]

use std::array;
use std::sync::LazyLock;

/// Bytes that are looked at.
const SAMPLE_BYTES: usize = 2048;
/// What a byte of a plane that is nearly all the same takes more than its entropy, at most.
const FEW_EXCESS_BITS: f32 = 0.25;
/// In so many runs, spread evenly.
const NUM_RUNS: usize = 8;

/// x log2 x of each count that there can be.
static LOGS: LazyLock<[f32; SAMPLE_BYTES + 1]> =
    LazyLock::new(|| array::from_fn(|x| if x == 0 { 0.0 } else { x as f32 * (x as f32).log2() }));

/// How often each byte occurs.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    counts: [u16; 256],
    total: u16,
}

impl Counts {
    /// The most that is counted.
    pub(crate) const MAX: usize = SAMPLE_BYTES;

    /// Counts in a sample; of a short plane, in all of it.
    pub(crate) fn of_sample(plane: &[u8]) -> Self {
        let mut counts = Self { counts: [0; 256], total: 0 };
        if plane.len() <= SAMPLE_BYTES {
            counts.add(plane);
            return counts;
        }
        let len = SAMPLE_BYTES / NUM_RUNS;
        for run in 0..NUM_RUNS {
            let start = (plane.len() - len) / (NUM_RUNS - 1) * run;
            counts.add(&plane[start..start + len]);
        }
        counts
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.counts[usize::from(*byte)] += 1;
        }
        self.total += bytes.len() as u16;
    }

    /// Returns the entropy in bits a byte; nothing counted has none.
    pub(crate) fn bits(&self) -> f32 {
        let of_all: f32 = self.counts.iter().map(|count| LOGS[usize::from(*count)]).sum();
        let total = usize::from(self.total.max(1));
        (LOGS[total] - of_all) / total as f32
    }

    /// Says whether one byte was all that was seen.
    pub(crate) fn is_constant(&self) -> bool {
        self.counts.contains(&self.total)
    }

    /// Says whether all that was seen are even.
    pub(crate) fn are_even(&self) -> bool {
        self.counts.iter().skip(1).step_by(2).all(|count| *count == 0)
    }

    /// Returns the share of a byte.
    pub(crate) fn share_of(&self, byte: u8) -> f32 {
        f32::from(self.counts[usize::from(byte)]) / f32::from(self.total.max(1))
    }

    /// Returns the share of the most frequent byte.
    pub(crate) fn largest_share(&self) -> f32 {
        let most = self.counts.iter().max().copied().unwrap_or(0);
        f32::from(most) / f32::from(self.total.max(1))
    }

    /// Returns what a byte costs, coded as it will be: codes have whole bits, and matches, where nearly all bytes are the
    /// same, cost more than they say; none takes less than a small part of a bit, nor more than 8.
    pub(crate) fn cost(&self) -> f32 {
        let bits = self.bits();
        if self.are_even() {
            bits.min(7.0)
        } else if bits > 7.8 {
            8.0
        } else {
            (bits + bits.min(1.0 - bits).clamp(0.0, FEW_EXCESS_BITS)).max(0.02)
        }
    }
}

/// Returns the bits that it takes to say of an element whether it is one of such a share of all.
pub(crate) fn entropy_of(share: f32) -> f32 {
    let (share, rest) = (share.max(f32::MIN_POSITIVE), (1.0 - share).max(f32::MIN_POSITIVE));
    -share * share.log2() - rest * rest.log2()
}

/// Copies a sample of elements together: all that there are, if they are few. Returns how many bytes were written.
pub(crate) fn take_elements(raw: &[u8], width: usize, out: &mut [u8]) -> usize {
    let max = SAMPLE_BYTES * width;
    if raw.len() <= max {
        let len = raw.len() / width * width;
        out[..len].copy_from_slice(&raw[..len]);
        return len;
    }
    let len = max / NUM_RUNS;
    let between = (raw.len() - len) / (NUM_RUNS - 1);
    for run in 0..NUM_RUNS {
        let start = run * between / width * width;
        out[run * len..(run + 1) * len].copy_from_slice(&raw[start..start + len]);
    }
    max
}
