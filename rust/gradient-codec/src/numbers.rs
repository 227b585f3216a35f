//! Numbers of which most are small, each in about as many bits as those before it took.
//!
//! Where many are zero, runs of zeros are counted; every other number is a quotient in ones and a remainder in as many
//! bits as the mean of the last ones has (Golomb and Rice). All of it adapts, and nothing is sent for that. Specified
//! in `docs/format/pack.md`.

use crate::output::Output;

/// A run weighs so much more for each bit of its length.
const WEIGHT_OF_BIT: u32 = 8;
const WEIGHT_MAX: u32 = 128;
/// What the weight gains and loses: by a full run and by one that is cut short, where runs are counted, and by a zero
/// and anything else, where they are not.
const FULL_RUN: u32 = 4;
const CUT_RUN: u32 = 6;
const SINGLE: u32 = 3;

/// So many numbers the mean is taken of, at most; then the older half counts half.
const COUNT_MAX: u64 = 64;
/// One number counts as so many times what remainders hold, at most: a single huge one is soon forgotten.
const OUTLIER: u64 = 16;
const REMAINDER_BITS_MAX: u32 = 48;

/// So many ones are no quotient: the number itself follows its own length.
const ESCAPE: u32 = 8;
const LENGTH_BITS: u32 = 6;

/// What the numbers so far tell of the next one.
#[derive(Debug)]
struct Model {
    weight: u32,
    sum: u64,
    count: u64,
}

impl Model {
    const NEW: Self = Self { weight: 0, sum: 0, count: 1 };

    /// The bits of the length of a run; none where runs are not counted.
    fn run_bits(&self) -> u32 {
        self.weight / WEIGHT_OF_BIT
    }

    /// The least bits that hold two thirds of the mean.
    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    fn remainder_bits(&self) -> u32 {
        let (wanted, one) = (2 * self.sum, 3 * self.count);
        let bits = one.leading_zeros().saturating_sub(wanted.leading_zeros());
        let is_short = one << bits < wanted;
        (bits + u32::from(is_short)).min(REMAINDER_BITS_MAX)
    }

    fn learn(&mut self, number: u64, remainder_bits: u32) {
        self.sum += number.min(OUTLIER << remainder_bits);
        self.count += 1;
        if self.count == COUNT_MAX {
            self.sum /= 2;
            self.count /= 2;
        }
    }

    fn learn_single(&mut self, is_zero: bool) {
        self.weight = if is_zero { self.weight + SINGLE } else { self.weight.saturating_sub(SINGLE) };
    }

    fn learn_full_run(&mut self) {
        self.weight = WEIGHT_MAX.min(self.weight + FULL_RUN);
    }

    fn learn_cut_run(&mut self) {
        self.weight = self.weight.saturating_sub(CUT_RUN);
    }
}

/// Writes bits, the lowest of a byte first.
pub(crate) struct BitWriter<'o, 'a> {
    out: &'o mut Output<'a>,
    bits: u64,
    len: u32,
    is_full: bool,
}

impl<'o, 'a> BitWriter<'o, 'a> {
    pub(crate) fn new(out: &'o mut Output<'a>) -> Self {
        Self { out, bits: 0, len: 0, is_full: false }
    }

    /// Appends up to 32 bits.
    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    pub(crate) fn put(&mut self, bits: u64, len: u32) {
        self.bits |= bits << self.len;
        self.len += len;
        if self.len >= 32 {
            self.is_full |= self.out.put(&(self.bits as u32).to_le_bytes()).is_none();
            self.bits >>= 32;
            self.len -= 32;
        }
    }

    /// Appends up to 63 bits.
    fn put_long(&mut self, bits: u64, len: u32) {
        let low = len.min(32);
        self.put(bits & ((1 << low) - 1), low);
        self.put(bits >> low, len - low);
    }

    /// Says whether something did not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Fills the last byte with zeros. None: it did not fit.
    pub(crate) fn finish(self) -> Option<()> {
        let len = self.len.div_ceil(8) as usize;
        if self.is_full { None } else { self.out.put(&self.bits.to_le_bytes()[..len]) }
    }
}

/// Writes a sequence of numbers below 2^63.
pub(crate) struct NumbersWriter {
    model: Model,
    /// Zeros of a run that is not written yet.
    zeros: u64,
}

impl NumbersWriter {
    pub(crate) fn new() -> Self {
        Self { model: Model::NEW, zeros: 0 }
    }

    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    pub(crate) fn put(&mut self, number: u64, out: &mut BitWriter<'_, '_>) {
        let run_bits = self.model.run_bits();
        if run_bits == 0 {
            self.model.learn_single(number == 0);
            self.put_one(number, out);
        } else if number > 0 {
            out.put(self.zeros << 1 | 1, 1 + run_bits);
            self.zeros = 0;
            self.model.learn_cut_run();
            self.put_one(number - 1, out);
        } else {
            self.zeros += 1;
            if self.zeros >> run_bits == 1 {
                out.put(0, 1);
                self.zeros = 0;
                self.model.learn_full_run();
            }
        }
    }

    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    fn put_one(&mut self, number: u64, out: &mut BitWriter<'_, '_>) {
        let remainder_bits = self.model.remainder_bits();
        let quotient = number >> remainder_bits;
        if quotient < u64::from(ESCAPE) {
            // Ones, and the zero behind them.
            out.put((1 << quotient) - 1, quotient as u32 + 1);
            out.put_long(number & ((1 << remainder_bits) - 1), remainder_bits);
        } else {
            let len = u64::BITS - number.leading_zeros();
            out.put(((1 << ESCAPE) - 1) | (u64::from(len) << ESCAPE), ESCAPE + LENGTH_BITS);
            out.put_long(number, len);
        }
        self.model.learn(number, remainder_bits);
    }

