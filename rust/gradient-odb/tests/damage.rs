//! Damaged bytes at rest are detected, named, worked around where a good copy is, and never returned.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use gradient_object::CHUNK_BYTES;
use gradient_odb::{Odb, OdbError, PackId, Progress, VerifyLevel};
use gradient_storage::{Key, MemoryStorage, Storage};
use support::{Made, assert_restores, commit, flip, memory, noise, open, overwrite, pack_bytes};

/// A pack of 1.5 KB with raw and coded entries, padding of several lengths, trees and a commit.
fn small() -> (MemoryStorage, Made, Vec<Vec<u8>>) {
    let storage = memory();
    let states = vec![noise(1, 301), noise(2, 262), vec![7; 5000]];
    let borrowed: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    let made = commit(&open(&storage), &borrowed, &[], 1).unwrap();
    (storage, made, states)
}

/// Whether open and a full check of every pack find something.
fn is_detected(odb: &Odb, pack: &PackId) -> bool {
    let report = odb.verify_pack(pack, VerifyLevel::Full, &Progress::new()).unwrap();
    !odb.damaged().is_empty() || !report.damage.is_empty()
}

/// Reads everything of a commit; whatever comes back must be right.
fn read_all(odb: &Odb, made: &Made, states: &[Vec<u8>]) -> Result<(), OdbError> {
    let commit = odb.read_commit(&made.commit)?;
    assert_eq!(commit.id().unwrap(), made.commit);
    let root = odb.read_root(&commit.tree)?;
    odb.read_tree(root.get("model", "main").unwrap())?;
    for (tensor, state) in made.tensors.iter().zip(states) {
        let raw = odb.read_tensor_bytes(tensor)?;
        assert!(raw == *state, "wrong bytes were returned");
    }
    Ok(())
}

#[test]
fn every_flipped_bit_of_a_pack_is_detected_and_never_read_as_something_else() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    let whole = pack_bytes(&storage, &pack);
    assert!(!is_detected(&open(&storage), &pack));
    for at in 0..whole.len() {
        for bit in [at % 8, (at + 3) % 8] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            overwrite(&storage, &pack.key(), &flipped);
            let odb = open(&storage);
            assert!(is_detected(&odb, &pack), "byte {at} bit {bit}");
            match read_all(&odb, &made, &states) {
                Ok(()) => {}
                Err(error) => assert!(error.is_damage(), "byte {at} bit {bit}: {error}"),
            }
        }
    }
}

#[test]
fn a_flip_behind_a_valid_cache_is_detected_too() {
    let (storage, made, states) = small();
    open(&storage).write_caches().unwrap();
    let pack = made.sealed.pack.unwrap();
    let whole = pack_bytes(&storage, &pack);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        overwrite(&storage, &pack.key(), &flipped);
        let odb = open(&storage);
        assert!(is_detected(&odb, &pack), "byte {at}");
        if let Err(error) = read_all(&odb, &made, &states) {
            assert!(error.is_damage(), "byte {at}: {error}");
        }
    }
}

#[test]
fn a_pack_that_is_cut_or_longer_is_detected_at_open() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    let whole = pack_bytes(&storage, &pack);
    let footer = whole.len() - 128;
    let index_at = u64::from_le_bytes(whole[footer + 8..footer + 16].try_into().unwrap()) as usize;
    for with_cache in [false, true] {
        if with_cache {
            overwrite(&storage, &pack.key(), &whole);
            open(&storage).write_caches().unwrap();
        }
        for len in 0..whole.len() {
            overwrite(&storage, &pack.key(), &whole[..len]);
            let odb = open(&storage);
            assert_eq!(odb.damaged().len(), 1, "cut at {len}");
            match read_all(&odb, &made, &states) {
                Ok(()) => assert!(len >= index_at, "cut at {len}"),
                Err(error) => {
                    assert!(len < index_at, "cut at {len}: entries and blocks are there: {error}");
                    assert!(matches!(error, OdbError::ObjectDamaged { pack: named, .. } if named == pack), "{error}");
                }
            }
        }
        for junk in [1, 8, 128] {
            overwrite(&storage, &pack.key(), &[&whole[..], &vec![0; junk]].concat());
            assert_eq!(open(&storage).damaged().len(), 1, "{junk} bytes of junk");
        }
    }
}

#[test]
fn a_pack_in_the_place_of_another_is_detected() {
    let (storage, made, _) = small();
    let other = commit(&open(&storage), &[&noise(5, 400)], &[], 2).unwrap();
    let theirs = pack_bytes(&storage, &other.sealed.pack.unwrap());
    overwrite(&storage, &made.sealed.pack.unwrap().key(), &theirs);
    let odb = open(&storage);
    assert_eq!(odb.damaged().len(), 1);
    assert!(odb.has_commit(&other.commit));
}

