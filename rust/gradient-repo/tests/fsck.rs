//! A check finds every change of every file, changes nothing itself, and says which commits are lost.

mod support;

use std::sync::Arc;

use gradient_object::CommitId;
use gradient_odb::MergeLimits;
use gradient_repo::{FsckLevel, FsckOptions, FsckReport, Progress, RepoError, Repository, Severity, fsck, repair};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};
use support::{Line, new, reopen, weight};

const FULL: FsckOptions = FsckOptions { level: FsckLevel::Full, sample_percent: 0.0 };

fn check(storage: &Arc<MemoryStorage>, options: FsckOptions) -> Result<FsckReport, RepoError> {
    fsck(&(storage.clone() as Arc<dyn Storage>), options, &Progress::new())
}

/// All files of a repository with their bytes.
fn all(storage: &MemoryStorage) -> Vec<(Key, Vec<u8>)> {
    let folders = [Folder::Root].into_iter().chain(Folder::FIXED);
    let listed = folders.flat_map(|folder| {
        let files = storage.list(folder).expect("listed").into_iter();
        files.map(move |file| Key::new(folder, &file.name).expect("a key"))
    });
    listed.map(|key| (key.clone(), storage.read(&key, 1 << 30).expect("read"))).collect()
}

fn put(storage: &MemoryStorage, key: &Key, bytes: &[u8]) {
    storage.replace(key, bytes, Durability::Unsynced).expect("there is room");
}

/// Commits with the bytes of each.
type Made = Vec<(CommitId, Vec<u8>)>;

/// Three commits on two branches, a tag, one shared chunk, caches, and a writer that is still there.
fn sample() -> (Arc<MemoryStorage>, Repository, Made) {
    let (storage, repo) = new();
    let mut made = Vec::new();
    let mut main = Line::new(&repo, "main");
    for (step, fill) in [(1, 1), (2, 2)] {
        made.push(main.try_commit(step, fill, 1100).expect("a commit").commit);
    }
    repo.create_tag("best", made[0]).expect("a tag");
    let mut fork = Line::from(&repo, "fork", made[0]);
    made.push(fork.try_commit(7, 2, 1100).expect("a commit").commit);
    repo.odb().write_caches().expect("caches");
    let made = made.into_iter().map(|id| (id, weight(&repo, &id))).collect();
    (storage, repo, made)
}

/// What a reader gets of each commit is what was committed, or an error.
fn assert_no_wrong_bytes(storage: &Arc<MemoryStorage>, made: &[(CommitId, Vec<u8>)], what: &str) {
    let Ok(repo) = Repository::open(storage.clone() as Arc<dyn Storage>) else { return };
    for (id, bytes) in made {
        let Ok(model) = repo.component(id, "model", "main") else { continue };
        gradient_object::Value::Map(model).for_each_tensor(&mut |tensor| {
            if let Ok(read) = repo.odb().read_tensor_bytes(tensor) {
                assert_eq!(&read, bytes, "{what}: wrong bytes were returned");
            }
        });
    }
}

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
fn every_flipped_byte_of_every_file_is_found() {
    let (storage, _repo, made) = sample();
    let mut num_flips = 0;
    for (key, bytes) in all(&storage).into_iter().filter(|(key, _)| *key != Key::config()) {
        // Most of this cache is a table of zeros: its head and rows in full, of the rest one byte in 512.
        let is_tried = |at: &usize| {
            key.to_string() != "cache/index" || *at < 600 || at.is_multiple_of(512) || bytes.len() - at < 600
        };
        for at in (0..bytes.len()).filter(is_tried) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            put(&storage, &key, &flipped);
            num_flips += 1;
            match check(&storage, FULL) {
                Ok(report) => {
                    let found = report.findings.iter().any(|finding| finding.file == key.to_string());
                    assert!(found, "{key}, byte {at}: {:?}", report.findings);
                }
                // The version in `format`.
                Err(RepoError::Unsupported { file, .. }) => assert_eq!(file, key.to_string()),
                Err(error) => unreachable!("{key}, byte {at}: {error}"),
            }
            if at.is_multiple_of(16) {
                assert_no_wrong_bytes(&storage, &made, &format!("{key}, byte {at}"));
            }
        }
        put(&storage, &key, &bytes);
    }
    eprintln!("{num_flips} flips, all found");
    assert!(check(&storage, FULL).expect("checked").is_clean());
}

