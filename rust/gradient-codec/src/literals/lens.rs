//! How long the code of each byte is.

use super::CODE_BITS_MAX;

/// Lengths of codes: Huffman's, the longest made shorter at the expense of others.
#[inline(never)]
pub(super) fn lens_of(counts: &[u32; 256]) -> Option<[u8; 256]> {
    let mut order: Vec<usize> = (0..256).filter(|byte| counts[*byte] > 0).collect();
    if order.len() < 2 {
        return None;
    }
    order.sort_by_key(|byte| counts[*byte]);
    let num = order.len();
    // Leaves, then what joins them, both by rising count: the two least are always at the front of one of both.
    let mut sums: Vec<u64> = order.iter().map(|byte| u64::from(counts[*byte])).collect();
    let mut parents = vec![0; 2 * num - 1];
    let (mut leaf, mut inner) = (0, num);
    for node in num..2 * num - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let least = if leaf < num && (inner >= node || sums[leaf] <= sums[inner]) { &mut leaf } else { &mut inner };
            parents[*least] = node;
            sum += sums[*least];
            *least += 1;
        }
        sums.push(sum);
    }
    let mut depths = vec![0_usize; 2 * num - 1];
    for node in (0..2 * num - 2).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    let mut lens = [0; 256];
    let mut of_order: Vec<usize> = depths[..num].iter().map(|depth| (*depth).min(CODE_BITS_MAX)).collect();
    limit(&mut of_order);
    for (byte, len) in order.iter().zip(of_order) {
        lens[*byte] = len as u8;
    }
    Some(lens)
}

/// Makes codes of these lengths, by rising count, exactly fill the space again after some were cut.
fn limit(lens: &mut [usize]) {
    const SPACE: usize = 1 << CODE_BITS_MAX;
    let share = |len: usize| SPACE >> len;
    let mut taken: usize = lens.iter().map(|len| share(*len)).sum();
    // The rarest that are not the longest yet give half of theirs, which costs least.
    while taken > SPACE {
        let Some(len) = lens.iter_mut().rev().filter(|len| **len < CODE_BITS_MAX).max_by_key(|len| **len) else {
            return;
        };
        taken -= share(*len) / 2;
        *len += 1;
    }
    // What is left over goes to the most frequent that it fits.
    while taken < SPACE {
        let left = SPACE - taken;
        let Some(len) = lens.iter_mut().rev().find(|len| share(**len) <= left) else { return };
        taken += share(*len);
        *len -= 1;
    }
}
