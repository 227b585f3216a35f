//! Planes: bytes of one significance together, each plane coded by what suits it.
//!
//! Of floats the exponents are few and unevenly frequent, of small differences the upper bytes are nearly empty, and the
//! rest is noise, which is copied. The payload's layout is in `docs/format/pack.md`.

use std::cell::RefCell;

use super::{Codec, read_width, require_elements};
use crate::means::{self, Rows};
use crate::output::{Output, into_vec};
use crate::parts::{Coder, PlaneOf, ROW_BYTES, Row, append_coded, append_part, decode_part};
use crate::pipeline::require_len;
use crate::sample::Counts;
use crate::split::{merge, split};
use crate::{CodecError, Scratch};

const NAME: &str = "planes";

const ROTATE: u8 = 1;
const MEANS: u8 = 2;

/// Bytes of the number of elements.
const LEN_BYTES: usize = 4;

/// What a mean costs in bits, about.
const MEAN_BITS: f32 = 4.0;

/// Planes with more bits a byte than this are noise and not looked at any further.
const NOISE_BITS: f32 = 7.8;

/// The codec.
pub(crate) struct Planes;

/// What the parameters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    /// Bytes of an element.
    pub(crate) width: usize,
    /// Each element is rotated left by one bit.
    pub(crate) rotate: bool,
    /// Means are taken from the highest plane.
    pub(crate) means: Option<Rows>,
}

impl Params {
    pub(crate) fn encode(self) -> Vec<u8> {
        let flags = u8::from(self.rotate) * ROTATE + u8::from(self.means.is_some()) * MEANS;
        let mut params = vec![self.width as u8, flags];
        if let Some(rows) = self.means {
            params.extend_from_slice(&(rows.len as u32).to_le_bytes());
            params.extend_from_slice(&(rows.offset as u32).to_le_bytes());
        }
        params
    }

    fn decode(params: &[u8]) -> Result<Self, CodecError> {
        let bad = CodecError::BadParams { codec: NAME, len: params.len() };
        let width = read_width(NAME, params)?;
        let (flags, rest) = params.get(1..).and_then(<[u8]>::split_first).ok_or_else(|| bad.clone())?;
        let means = match (flags & MEANS != 0, rest.as_chunks::<4>()) {
            (false, ([], [])) => None,
            (true, ([len, offset], [])) => {
                Some(Rows { len: u32::from_le_bytes(*len) as usize, offset: u32::from_le_bytes(*offset) as usize })
            }
            _ => return Err(bad),
        };
        if flags & !(ROTATE | MEANS) != 0 || means.is_some_and(|rows| rows.offset >= rows.len) {
            return Err(bad);
        }
        Ok(Self { width, rotate: flags & ROTATE != 0, means })
    }
}

