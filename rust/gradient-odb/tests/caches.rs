//! Caches change no answer: there, gone, old or damaged.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use gradient_object::{CHUNK_BYTES, CommitId};
use gradient_odb::{MergeLimits, ObjectName, Odb, Progress};
use gradient_storage::{Folder, Key, MemoryStorage, Storage};
use proptest::prelude::*;
use support::{Made, assert_restores, commit, memory, names, noise, open, overwrite};

/// What a repository answers.
fn answers(odb: &Odb, made: &[Made]) -> (Vec<(CommitId, u64)>, BTreeSet<ObjectName>) {
    let rows = odb.commits().unwrap();
    let mut commits: Vec<_> = rows.ids().map(|id| (id, rows.added_len(&id).unwrap())).collect();
    commits.sort_unstable();
    for made in made {
        let row = rows.get(&made.commit).unwrap().unwrap();
        assert_eq!(row, odb.read_commit(&made.commit).unwrap());
    }
    let objects = odb.packs().iter().flat_map(|pack| odb.pack_objects(pack).unwrap()).collect();
    (commits, objects)
}

fn twelve_commits(storage: &MemoryStorage) -> Vec<Made> {
    let odb = open(storage);
    let made = (0..12).map(|step| {
        if step == 7 {
            odb.write_caches().unwrap();
        }
        commit(&odb, &[&noise(step / 2 + 1, 700)], &[], step).unwrap()
    });
    made.collect()
}

#[test]
fn the_caches_gone_damaged_or_old_give_the_same_answers() {
    let storage = memory();
    let made = twelve_commits(&storage);
    let old = answers(&open(&storage), &made);
    assert_eq!(old.0.len(), 12);
    open(&storage).write_caches().unwrap();
    let new = answers(&open(&storage), &made);
    assert_eq!(new, old);
    assert_eq!(names(&storage, Folder::Cache), ["commits", "index"]);
    for name in ["commits", "index"] {
        let key = Key::cache(name).unwrap();
        let whole = storage.read(&key, u64::MAX).unwrap();
        for at in [0, 5, 9, 13, 20, 60, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 2;
            for damaged in [&flipped[..], &whole[..at], &[]] {
                overwrite(&storage, &key, damaged);
                assert_eq!(answers(&open(&storage), &made), old, "{name}, byte {at}");
            }
        }
        storage.delete(&key).unwrap();
        assert_eq!(answers(&open(&storage), &made), old);
        overwrite(&storage, &key, &whole);
    }
}

#[test]
fn a_cache_that_names_packs_that_are_gone_hides_nothing_of_the_others() {
    let storage = memory();
    let state = noise(1, CHUNK_BYTES);
    let first = commit(&open(&storage), &[&state], &[], 1).unwrap();
    let odb = open(&storage);
    odb.exclude(&[first.sealed.pack.unwrap()]);
    let second = commit(&odb, &[&state], &[], 2).unwrap();
    // Two packs hold the chunk; the cache names one of them.
    odb.write_caches().unwrap();
    for (gone, kept) in [(&first, &second), (&second, &first)] {
        let key = gone.sealed.pack.unwrap().key();
        let whole = storage.read(&key, u64::MAX).unwrap();
        let before = open(&storage);
        storage.delete(&key).unwrap();
        for odb in [&before, &open(&storage)] {
            assert_restores(odb, kept, &[&state]);
            assert!(odb.read_commit(&gone.commit).is_err());
            let rows = odb.commits().unwrap();
            assert_eq!(rows.ids().collect::<Vec<_>>(), [kept.commit]);
        }
        overwrite(&storage, &key, &whole);
    }
}

#[test]
fn the_caches_are_written_when_more_than_256_packs_are_not_in_them() {
    let storage = memory();
    let odb = open(&storage);
    for step in 0..256 {
        commit(&odb, &[], &[], step).unwrap();
        assert!(!odb.write_caches_if_stale().unwrap());
    }
    commit(&odb, &[], &[], 256).unwrap();
    assert!(odb.write_caches_if_stale().unwrap());
    assert!(!odb.write_caches_if_stale().unwrap());
    assert!(!open(&storage).write_caches_if_stale().unwrap());
}

