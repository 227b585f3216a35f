//! zstd frames of literals alone, made by a Huffman coder of our own: any zstd decoder reads them.
//!
//! zstd can be told to look for no matches, and then spends its time on what is known: it counts every byte, for every
//! block, and makes a code for each. Here a part is counted, one code serves a whole plane, and codes are taken by two
//! and put together by four before they meet the bits that are there. Decoding is zstd's.
//!
//! Names and layout are those of RFC 8878.

mod lens;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::array;

use self::lens::lens_of;
use crate::fse;
use crate::output::Output;
use crate::processor::for_processor;

/// Content of a block, at most.
const BLOCK_BYTES: usize = 128 << 10;

/// Bits of a code, at most.
const CODE_BITS_MAX: usize = 11;

/// Shorter ones are zstd's: there is nothing to save.
const LEN_MIN: usize = 4 << 10;

/// One run in so many is counted, if that makes enough bytes.
const COUNTED_EVERY: usize = 8;
const COUNTED_MIN: usize = 16 << 10;
const RUN_BYTES: usize = 512;

/// What was not counted but may be there has a code of the longest kind. More of them would cost more than counting.
const NOT_COUNTED_MAX: usize = 8;

/// With more different bytes than these the table of pairs takes longer to make than it saves: codes are taken one by one.
const PAIRED_MAX: usize = 64;

/// A frame of one segment with four bytes of content size.
const FRAME_START: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];

/// Of each two bytes, the first the lower, how many bits their codes have together, and from bit 6 on the codes, the
/// second's first: streams are read backwards. Only pairs are filled in that the last code has.
pub(crate) struct Pairs(Box<[u32; 1 << 16]>);

/// Where in a pair the codes begin. Below is a number of bits, and what shifts by a pair looks at no more than that.
const PAIR_CODES: u32 = 6;

impl Pairs {
    /// None: there is no memory for it.
    pub(crate) fn new() -> Option<Self> {
        let mut pairs = Vec::new();
        pairs.try_reserve_exact(1 << 16).ok()?;
        pairs.resize(1 << 16, 0);
        pairs.into_boxed_slice().try_into().ok().map(Self)
    }

    /// Fills in the pairs of a code.
    fn fill(&mut self, code: &Code) {
        let coded = || code.codes.iter().zip(0_usize..).filter(|(code, _)| **code > 0);
        for (second, high) in coded() {
            for (first, low) in coded() {
                let both = (first & 0xffff) << (second >> 16) | second & 0xffff;
                self.0[high << 8 | low] = both << PAIR_CODES | ((first >> 16) + (second >> 16));
            }
        }
    }
}

/// Appends a frame of `plane`. None, with `out` as it was: it is short, has too many or too few different bytes, does not
/// get shorter, or there is no room.
pub(crate) fn append_frame(plane: &[u8], pairs: &mut Pairs, out: &mut Output<'_>) -> Option<()> {
    let start = out.len();
    let done = append(plane, pairs, out);
    if done.is_none() {
        out.truncate(start);
    }
    done
}

fn append(plane: &[u8], pairs: &mut Pairs, out: &mut Output<'_>) -> Option<()> {
    if plane.len() < LEN_MIN || u32::try_from(plane.len()).is_err() {
        return None;
    }
    let counts = count(plane);
    let code = Code::of(&counts)?;
    let pairs = if num_seen(&counts) <= PAIRED_MAX {
        pairs.fill(&code);
        Some(&*pairs)
    } else {
        None
    };
    out.put(&FRAME_START)?;
    out.put(&(plane.len() as u32).to_le_bytes())?;
    let mut tree = Some(code.describe()?);
    let mut blocks = plane.chunks(BLOCK_BYTES).peekable();
    while let Some(block) = blocks.next() {
        append_block(block, &code, pairs, tree.take(), blocks.peek().is_none(), out)?;
    }
    Some(())
}

