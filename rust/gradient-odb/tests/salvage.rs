//! A pack whose header, index or footer is damaged, or whose end is cut off, is read as far as its entries are there; no
//! new commit relies on it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gradient_object::CHUNK_BYTES;
use gradient_odb::{Odb, PackId, Progress, VerifyLevel};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};
use support::{Made, assert_restores, commit, memory, noise, open, overwrite, pack_bytes};

/// Raw and coded entries, padding of several lengths, trees and a commit.
fn small() -> (MemoryStorage, Made, Vec<Vec<u8>>) {
    let storage = memory();
    let states = vec![noise(1, 301), noise(2, 262), vec![7; 5000]];
    let made = commit(&open(&storage), &borrowed(&states), &[], 1).unwrap();
    (storage, made, states)
}

fn borrowed(states: &[Vec<u8>]) -> Vec<&[u8]> {
    states.iter().map(Vec::as_slice).collect()
}

/// Where the first block, the index and the footer begin.
fn parts(bytes: &[u8]) -> (usize, usize, usize) {
    let foot = bytes.len() - 128;
    let at = |field: usize| u64::from_le_bytes(bytes[foot + field..][..8].try_into().unwrap()) as usize;
    (at(0), at(8), foot)
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1 << (at % 8);
    flipped
}

/// Every byte of header, index and footer flipped, and the end cut off anywhere behind the blocks.
fn damaged_without_loss(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (_, index_at, _) = parts(bytes);
    let flips = (0..32).chain(index_at..bytes.len()).map(|at| (format!("byte {at}"), flipped(bytes, at)));
    let cuts = (index_at..bytes.len()).map(|len| (format!("cut at {len}"), bytes[..len].to_vec()));
    flips.chain(cuts).collect()
}

/// Puts `bytes` where the pack lies, with a cache that was written before and without.
fn with_and_without_caches(storage: &MemoryStorage, pack: &PackId, bytes: &[u8], then: impl Fn(&str)) {
    let whole = pack_bytes(storage, pack);
    for has_caches in [true, false] {
        overwrite(storage, &pack.key(), &whole);
        forget_caches(storage);
        if has_caches {
            open(storage).write_caches().unwrap();
        }
        overwrite(storage, &pack.key(), bytes);
        then(if has_caches { "with caches" } else { "without caches" });
    }
    overwrite(storage, &pack.key(), &whole);
    forget_caches(storage);
}

fn forget_caches(storage: &MemoryStorage) {
    for name in ["index", "commits"] {
        storage.delete(&Key::cache(name).unwrap()).ok();
    }
}

#[test]
fn everything_comes_back_from_a_pack_whose_header_index_or_footer_is_damaged() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    for (what, bytes) in damaged_without_loss(&pack_bytes(&storage, &pack)) {
        with_and_without_caches(&storage, &pack, &bytes, |how| {
            let odb = open(&storage);
            assert_restores(&odb, &made, &borrowed(&states));
            assert_eq!(odb.commits().unwrap().len(), 1, "{what} {how}");
            assert_eq!(odb.commit_prefix(&made.commit.to_hex()), [made.commit], "{what} {how}");
            let report = odb.verify_pack(&pack, VerifyLevel::Full, &Progress::new()).unwrap();
            assert!(report.is_walked && report.damage.len() == 1 && report.damage[0].object.is_none(), "{what} {how}");
            assert_eq!((report.num_chunks, report.num_trees, report.num_commits), (3, 3, 1), "{what} {how}");
            assert_eq!(odb.damaged().len(), 1, "{what} {how}: it stays a damaged pack");
        });
    }
}

#[test]
fn no_new_commit_relies_on_a_damaged_pack() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    for (what, bytes) in damaged_without_loss(&pack_bytes(&storage, &pack)).into_iter().step_by(5) {
        with_and_without_caches(&storage, &pack, &bytes, |how| {
            for has_read_before in [false, true] {
                let odb = open(&storage);
                if has_read_before {
                    // Which makes the chunks verified.
                    let tensors: Vec<_> = made.tensors.iter().collect();
                    odb.verify_tensors(&tensors, &Progress::new()).unwrap();
                }
                let next = commit(&odb, &borrowed(&states), &[made.commit], 2).unwrap();
                assert!(next.sealed.relied.iter().all(|relied| relied.pack != pack), "{what} {how}");
                odb.write_caches().unwrap();
                forget_caches(&storage);
                // The damaged pack goes: what was committed since needs nothing of it.
                let moved = pack_bytes(&storage, &pack);
                storage.delete(&pack.key()).unwrap();
                assert_restores(&open(&storage), &next, &borrowed(&states));
                overwrite(&storage, &pack.key(), &moved);
                storage.delete(&next.sealed.pack.unwrap().key()).unwrap();
                forget_caches(&storage);
            }
        });
    }
}

#[test]
fn what_a_walk_found_is_in_no_cache() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    let bytes = pack_bytes(&storage, &pack);
    overwrite(&storage, &pack.key(), &flipped(&bytes, bytes.len() - 1));
    let odb = open(&storage);
    assert_restores(&odb, &made, &borrowed(&states));
    assert_eq!(odb.commits().unwrap().len(), 1);
    odb.write_caches().unwrap();
    assert_eq!(odb.commits().unwrap().len(), 1);
    storage.delete(&pack.key()).unwrap();
    let odb = open(&storage);
    assert!(!odb.has_commit(&made.commit));
    assert_eq!(odb.commits().unwrap().len(), 0);
}