#[test]
fn merging_keeps_every_object_and_what_each_commit_added() {
    let storage = memory();
    let odb = open(&storage);
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 30, merged_len_max: 1 << 30 };
    let states: Vec<Vec<u8>> = (0..40).map(|step| noise(step / 3 + 1, 1000)).collect();
    let mut made: Vec<Made> = Vec::new();
    for (step, state) in (0..).zip(&states) {
        assert_eq!(odb.num_small_packs(&limits), made.len());
        made.push(commit(&odb, &[state], &[], step).unwrap());
    }
    let before = answers(&odb, &made);
    let merged = odb.merge_small(&limits, &Progress::new()).unwrap().unwrap();
    assert_eq!(merged.old.len(), 40 - 16, "the newest are spared");
    let oldest: BTreeSet<_> = made[..24].iter().map(|made| made.sealed.pack.unwrap()).collect();
    assert_eq!(merged.old.iter().copied().collect::<BTreeSet<_>>(), oldest);
    let beside = open(&storage);
    assert_eq!(answers(&beside, &made), before, "while both are there");
    odb.exclude(&merged.old);
    odb.retire(&merged.old).unwrap();
    assert_eq!(names(&storage, Folder::Packs).len(), 17);
    assert_eq!(names(&storage, Folder::Trash).len(), 24);
    for odb in [&odb, &beside, &open(&storage)] {
        for (made, state) in made.iter().zip(&states) {
            assert_restores(odb, made, &[state]);
        }
        odb.refresh().unwrap();
        assert_eq!(answers(odb, &made), before);
    }
    let report = odb.verify_pack(&merged.new, gradient_odb::VerifyLevel::Full, &Progress::new()).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.num_commits, 24);
    assert!(odb.merge_small(&limits, &Progress::new()).unwrap().is_none());
    // What was verified before is verified still: an old state costs nothing but its commit.
    let again = commit(&odb, &[&states[0]], &[], 99).unwrap();
    assert!(again.sealed.added_len < 1000);
    odb.write_caches().unwrap();
    let now = answers(&open(&storage), &made);
    assert!(before.0.iter().all(|row| now.0.contains(row)));
}

#[test]
fn a_damaged_pack_is_not_merged_and_not_condemned() {
    let storage = memory();
    let odb = open(&storage);
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 20, merged_len_max: 1 << 30 };
    let made: Vec<Made> = (0..30).map(|step| commit(&odb, &[&noise(step + 1, 900)], &[], step).unwrap()).collect();
    let broken = made[3].sealed.pack.unwrap();
    support::flip(&storage, &broken, 100);
    let merged = odb.merge_small(&limits, &Progress::new()).unwrap().unwrap();
    assert_eq!(merged.old.len(), 30 - 16 - 1);
    assert!(!merged.old.contains(&broken));
    let report = odb.verify_pack(&merged.new, gradient_odb::VerifyLevel::Full, &Progress::new()).unwrap();
    assert_eq!(report.damage, []);
}

#[test]
fn a_commit_whose_chunks_moved_in_a_merge_still_holds_and_one_whose_pack_went_does_not() {
    let storage = memory();
    let odb = open(&storage);
    let state = noise(1, 2000);
    for step in 0..40 {
        commit(&odb, &[&state], &[], step).unwrap();
    }
    let writer = open(&storage);
    let made = commit(&writer, &[&state], &[], 100).unwrap();
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 20, merged_len_max: 1 << 30 };
    let merged = odb.merge_small(&limits, &Progress::new()).unwrap().unwrap();
    odb.retire(&merged.old).unwrap();
    writer.refresh().unwrap();
    writer.exclude(&merged.old);
    assert!(writer.still_holds(&made.sealed).unwrap(), "the merged pack has it all");
    writer.exclude(&[merged.new]);
    assert!(!writer.still_holds(&made.sealed).unwrap());
    let other = open(&storage);
    assert!(other.still_holds(&made.sealed).unwrap());
    other.exclude(&[made.sealed.pack.unwrap()]);
    assert!(!other.still_holds(&made.sealed).unwrap(), "its own pack is condemned");
    storage.delete(&made.sealed.pack.unwrap().key()).unwrap();
    assert!(!open(&storage).still_holds(&made.sealed).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_merged_index_finds_what_the_packs_indexes_hold_and_nothing_else(
        steps in prop::collection::vec((0_u64..6, 0_u8..4), 1..14),
    ) {
        let storage = memory();
        let mut odb = open(&storage);
        let mut kept: Vec<Made> = Vec::new();
        for (step, (seed, what)) in (0..).zip(steps) {
            match what {
                0 => odb.write_caches().unwrap(),
                1 => odb = open(&storage),
                2 if kept.len() > 1 => {
                    // A pack goes; what others hold must stay found.
                    let gone = kept.remove(seed as usize % kept.len());
                    storage.delete(&gone.sealed.pack.unwrap().key()).unwrap();
                    odb.refresh().unwrap();
                }
                _ => odb.exclude(&odb.packs()),
            }
            kept.push(commit(&odb, &[&noise(seed + 1, 600)], &[], step).unwrap());
            let mut held = BTreeSet::new();
            for pack in odb.packs() {
                for object in odb.pack_objects(&pack).unwrap() {
                    held.insert(object);
                    let found = odb.find_pack(&object);
                    prop_assert!(found.is_some_and(|pack| odb.pack_objects(&pack).unwrap().contains(&object)));
                }
            }
            for made in &kept {
                let commit = ObjectName::from(made.commit);
                prop_assert_eq!(odb.find_pack(&commit).is_some(), held.contains(&commit));
            }
            prop_assert_eq!(odb.packs().len(), kept.len());
        }
    }
}