/// Appends a compressed block without sequences. The first has the tree, the others use it again.
fn append_block(
    block: &[u8],
    code: &Code,
    pairs: Option<&Pairs>,
    tree: Option<Vec<u8>>,
    is_last: bool,
    out: &mut Output<'_>,
) -> Option<()> {
    const HEADERS: usize = 3 + 5;
    let block_type = if tree.is_some() { 2 } else { 3 };
    let header = out.len();
    out.leave(HEADERS)?;
    out.put(&tree.unwrap_or_default())?;
    let jumps = out.len();
    out.leave(6)?;
    for (i, stream) in block.chunks(block.len().div_ceil(4)).enumerate() {
        let len = put_stream(stream, code, pairs, out.rest_mut())?;
        out.leave(len)?;
        if i < 3 {
            out.written_mut()[jumps + 2 * i..][..2].copy_from_slice(&u16::try_from(len).ok()?.to_le_bytes());
        }
    }
    let len = out.len() - header - HEADERS;
    // No sequences.
    out.put(&[0])?;
    let block_len = out.len() - header - 3;
    if block_len >= block.len() {
        return None;
    }
    let section = block_type | 3 << 2 | (block.len() as u64) << 4 | (len as u64) << 22;
    let block_header = u32::from(is_last) | 2 << 1 | (block_len as u32) << 3;
    let headers = &mut out.written_mut()[header..][..HEADERS];
    headers[..3].copy_from_slice(&block_header.to_le_bytes()[..3]);
    headers[3..].copy_from_slice(&section.to_le_bytes()[..5]);
    Some(())
}

/// How often each byte occurs, about: 0 only of those that do not.
fn count(plane: &[u8]) -> [u32; 256] {
    if plane.len() / COUNTED_EVERY < COUNTED_MIN {
        return count_all([plane].into_iter());
    }
    let runs = || plane.chunks(RUN_BYTES).enumerate();
    let is_counted = |at: usize| at.is_multiple_of(COUNTED_EVERY);
    let mut counts = count_all(runs().filter(|(at, _)| is_counted(*at)).map(|(_, run)| run));
    let (least, most) = seen(&counts);
    // What is far from all others is rare: the runs that have it are counted too, so that it alone takes a code.
    let is_far = |run: &[u8]| {
        let (of_run, to_run) = range(run);
        of_run < least || to_run > most
    };
    let far = count_all(runs().filter(|(at, run)| !is_counted(*at) && is_far(run)).map(|(_, run)| run));
    for (count, far) in counts.iter_mut().zip(far) {
        *count += far;
    }
    let num_within = usize::from(most.abs_diff(least)) + 1;
    let within = |counts: &mut [u32; 256], then: &mut dyn FnMut(&mut u32)| {
        (least..=most).for_each(|byte| then(&mut counts[usize::from(byte.cast_unsigned())]));
    };
    let mut num_not_counted = 0;
    within(&mut counts, &mut |count| num_not_counted += usize::from(*count == 0));
    if num_not_counted > NOT_COUNTED_MAX || 3 * num_not_counted > num_within {
        return count_all([plane].into_iter());
    }
    within(&mut counts, &mut |count| *count = (*count).max(1));
    counts
}

fn num_seen(counts: &[u32; 256]) -> usize {
    counts.iter().filter(|count| **count > 0).count()
}

/// The least and the largest byte seen, as numbers with a sign: what means leave lies on both sides of zero.
fn seen(counts: &[u32; 256]) -> (i8, i8) {
    let seen = || (i8::MIN..=i8::MAX).filter(|byte| counts[usize::from(byte.cast_unsigned())] > 0);
    (seen().next().unwrap_or(0), seen().next_back().unwrap_or(0))
}

/// The same of bytes.
fn range(run: &[u8]) -> (i8, i8) {
    // Vectors of every processor know the least of two numbers without a sign.
    let (least, most) =
        run.iter().map(|byte| byte ^ 0x80).fold((u8::MAX, 0), |(least, most), byte| (least.min(byte), most.max(byte)));
    ((least ^ 0x80).cast_signed(), (most ^ 0x80).cast_signed())
}

