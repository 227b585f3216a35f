//! Chooses how a chunk is stored: by what a sample promises to be shortest, raw unless something pays.
//!
//! Of floats the exponents pay and the mantissa is noise; of what changes little, the difference to what it was. Which it
//! is, some thousand elements tell in a hundredth of the time that coding takes. What a sample misses is stored
//! larger than need be, never wrong.
#![expect(clippy::cast_precision_loss, reason = "estimates of lengths, of which a thousandth is too small to matter")]

use zstd::zstd_safe::CCtx;

use crate::codecs::Codec;
use crate::codecs::changes::{self, Changes};
use crate::codecs::difference::{self, Difference};
use crate::codecs::lz4::Lz4;
use crate::codecs::planes::{self, Params, Planes, counts_of_planes};
use crate::codecs::sparse::{self, Sparse};
use crate::codecs::xor::Xor;
use crate::codecs::zstd::{CONTEXT_BYTES, Zstd, literals_context};
use crate::gaps::Gaps;
use crate::literals::Pairs;
use crate::means::Rows;
use crate::output::Output;
use crate::sample::{Counts, entropy_of, take_elements};
use crate::{CodecError, Stage};

/// Length of one run of the sample of bytes: long enough for a codec to show what it can do.
const RUN_BYTES: usize = 4 << 10;

/// How many runs, spread evenly from the first byte to the last.
const NUM_RUNS: usize = 4;

/// Runs begin on multiples of this in the chunk, so that elements are not cut.
const RUN_ALIGNMENT: usize = 64;

/// What a table of parts, their frames and their codes take, about.
const PARTS_BYTES: f32 = 96.0;

/// What the header of an entry takes more for a base.
const BASE_BYTES: f32 = 40.0;

/// An anchor is coded if that takes at least so much off.
const ANCHOR_SAVING_MIN: f32 = 0.03;

/// A delta may be so much longer than it should be before it is thrown away: what was estimated is not exact.
const SAMPLE_ERROR_MAX: f32 = 1.02;

/// A chunk whose anchor should take at most such a share of it is nearly empty.
const NEARLY_EMPTY: f32 = 0.25;

/// zstd codes 0.3 GB/s a core where a disk writes more than 1: what it takes off bytes of no known kind must be a quarter.
const MATCHES_SAVING_MIN: f32 = 0.25;

/// A delta is sparse if at most such a share of its elements is not zero: it is short then, and read fast.
const SPARSE_SHARE: f32 = 0.05;

/// With more, up to this share, it is if that is not so much longer than planes should be; they are mostly longer.
const SPARSE_SHARE_MAX: f32 = 0.25;
const SPARSE_WORTH: f32 = 1.2;

/// Changes are read slower than what is sparse: what they take less must be worth it.
const CHANGES_WORTH: f32 = 0.9;

/// What a gap takes more than its entropy, about.
const GAP_EXCESS_BITS: f32 = 0.2;

/// Rows shorter than this are no rows of a matrix whose columns differ.
const ROW_LEN_MIN: usize = 8;

/// What the elements of a chunk are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ElementClass {
    /// Floating point, sign first, then exponent.
    Float,
    /// Integers, signed or not.
    Integer,
    /// Nothing that could be subtracted.
    #[default]
    Bytes,
}

/// What is known of a chunk's bytes beside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub width: usize,
    /// What they are.
    pub class: ElementClass,
    /// Elements of a row of the tensor; 0 where there are no rows.
    pub row_len: usize,
    /// Where in its row the first element of the chunk stands.
    pub row_offset: usize,
}

impl Layout {
    /// Bytes of which nothing is known.
    pub const BYTES: Self = Self { width: 1, class: ElementClass::Bytes, row_len: 0, row_offset: 0 };
}

/// What a chunk may be coded against.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// Its raw bytes.
    pub bytes: &'a [u8],
    /// How long it is without a base itself; none if that is not known.
    pub anchor_len: Option<usize>,
}

/// How much a delta has to take off the best coding without a base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeltaGain {
    /// A tenth: reading a delta costs reading its base too.
    #[default]
    Tenth,
    /// Anything.
    Any,
}

/// Working memory for encoding: made once a thread, then no chunk allocates but for its result and for changes.
#[derive(Default)]
pub struct Scratch {
    context: Option<CCtx<'static>>,
    literals: Option<CCtx<'static>>,
    pairs: Option<Pairs>,
    encoded: Vec<u8>,
    delta: Vec<u8>,
    decoded: Vec<u8>,
    gaps: Gaps,
    pub(crate) planes: Vec<u8>,
    pub(crate) part: Vec<u8>,
}

impl Scratch {
    /// Makes an empty one; it grows to about seven chunks.
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

