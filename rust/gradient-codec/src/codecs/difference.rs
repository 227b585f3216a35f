//! Difference: of each element how far it is from the base's, as a number that is small where they are close.
//!
//! Bits are mapped to an integer that rises with the value, subtracted, and folded (zigzag) so that small differences of
//! both signs have empty upper bytes. Everything wraps, so every bit pattern comes back: -0.0, NaNs with their payloads.

use super::{Codec, DeltaCodec, one_base, read_width, require_elements};
use crate::pipeline::require_len;
use crate::{CodecError, Scratch};

const NAME: &str = "difference";

/// The codec.
pub(crate) struct Difference;

/// What the bits of an element mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Integers, signed or not.
    Integer,
    /// Sign and magnitude.
    Float,
}

/// Makes the parameters.
pub(crate) fn params(width: usize, is_float: bool) -> Vec<u8> {
    vec![width as u8, u8::from(is_float)]
}

fn read_params(params: &[u8]) -> Result<(usize, Class), CodecError> {
    let class = match params {
        [_, 0] => Class::Integer,
        [_, 1] => Class::Float,
        _ => return Err(CodecError::BadParams { codec: NAME, len: params.len() }),
    };
    Ok((read_width(NAME, params)?, class))
}

impl Codec for Difference {
    fn id(&self) -> u8 {
        5
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn as_delta(&self) -> Option<&dyn DeltaCodec> {
        Some(self)
    }

    fn encode(
        &self,
        params: &[u8],
        bases: &[&[u8]],
        raw: &[u8],
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        out.clear();
        out.extend_from_slice(raw);
        apply(params, one_base(bases)?, out)
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        read_params(params)?;
        Ok(encoded.len() as u64)
    }

    fn decode(&self, params: &[u8], bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        require_len(out.len(), encoded.len())?;
        out.copy_from_slice(encoded);
        self.undo(params, one_base(bases)?, out)
    }
}

impl DeltaCodec for Difference {
    fn width(&self, params: &[u8]) -> Result<usize, CodecError> {
        Ok(read_params(params)?.0)
    }

    fn undo(&self, params: &[u8], base: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
        let (width, class) = read_params(params)?;
        require_elements(bytes.len(), width)?;
        of_width(width, class, base, bytes, Direction::Undo);
        Ok(())
    }

    fn undo_one(&self, params: &[u8], difference: u64, element: &mut [u8]) {
        let Ok((width, class)) = read_params(params) else { return };
        let len = element.len();
        let mut base = [0; 8];
        base[..len].copy_from_slice(element);
        element.copy_from_slice(&difference.to_le_bytes()[..len]);
        of_width(width, class, &base[..len], element, Direction::Undo);
    }
}

/// Turns `bytes` into differences to `base`.
///
/// # Errors
/// [`CodecError::BadParams`], [`CodecError::WrongLength`].
pub(crate) fn apply(params: &[u8], base: &[u8], bytes: &mut [u8]) -> Result<(), CodecError> {
    let (width, class) = read_params(params)?;
    require_elements(bytes.len(), width)?;
    of_width(width, class, base, bytes, Direction::Apply);
    Ok(())
}

#[derive(Clone, Copy)]
enum Direction {
    Apply,
    Undo,
}

fn of_width(width: usize, class: Class, base: &[u8], bytes: &mut [u8], direction: Direction) {
    match width {
        1 => of_bytes(class, base, bytes, direction),
        2 => of_u16(class, base, bytes, direction),
        4 => of_u32(class, base, bytes, direction),
        _ => of_u64(class, base, bytes, direction),
    }
}

/// Makes the loop of one width. Class and direction are settled outside of it.
macro_rules! of_elements {
    ($name:ident, $unsigned:ty, $width:literal) => {
        fn $name(class: Class, base: &[u8], bytes: &mut [u8], direction: Direction) {
            const TOP: u32 = <$unsigned>::BITS - 1;
            // Its own inverse: the highest bit stays.
            let ordered = |x: $unsigned| x ^ ((x.cast_signed() >> TOP).cast_unsigned() >> 1);
            let fold = |d: $unsigned| (d << 1) ^ (d.cast_signed() >> TOP).cast_unsigned();
            let unfold = |z: $unsigned| (z >> 1) ^ (z & 1).wrapping_neg();
            let differ = |x: $unsigned, b: $unsigned| fold(x.wrapping_sub(b));
            let join = |z: $unsigned, b: $unsigned| unfold(z).wrapping_add(b);
            match (class, direction) {
                (Class::Integer, Direction::Apply) => {
                    each::<$width>(base, bytes, |x, b| {
                        differ(<$unsigned>::from_le_bytes(x), <$unsigned>::from_le_bytes(b)).to_le_bytes()
                    });
                }
                (Class::Integer, Direction::Undo) => {
                    each::<$width>(base, bytes, |x, b| {
                        join(<$unsigned>::from_le_bytes(x), <$unsigned>::from_le_bytes(b)).to_le_bytes()
                    });
                }
                (Class::Float, Direction::Apply) => {
                    each::<$width>(base, bytes, |x, b| {
                        let (x, b) = (<$unsigned>::from_le_bytes(x), <$unsigned>::from_le_bytes(b));
                        differ(ordered(x), ordered(b)).to_le_bytes()
                    });
                }
                (Class::Float, Direction::Undo) => {
                    each::<$width>(base, bytes, |x, b| {
                        let (x, b) = (<$unsigned>::from_le_bytes(x), <$unsigned>::from_le_bytes(b));
                        ordered(join(x, ordered(b))).to_le_bytes()
                    });
                }
            }
        }
    };
}

of_elements!(of_bytes, u8, 1);
of_elements!(of_u16, u16, 2);
of_elements!(of_u32, u32, 4);
of_elements!(of_u64, u64, 8);

/// Replaces each element by what `work` makes of it and of the base's.
fn each<const WIDTH: usize>(base: &[u8], bytes: &mut [u8], work: impl Fn([u8; WIDTH], [u8; WIDTH]) -> [u8; WIDTH]) {
    let (whole, rest) = base[..base.len().min(bytes.len())].as_chunks::<WIDTH>();
    let (elements, _) = bytes.as_chunks_mut::<WIDTH>();
    let (with_base, without) = elements.split_at_mut(whole.len());
    for (element, base) in with_base.iter_mut().zip(whole) {
        *element = work(*element, *base);
    }
    let mut last = [0; WIDTH];
    last[..rest.len()].copy_from_slice(rest);
    for element in without {
        *element = work(*element, last);
        last = [0; WIDTH];
    }
}