#[test]
fn one_damaged_pack_hides_nothing_of_the_others() {
    let storage = memory();
    let odb = open(&storage);
    let states: Vec<Vec<u8>> = (1..6).map(|seed| noise(seed, 3000)).collect();
    let made: Vec<Made> = (0..5).map(|i| commit(&odb, &[&states[i]], &[], i as u64).unwrap()).collect();
    let broken = made[2].sealed.pack.unwrap();
    let bytes = pack_bytes(&storage, &broken);
    overwrite(&storage, &broken.key(), &bytes[..bytes.len() / 2]);
    let odb = open(&storage);
    assert_eq!(odb.damaged().iter().map(|damage| damage.pack).collect::<Vec<_>>(), [broken]);
    for i in [0, 1, 3, 4] {
        assert_restores(&odb, &made[i], &[&states[i]]);
    }
    let error = odb.read_commit(&made[2].commit).unwrap_err();
    assert!(matches!(&error, OdbError::ObjectDamaged { object, pack, .. }
        if *pack == broken && *object == made[2].commit.into()));
    assert_eq!(odb.commits().unwrap().len(), 4);
}

/// Where the payload of the first entry lies.
const FIRST_PAYLOAD: usize = 32 + 48;

#[test]
fn a_chunk_that_was_damaged_on_disk_is_written_again_by_the_next_commit_of_a_new_process() {
    let storage = memory();
    let state = noise(1, 2 * CHUNK_BYTES);
    let first = commit(&open(&storage), &[&state], &[], 1).unwrap();
    let old = first.sealed.pack.unwrap();
    flip(&storage, &old, FIRST_PAYLOAD + 5000);
    let odb = open(&storage);
    let error = odb.read_tensor_bytes(&first.tensors[0]).unwrap_err();
    assert!(matches!(error, OdbError::ObjectDamaged { pack, .. } if pack == old), "{error}");
    // Having read it does not make it verified.
    let second = commit(&odb, &[&state], &[first.commit], 2).unwrap();
    let new = second.sealed.pack.unwrap();
    assert!(second.sealed.added_len > CHUNK_BYTES as u64, "the bad chunk was written");
    assert!(second.sealed.added_len < 2 * CHUNK_BYTES as u64, "the good one was not");
    for odb in [&odb, &open(&storage)] {
        assert_restores(odb, &first, &[&state]);
        assert_restores(odb, &second, &[&state]);
    }
    assert_eq!(odb.find_pack(&healed(&first).into()), Some(new));
    odb.write_caches().unwrap();
    assert_restores(&open(&storage), &first, &[&state]);
}

#[test]
fn what_was_healed_once_is_found_whole_by_every_process_after() {
    for with_cache in [false, true] {
        let storage = memory();
        let state = noise(1, CHUNK_BYTES);
        let first = commit(&open(&storage), &[&state], &[], 1).unwrap();
        if with_cache {
            open(&storage).write_caches().unwrap();
        }
        flip(&storage, &first.sealed.pack.unwrap(), FIRST_PAYLOAD + 1);
        let odb = open(&storage);
        let second = commit(&odb, &[&state], &[], 2).unwrap();
        assert_eq!(odb.find_pack(&healed(&first).into()), second.sealed.pack, "the new row wins");
        // Without an order among packs, a new process may look at the bad copy first; it is not healed twice.
        for step in 3..9 {
            let odb = open(&storage);
            let again = commit(&odb, &[&state], &[], step).unwrap();
            assert!(again.sealed.added_len < 1000, "{}", again.sealed.added_len);
            assert_eq!(odb.find_pack(&healed(&first).into()), second.sealed.pack);
            assert_restores(&odb, &first, &[&state]);
        }
    }
}

fn healed(made: &Made) -> gradient_object::ChunkId {
    match &made.tensors[0].data {
        gradient_object::TensorData::Chunks(chunks) => chunks[0],
        gradient_object::TensorData::Inline(_) => unreachable!(),
    }
}

#[test]
fn a_tree_that_was_damaged_on_disk_is_written_again() {
    let storage = memory();
    let state = noise(1, 400);
    let first = commit(&open(&storage), &[&state], &[], 1).unwrap();
    open(&storage).write_caches().unwrap();
    let pack = first.sealed.pack.unwrap();
    let bytes = pack_bytes(&storage, &pack);
    let footer = &bytes[bytes.len() - 128..];
    let first_block = u64::from_le_bytes(footer[..8].try_into().unwrap()) as usize;
    flip(&storage, &pack, first_block + 40);
    let odb = open(&storage);
    assert!(odb.read_tree(&first.tree).is_err_and(|error| error.is_damage()));
    let second = commit(&odb, &[&state], &[], 2).unwrap();
    assert_restores(&odb, &second, &[&state]);
    assert!(odb.read_tree(&first.tree).is_ok());
}

