//! What is coded against something else is relied on, merged and read together with it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use gradient_object::Tensor;
use gradient_odb::{Line, MergeLimits, Odb, PackId, Progress, Sealed, Source, TensorLayout, VerifyLevel};
use gradient_storage::{MemoryStorage, Storage};
use support::{memory, noise, open, overwrite, pack_bytes, tensor};

const LEN: usize = 40_000;

/// States of which each differs a little from the one before.
fn states(seed: u64, num: usize) -> Vec<Vec<u8>> {
    let mut state = noise(seed, LEN);
    let mut next = |number: usize| {
        state[100 * number + 7] ^= 0x55;
        state.clone()
    };
    (0..num).map(&mut next).collect()
}

/// Stores a state on a line.
fn store(odb: &Odb, line: &mut Line, state: &[u8]) -> (Tensor, Sealed) {
    let mut transaction = odb.begin();
    let source = Source { key: Some("w".to_owned()), ..Source::plain(&state) };
    let chunks = transaction.add_sources(&[source], Some(line), &Progress::new()).unwrap();
    let updates = transaction.take_updates();
    let sealed = transaction.seal(&Progress::new()).unwrap();
    line.advance(updates);
    (tensor(state.len(), chunks.concat()), sealed)
}

/// Stores states on a line of their own, each in a pack.
fn chain(odb: &Odb, states: &[Vec<u8>]) -> Vec<(Tensor, PackId)> {
    let mut line = Line::new(u64::MAX);
    let store = |state: &Vec<u8>| {
        let (tensor, sealed) = store(odb, &mut line, state);
        (tensor, sealed.pack.unwrap())
    };
    states.iter().map(store).collect()
}

fn assert_reads(storage: &MemoryStorage, made: &Tensor, state: &[u8]) {
    for _ in 0..8 {
        // Which of several copies the index names is drawn anew each time.
        assert!(open(storage).read_tensor_bytes(made).unwrap() == state);
    }
}

#[test]
fn a_delta_that_is_met_again_is_relied_on_with_all_that_it_is_coded_against() {
    let storage = memory();
    let states = states(1, 4);
    let writer = open(&storage);
    let made = chain(&writer, &states);
    let packs: Vec<PackId> = made.iter().map(|(_, pack)| *pack).collect();
    for odb in [&writer, &open(&storage)] {
        for is_verified in [false, true] {
            let (_, again) = store(odb, &mut Line::new(0), &states[3]);
            assert_eq!(again.pack, None, "{is_verified}");
            let mut relied: Vec<PackId> = again.relied.iter().map(|relied| relied.pack).collect();
            relied.sort_unstable();
            let mut expected = packs.clone();
            expected.sort_unstable();
            assert_eq!(relied, expected, "{is_verified}");
            assert!(odb.still_holds(&again).unwrap());
        }
    }
    let (_, again) = store(&writer, &mut Line::new(0), &states[3]);
    let aside = pack_bytes(&storage, &packs[1]);
    storage.delete(&packs[1].key()).unwrap();
    writer.refresh().unwrap();
    assert!(!writer.still_holds(&again).unwrap(), "a link is gone");
    overwrite(&storage, &packs[1].key(), &aside);
    writer.exclude(&[packs[1]]);
    assert!(!writer.still_holds(&again).unwrap(), "a link is condemned");
}

#[test]
fn a_delta_of_which_a_link_is_gone_or_condemned_is_written_again_when_it_is_met_again() {
    for is_condemned in [false, true] {
        for is_known in [false, true] {
            let storage = memory();
            let states = states(2, 4);
            let writer = open(&storage);
            let made = chain(&writer, &states);
            let (last, _) = &made[3];
            let odb = if is_known { writer } else { open(&storage) };
            if is_condemned {
                odb.exclude(&[made[1].1]);
            } else {
                storage.delete(&made[1].1.key()).unwrap();
                odb.refresh().unwrap();
            }
            let (again, sealed) = store(&odb, &mut Line::new(0), &states[3]);
            assert!(sealed.added_len > LEN as u64, "it stands by itself: {is_condemned} {is_known}");
            if is_condemned {
                storage.delete(&made[1].1.key()).unwrap();
            }
            assert_eq!(again.data, last.data);
            assert_reads(&storage, &again, &states[3]);
            assert!(odb.read_tensor_bytes(&again).unwrap() == states[3]);
        }
    }
}

/// A tensor of bf16 of which each step changes the more elements the smaller they are, by their last bits.
fn weights(num: usize) -> Vec<Vec<u8>> {
    let draws = noise(11, 6 * LEN);
    let (first, mut rest) = draws.split_at(2 * LEN);
    let to_weight = |draw: &[u8; 2]| {
        let draw = u16::from_le_bytes(*draw);
        let exponent = 0x7c - (draw >> 7 & 0x1ff | 0x200).trailing_zeros() as u16;
        draw & 0x807f | exponent << 7
    };
    let mut weights: Vec<u16> = first.as_chunks::<2>().0.iter().map(to_weight).collect();
    let mut states = Vec::new();
    for _ in 0..num {
        let (step, later) = rest.split_at(LEN);
        rest = later;
        for (weight, draw) in weights.iter_mut().zip(step) {
            let chance = 2_u16 << (0x7c - (*weight >> 7 & 0xff));
            *weight ^= u16::from(u16::from(*draw) < chance);
        }
        states.push(weights.iter().flat_map(|weight| weight.to_le_bytes()).collect());
    }
    states
}

