//! Few: bytes of which most are zero, as the gaps between the others and those.

use crate::gaps::{Gaps, each, num_values, take_apart};
use crate::output::Output;
use crate::parts::{Coder, PlaneOf, Row, append_part, decode_part};
use crate::pipeline::zeroed;
use crate::{CodecError, Scratch};

/// Appends the part of a plane; none if it does not fit.
///
/// # Errors
/// As [`append_part`].
pub(crate) fn append(plane: &[u8], scratch: &mut Scratch, out: &mut Output<'_>) -> Result<Option<()>, CodecError> {
    let mut gaps = scratch.take_gaps();
    take_apart::<1>(plane, &mut gaps.gaps, &mut gaps.values);
    let outcome = append_gaps(&gaps, scratch, out);
    scratch.give_gaps(gaps);
    outcome
}

fn append_gaps(gaps: &Gaps, scratch: &mut Scratch, out: &mut Output<'_>) -> Result<Option<()>, CodecError> {
    if out.put(&(gaps.gaps.len() as u32).to_le_bytes()).is_none()
        || append_part(&gaps.gaps, PlaneOf::Few, scratch, out)?.is_none()
    {
        return Ok(None);
    }
    append_part(&gaps.values, PlaneOf::Few, scratch, out)
}

/// Decodes a part of a payload `of` that codec to exactly all of `out`.
///
/// # Errors
/// As [`decode_part`].
pub(crate) fn decode(of: &'static str, part: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let damaged = |what| CodecError::Damaged { codec: of, what };
    let (num_gaps, mut rest) = part.split_first_chunk().ok_or(damaged("it ends within its gaps"))?;
    let num_gaps = u32::from_le_bytes(*num_gaps);
    let gaps = decode_inner(of, &mut rest, u64::from(num_gaps), out.len())?;
    let values = decode_inner(of, &mut rest, num_values(&gaps) as u64, out.len())?;
    if !rest.is_empty() {
        return Err(damaged("there are bytes after its values"));
    }
    out.fill(0);
    each(&gaps, &values, 1, out.len(), |at, value| out[at] = value[0]).map_err(damaged)
}

/// Decodes a row and its part of `len` bytes, at most `max`.
fn decode_inner(of: &'static str, rest: &mut &[u8], len: u64, max: usize) -> Result<Vec<u8>, CodecError> {
    let damaged = |what| CodecError::Damaged { codec: of, what };
    let row = Row::take(rest).map_err(damaged)?;
    if row.coder == Coder::Few {
        return Err(damaged("few within few"));
    }
    let part = row.take_part(rest).map_err(damaged)?;
    let mut bytes = zeroed(len, max)?;
    decode_part(of, row.coder, part, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_any_plane_come_back() {
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut scratch = Scratch::new();
        for len in [0, 1, 7, 8, 9, 255, 256, 257, 600, 70_000] {
            for one_in in [1, 2, 50, 300, 100_000] {
                let plane: Vec<u8> = (0..len).map(|_| if next() % one_in == 0 { next() as u8 } else { 0 }).collect();
                let mut bytes = vec![0; 2 * len + 100];
                let mut out = Output::new(&mut bytes);
                append(&plane, &mut scratch, &mut out).expect("encodes").expect("there is room");
                let mut decoded = vec![1; len];
                decode("planes", out.written_mut(), &mut decoded).expect("was just written");
                assert!(decoded == plane, "{len} bytes, one in {one_in}");
                let room = out.len();
                for room in [0, 3, 4, 9, room / 2, room - 1] {
                    let done = append(&plane, &mut scratch, &mut Output::new(&mut bytes[..room])).expect("encodes");
                    assert_eq!(done, None, "{len} bytes, one in {one_in}, in {room}");
                }
            }
        }
    }
}