#[test]
fn what_this_process_has_verified_is_not_read_again() {
    let storage = memory();
    let odb = open(&storage);
    let state = noise(1, CHUNK_BYTES);
    let first = commit(&odb, &[&state], &[], 1).unwrap();
    flip(&storage, &first.sealed.pack.unwrap(), FIRST_PAYLOAD + 9);
    // The documented price of speed: only another process notices.
    let second = commit(&odb, &[&state], &[], 2).unwrap();
    assert!(second.sealed.added_len < 1000);
    let third = commit(&open(&storage), &[&state], &[], 3).unwrap();
    assert!(third.sealed.added_len > CHUNK_BYTES as u64);
}

#[test]
fn a_good_copy_in_another_pack_is_found_when_the_first_is_damaged() {
    let storage = memory();
    let state = noise(1, CHUNK_BYTES);
    let first = commit(&open(&storage), &[&state], &[], 1).unwrap();
    let odb = open(&storage);
    odb.exclude(&[first.sealed.pack.unwrap()]);
    let second = commit(&odb, &[&state], &[], 2).unwrap();
    assert!(second.sealed.added_len > CHUNK_BYTES as u64, "condemned packs are not relied on");
    for damaged in [&first, &second] {
        let pack = damaged.sealed.pack.unwrap();
        let whole = pack_bytes(&storage, &pack);
        flip(&storage, &pack, FIRST_PAYLOAD + 1);
        let odb = open(&storage);
        assert_restores(&odb, &first, &[&state]);
        assert_restores(&odb, &second, &[&state]);
        overwrite(&storage, &pack.key(), &whole);
    }
}

#[test]
fn a_lying_row_of_the_cache_costs_an_error_or_nothing_and_never_a_wrong_object() {
    let (storage, made, states) = small();
    open(&storage).write_caches().unwrap();
    let key = Key::cache("index").unwrap();
    let whole = storage.read(&key, u64::MAX).unwrap();
    let rows_at = 16 + 24 + 4 * 65_536;
    let num_rows = (whole.len() - 32 - rows_at) / 56;
    assert_eq!(num_rows, 7);
    // Offset, raw length, extent, header length, number of bases: lies with a valid checksum.
    let lies =
        [(32, 8, 0xff), (32, 1, 0x08), (40, 4, 0xff), (40, 1, 1), (44, 4, 0xff), (44, 1, 1), (52, 2, 0xff), (55, 1, 9)];
    for row in 0..num_rows {
        for (field, len, value) in lies {
            let mut lying = whole[..whole.len() - 32].to_vec();
            let at = rows_at + 56 * row + field;
            for byte in &mut lying[at..at + len] {
                *byte ^= value;
            }
            let hash = blake3::hash(&lying);
            lying.extend_from_slice(hash.as_bytes());
            overwrite(&storage, &key, &lying);
            // The packs themselves are right, so looking elsewhere finds the truth.
            let odb = open(&storage);
            match read_all(&odb, &made, &states) {
                Ok(()) => {}
                Err(error) => assert!(error.is_damage() || matches!(error, OdbError::WrongLength { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn a_lying_row_of_a_pack_is_refused_though_every_hash_is_right() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    let whole = pack_bytes(&storage, &pack);
    let end = whole.len() - 128;
    let first_block = u64::from_le_bytes(whole[end..end + 8].try_into().unwrap()) as usize;
    let index_at = u64::from_le_bytes(whole[end + 8..end + 16].try_into().unwrap()) as usize;
    for (field, value) in [
        (32, 0xf8),
        (33, 0x7f),
        (39, 0x40),
        (40, 1),
        (41, 2),
        (44, 1),
        (48, 1),
        (52, 1),
        (56, 1),
        (58, 1),
        (59, 5),
        (60, 1),
        (61, 1),
    ] {
        let mut lying = whole.clone();
        lying[index_at + field] ^= value;
        let hash = blake3::hash(&lying[first_block..end]);
        lying[end + 64..end + 96].copy_from_slice(hash.as_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&lying[..32]).update(&lying[end..end + 96]);
        lying[end + 96..].copy_from_slice(hasher.finalize().as_bytes());
        overwrite(&storage, &pack.key(), &lying);
        let odb = open(&storage);
        assert!(is_detected(&odb, &pack), "field at {field}");
        match read_all(&odb, &made, &states) {
            Ok(()) => {}
            Err(error) => assert!(error.is_damage(), "field at {field}: {error}"),
        }
    }
}

#[test]
fn a_pack_of_a_newer_version_is_refused_by_its_version() {
    let (storage, made, _) = small();
    let pack = made.sealed.pack.unwrap();
    let mut newer = pack_bytes(&storage, &pack);
    let end = newer.len() - 128;
    newer[4] = 2;
    newer[end + 60] = 2;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&newer[..32]).update(&newer[end..end + 96]);
    let hash = hasher.finalize();
    newer[end + 96..].copy_from_slice(hash.as_bytes());
    overwrite(&storage, &pack.key(), &newer);
    let odb = open(&storage);
    let error = odb.pack_objects(&pack).unwrap_err();
    assert!(matches!(error, OdbError::Unsupported { found: 2, supported: 1, .. }), "{error}");
    assert!(odb.damaged()[0].what.contains("version 2"));
}