#[test]
fn every_shorter_file_and_every_longer_one_is_found() {
    let (storage, _repo, made) = sample();
    let mut num_cuts = 0_u32;
    for (key, bytes) in all(&storage).into_iter().filter(|(key, _)| *key != Key::config()) {
        let step = if key.to_string() == "cache/index" { 4099 } else { 3 };
        let cuts = (0..bytes.len()).step_by(step).map(|len| bytes[..len].to_vec());
        let longer = [1, 64, 5000].map(|more| [bytes.clone(), vec![0; more]].concat());
        for changed in cuts.chain(longer) {
            put(&storage, &key, &changed);
            num_cuts += 1;
            let report = check(&storage, FULL).expect("checked");
            let found = report.findings.iter().any(|finding| finding.file == key.to_string());
            assert!(found, "{key}, {} of {} bytes: {:?}", changed.len(), bytes.len(), report.findings);
            if num_cuts.is_multiple_of(16) {
                assert_no_wrong_bytes(&storage, &made, &format!("{key}, {} bytes", changed.len()));
            }
        }
        put(&storage, &key, &bytes);
    }
    eprintln!("{num_cuts} cuts and additions, all found");
}

#[test]
fn a_file_in_place_of_another_valid_one_is_found() {
    let (storage, _repo, made) = sample();
    let files = all(&storage);
    for folder in [Folder::Ops, Folder::Packs] {
        let of_folder: Vec<_> = files.iter().filter(|(key, _)| key.folder() == folder).collect();
        for (key, bytes) in &of_folder {
            for (other, strange) in of_folder.iter().filter(|(other, _)| other != key) {
                put(&storage, key, strange);
                let report = check(&storage, FULL).expect("checked");
                let found = report.findings.iter().any(|finding| finding.file == key.to_string());
                assert!(found, "{other} in place of {key}: {:?}", report.findings);
                assert_no_wrong_bytes(&storage, &made, &format!("{other} in place of {key}"));
                put(&storage, key, bytes);
            }
        }
    }
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
    transaction.add_sources(&[&lost], &Progress::new()).expect("added");
    transaction.seal(&Progress::new()).expect("sealed");
    put(&storage, &Key::new(Folder::Tmp, "00112233445566778899aabbccddeeff.tmp").expect("a key"), b"half");
    let report = check(&storage, FULL).expect("checked");
    assert!(report.is_clean());
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Note), "{:?}", report.findings);
    assert_eq!(report.findings.len(), 2);
    assert!(report.num_orphans >= 1);
    assert_eq!(weight(&reopen(&storage), &made[0].0), made[0].1);
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

#[test]
fn a_lost_table_costs_only_what_it_alone_changed() {
    let (storage, repo) = new();
    let mut main = Line::new(&repo, "main");
    main.commit(1, 1);
    let first = main.base.expect("a commit");
    for n in 0..20 {
        repo.create_tag(&format!("t{n}"), first).expect("a tag");
    }
    let whole = repo.head_state().expect("open").whole.0;
    let tip = main.commit(2, 2).commit;
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
    let mut main = Line::new(&repo, "main");
    main.commit(1, 1);
    let first = main.base.expect("a commit");
    for n in 0..20 {
        repo.create_tag(&format!("t{n}"), first).expect("a tag");
    }
    let whole = repo.head_state().expect("open").whole.0;
    let tip = main.commit(2, 2).commit;
    let table = repo.head_state().expect("open").table;
    put(&storage, &Key::operation(whole), b"");
    let before = all(&storage);
    mend(&storage, true);
    let published = reopen(&storage).head_state().expect("open").table;
    assert!(table.iter().filter(|(name, _)| !published.contains_key(*name)).count() <= 1);

    // As a crash leaves it after the moves: the report says what is pending, and nothing was published.
    let report =
        storage.list(Folder::LostFound).expect("listed").into_iter().find(|file| file.name.starts_with("repair-"));
    let report = Key::new(Folder::LostFound, &report.expect("a report").name).expect("a key");
    let head = reopen(&storage).head_state().expect("open");
    let payload = head.operation.payload().expect("encoded");
    storage.delete(&Key::operation(head.operation.n)).expect("gone");
    let text = serde_json::json!({"schema": "gradient.repair-log/1", "moves": [], "rescued": [], "pending": payload});
    put(&storage, &report, text.to_string().as_bytes());
    assert_ne!(reopen(&storage).head_state().expect("open").table, published);
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
