//! A check finds every change of every file, changes nothing itself, and says which commits are lost.

mod support;

use std::sync::Arc;

use gradient_object::CommitId;
use gradient_odb::{MergeLimits, Source};
use gradient_repo::{FsckLevel, FsckOptions, Progress, Repository, Severity, fsck, repair};
use gradient_storage::{Folder, Key, LocalStorage, MemoryStorage, Storage};
use support::{FULL, Line, all, check, new, put, reopen, sample, weight};

#[test]
fn a_healthy_repository_is_clean_at_every_level_and_stays_as_it_is() {
    let (storage, _repo, _) = sample();
    let before = all(&storage);
    for level in [FsckLevel::Quick, FsckLevel::Metadata, FsckLevel::Full] {
        let report = check(&storage, FsckOptions { level, sample_percent: 0.0 }).expect("checked");
        assert_eq!(report.findings, [], "{level:?}");
        assert!(report.is_clean() && report.lost.is_empty());
        assert_eq!((report.num_operations, report.num_packs, report.num_commits), (5, 3, 3));
        assert_eq!(report.num_packs_full, if level == FsckLevel::Full { 3 } else { 0 });
        assert_eq!(report.num_chunks, 2, "the fork's weight is that of step 2");
    }
    let sampled = check(&storage, FsckOptions { level: FsckLevel::Quick, sample_percent: 100.0 }).expect("checked");
    assert_eq!(sampled.num_packs_full, 3);
    assert_eq!(all(&storage), before, "a check wrote something");
}

#[test]
fn a_missing_file_is_found_and_the_commits_that_need_it_are_named() {
    let (storage, repo, made) = sample();
    let ids: Vec<CommitId> = made.iter().map(|(id, _)| *id).collect();
    let shared = repo.odb().find_pack(&gradient_odb::ObjectName::from(ids[1])).expect("the pack of step 2");
    let key = shared.key();
    let bytes = storage.read(&key, 1 << 20).expect("read");
    storage.delete(&key).expect("gone");
    let report = check(&storage, FULL).expect("checked");
    assert!(!report.is_clean());
    assert_eq!(report.lost.keys().copied().collect::<Vec<_>>(), sorted([ids[1], ids[2]]), "the first one is whole");
    put(&storage, &key, &bytes);

    for n in 2..=4 {
        let key = Key::operation(n);
        let bytes = storage.read(&key, 1 << 20).expect("read");
        storage.delete(&key).expect("gone");
        let report = check(&storage, FULL).expect("checked");
        let found = report.findings.iter().any(|finding| finding.file == key.to_string());
        assert!(found, "{:?}", report.findings);
        assert!(report.lost.is_empty());
        put(&storage, &key, &bytes);
    }
}

fn sorted<const N: usize>(mut ids: [CommitId; N]) -> Vec<CommitId> {
    ids.sort_unstable();
    ids.to_vec()
}

#[test]
fn what_a_crash_leaves_is_a_note() {
    let (storage, repo, made) = sample();
    let mut transaction = repo.odb().begin();
    transaction.add_tree(&gradient_object::Tree(gradient_object::Mapping::new())).expect("added");
    let lost: Vec<u8> = vec![9; 5000];
    transaction.add_sources(&[Source::plain(&lost)], None, &Progress::new()).expect("added");
    transaction.seal(&Progress::new()).expect("sealed");
    put(&storage, &Key::new(Folder::Tmp, "00112233445566778899aabbccddeeff.tmp").expect("a key"), b"half");
    let report = check(&storage, FULL).expect("checked");
    assert!(report.is_clean());
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Note), "{:?}", report.findings);
    assert_eq!(report.findings.len(), 2);
    assert!(report.num_orphans >= 1);
    assert_eq!(weight(&reopen(&storage), &made[0].0), made[0].1);
}