impl Codec for Planes {
    fn id(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(
        &self,
        params: &[u8],
        _bases: &[&[u8]],
        raw: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let params = Params::decode(params)?;
        if params.means.is_some_and(|rows| rows.num_means(raw.len() / params.width, raw.len()).is_none()) {
            return Err(CodecError::NotEncoded { codec: NAME, what: "it would have more means than bytes" });
        }
        into_vec(NAME, raw.len(), out, |out| append(params, None, raw, scratch, out))
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        let params = Params::decode(params)?;
        let (len, _) = encoded.split_first_chunk().ok_or(damaged("it is shorter than its length"))?;
        Ok(u64::from(u32::from_le_bytes(*len)) * params.width as u64)
    }

    fn decode(&self, params: &[u8], _bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        decode_planes(Params::decode(params)?, encoded, out)
    }
}

fn damaged(what: &'static str) -> CodecError {
    CodecError::Damaged { codec: NAME, what }
}

/// Appends the payload for `raw` to `out`; means of the rows that are `offered` are taken if that pays, and then they are
/// in the parameters that are returned. None: it does not fit.
pub(crate) fn append(
    params: Params,
    offered: Option<Rows>,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Output<'_>,
) -> Result<Option<Params>, CodecError> {
    let width = params.width;
    require_elements(raw.len(), width)?;
    let n = raw.len() / width;
    let is_noise = noise(raw, params);
    let is_noise = &is_noise[..width];
    let num_noise = is_noise.iter().filter(|noise| **noise).count();

    // What is noise goes to its place at once, all else where it is coded.
    let table = out.len() + LEN_BYTES;
    let first_raw = table + width * ROW_BYTES;
    if out.put(&(n as u32).to_le_bytes()).is_none()
        || out.leave(width * ROW_BYTES).is_none()
        || out.leave(n * num_noise).is_none()
    {
        return Ok(None);
    }
    let mut planes = std::mem::take(&mut scratch.planes);
    if planes.len() < n * (width - num_noise) {
        planes.resize(n * (width - num_noise), 0);
    }
    let others = &mut planes[..n * (width - num_noise)];
    split_to(raw, params, is_noise, &mut out.written_mut()[first_raw..], others);

    let mut params = params;
    let highest = others.len() - n;
    let mut means = params.means.map(|rows| means::take(rows, &mut others[highest..]));
    if means.is_none()
        && let Some(rows) = offered
    {
        means = take_if_it_pays(rows, &mut others[highest..]);
        params.means = means.is_some().then_some(rows);
    }
    let kind = if params.rotate { PlaneOf::Floats } else { PlaneOf::Others };
    let append_all = || {
        if append_parts(is_noise, n, others, kind, scratch, out, table)?.is_none() {
            return Ok(None);
        }
        if let Some(means) = means
            && append_part(&means, PlaneOf::Others, scratch, out)?.is_none()
        {
            return Ok(None);
        }
        Ok(Some(params))
    };
    let outcome = append_all();
    scratch.planes = planes;
    outcome
}

/// Takes means if that makes the plane shorter by more than they take themselves, as far as a sample tells.
#[expect(clippy::cast_precision_loss, reason = "an estimate of lengths")]
fn take_if_it_pays(rows: Rows, plane: &mut [u8]) -> Option<Vec<u8>> {
    let before = Counts::of_sample(plane).cost();
    let means = means::take(rows, plane);
    let saved_bits = (before - Counts::of_sample(plane).cost()) * plane.len() as f32;
    if saved_bits > MEAN_BITS * means.len() as f32 {
        return Some(means);
    }
    means::put(rows, &means, plane);
    None
}

/// Which planes are noise, as far as a sample tells; never the highest.
fn noise(raw: &[u8], params: Params) -> [bool; 8] {
    let mut is_noise = [false; 8];
    for (p, counts) in counts_of_planes(raw, params.width, params.rotate).iter().enumerate().take(params.width - 1) {
        is_noise[p] = counts.bits() > NOISE_BITS;
    }
    is_noise
}

/// Counts in each plane of a sample of `raw`.
pub(crate) fn counts_of_planes(raw: &[u8], width: usize, rotate: bool) -> Vec<Counts> {
    let mut sample = [0; 8 * Counts::MAX];
    let taken = crate::sample::take_elements(raw, width, &mut sample);
    let mut planes = [0; 8 * Counts::MAX];
    let n = taken / width;
    if n == 0 {
        return vec![Counts::of_sample(&[]); width];
    }
    let mut each: Vec<&mut [u8]> = planes[..taken].chunks_exact_mut(n).collect();
    split(&sample[..taken], rotate, &mut each);
    each.iter().map(|plane| Counts::of_sample(plane)).collect()
}

/// Splits `raw`: noise to one place, all else to another, each from plane 0 on.
fn split_to(raw: &[u8], params: Params, is_noise: &[bool], noise: &mut [u8], others: &mut [u8]) {
    let n = raw.len() / params.width;
    if n == 0 {
        return;
    }
    let (mut noise, mut others) = (noise.chunks_exact_mut(n), others.chunks_exact_mut(n));
    let places = is_noise.iter();
    let mut places: Vec<&mut [u8]> =
        places.filter_map(|is_noise| if *is_noise { noise.next() } else { others.next() }).collect();
    split(raw, params.rotate, &mut places);
}

/// Codes what is not noise, and fills in the table. None: it does not fit.
fn append_parts(
    is_noise: &[bool],
    n: usize,
    planes: &[u8],
    kind: PlaneOf,
    scratch: &mut Scratch,
    out: &mut Output<'_>,
    table: usize,
) -> Result<Option<()>, CodecError> {
    let first_raw = table + is_noise.len() * ROW_BYTES;
    let mut others = planes.chunks_exact(n.max(1));
    let mut num_raw = 0;
    for (p, is_noise) in is_noise.iter().enumerate() {
        let row = if *is_noise {
            Row { coder: Coder::Raw, len: n }
        } else {
            let plane = others.next().unwrap_or_default();
            let row = append_coded(plane, kind, scratch, out)?;
            // Before higher planes that are noise: this one looked like none.
            if row.coder == Coder::Raw && out.insert(first_raw + n * num_raw, plane).is_none() {
                return Ok(None);
            }
            row
        };
        num_raw += usize::from(row.coder == Coder::Raw);
        out.written_mut()[table + p * ROW_BYTES..][..ROW_BYTES].copy_from_slice(&row.encode());
    }
    Ok(Some(()))
}

thread_local! {
    /// Planes on their way out of a payload.
    static DECODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Decodes a payload to exactly all of `out`.
pub(crate) fn decode_planes(params: Params, encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    with_planes(params, encoded, out.len(), |planes| merge(planes, params.rotate, out))
}

/// Bytes that are merged at a time for somebody who looks at them at once, while they are in the nearest cache.
const WINDOW_BYTES: usize = 16 << 10;

/// Decodes a payload of `len` bytes when decoded, and hands `is_right` one window after the other, with its offset, until
/// that says no. Returns what it said last.
///
/// # Errors
/// As [`Codec::decode`]; and what `is_right` returns.
pub(crate) fn all_windows(
    params: &[u8],
    encoded: &[u8],
    len: usize,
    mut is_right: impl FnMut(usize, &mut [u8]) -> Result<bool, CodecError>,
) -> Result<bool, CodecError> {
    let params = Params::decode(params)?;
    with_planes(params, encoded, len, |planes| {
        let mut window = [0; WINDOW_BYTES];
        for start in (0..len).step_by(WINDOW_BYTES) {
            let window = &mut window[..WINDOW_BYTES.min(len - start)];
            let (first, n) = (start / params.width, window.len() / params.width);
            let mut of_window: [&[u8]; 8] = [&[]; 8];
            for (of_window, plane) in of_window.iter_mut().zip(planes) {
                *of_window = &plane[first..first + n];
            }
            merge(&of_window[..params.width], params.rotate, window);
            if !is_right(start, window)? {
                return Ok(false);
            }
        }
        Ok(true)
    })?
}

/// Decodes the planes of a payload of `out_len` bytes when decoded, and hands them to `then`.
fn with_planes<T>(
    params: Params,
    encoded: &[u8],
    out_len: usize,
    then: impl FnOnce(&[&[u8]]) -> T,
) -> Result<T, CodecError> {
    let width = params.width;
    require_elements(out_len, width)?;
    let n = out_len / width;
    let (len, mut rest) = encoded.split_first_chunk().ok_or(damaged("it is shorter than its length"))?;
    require_len(n, u32::from_le_bytes(*len) as usize)?;
    let rows: Vec<Row> = (0..width).map(|_| Row::take(&mut rest)).collect::<Result<_, _>>().map_err(damaged)?;
    let mut parts: [&[u8]; 8] = [&[]; 8];
    for wanted_raw in [true, false] {
        for (part, row) in parts.iter_mut().zip(&rows) {
            if (row.coder == Coder::Raw) == wanted_raw {
                *part = row.take_part(&mut rest).map_err(damaged)?;
            }
        }
    }
    let num_means = params.means.map_or(Some(0), |rows| rows.num_means(n, out_len));
    let num_means = num_means.ok_or(damaged("it has more means than bytes"))?;
    let num_decoded = rows.iter().enumerate().filter(|(p, row)| must_be_decoded(*p, row, &params)).count();
    // Taken, not borrowed: nothing is called from here that decodes planes.
    let mut decoded = DECODED.take();
    let needed = num_decoded * n + num_means;
    if decoded.len() < needed {
        let more = needed - decoded.len();
        decoded.try_reserve(more).map_err(|_| CodecError::OutOfMemory { len: more })?;
        decoded.resize(needed, 0);
    }
    let (means, free) = decoded[..needed].split_at_mut(num_means);
    let outcome =
        decode_means(params, rest, means).and_then(|()| decode_parts(params, &rows, &parts, means, free, n, then));
    DECODED.set(decoded);
    outcome
}

fn decode_means(params: Params, mut rest: &[u8], means: &mut [u8]) -> Result<(), CodecError> {
    if params.means.is_some() {
        let row = Row::take(&mut rest).map_err(damaged)?;
        decode_part(NAME, row.coder, row.take_part(&mut rest).map_err(damaged)?, means)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged("there are bytes after the parts")) }
}

/// What is raw is merged from where it lies; but means are given back to the highest plane in memory of ours.
fn must_be_decoded(p: usize, row: &Row, params: &Params) -> bool {
    row.coder != Coder::Raw || (p + 1 == params.width && params.means.is_some())
}

fn decode_parts<T>(
    params: Params,
    rows: &[Row],
    parts: &[&[u8]; 8],
    means: &[u8],
    mut free: &mut [u8],
    n: usize,
    then: impl FnOnce(&[&[u8]]) -> T,
) -> Result<T, CodecError> {
    let mut planes: [&[u8]; 8] = [&[]; 8];
    for (p, (row, part)) in rows.iter().zip(parts).enumerate() {
        if must_be_decoded(p, row, &params) {
            let (place, after) = free.split_at_mut(n);
            free = after;
            decode_part(NAME, row.coder, part, place)?;
            if let Some(of) = params.means.filter(|_| p + 1 == params.width) {
                means::put(of, means, place);
            }
            planes[p] = place;
        } else {
            require_len(n, part.len())?;
            planes[p] = part;
        }
    }
    Ok(then(&planes[..params.width]))
}
