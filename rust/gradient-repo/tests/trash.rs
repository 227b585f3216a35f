//! A condemned pack is deleted only while what took its place is good: it may have been damaged since.

mod support;

use std::sync::Arc;

use gradient_odb::{MergeLimits, PackId};
use gradient_repo::{
    FsckLevel, FsckOptions, LogQuery, OperationKind, OperationLog, Progress, Published, Refs, Subject, UpkeepLimits,
    fsck,
};
use gradient_storage::{Folder, Key, MemoryStorage, Storage};
use support::{Line, new, reopen, weight};

const NUM_COMMITS: u8 = 20;

fn files(storage: &Arc<MemoryStorage>, folder: Folder) -> Vec<PackId> {
    let listed = storage.list(folder).expect("listed");
    listed.iter().filter_map(|file| PackId::from_file_name(&file.name)).collect()
}

fn read(storage: &Arc<MemoryStorage>, key: &Key) -> Vec<u8> {
    storage.read(key, 1 << 24).expect("it is there")
}

/// Merges small packs; what they were lies in the trash as if a transaction had spared it, and `spoil` does something
/// to the pack that took their place.
fn after_a_merge(spoil: impl Fn(&Arc<MemoryStorage>, &Key)) {
    let (storage, mut repo) = new();
    let mut line = Line::new(&repo, "main");
    let commits: Vec<_> = (1..=NUM_COMMITS).map(|n| (n, line.commit(n.into(), n).commit)).collect();
    let before: Vec<_> =
        files(&storage, Folder::Packs).into_iter().map(|pack| (pack, read(&storage, &pack.key()))).collect();
    let merge = MergeLimits { num_small_max: 17, ..MergeLimits::default() };
    repo.set_upkeep_limits(UpkeepLimits { merge, ..UpkeepLimits::default() });
    repo.maintain().expect("merged");
    let after = files(&storage, Folder::Packs);
    assert!(files(&storage, Folder::Trash).is_empty());
    for (pack, bytes) in before.iter().filter(|(pack, _)| !after.contains(pack)) {
        storage.overwrite(&Key::trash_pack(pack.as_bytes()), bytes).expect("back in the trash");
    }
    let is_new = |pack: &&PackId| before.iter().all(|(old, _)| old != *pack);
    let merged = after.iter().find(is_new).expect("a merged pack").key();
    spoil(&storage, &merged);
    drop(repo);
    reopen(&storage).maintain().expect("upkeep");

    assert!(files(&storage, Folder::Trash).is_empty(), "what is good elsewhere, or was brought back, goes");
    let repo = reopen(&storage);
    for (n, commit) in &commits {
        assert_eq!(weight(&repo, commit), vec![*n; 4000], "commit {n}");
    }
    let options = FsckOptions { level: FsckLevel::Full, sample_percent: 0.0 };
    let report = fsck(&(storage.clone() as Arc<dyn Storage>), options, &Progress::new()).expect("checked");
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    assert!(report.findings.iter().all(|finding| finding.file == merged.to_string()), "{:?}", report.findings);
    assert!(files(&storage, Folder::Packs).len() <= after.len() + 1, "all of it in one pack");
}

#[test]
fn what_a_merged_pack_holds_well_is_not_brought_back() {
    after_a_merge(|storage, merged| {
        let num_packs = files(storage, Folder::Packs).len();
        reopen(storage).maintain().expect("upkeep");
        assert_eq!(files(storage, Folder::Packs).len(), num_packs);
        assert!(storage.exists(merged).expect("looked"));
    });
}

#[test]
fn what_a_merged_pack_lost_to_damage_is_brought_back_from_the_trash() {
    for at in 0..10 {
        after_a_merge(|storage, merged| {
            let mut bytes = read(storage, merged);
            let at = bytes.len() * at / 10;
            bytes[at] ^= 1;
            storage.overwrite(merged, &bytes).expect("damaged");
        });
    }
}

#[test]
fn what_a_merged_pack_held_that_is_gone_is_brought_back_from_the_trash() {
    after_a_merge(|storage, merged| storage.delete(merged).expect("gone"));
}

#[test]
fn what_nothing_needs_is_not_brought_back() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    let (other, elsewhere) = new();
    Line::new(&elsewhere, "main").commit(2, 2);
    let pack = files(&other, Folder::Packs)[0];
    storage.overwrite(&Key::trash_pack(pack.as_bytes()), &read(&other, &pack.key())).expect("in the trash");
    repo.maintain().expect("upkeep");
    assert!(files(&storage, Folder::Trash).is_empty());
    assert_eq!(files(&storage, Folder::Packs).len(), 1);
    assert_eq!(weight(&repo, &one), vec![1; 4000]);
}

#[test]
fn a_log_is_whole_for_whoever_opened_before_packs_were_merged() {
    let (storage, mut repo) = new();
    let mut line = Line::new(&repo, "main");
    let tip = (1..=NUM_COMMITS).map(|n| line.commit(n.into(), n).commit).last().expect("commits");
    let before = reopen(&storage);
    let merge = MergeLimits { num_small_max: 17, ..MergeLimits::default() };
    repo.set_upkeep_limits(UpkeepLimits { merge, ..UpkeepLimits::default() });
    repo.maintain().expect("merged");
    let query = LogQuery { start: vec![tip], ..LogQuery::default() };
    assert_eq!(before.history(&query).expect("all of it").len(), usize::from(NUM_COMMITS));
}

#[test]
fn a_condemned_pack_stays_condemned_while_it_can_not_be_read() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    let (other, elsewhere) = new();
    Line::new(&elsewhere, "main").commit(2, 2);
    let pack = files(&other, Folder::Packs)[0];
    let bytes = read(&other, &pack.key());
    storage.overwrite(&pack.key(), &bytes[..bytes.len() / 2]).expect("a pack that can not be read");
    let log = OperationLog::new(storage.clone());
    let head = log.head().expect("read").expect("a head");
    let mut operation = head.operation.clone();
    (operation.n, operation.previous) = (head.operation.n + 1, Some(head.id));
    (operation.kind, operation.subject) = (OperationKind::Condemn, Subject::None);
    (operation.refs, operation.condemned) = (Refs::Whole(head.table.clone()), vec![pack]);
    assert!(matches!(log.publish(Some(&head), operation).expect("published"), Published::Done(_)));

    let repo = reopen(&storage);
    Line::from(&repo, "main", one).commit(3, 3);
    assert_eq!(repo.head_state().expect("open").operation.condemned, [pack]);
}
