//! Gaps: of elements of which most are zero, how many zeros lie before each that is not.

/// A gap byte that says: so many zeros, and the gap goes on.
const GOES_ON: u8 = 255;

/// Takes zeros out: appends the gaps, and the elements between them.
pub(crate) fn take_apart<const WIDTH: usize>(raw: &[u8], gaps: &mut Vec<u8>, values: &mut Vec<u8>) {
    let mut zeros = 0;
    // By eight, of which mostly all are zero.
    let (eights, rest) = raw.as_chunks::<WIDTH>().0.as_chunks::<8>();
    for eight in eights {
        if eight.as_flattened().iter().fold(0, |all, byte| all | byte) == 0 {
            zeros += 8;
        } else {
            take_each(eight, &mut zeros, gaps, values);
        }
    }
    take_each(rest, &mut zeros, gaps, values);
}

fn take_each<const WIDTH: usize>(
    elements: &[[u8; WIDTH]],
    zeros: &mut usize,
    gaps: &mut Vec<u8>,
    values: &mut Vec<u8>,
) {
    for element in elements {
        if *element == [0; WIDTH] {
            *zeros += 1;
            continue;
        }
        gaps.extend(std::iter::repeat_n(GOES_ON, *zeros / usize::from(GOES_ON)));
        gaps.push((*zeros % usize::from(GOES_ON)) as u8);
        values.extend_from_slice(element);
        *zeros = 0;
    }
}

/// Returns how many elements have gaps.
pub(crate) fn num_values(gaps: &[u8]) -> usize {
    gaps.iter().filter(|gap| **gap != GOES_ON).count()
}

/// Calls `then` with the offset and the bytes of each element, `len` bytes in all.
///
/// # Errors
/// What is wrong.
pub(crate) fn each(
    gaps: &[u8],
    values: &[u8],
    width: usize,
    len: usize,
    mut then: impl FnMut(usize, &[u8]),
) -> Result<(), &'static str> {
    let mut values = values.chunks_exact(width);
    let mut at = 0;
    for gap in gaps {
        at += usize::from(*gap) * width;
        if *gap == GOES_ON {
            continue;
        }
        let value = values.next().filter(|_| at < len).ok_or("its gaps are longer than the chunk")?;
        then(at, value);
        at += width;
    }
    if gaps.last() == Some(&GOES_ON) {
        return Err("its gaps end within one");
    }
    Ok(())
}