#[test]
fn what_is_nothing_of_ours_is_named_and_left_and_a_link_in_place_of_a_file_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join(".gradient-repo");
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::create(&place).expect("a new folder"));
    let repo = Repository::init(Arc::clone(&storage), "gpt", "").expect("a new repository").0;
    Line::new(&repo, "main").commit(1, 1);
    let strange = [
        "notes.txt",
        "packs/.nfs0001",
        "packs/0123.pack",
        "ops/5",
        "cache/\u{1b}[2J",
        "leases/README",
        "lost+found/READ ME",
    ];
    for name in strange {
        std::fs::write(place.join(name), b"mine").expect("there is room");
    }
    let report = fsck(&storage, FULL, &Progress::new()).expect("checked");
    assert!(report.is_clean());
    let named: Vec<_> = report.findings.iter().map(|found| (found.severity, &*found.file, &*found.what)).collect();
    let note = |folder, what| (Severity::Note, folder, what);
    assert_eq!(
        named,
        [
            note(".", "nothing of ours, left alone: \"notes.txt\""),
            note("ops", "nothing of ours, left alone: \"5\""),
            note("packs", "nothing of ours, left alone: \".nfs0001\", \"0123.pack\""),
            note("leases", "nothing of ours, left alone: \"README\""),
            note("lost+found", "nothing of ours, left alone: \"READ ME\""),
            note("cache", "nothing of ours, left alone: \"\\u{1b}[2J\""),
        ]
    );
    repair(&storage, true, &Progress::new()).expect("nothing to repair");
    for name in strange {
        assert_eq!(std::fs::read(place.join(name)).expect("still there"), b"mine", "{name}");
    }

    let pack = repo.odb().packs()[0].key();
    let name = pack.name();
    let elsewhere = folder.path().join("elsewhere.pack");
    std::fs::rename(place.join("packs").join(name), &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, place.join("packs").join(name)).expect("a link");
    let report = fsck(&storage, FULL, &Progress::new()).expect("checked");
    assert!(
        report.findings.iter().any(|found| found.severity == Severity::Error && found.file == pack.to_string()),
        "{:?}",
        report.findings
    );
}

fn mend(storage: &Arc<MemoryStorage>, apply: bool) -> gradient_repo::Repair {
    repair(&(storage.clone() as Arc<dyn Storage>), apply, &Progress::new()).expect("repaired")
}

#[test]
fn a_healthy_repository_is_not_repaired() {
    let (storage, _repo, _) = sample();
    let before = all(&storage);
    let plan = mend(&storage, true);
    assert!(plan.moves.is_empty() && plan.left.is_empty() && plan.log.is_none());
    assert_eq!(all(&storage), before);
}

#[test]
fn a_torn_head_is_moved_aside_and_its_commit_is_back_on_its_branch() {
    let (storage, repo, made) = sample();
    let tip = Line::from(&repo, "main", made[1].0).commit(3, 3).commit;
    let newest = Key::operation(repo.head_state().expect("open").operation.n);
    let bytes = storage.read(&newest, 1 << 20).expect("read");
    for torn in [Vec::new(), bytes[..bytes.len() / 2].to_vec(), vec![0; bytes.len()]] {
        let storage = Arc::new(MemoryStorage::new());
        storage.create_folders().expect("folders");
        for (key, bytes) in all_of(&repo) {
            put(&storage, &key, &bytes);
        }
        put(&storage, &newest, &torn);
        let before = all(&storage);
        let plan = mend(&storage, false);
        assert_eq!(all(&storage), before, "a dry run changed something");
        assert_eq!(plan.moves.iter().map(|step| step.file.clone()).collect::<Vec<_>>(), [newest.to_string()]);
        assert_eq!(plan.rescued, [("main".to_owned(), tip)]);

        let done = mend(&storage, true);
        let place = done.moves[0].to.clone().expect("it was moved");
        let aside = Key::new(Folder::LostFound, place.strip_prefix("lost+found/").expect("aside")).expect("a key");
        assert_eq!(storage.read(&aside, 1 << 20).expect("is there"), torn);
        assert!(check(&storage, FULL).expect("checked").is_clean());
        let mended = reopen(&storage);
        assert_eq!(mended.notices().expect("open"), Vec::<String>::new());
        assert_eq!(mended.resolve("main", None).expect("the branch").commit, tip);
        Line::from(&mended, "main", tip).commit(4, 4);
        assert!(mend(&storage, true).moves.is_empty());
    }
}

fn all_of(repo: &Repository) -> Vec<(Key, Vec<u8>)> {
    let storage = repo.odb().storage();
    let folders = [Folder::Root].into_iter().chain(Folder::FIXED);
    let keys = folders.flat_map(|folder| {
        let files = storage.list(folder).expect("listed").into_iter();
        files.map(move |file| Key::new(folder, &file.name).expect("a key"))
    });
    keys.map(|key| (key.clone(), storage.read(&key, 1 << 30).expect("read"))).collect()
}