fn count_all<'a>(runs: impl Iterator<Item = &'a [u8]>) -> [u32; 256] {
    // Equal bytes in a row would wait for each other.
    let mut counts = [[0_u32; 256]; 4];
    for run in runs {
        let (fours, rest) = run.as_chunks::<4>();
        for four in fours {
            for (counts, byte) in counts.iter_mut().zip(four) {
                counts[usize::from(*byte)] += 1;
            }
        }
        for byte in rest {
            counts[0][usize::from(*byte)] += 1;
        }
    }
    array::from_fn(|byte| counts.iter().map(|counts| counts[byte]).sum())
}

/// A Huffman code, with lengths of at most [`CODE_BITS_MAX`].
struct Code {
    /// Bits of each byte's code; 0 of one that has none.
    lens: [u8; 256],
    /// Of each byte its code, and from bit 16 on how many bits that has.
    codes: [u32; 256],
}

impl Code {
    /// None: there are not two bytes that are different.
    fn of(counts: &[u32; 256]) -> Option<Self> {
        let lens = lens_of(counts)?;
        let longest = usize::from(*lens.iter().max()?);
        // The longest codes begin at 0, each shorter kind behind what the longer ones took.
        let mut next = [0_u32; CODE_BITS_MAX + 2];
        let mut value = 0;
        for len in (1..=longest).rev() {
            next[len] = value;
            value += lens.iter().filter(|other| usize::from(**other) == len).count() as u32;
            value >>= 1;
        }
        let mut codes = [0; 256];
        for (code, len) in codes.iter_mut().zip(lens).filter(|(_, len)| *len > 0) {
            *code = next[usize::from(len)] | u32::from(len) << 16;
            next[usize::from(len)] += 1;
        }
        Some(Self { lens, codes })
    }

    /// The tree's description: the weight of each byte up to the last that has a code, whose own follows from the others.
    fn describe(&self) -> Option<Vec<u8>> {
        let longest = self.lens.iter().max()?;
        let last = self.lens.iter().rposition(|len| *len > 0)?;
        let weights: Vec<u8> =
            self.lens[..last].iter().map(|len| if *len == 0 { 0 } else { longest + 1 - len }).collect();
        let coded = fse::encode(&weights);
        if let Some(coded) =
            coded.filter(|coded| coded.len() < 128 && (weights.len() > 128 || coded.len() < weights.len().div_ceil(2)))
        {
            let mut tree = vec![coded.len() as u8];
            tree.extend_from_slice(&coded);
            return Some(tree);
        }
        let num = u8::try_from(weights.len()).ok().filter(|num| *num <= 128)?;
        let mut tree = vec![127 + num];
        tree.extend(weights.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)));
        Some(tree)
    }
}

for_processor! {
    /// Writes a stream: codes from the last byte to the first, from the lowest bit on, and a bit 1. Returns its length;
    /// none if there is no room.
    fn put_stream(stream: &[u8], code: &Code, pairs: Option<&Pairs>, place: &mut [u8]) -> Option<usize>
        = ["avx512f", "avx512bw", "avx512vl", "avx512vbmi", "bmi1", "bmi2"] => wide::put_stream, else put_stream_narrow;
}

for_processor! {
    /// The same with vectors of no kind.
    fn put_stream_narrow(stream: &[u8], code: &Code, pairs: Option<&Pairs>, place: &mut [u8]) -> Option<usize>
        = ["bmi1", "bmi2"] => put_stream_plain, else put_stream_plain;
}

#[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
#[inline(always)]
fn put_stream_plain(stream: &[u8], code: &Code, pairs: Option<&Pairs>, place: &mut [u8]) -> Option<usize> {
    let mut bits = Bits::new(place);
    bits.put_bytes(stream, code, pairs)?;
    bits.finish()
}

/// Bits, from the lowest on.
struct Bits<'a> {
    place: &'a mut [u8],
    at: usize,
    open: u64,
    num_open: u32,
}

impl<'a> Bits<'a> {
    fn new(place: &'a mut [u8]) -> Self {
        Self { place, at: 0, open: 0, num_open: 0 }
    }