    /// Ends the sequence.
    pub(crate) fn finish(self, out: &mut BitWriter<'_, '_>) {
        if self.zeros > 0 {
            out.put(0, 1);
        }
    }
}

/// Reads bits. Behind the last one there are zeros, and that is remembered.
#[derive(Clone)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the next bits, at least 57.
    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let eight = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            last
        });
        u64::from_le_bytes(eight) >> (self.at % 8)
    }

    /// Takes up to 57 bits.
    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    pub(crate) fn take(&mut self, len: u32) -> u64 {
        let bits = self.peek() & ((1 << len) - 1);
        self.at += len as usize;
        bits
    }

    /// Takes up to 63 bits.
    fn take_long(&mut self, len: u32) -> u64 {
        let low = len.min(32);
        self.take(low) | self.take(len - low) << low
    }

    /// Leaves out so many.
    pub(crate) fn skip(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    /// Says whether more bits were taken than there are.
    pub(crate) fn is_over(&self) -> bool {
        self.at.div_ceil(8) > self.bytes.len()
    }

    /// Says whether the last byte was reached, and what is left of it is zero.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at.div_ceil(8) == self.bytes.len() && self.peek() == 0
    }
}

/// Reads a sequence of numbers, below 2^63 all of them.
pub(crate) struct NumbersReader {
    model: Model,
    /// Zeros that come first.
    zeros: u64,
    /// What comes after them, if that is not zero.
    after: u64,
}

impl NumbersReader {
    pub(crate) fn new() -> Self {
        Self { model: Model::NEW, zeros: 0, after: 0 }
    }

    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    pub(crate) fn take(&mut self, bits: &mut BitReader<'_>) -> u64 {
        if self.zeros > 0 {
            self.zeros -= 1;
            return 0;
        }
        if self.after > 0 {
            return std::mem::take(&mut self.after);
        }
        let run_bits = self.model.run_bits();
        if run_bits == 0 {
            let number = self.take_one(bits);
            self.model.learn_single(number == 0);
            return number;
        }
        if bits.take(1) == 0 {
            self.model.learn_full_run();
            self.zeros = (1 << run_bits) - 1;
            return 0;
        }
        let zeros = bits.take(run_bits);
        self.model.learn_cut_run();
        let number = self.take_one(bits) + 1;
        if zeros == 0 {
            return number;
        }
        (self.zeros, self.after) = (zeros - 1, number);
        0
    }

    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    fn take_one(&mut self, bits: &mut BitReader<'_>) -> u64 {
        let remainder_bits = self.model.remainder_bits();
        let next = bits.peek();
        let quotient = next.trailing_ones();
        let number = if quotient < ESCAPE {
            bits.skip((quotient + 1 + remainder_bits) as usize);
            u64::from(quotient) << remainder_bits | (next >> (quotient + 1)) & ((1 << remainder_bits) - 1)
        } else {
            bits.skip(ESCAPE as usize);
            let len = bits.take(LENGTH_BITS) as u32;
            bits.take_long(len)
        };
        self.model.learn(number, remainder_bits);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(numbers: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; 16 * numbers.len() + 16];
        let mut out = Output::new(&mut bytes);
        let mut bits = BitWriter::new(&mut out);
        let mut writer = NumbersWriter::new();
        for number in numbers {
            writer.put(*number, &mut bits);
        }
        writer.finish(&mut bits);
        bits.finish().expect("there is room");
        out.written_mut().to_vec()
    }

    fn kinds() -> Vec<Vec<u64>> {
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 1
        };
        let mut kinds =
            vec![vec![], vec![0], vec![0; 1 << 18], vec![(1 << 63) - 1; 300], (0..64).map(|i| (1 << i) - 1).collect()];
        for bits in [1, 2, 5, 20, 63] {
            for one_in in [1, 2, 10, 1000] {
                kinds.push((0..5000).map(|_| if next() % one_in == 0 { next() >> (63 - bits) } else { 0 }).collect());
            }
        }
        kinds
    }

    #[test]
    fn numbers_of_every_size_come_back_and_take_the_bits_that_were_written() {
        for numbers in kinds() {
            let bytes = written(&numbers);
            let mut bits = BitReader::new(&bytes);
            let mut reader = NumbersReader::new();
            let back: Vec<u64> = numbers.iter().map(|_| reader.take(&mut bits)).collect();
            assert!(back == numbers);
            assert!(bits.is_at_end() && !bits.is_over());
        }
    }

    #[test]
    fn numbers_take_little_more_than_their_entropy() {
        let mut state = 1_u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from((state >> 33) as u32) / f64::from(1_u32 << 31)
        };
        for share in [0.9, 0.5, 0.2, 0.05, 0.003] {
            let n = 20_000;
            let mut failures = || std::iter::repeat_with(&mut uniform).take_while(|draw| *draw >= share).count() as u64;
            let numbers: Vec<u64> = (0..n).map(|_| failures()).collect();
            let len = u32::try_from(written(&numbers).len()).expect("a few bytes a number");
            let entropy = f64::log2(share) * -share - (1.0 - share) * f64::log2(1.0 - share);
            let (bits, least) = (8.0 * f64::from(len) / f64::from(n), entropy / share);
            assert!(bits < 1.03 * least + 0.1, "{bits} bits a number where {least} will do");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut bytes = [0; 10];
        let mut out = Output::new(&mut bytes);
        let mut bits = BitWriter::new(&mut out);
        (0..13).for_each(|_| bits.put(255, 8));
        assert!(bits.is_full() && bits.finish().is_none());
    }
}