#[test]
fn a_pack_that_is_whole_again_is_no_damaged_one() {
    let (storage, made, states) = small();
    let pack = made.sealed.pack.unwrap();
    let bytes = pack_bytes(&storage, &pack);
    overwrite(&storage, &pack.key(), &flipped(&bytes, 3));
    let odb = open(&storage);
    assert_restores(&odb, &made, &borrowed(&states));
    overwrite(&storage, &pack.key(), &bytes);
    odb.refresh().unwrap();
    assert_eq!(odb.damaged(), []);
    assert_restores(&odb, &made, &borrowed(&states));
    let again = commit(&odb, &borrowed(&states), &[], 2).unwrap();
    assert!(again.sealed.relied.iter().any(|relied| relied.pack == pack));
}

#[test]
fn entries_behind_damaged_ones_are_found_too() {
    let storage = memory();
    let states: Vec<Vec<u8>> = (1..9).map(|seed| noise(seed, 3000 + 7 * seed as usize)).collect();
    let made = commit(&open(&storage), &borrowed(&states), &[], 1).unwrap();
    let pack = made.sealed.pack.unwrap();
    let whole = pack_bytes(&storage, &pack);
    let (first_block, index_at, foot) = parts(&whole);
    // The offset of each entry, by the index.
    let mut entries: Vec<usize> = whole[index_at..foot]
        .chunks_exact(64)
        .take(states.len())
        .map(|row| u64::from_le_bytes(row[32..40].try_into().unwrap()) as usize)
        .collect();
    entries.sort_unstable();
    for entry in entries {
        // Header length, number of bases, number of stages, raw length, encoded length: each makes the next one hard to find.
        for field in [4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 20] {
            for value in [1, 0x10, 0xff] {
                let mut bytes = whole.clone();
                bytes[entry + field] ^= value;
                bytes[foot + 100] ^= 1;
                overwrite(&storage, &pack.key(), &bytes);
                let odb = open(&storage);
                let num_read = made
                    .tensors
                    .iter()
                    .zip(&states)
                    .filter(|(tensor, state)| odb.read_tensor_bytes(tensor).is_ok_and(|raw| raw == **state))
                    .count();
                assert_eq!(num_read, states.len() - 1, "entry at {entry}, byte {field}, {value:#x}");
                assert!(odb.read_commit(&made.commit).is_ok());
            }
        }
    }
    // Rubbish between the entries and the blocks.
    let mut bytes = whole[..first_block].to_vec();
    bytes.extend(noise(77, 1003));
    bytes.extend_from_slice(&whole[first_block..]);
    overwrite(&storage, &pack.key(), &bytes);
    assert_restores(&open(&storage), &made, &borrowed(&states));
}

#[test]
fn what_is_cut_off_is_lost_and_nothing_before_it() {
    let storage = memory();
    let states: Vec<Vec<u8>> = (1..5).map(|seed| noise(seed, 3000)).collect();
    let made = commit(&open(&storage), &borrowed(&states), &[], 1).unwrap();
    let pack = made.sealed.pack.unwrap();
    let whole = pack_bytes(&storage, &pack);
    for len in (0..whole.len()).step_by(97) {
        overwrite(&storage, &pack.key(), &whole[..len]);
        let odb = open(&storage);
        let is_read = |(tensor, state): &(&gradient_object::Tensor, &Vec<u8>)| {
            odb.read_tensor_bytes(tensor).is_ok_and(|raw| raw == **state)
        };
        let num_read = made.tensors.iter().zip(&states).filter(is_read).count();
        let num_whole = len.saturating_sub(32).div_euclid(48 + 3000).min(4);
        assert_eq!(num_read, num_whole, "cut at {len}");
    }
}

#[test]
fn a_walk_through_rubbish_ends_soon() {
    let storage = memory();
    let pack = PackId::from_bytes([9; 16]);
    // Every eight bytes the header of an entry of a whole chunk that is none: the worst case for a search.
    let mut head = vec![0; 48];
    head[4..6].copy_from_slice(&48_u16.to_le_bytes());
    head[8..12].copy_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
    let mut bytes = vec![0; 32];
    for _ in 0..100_000 {
        bytes.extend_from_slice(&head);
    }
    // The longest headers that there may be, one every 304 bytes, each of which holds the next ones.
    let mut long = [0; 304];
    long[4..6].copy_from_slice(&u16::MAX.to_le_bytes());
    long[7] = 255;
    long[8..12].copy_from_slice(&9_u32.to_le_bytes());
    long[12..16].copy_from_slice(&9_u32.to_le_bytes());
    long[48..].fill(0xff);
    // Frames of some MiB, each of which lies in the one before: magic, no content size but eight bytes' of one, and raw
    // blocks of 128 KiB that hold the next frame's beginning.
    let mut frame = [0; 32];
    frame[..4].copy_from_slice(&0xFD2F_B528_u32.to_le_bytes());
    frame[4] = 0xe0;
    frame[5..13].copy_from_slice(&1000_u64.to_le_bytes());
    frame[13..16].copy_from_slice(&[0, 0, 0x10]);
    let magic = 0xFD2F_B528_u32.to_le_bytes();
    for rubbish in
        [bytes, vec![0; 5 << 20], noise(3, 5 << 20), magic.repeat(1 << 20), long.repeat(20_000), frame.repeat(1 << 18)]
    {
        storage.replace(&pack.key(), &rubbish, Durability::Unsynced).unwrap();
        let started = Instant::now();
        let odb = Odb::open(Arc::new(storage.clone())).unwrap();
        assert_eq!(odb.damaged().len(), 1);
        // It takes a second at most; where nothing bounds it, minutes.
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert_eq!(storage.list(Folder::Packs).unwrap().len(), 1);
    }
}