    /// Appends up to 56 bits.
    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    fn put(&mut self, value: u64, num: u32) -> Option<()> {
        self.open |= value << self.num_open;
        self.num_open += num;
        if let Some(word) = self.place[self.at..].first_chunk_mut() {
            *word = self.open.to_le_bytes();
        } else {
            let len = self.num_open.div_ceil(8) as usize;
            self.place.get_mut(self.at..self.at + len)?.copy_from_slice(&self.open.to_le_bytes()[..len]);
        }
        self.at += (self.num_open >> 3) as usize;
        self.open >>= self.num_open & !7;
        self.num_open &= 7;
        Some(())
    }

    /// Appends the codes of bytes, the last first.
    #[expect(clippy::inline_always, reason = "it is compiled with the features of who calls it")]
    #[inline(always)]
    fn put_bytes(&mut self, bytes: &[u8], code: &Code, pairs: Option<&Pairs>) -> Option<()> {
        let (fours, rest) = bytes.as_chunks::<4>();
        for byte in rest.iter().rev() {
            let code = code.codes[usize::from(*byte)];
            self.put(u64::from(code & 0xffff), code >> 16)?;
        }
        let Some(pairs) = pairs else {
            for four in fours.iter().rev() {
                let [a, b, c, d] = four.map(|byte| code.codes[usize::from(byte)]);
                let both = |first: u32, second: u32| {
                    let codes = (first & 0xffff).wrapping_shl(second >> 16) | second & 0xffff;
                    (u64::from(codes), (first >> 16) + (second >> 16))
                };
                let ((first, _), (second, num_second)) = (both(a, b), both(c, d));
                let num = (a >> 16) + (b >> 16) + num_second;
                self.put(first.wrapping_shl(num_second) | second, num)?;
            }
            return Some(());
        };
        for four in fours.iter().rev() {
            let four = u32::from_le_bytes(*four);
            let first = pairs.0[(four & 0xffff) as usize];
            let second = pairs.0[(four >> 16) as usize];
            let codes = u64::from(first >> PAIR_CODES).wrapping_shl(second) | u64::from(second >> PAIR_CODES);
            self.put(codes, (first + second) % (1 << PAIR_CODES))?;
        }
        Some(())
    }

    /// Appends the bit that says where the stream ends. Returns its length.
    fn finish(mut self) -> Option<usize> {
        self.put(1, 1)?;
        Some(self.at + usize::from(self.num_open > 0))
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "estimates of lengths")]
mod tests {
    use super::*;