    /// Takes memory of at least `len` bytes to decode in, with anything in it; [`give_decoded`](Self::give_decoded) puts it
    /// back.
    pub(crate) fn take_decoded(&mut self, len: usize) -> Result<Vec<u8>, CodecError> {
        let mut decoded = std::mem::take(&mut self.decoded);
        if decoded.len() < len {
            decoded.try_reserve(len - decoded.len()).map_err(|_| CodecError::OutOfMemory { len })?;
            decoded.resize(len, 0);
        }
        Ok(decoded)
    }

    pub(crate) fn give_decoded(&mut self, decoded: Vec<u8>) {
        self.decoded = decoded;
    }

    /// Takes what elements are taken apart in, empty; [`give_gaps`](Self::give_gaps) puts it back.
    pub(crate) fn take_gaps(&mut self) -> Gaps {
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.gaps.clear();
        gaps.values.clear();
        gaps
    }

    pub(crate) fn give_gaps(&mut self, gaps: Gaps) {
        self.gaps = gaps;
    }

    /// Lends the table of pairs of codes, made when it is first wanted; none where there is no memory for it.
    pub(crate) fn pairs(&mut self) -> Option<&mut Pairs> {
        if self.pairs.is_none() {
            self.pairs = Pairs::new();
        }
        self.pairs.as_mut()
    }

    /// Lends the context for literals only, made when it is first wanted.
    pub(crate) fn literals_context(&mut self) -> Result<&mut CCtx<'static>, CodecError> {
        if self.literals.is_none() {
            self.literals = Some(literals_context()?);
        }
        self.literals.as_mut().ok_or(CodecError::OutOfMemory { len: CONTEXT_BYTES })
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
    /// The length of the payload, less than that of the raw bytes; none for raw, where they are the payload themselves.
    pub len: Option<usize>,
    /// Whether the base was used.
    pub is_delta: bool,
}

impl Encoded {
    /// Stored as it is.
    const RAW: Self = Self { pipeline: Vec::new(), len: None, is_delta: false };
}

/// What to do with a chunk, and about how many bytes that makes.
enum Plan {
    Raw,
    Bytes(&'static dyn Codec),
    Planes(Params),
}

/// How a delta is taken, and coded.
struct DeltaPlan {
    stage: Stage,
    then: Then,
    len: f32,
}

/// What follows the stage that takes the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Planes,
    Sparse,
    /// It is the only one.
    Nothing,
}