#[test]
fn what_was_undone_stays_undone_when_a_head_is_repaired() {
    let (storage, repo, made) = sample();
    let undone = Line::from(&repo, "main", made[1].0).commit(3, 3).commit;
    repo.undo().expect("undone");
    repo.create_tag("later", made[0].0).expect("a tag");
    let newest = Key::operation(repo.head_state().expect("open").operation.n);
    put(&storage, &newest, b"torn");
    let plan = mend(&storage, true);
    assert_eq!(plan.rescued, []);
    assert_eq!(reopen(&storage).resolve("main", None).expect("the branch").commit, made[1].0);
    assert!(reopen(&storage).resolve(&undone.to_hex(), None).is_ok(), "it is still there by its id");
}

/// Makes a commit, twenty tags and a second commit; returns the operation with the whole table, and that commit.
fn commit_behind_a_table(repo: &Repository) -> (u64, CommitId) {
    let mut main = Line::new(repo, "main");
    let first = main.commit(1, 1).commit;
    for n in 0..20 {
        repo.create_tag(&format!("t{n}"), first).expect("a tag");
    }
    let whole = repo.head_state().expect("open").whole.0;
    (whole, main.commit(2, 2).commit)
}

#[test]
fn a_lost_table_costs_only_what_it_alone_changed() {
    let (storage, repo) = new();
    let (whole, tip) = commit_behind_a_table(&repo);
    let newest = repo.head_state().expect("open").operation.n;
    assert!(whole < newest);
    put(&storage, &Key::operation(whole), b"");
    let before = repo.head_state().expect("open").table;

    let done = mend(&storage, true);
    assert_eq!(done.moves.len() as u64, newest - whole + 1);
    let after = reopen(&storage).head_state().expect("open").table;
    let lost: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(lost.len() <= 1, "{lost:?}");
    assert_eq!(reopen(&storage).resolve("main", None).expect("the branch").commit, tip);
    assert!(check(&storage, FULL).expect("checked").is_clean());
    assert!(reopen(&storage).operations(None).is_ok(), "the list of operations has no gap");
}

#[test]
fn a_damaged_pack_goes_only_if_everything_needed_of_it_lies_elsewhere() {
    let (storage, repo, made) = sample();
    let pack = repo.odb().find_pack(&gradient_odb::ObjectName::from(made[0].0)).expect("the first pack");
    let mut bytes = storage.read(&pack.key(), 1 << 20).expect("read");
    bytes[100] ^= 1;
    put(&storage, &pack.key(), &bytes);
    let plan = mend(&storage, true);
    assert!(plan.moves.is_empty(), "{:?}", plan.moves);
    assert!(!plan.left.is_empty(), "what can not be repaired is named");
    assert!(storage.exists(&pack.key()).expect("looking is allowed"));
    bytes[100] ^= 1;
    put(&storage, &pack.key(), &bytes);

    // Merged, and the old ones not condemned yet: everything is there twice.
    let mut line = Line::from(&repo, "main", made[1].0);
    for step in 10..30 {
        line.commit(step, u8::try_from(step).expect("is small"));
    }
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 2, merged_len_max: 1 << 20 };
    repo.odb().merge_small(&limits, &Progress::new()).expect("merged").expect("there was something to merge");
    for at in [100, bytes.len() - 3] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        put(&storage, &pack.key(), &damaged);
        let done = mend(&storage, true);
        assert_eq!(done.moves.len(), 1, "{at}: {:?}", done.left);
        assert!(!storage.exists(&pack.key()).expect("looking is allowed"));
        assert!(check(&storage, FULL).expect("checked").is_clean());
        let mended = reopen(&storage);
        for (id, expected) in &made {
            assert_eq!(&weight(&mended, id), expected);
        }
        Line::from(&mended, &format!("after-{at}"), made[0].0).commit(99, 99);
    }
}

#[test]
fn damaged_caches_are_moved_aside_and_made_anew() {
    let (storage, repo, made) = sample();
    for (key, bytes) in all(&storage) {
        if [Folder::Cache, Folder::Leases].contains(&key.folder()) {
            put(&storage, &key, &bytes[..bytes.len() / 2]);
        }
    }
    let done = mend(&storage, true);
    assert_eq!(done.moves.len(), 2, "leases go by themselves: {:?}", done.moves);
    let left = check(&storage, FULL).expect("checked").findings;
    assert_eq!(left.len(), 2, "the lease, and the note about lost+found/: {left:?}");
    Line::from(&repo, "main", made[1].0).commit(3, 3);
    repo.odb().write_caches().expect("written again");
    assert!(check(&storage, FULL).expect("checked").is_clean());
}