    /// Bytes of which the one with number i is about `ratio` times as frequent as the next.
    fn geometric(len: usize, num: u32, ratio: f64, first: u8, every: u8) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let shares: Vec<f64> = (0..num).map(|i| ratio.powf(-f64::from(i))).collect();
        let total: f64 = shares.iter().sum();
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let mut at = (state >> 11) as f64 / (1_u64 << 53) as f64 * total;
                let symbol = shares.iter().position(|share| {
                    at -= share;
                    at < 0.0
                });
                first.wrapping_add((symbol.unwrap_or(0) as u8).wrapping_mul(every))
            })
            .collect()
    }

    fn entropy(plane: &[u8]) -> f64 {
        let counts = count_all([plane].into_iter());
        let total = plane.len() as f64;
        let of_one =
            |count: &u32| if *count == 0 { 0.0 } else { -f64::from(*count) * (f64::from(*count) / total).log2() };
        counts.iter().map(of_one).sum::<f64>() / 8.0
    }

    #[test]
    fn zstd_decodes_every_frame_and_none_is_much_longer_than_its_entropy() {
        let mut num_frames = 0;
        let mut pairs = Pairs::new().expect("there is memory");
        for len in [LEN_MIN, LEN_MIN + 1, 65_537, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 262_144, 300_001] {
            for (num, ratio) in [
                (2, 1.0),
                (2, 500.0),
                (3, 1.0),
                (5, 2.0),
                (12, 1.3),
                (20, 1.9),
                (40, 1.1),
                (64, 1.03),
                (65, 1.05),
                (130, 1.02),
                (256, 1.02),
            ] {
                for (first, every) in [(0, 1), (100, 1), (250, 1), (7, 3)] {
                    let plane = geometric(len, num, ratio, first, every);
                    let mut bytes = vec![0; len + 100];
                    let mut out = Output::new(&mut bytes);
                    out.put(b"before").expect("it has room");
                    if append_frame(&plane, &mut pairs, &mut out).is_none() {
                        assert_eq!(out.written_mut(), b"before");
                        continue;
                    }
                    num_frames += 1;
                    let frame = &out.written_mut()[6..];
                    let mut decoded = vec![0; len];
                    let written = zstd::zstd_safe::decompress(&mut decoded[..], frame);
                    assert_eq!(written, Ok(len), "{len} {num} {ratio} {first} {every}");
                    assert_eq!(decoded, plane, "{len} {num} {ratio} {first} {every}");
                    // A code of whole bits takes longer where one byte is most of them.
                    let most = 1.06 * entropy(&plane).max(len as f64 / 8.0) + 400.0;
                    assert!((frame.len() as f64) < most, "{} of {most} at {len} {num} {ratio}", frame.len());
                }
            }
        }
        assert!(num_frames > 200, "{num_frames}");
    }

    #[test]
    fn exactly_as_much_room_as_is_needed_is_enough_and_with_less_nothing_is_left_behind() {
        let mut pairs = Pairs::new().expect("there is memory");
        let plane = geometric(70_000, 12, 1.3, 0, 1);
        let mut bytes = vec![0; 70_000];
        let mut out = Output::new(&mut bytes);
        append_frame(&plane, &mut pairs, &mut out).expect("it fits");
        let len = out.len();
        let whole = out.written_mut().to_vec();
        let mut exact = vec![0; len];
        append_frame(&plane, &mut pairs, &mut Output::new(&mut exact)).expect("it fits");
        assert!(exact == whole);
        for room in (0..len).step_by(997).chain(len - 9..len) {
            let mut out = Output::new(&mut bytes[..room]);
            assert_eq!(append_frame(&plane, &mut pairs, &mut out), None);
            assert_eq!(out.len(), 0);
        }
    }

    #[test]
    fn what_is_far_from_all_others_is_found_wherever_it_is() {
        let mut pairs = Pairs::new().expect("there is memory");
        let mut plane = geometric(262_144, 12, 1.3, 250, 1);
        for at in (0..plane.len()).step_by(8_191) {
            plane[at] = 100 + (at % 3) as u8;
        }
        let mut bytes = vec![0; plane.len()];
        let mut out = Output::new(&mut bytes);
        append_frame(&plane, &mut pairs, &mut out).expect("it fits");
        let mut decoded = vec![0; plane.len()];
        zstd::zstd_safe::decompress(&mut decoded[..], out.written_mut()).expect("it is a frame");
        assert_eq!(decoded, plane);
    }

    #[test]
    fn the_same_codes_come_from_every_processor() {
        let mut rare_in_a_row = geometric(40_000, 24, 1.7, 250, 1);
        rare_in_a_row.extend(geometric(1000, 12, 1.0, 6, 1));
        let far_apart = geometric(10_001, 40, 1.1, 0, 5);
        let many = geometric(10_001, 256, 1.02, 77, 1);
        for plane in [geometric(10_001, 40, 1.1, 0, 1), rare_in_a_row, far_apart, many] {
            let code = Code::of(&count(&plane)).expect("there are two bytes");
            let mut pairs = Pairs::new().expect("there is memory");
            pairs.fill(&code);
            let all = put_stream(&plane, &code, Some(&pairs), &mut vec![0; 100_000]).expect("there is room");
            for len in [0, 1, 63, 64, 65, plane.len()] {
                for room in [0, 7, len / 4, all - 1, all, 100_000] {
                    let ways = [put_stream, put_stream_narrow, put_stream_plain].map(|put_stream| {
                        [Some(&pairs), None].map(|pairs| {
                            let mut place = vec![0; room];
                            let written = put_stream(&plane[..len], &code, pairs, &mut place);
                            (written, place[..written.unwrap_or(0)].to_vec())
                        })
                    });
                    let ways = ways.as_flattened();
                    assert!(ways.iter().all(|way| *way == ways[0]), "{len} bytes in {room}");
                    assert!(ways[0].0.is_some() || room <= all);
                }
            }
        }
    }
}