/// Encodes a chunk into `out` by the pipeline that a sample promises to be shortest; raw if none pays or what it makes
/// does not fit.
///
/// Planes of elements are coded each by what suits it, those that are noise are copied. A base is used if the difference
/// to it takes off as much as `gain` says. The same arguments always give the same result.
///
/// # Errors
/// [`CodecError::OutOfMemory`], [`CodecError::NotEncoded`].
pub fn encode_best(
    raw: &[u8],
    layout: &Layout,
    base: Option<&Base<'_>>,
    gain: DeltaGain,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<Encoded, CodecError> {
    let fits = matches!(layout.width, 1 | 2 | 4 | 8) && raw.len().is_multiple_of(layout.width);
    let layout = if fits { layout } else { &Layout::BYTES };
    // Payloads are shorter than what they stand for.
    let room = out.len().min(raw.len().saturating_sub(1));
    let mut out = Output::new(&mut out[..room]);
    let (plan, anchor_len) = plan_anchor(raw, layout, scratch)?;
    let Some(base) = base else { return encode_anchor(&plan, raw, layout, scratch, &mut out) };
    if anchor_len <= NEARLY_EMPTY * raw.len() as f32 {
        return encode_both(&plan, raw, layout, base, gain, scratch, &mut out);
    }
    let known = base.anchor_len.filter(|_| base.bytes.len() == raw.len());
    let anchor_len = known.map_or(anchor_len, |known| anchor_len.min(known as f32));
    let delta = plan_delta(raw, layout, base);
    let most = most_of(anchor_len, gain);
    if delta.len <= most {
        let pipeline = encode_delta(raw, layout, base.bytes, delta, scratch, &mut out)?;
        // A delta that became longer than its sample said is not worth its base.
        let len = out.len() as f32 + BASE_BYTES;
        if let Some(pipeline) = pipeline.filter(|_| len <= SAMPLE_ERROR_MAX * most) {
            return Ok(Encoded { pipeline, len: Some(out.len()), is_delta: true });
        }
        out.truncate(0);
    }
    encode_anchor(&plan, raw, layout, scratch, &mut out)
}

/// Returns how long a delta may be, its base counted, where an anchor is so long.
fn most_of(anchor_len: f32, gain: DeltaGain) -> f32 {
    if gain == DeltaGain::Any { anchor_len } else { 0.9 * anchor_len }
}

/// Encodes without a base.
fn encode_anchor(
    plan: &Plan,
    raw: &[u8],
    layout: &Layout,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Encoded, CodecError> {
    let stage = match *plan {
        Plan::Raw => None,
        Plan::Bytes(codec) => {
            let mut encoded = std::mem::take(&mut scratch.encoded);
            let put = codec.encode(&[], &[], raw, scratch, &mut encoded).map(|()| out.put(&encoded));
            scratch.encoded = encoded;
            put?.map(|()| Stage { codec: codec.id(), params: Vec::new() })
        }
        Plan::Planes(params) => {
            let params = planes::append(params, rows_of(raw, layout), raw, scratch, out)?;
            params.map(|params| Stage { codec: Planes.id(), params: params.encode() })
        }
    };
    Ok(stage.map_or(Encoded::RAW, |stage| Encoded { pipeline: vec![stage], len: Some(out.len()), is_delta: false }))
}

/// Encodes without the base and with it, and keeps what is shorter: of a chunk that is nearly empty, a sample may see none
/// of what is in it, or too much.
fn encode_both(
    plan: &Plan,
    raw: &[u8],
    layout: &Layout,
    base: &Base<'_>,
    gain: DeltaGain,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Encoded, CodecError> {
    let anchor = encode_anchor(plan, raw, layout, scratch, out)?;
    let most = most_of(anchor.len.unwrap_or(raw.len()) as f32, gain) - BASE_BYTES;
    let mut memory = scratch.take_decoded(raw.len())?;
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a length, not below zero")]
    let room = raw.len().saturating_sub(1).min(most.max(0.0) as usize);
    let mut delta = Output::new(&mut memory[..room]);
    let plan = plan_delta(raw, layout, base);
    let pipeline = encode_delta(raw, layout, base.bytes, plan, scratch, &mut delta);
    let len = delta.len();
    let encoded = pipeline.map(|pipeline| {
        let pipeline = pipeline?;
        out.truncate(0);
        out.put(&memory[..len])?;
        Some(Encoded { pipeline, len: Some(len), is_delta: true })
    });
    scratch.give_decoded(memory);
    Ok(encoded?.unwrap_or(anchor))
}

/// The rows that means could be taken of: those of a matrix of floats, a few at least.
fn rows_of(raw: &[u8], layout: &Layout) -> Option<Rows> {
    let Layout { width, class, row_len, row_offset } = *layout;
    let is_matrix = row_len >= ROW_LEN_MIN && row_len <= raw.len() / width / ROW_LEN_MIN;
    (class == ElementClass::Float && is_matrix && row_offset < row_len)
        .then_some(Rows { len: row_len, offset: row_offset })
}

/// What to do without a base, and about how long that is.
fn plan_anchor(raw: &[u8], layout: &Layout, scratch: &mut Scratch) -> Result<(Plan, f32), CodecError> {
    let len = raw.len() as f32;
    let rotate = layout.class == ElementClass::Float;
    let counts = counts_of_planes(raw, layout.width, rotate);
    let planes_len = cost(&counts, raw.len() / layout.width) + PARTS_BYTES;
    let mut best = (Plan::Raw, len);
    if planes_len < (1.0 - ANCHOR_SAVING_MIN) * len {
        best = (Plan::Planes(Params { width: layout.width, rotate, means: None }), planes_len);
    }
    // Floats repeat only where planes are empty, and those are looked through for matches themselves.
    if layout.class != ElementClass::Float {
        let sample = take_sample(raw);
        let mut encoded = Vec::new();
        for codec in [&Zstd as &'static dyn Codec, &Lz4] {
            codec.encode(&[], &[], &sample, scratch, &mut encoded)?;
            let share = encoded.len() as f32 / sample.len().max(1) as f32;
            // LZ4 is several times as fast.
            let worth = if codec.id() == Lz4.id() { 1.05 } else { 1.0 };
            if share <= 1.0 - MATCHES_SAVING_MIN && share * len < worth * best.1 {
                best = (Plan::Bytes(codec), share * len);
            }
        }
    }
    Ok(best)
}

/// What planes of `n` elements cost in bytes, coded as they will be.
fn cost(counts: &[Counts], n: usize) -> f32 {
    counts.iter().map(Counts::cost).sum::<f32>() * n as f32 / 8.0
}

fn plan_delta(raw: &[u8], layout: &Layout, Base { bytes: base, anchor_len }: &Base<'_>) -> DeltaPlan {
    let Layout { width, class, .. } = *layout;
    let n = raw.len() / width;
    let common = raw.len().min(base.len()) / width * width;
    let mut of_raw = [0; 8 * Counts::MAX];
    let mut of_base = [0; 8 * Counts::MAX];
    let taken = take_elements(&raw[..common], width, &mut of_raw);
    take_elements(&base[..common], width, &mut of_base);
    let of_base = &of_base[..taken];
    let xor = Stage { codec: Xor.id(), params: Vec::new() };
    let difference = Stage { codec: Difference.id(), params: difference::params(width, class == ElementClass::Float) };
    let stages: &[Stage] = if class == ElementClass::Bytes { &[xor] } else { &[difference, xor] };
    let mut best: Option<DeltaPlan> = None;
    for stage in stages {
        let mut delta = of_raw;
        let delta = &mut delta[..taken];
        if taken == 0 || apply(stage, of_base, delta).is_err() {
            continue;
        }
        let plan = judge(stage, delta, width, n);
        if best.as_ref().is_none_or(|best| plan.len < best.len) {
            best = Some(plan);
        }
    }
    let mut best = best.unwrap_or(DeltaPlan {
        stage: Stage { codec: Xor.id(), params: Vec::new() },
        then: Then::Planes,
        len: f32::INFINITY,
    });
    // They take a look at the whole base: one such link a chain.
    if class == ElementClass::Float
        && anchor_len.is_some()
        && taken > 0
        && let Some((params, bits)) = changes::estimate(width, of_base, &of_raw[..taken], SPARSE_SHARE_MAX)
    {
        let len = bits * n as f32 / 8.0 + BASE_BYTES;
        if len < CHANGES_WORTH * best.len {
            best = DeltaPlan { stage: Stage { codec: Changes.id(), params }, then: Then::Nothing, len };
        }
    }
    // What is there of a chunk that grew says nothing of what is new.
    best.len = best.len * common as f32 / raw.len() as f32 + (raw.len() - common) as f32;
    best
}

/// Judges a delta by a sample of it.
fn judge(stage: &Stage, delta: &[u8], width: usize, n: usize) -> DeltaPlan {
    let values: Vec<u8> =
        delta.chunks_exact(width).filter(|element| element.iter().any(|byte| *byte != 0)).flatten().copied().collect();
    let total = (delta.len() / width) as f32;
    // One more than were seen: no sample shows that there are none.
    let share = ((values.len() / width) as f32 + 1.0) / (total + 1.0);
    let mut len = cost(&counts_of_planes(delta, width, false), n);
    let mut then = Then::Planes;
    if share <= SPARSE_SHARE_MAX {
        let gap_bits = GAP_EXCESS_BITS + entropy_of(share) / share;
        let of_values = cost(&counts_of_planes(&values, width, false), n).min((width * n) as f32);
        let of_sparse = share * (gap_bits * n as f32 / 8.0 + of_values);
        if share <= SPARSE_SHARE || of_sparse < SPARSE_WORTH * len {
            (then, len) = (Then::Sparse, of_sparse);
        }
    }
    DeltaPlan { stage: stage.clone(), then, len: len + PARTS_BYTES + BASE_BYTES }
}

/// Turns `bytes` into the difference to `base`.
fn apply(stage: &Stage, base: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
    if stage.codec == Xor.id() {
        for (byte, base) in bytes.iter_mut().zip(base) {
            *byte ^= base;
        }
        return Ok(());
    }
    difference::apply(&stage.params, base, bytes)
}

/// Encodes the difference to a base. None: it does not fit.
fn encode_delta(
    raw: &[u8],
    layout: &Layout,
    base: &[u8],
    plan: DeltaPlan,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Option<Vec<Stage>>, CodecError> {
    let width = layout.width;
    if plan.then == Then::Nothing {
        return Ok(changes::append(&plan.stage.params, base, raw, out)?.map(|()| vec![plan.stage]));
    }
    let mut delta = std::mem::take(&mut scratch.delta);
    delta.clear();
    delta.extend_from_slice(raw);
    let outcome = apply(&plan.stage, base, &mut delta).and_then(|()| {
        if plan.then == Then::Sparse {
            let put = sparse::append(width, &delta, scratch, out)?;
            return Ok(put.map(|()| Stage { codec: Sparse.id(), params: sparse::params(width) }));
        }
        let params = planes::append(Params { width, rotate: false, means: None }, None, &delta, scratch, out)?;
        Ok(params.map(|params| Stage { codec: Planes.id(), params: params.encode() }))
    });
    scratch.delta = delta;
    Ok(outcome?.map(|second| vec![plan.stage, second]))
}

/// Copies runs of the chunk together; all of a short one.
fn take_sample(raw: &[u8]) -> Vec<u8> {
    if raw.len() <= NUM_RUNS * RUN_BYTES {
        return raw.to_vec();
    }
    let last = raw.len() - RUN_BYTES;
    let starts = (0..NUM_RUNS).map(|run| last * run / (NUM_RUNS - 1) / RUN_ALIGNMENT * RUN_ALIGNMENT);
    starts.flat_map(|start| &raw[start..start + RUN_BYTES]).copied().collect()
}