/// The last codec that the chunk of a pack went through.
fn codec_of(storage: &MemoryStorage, pack: &PackId) -> &'static str {
    // A chunk is all there is: its header begins behind that of the pack.
    let bytes = pack_bytes(storage, pack);
    let at = 32 + 48 + 32 * usize::from(bytes[38]);
    let mut pipeline = &bytes[at..at + 64];
    for _ in 1..bytes[39] {
        pipeline = &pipeline[2 + usize::from(pipeline[1])..];
    }
    gradient_codec::find_codec(pipeline[0]).unwrap().name()
}

#[test]
fn changes_are_coded_against_an_anchor_alone_and_read_through_the_sparse_deltas_behind_them() {
    let storage = memory();
    let odb = open(&storage);
    let mut line = Line::new(u64::MAX);
    let layout = TensorLayout::of(&Tensor { dtype: "bfloat16".to_owned(), ..tensor(2 * LEN, Vec::new()) });
    let mut made = Vec::new();
    for state in weights(4) {
        let mut transaction = odb.begin();
        let source = Source { key: Some("w".to_owned()), layout, ..Source::plain(&state) };
        let chunks = transaction.add_sources(&[source], Some(&line), &Progress::new()).unwrap();
        let updates = transaction.take_updates();
        let sealed = transaction.seal(&Progress::new()).unwrap();
        line.advance(updates);
        made.push((tensor(state.len(), chunks.concat()), sealed.pack.unwrap(), state));
    }
    let codecs: Vec<&str> = made.iter().map(|(_, pack, _)| codec_of(&storage, pack)).collect();
    assert_eq!(codecs, ["planes", "changes", "sparse", "sparse"]);
    for odb in [&odb, &open(&storage)] {
        for (tensor, pack, state) in made.iter().rev() {
            assert!(odb.read_tensor_bytes(tensor).unwrap() == *state);
            let report = odb.verify_pack(pack, VerifyLevel::Full, &Progress::new()).unwrap();
            assert!(report.damage.is_empty(), "{report:?}");
        }
    }
}

/// Merges everything but the newest packs, and takes away what was merged.
fn merge(odb: &Odb) -> usize {
    for seed in 0..16 {
        // Those that no commit is in are the oldest: these are to be spared.
        support::commit(odb, &[&noise(100 + seed, 300)], &[], seed).unwrap();
    }
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 1, merged_len_max: 1 << 30 };
    let merged = odb.merge_small(&limits, &Progress::new()).unwrap().unwrap();
    odb.exclude(&merged.old);
    odb.retire(&merged.old).unwrap();
    merged.old.len()
}

#[test]
fn merging_keeps_the_copy_that_stands_by_itself() {
    // Which of two packs comes first is drawn.
    for seed in 1..9 {
        let storage = memory();
        let states = states(seed, 3);
        let made = chain(&open(&storage), &states);
        let (last, _) = &made[2];
        let odb = open(&storage);
        odb.exclude(&[made[0].1]);
        let (_, alone) = store(&odb, &mut Line::new(0), &states[2]);
        assert!(alone.pack.is_some());
        let odb = open(&storage);
        assert_eq!(merge(&odb), 4);
        // The middle link needs the anchor, the last one nothing.
        let merged = odb.packs().into_iter().map(|pack| odb.verify_pack(&pack, VerifyLevel::Full, &Progress::new()));
        let named: Vec<usize> = merged.map(|report| report.unwrap().bases.len()).filter(|num| *num > 0).collect();
        assert_eq!(named, [1], "one delta is left");
        assert_reads(&storage, last, &states[2]);
        assert_reads(&storage, &made[1].0, &states[1]);
    }
}

#[test]
fn merging_loses_nothing_where_the_better_copy_is_in_a_damaged_pack() {
    for seed in 1..9 {
        let storage = memory();
        let states = states(seed, 3);
        let made = chain(&open(&storage), &states);
        let odb = open(&storage);
        odb.exclude(&[made[0].1]);
        let (last, alone) = store(&odb, &mut Line::new(0), &states[2]);
        support::flip(&storage, &alone.pack.unwrap(), 5000);
        assert_eq!(merge(&open(&storage)), 3, "the damaged one is left where it is");
        assert_reads(&storage, &last, &states[2]);
    }
}

#[test]
fn a_line_goes_on_after_a_commit_that_failed() {
    let storage = memory();
    let odb = open(&storage);
    let states = states(3, 3);
    let mut line = Line::new(u64::MAX);
    store(&odb, &mut line, &states[0]);
    let mut failed = odb.begin();
    let source = Source { key: Some("w".to_owned()), ..Source::plain(&states[1]) };
    failed.add_sources(&[source], Some(&line), &Progress::new()).unwrap();
    drop(failed);
    let (made, sealed) = store(&odb, &mut line, &states[2]);
    assert!(sealed.added_len < LEN as u64 / 10, "it is a delta");
    assert_reads(&storage, &made, &states[2]);
}

#[test]
fn tensors_of_equal_content_both_have_a_base_from_then_on() {
    let storage = memory();
    let odb = open(&storage);
    let (states, mut line) = (states(4, 3), Line::new(u64::MAX));
    let mut added = Vec::new();
    // Equal at first, and then each for itself.
    for pair in [[0, 0], [1, 2]] {
        let keyed =
            |(key, number): (&str, usize)| Source { key: Some(key.to_owned()), ..Source::plain(&states[number]) };
        let sources: Vec<Source<'_>> = ["a", "b"].into_iter().zip(pair).map(keyed).collect();
        let mut transaction = odb.begin();
        transaction.add_sources(&sources, Some(&line), &Progress::new()).unwrap();
        let updates = transaction.take_updates();
        added.push(transaction.seal(&Progress::new()).unwrap().added_len);
        line.advance(updates);
    }
    assert!(added[0] > LEN as u64 && added[1] < LEN as u64 / 10, "{added:?}");
}
