//! Damage to the header, index or footer of a pack, or to its end, costs no commit that can still be read, and no commit
//! that is made after it.

mod support;

use gradient_odb::{ObjectName, PackId};
use gradient_repo::{LogQuery, Severity};
use gradient_storage::{Folder, Key, MemoryStorage, Storage};
use support::{FULL, Line, check, new, put, reopen, sample, weight};

fn forget_caches(storage: &MemoryStorage) {
    for name in ["index", "commits"] {
        storage.delete(&Key::cache(name).expect("a cache")).ok();
    }
}

/// A byte of the header, of the footer, of the index, and a cut end, of a pack as it was written.
fn damages(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let foot = whole.len() - 128;
    let index_at = usize::try_from(u64::from_le_bytes(whole[foot + 8..][..8].try_into().expect("eight bytes")));
    let index_at = index_at.expect("a small pack");
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    vec![
        ("header", flipped(9)),
        ("footer", flipped(foot + 20)),
        ("hash in the footer", flipped(whole.len() - 1)),
        ("index", flipped(index_at + 33)),
        ("cut in the footer", whole[..foot + 40].to_vec()),
        ("cut before the index", whole[..index_at].to_vec()),
    ]
}

fn packs(storage: &MemoryStorage) -> Vec<PackId> {
    let listed = storage.list(Folder::Packs).expect("listed");
    listed.iter().filter_map(|file| PackId::from_file_name(&file.name)).collect()
}

#[test]
fn every_commit_comes_back_though_no_index_of_any_pack_is_left() {
    for has_caches in [true, false] {
        for which in 0..6 {
            let (storage, repo, made) = sample();
            drop(repo);
            for pack in packs(&storage) {
                let whole = storage.read(&pack.key(), 1 << 20).expect("read");
                put(&storage, &pack.key(), &damages(&whole)[which].1);
            }
            if !has_caches {
                forget_caches(&storage);
            }
            let report = check(&storage, FULL).expect("checked");
            assert!(report.lost.is_empty(), "{which}, {has_caches}: {:?}", report.lost);
            for pack in packs(&storage) {
                let named = report.findings.iter().find(|finding| finding.file == pack.key().to_string());
                assert_eq!(named.expect("the pack is named").severity, Severity::Error);
            }
            let repo = reopen(&storage);
            for (id, bytes) in &made {
                assert_eq!(&weight(&repo, id), bytes, "{which}, {has_caches}");
                assert!(repo.verify(id, &gradient_repo::Progress::new()).is_ok());
                let rows = repo.history(&LogQuery { start: vec![*id], ..LogQuery::default() }).expect("a history");
                assert!(!rows.is_empty());
            }
        }
    }
}

#[test]
fn commits_after_damage_need_nothing_of_the_damaged_pack() {
    for which in 0..6 {
        let (storage, repo, made) = sample();
        let pack = repo.odb().find_pack(&ObjectName::from(made[0].0)).expect("the first pack");
        drop(repo);
        let whole = storage.read(&pack.key(), 1 << 20).expect("read");
        let (what, bytes) = damages(&whole).swap_remove(which);
        put(&storage, &pack.key(), &bytes);
        // Another process, to which the cache says that the pack holds the chunk.
        let repo = reopen(&storage);
        assert_eq!(weight(&repo, &made[0].0), made[0].1, "{what}");
        let mut line = Line::from(&repo, "after", made[2].0);
        let again = line.try_commit(50, 1, 1100).expect("a commit").commit;
        repo.close().expect("closed");
        forget_caches(&storage);
        storage.delete(&pack.key()).expect("gone altogether");
        assert_eq!(weight(&reopen(&storage), &again), made[0].1, "{what}: acknowledged after the damage");
        put(&storage, &pack.key(), &bytes);
        let report = check(&storage, FULL).expect("checked");
        assert!(report.lost.is_empty(), "{what}: {:?}", report.lost);
    }
}

#[test]
fn what_a_check_calls_lost_is_what_can_not_be_read() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let ids: Vec<_> = (1..4).map(|step| line.commit(step, u8::try_from(step).expect("small")).commit).collect();
    let pack = repo.odb().find_pack(&ObjectName::from(ids[2])).expect("its pack");
    drop(repo);
    let whole = storage.read(&pack.key(), 1 << 20).expect("read");
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole[..whole.len() - 1].to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 4;
        }
        put(&storage, &pack.key(), &bytes);
        let report = check(&storage, FULL).expect("checked");
        let repo = reopen(&storage);
        for id in &ids {
            let is_whole = repo.verify(id, &gradient_repo::Progress::new()).is_ok();
            assert_eq!(is_whole, !report.lost.contains_key(id), "byte {at}: {id}, {:?}", report.findings);
        }
    }
}
