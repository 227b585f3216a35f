//! Chooses how a chunk is stored: raw, unless a codec pays.
//!
//! Most chunks of a training state are noise: of fp32 weights and moments zstd takes a twelfth at a tenth of the disk's
//! speed. So a sample decides. It costs a few hundredths of a millisecond, and a chunk that it calls noise costs nothing
//! more. What a sample misses (a repetition over a long distance) is stored raw: larger than need be, never wrong.

use zstd::zstd_safe::CCtx;

use crate::codecs::{Codec, zstd::CONTEXT_BYTES, zstd::Zstd};
use crate::{CodecError, Stage};

/// Length of one run of the sample: long enough for a codec to show what it can do.
const RUN_BYTES: usize = 4 << 10;

/// How many runs, spread evenly from the first byte to the last.
const NUM_RUNS: usize = 4;

/// Runs begin on multiples of this in the chunk, so that elements are not cut.
const RUN_ALIGNMENT: usize = 64;

/// Working memory for encoding: made once a thread, then no chunk allocates but for its result.
#[derive(Default)]
pub struct Scratch {
    context: Option<CCtx<'static>>,
    sample: Vec<u8>,
    encoded: Vec<u8>,
}

impl Scratch {
    /// Makes an empty one; it grows to a little over one chunk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lends the zstd context, made when it is first wanted.
    pub(crate) fn zstd_context(&mut self) -> Result<&mut CCtx<'static>, CodecError> {
        if self.context.is_none() {
            self.context = CCtx::try_create();
        }
        self.context.as_mut().ok_or(CodecError::OutOfMemory { len: CONTEXT_BYTES })
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// How a chunk is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The stages in the order of encoding; none for raw.
    pub pipeline: Vec<Stage>,
    /// The payload, shorter than the raw bytes; none for raw, where they are the payload themselves.
    pub bytes: Option<Vec<u8>>,
}

impl Encoded {
    /// Stored as it is.
    const RAW: Self = Self { pipeline: Vec::new(), bytes: None };
}

/// Encodes a chunk by the cheapest pipeline that pays, else leaves it raw; never larger than raw.
///
/// zstd at level 1 is used if it takes at least a quarter off a sample of 16 KiB, and then off the chunk; chunks up to that
/// size are their own sample. The same bytes always give the same result.
///
/// # Errors
/// [`CodecError::OutOfMemory`], [`CodecError::NotEncoded`]. The chunk can be stored raw then.
pub fn encode_best(raw: &[u8], scratch: &mut Scratch) -> Result<Encoded, CodecError> {
    // Taken out, so that the codec can have the rest of the scratch.
    let mut encoded = std::mem::take(&mut scratch.encoded);
    let outcome = encode_if_it_pays(raw, scratch, &mut encoded);
    let bytes = outcome.map(|pays| pays.then(|| encoded.clone()));
    scratch.encoded = encoded;
    Ok(match bytes? {
        Some(bytes) => Encoded { pipeline: vec![Stage { codec: Zstd.id(), params: Vec::new() }], bytes: Some(bytes) },
        None => Encoded::RAW,
    })
}

/// Leaves the encoded chunk in `encoded` and says yes, or says no.
fn encode_if_it_pays(raw: &[u8], scratch: &mut Scratch, encoded: &mut Vec<u8>) -> Result<bool, CodecError> {
    if raw.len() <= NUM_RUNS * RUN_BYTES {
        Zstd.encode(&[], &[], raw, scratch, encoded)?;
        return Ok(pays(raw, encoded));
    }
    let mut sample = std::mem::take(&mut scratch.sample);
    take_sample(raw, &mut sample);
    let outcome = Zstd.encode(&[], &[], &sample, scratch, encoded);
    let is_promising = outcome.map(|()| pays(&sample, encoded));
    scratch.sample = sample;
    if !is_promising? {
        return Ok(false);
    }
    Zstd.encode(&[], &[], raw, scratch, encoded)?;
    Ok(pays(raw, encoded))
}

/// Says whether the encoded bytes are worth the time.
///
/// zstd codes 0.3 GB/s a core where a disk writes more than 1: what takes off less than a quarter makes a commit slower
/// for little. (On the lab GPT, a threshold of a tenth coded 57 of 387 chunks, took 1.3 % off the state and 130 ms of
/// processor: `benches/snapshot.py`.)
fn pays(raw: &[u8], encoded: &[u8]) -> bool {
    encoded.len() <= raw.len() - raw.len().div_ceil(4) && encoded.len() < raw.len()
}

/// Copies the runs of the sample together; `raw` is longer than all of them.
fn take_sample(raw: &[u8], sample: &mut Vec<u8>) {
    sample.clear();
    let last = raw.len() - RUN_BYTES;
    for run in 0..NUM_RUNS {
        let start = last * run / (NUM_RUNS - 1) / RUN_ALIGNMENT * RUN_ALIGNMENT;
        sample.extend_from_slice(&raw[start..start + RUN_BYTES]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that no codec can do anything with.
    fn noise(len: usize) -> Vec<u8> {
        let mut seed = 1_u64;
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn the_sample_reaches_from_the_first_bytes_to_the_last() {
        for len in [NUM_RUNS * RUN_BYTES + 1, 100_000, 1 << 20] {
            let raw = noise(len);
            let mut sample = Vec::new();
            take_sample(&raw, &mut sample);
            assert_eq!(sample.len(), NUM_RUNS * RUN_BYTES);
            assert_eq!(sample[..RUN_BYTES], raw[..RUN_BYTES]);
            let start = (len - RUN_BYTES) / RUN_ALIGNMENT * RUN_ALIGNMENT;
            assert_eq!(sample[3 * RUN_BYTES..], raw[start..start + RUN_BYTES]);
        }
    }

    #[test]
    fn noise_is_not_encoded_beyond_its_sample() {
        let mut scratch = Scratch::new();
        assert_eq!(encode_best(&noise(1 << 20), &mut scratch).expect("encodes"), Encoded::RAW);
        assert!(scratch.encoded.capacity() < 64 << 10, "the whole chunk went through the codec");
    }

    #[test]
    fn a_chunk_that_saves_less_than_its_sample_promised_stays_raw() {
        let mut raw = noise(1 << 20);
        for run in 0..NUM_RUNS {
            let start = (raw.len() - RUN_BYTES) * run / (NUM_RUNS - 1) / RUN_ALIGNMENT * RUN_ALIGNMENT;
            raw[start..start + RUN_BYTES / 2].fill(0);
        }
        let mut scratch = Scratch::new();
        assert_eq!(encode_best(&raw, &mut scratch).expect("encodes"), Encoded::RAW);
        assert!(scratch.encoded.len() > raw.len() / 2, "the sample did not promise anything");
    }
}