#[test]
fn a_copy_in_a_condemned_pack_is_no_reason_to_let_the_other_one_go() {
    let (storage, repo, made) = sample();
    let mut line = Line::from(&repo, "main", made[1].0);
    for step in 10..30 {
        line.commit(step, u8::try_from(step).expect("is small"));
    }
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 2, merged_len_max: 1 << 20 };
    let merged =
        repo.odb().merge_small(&limits, &Progress::new()).expect("merged").expect("there was something to merge");
    // A writer that was killed after it published the condemnation, before it moved the packs.
    let head = repo.head_state().expect("open");
    let mut operation = head.operation.clone();
    operation.n += 1;
    operation.previous = Some(head.id);
    operation.kind = gradient_repo::OperationKind::Condemn;
    operation.subject = gradient_repo::Subject::None;
    operation.condemned.clone_from(&merged.old);
    operation.refs = gradient_repo::Refs::Whole(head.table.clone());
    let log = gradient_repo::OperationLog::new(storage.clone() as Arc<dyn Storage>);
    assert!(matches!(log.publish(Some(&head), operation), Ok(gradient_repo::Published::Done(_))));
    assert!(check(&storage, FULL).expect("checked").is_clean());

    let key = merged.new.key();
    let mut bytes = storage.read(&key, 1 << 20).expect("read");
    bytes[100] ^= 1;
    put(&storage, &key, &bytes);
    let report = check(&storage, FULL).expect("checked");
    assert!(!report.is_clean());
    assert!(report.findings.iter().any(|finding| finding.what.contains("condemned")), "{:?}", report.findings);
    let done = mend(&storage, true);
    assert!(done.moves.is_empty(), "{:?}", done.moves);
    assert!(storage.exists(&key).expect("looking is allowed"));
}

#[test]
fn a_repair_that_was_cut_off_is_finished_by_the_next_one() {
    let (storage, repo) = new();
    let (whole, tip) = commit_behind_a_table(&repo);
    let table = repo.head_state().expect("open").table;
    put(&storage, &Key::operation(whole), b"");
    let before = all(&storage);
    mend(&storage, true);
    let published = reopen(&storage).head_state().expect("open").table;
    assert!(table.iter().filter(|(name, _)| !published.contains_key(*name)).count() <= 1);

    // As a crash leaves it after the moves, where what is damaged can not be replaced in one step.
    let number = reopen(&storage).head_state().expect("open").operation.n;
    let bytes = storage.read(&Key::operation(number), 1 << 20).expect("read");
    put(&storage, &Key::pending(number), &bytes);
    storage.delete(&Key::operation(number)).expect("gone");
    let cut_off = reopen(&storage);
    let damaged = cut_off.head_state().expect("open").damaged.expect("it is known");
    assert_eq!((damaged.number, damaged.file), (number, Key::pending(number).to_string()));
    assert_ne!(cut_off.head_state().expect("open").table, published);
    let refused = cut_off.create_branch("other", tip, "other").expect_err("nobody writes");
    assert!(matches!(refused, gradient_repo::RepoError::DamagedHead { .. }), "{refused}");
    let done = mend(&storage, true);
    assert!(done.publishes && done.moves.is_empty());
    let mended = reopen(&storage);
    assert_eq!(mended.head_state().expect("open").table, published);
    assert_eq!(mended.resolve("main", None).expect("the branch").commit, tip);
    assert!(!mend(&storage, true).publishes, "once is enough");
    assert!(before.len() > whole as usize);
}

#[test]
fn a_repair_takes_no_more_commits_than_operations_were_lost() {
    let (storage, repo, made) = sample();
    // Two commits in a row on main, as two killed trainers left them: sealed and never published.
    let (orphan, branch) = (made[1].0, repo.resolve("main", None).expect("the branch").commit);
    assert_eq!(orphan, branch);
    let mut parent = branch;
    for step in [3, 4] {
        let mut transaction = repo.odb().begin();
        let mut commit = repo.commit_of(&branch).expect("the tip");
        (commit.step, commit.parents) = (step, vec![parent]);
        parent = transaction.add_commit(&commit).expect("added");
        transaction.seal(&Progress::new()).expect("sealed");
    }
    repo.create_tag("later", made[0].0).expect("a tag");
    let newest = Key::operation(repo.head_state().expect("open").operation.n);
    put(&storage, &newest, b"torn");
    let plan = mend(&storage, true);
    assert_eq!(plan.rescued.len(), 1, "one operation was lost");
    assert_eq!(plan.unnamed, [parent]);
}
