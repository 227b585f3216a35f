//! Gaps: of elements of which most are zero, how many zeros lie before each that is not.

/// A gap byte that says: so many zeros, and the gap goes on.
const GOES_ON: u8 = 255;

/// What [`take_apart`] makes of elements.
#[derive(Default)]
pub(crate) struct Gaps {
    pub(crate) gaps: Vec<u8>,
    pub(crate) values: Vec<u8>,
}

/// Takes zeros out: appends the gaps, and the elements between them.
pub(crate) fn take_apart<const WIDTH: usize>(raw: &[u8], gaps: &mut Vec<u8>, values: &mut Vec<u8>) {
    let mut zeros = 0;
    // By eight, of which mostly all are zero.
    let (eights, rest) = raw.as_chunks::<WIDTH>().0.as_chunks::<8>();
    for eight in eights {
        if eight.as_flattened().iter().fold(0, |all, byte| all | byte) == 0 {
            zeros += 8;
            continue;
        }
        // From one that is not zero to the next: a branch for each of the eight would be guessed wrong too often.
        let mut left = eight.iter().rev().fold(0_u32, |bits, element| bits << 1 | u32::from(*element != [0; WIDTH]));
        let mut done = 0;
        while left != 0 {
            let at = left.trailing_zeros();
            put(zeros + (at - done) as usize, eight[at as usize], gaps, values);
            (zeros, done) = (0, at + 1);
            left &= left - 1;
        }
        zeros += (8 - done) as usize;
    }
    for element in rest {
        if *element == [0; WIDTH] {
            zeros += 1;
        } else {
            put(zeros, *element, gaps, values);
            zeros = 0;
        }
    }
}

/// Appends the gap before an element, and the element.
fn put<const WIDTH: usize>(zeros: usize, element: [u8; WIDTH], gaps: &mut Vec<u8>, values: &mut Vec<u8>) {
    if zeros >= usize::from(GOES_ON) {
        gaps.extend(std::iter::repeat_n(GOES_ON, zeros / usize::from(GOES_ON)));
    }
    gaps.push((zeros % usize::from(GOES_ON)) as u8);
    values.extend_from_slice(&element);
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
