//! Damaged and missing files of the operation log: named as what they are, read past where that can be done, and never
//! written over.

mod support;

use std::sync::Arc;

use gradient_object::CommitId;
use gradient_odb::Progress;
use gradient_repo::{ErrorClass, LogQuery, RepoError, Repository, Severity, repair};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};
use support::{FULL, Line, check, new, reopen};

// So many refs that operations carry changes; returns the commit of all and the number of the newest whole table.
fn with_changes(repo: &Repository) -> (CommitId, u64) {
    let one = Line::new(repo, "main").commit(1, 1).commit;
    for n in 0..20 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
    }
    let head = repo.head_state().expect("open");
    assert!(head.whole.0 + 2 < head.operation.n, "the test needs operations that refer to another one");
    (one, head.whole.0)
}

fn read(storage: &MemoryStorage, key: &Key) -> Vec<u8> {
    storage.read(key, 1 << 30).expect("read")
}

fn spoil(storage: &MemoryStorage, key: &Key) {
    let mut bytes = read(storage, key);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    storage.replace(key, &bytes, Durability::Unsynced).expect("spoilt");
}

fn all(storage: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let listed = storage.list(Folder::Ops).expect("listed").into_iter();
    listed.map(|file| (file.name.clone(), read(storage, &Key::new(Folder::Ops, &file.name).expect("a key")))).collect()
}

#[test]
fn a_damaged_table_is_named_in_place_of_the_head_that_refers_to_it_and_the_hint_leads_out() {
    for gone in [false, true] {
        let (storage, repo) = new();
        let (one, whole) = with_changes(&repo);
        let newest = repo.head_state().expect("open").operation.n;
        let key = Key::operation(whole);
        let intact = read(&storage, &key);
        spoil(&storage, &key);
        if gone {
            storage.delete(&key).expect("gone");
        }
        let before = all(&storage);
        let other = reopen(&storage);
        assert_eq!(other.resolve("main", None).expect("an older table has it").commit, one);
        assert!(other.notices().expect("open")[0].contains(&format!("ops/{whole:020} is damaged")));
        for _ in 0..2 {
            let error = other.create_tag("more", one).expect_err("refused");
            assert_eq!(error.class(), ErrorClass::Corruption);
            assert_eq!(error.facts().path, Some(format!("ops/{whole:020}")), "and not the head, which is whole");
            let hint = error.hint().expect("a hint");
            assert!(
                hint.contains(&format!("repair --apply moves ops/{whole:020} to ops/{newest:020} aside")),
                "{hint}"
            );
        }
        assert_eq!(all(&storage), before, "nothing was written over it, nor into its place");

        storage.replace(&key, &intact, Durability::Unsynced).expect("put back");
        other.create_tag("more", one).expect("a handle from before reads on");
        assert_eq!(reopen(&storage).refs().expect("refs").0.len(), 22);

        spoil(&storage, &key);
        let third = reopen(&storage);
        assert_eq!(third.notices().expect("open").len(), 1);
        for n in whole..=newest + 1 {
            storage.delete(&Key::operation(n)).expect("moved aside");
        }
        third.create_tag("more", one).expect("goes on from the operation before");
        assert_eq!(third.notices().expect("open"), Vec::<String>::new());
        Line::from(&third, "main", one).commit(2, 2);
    }
}

#[test]
fn a_damaged_operation_of_the_past_costs_its_own_story_and_no_more() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let ids: Vec<_> = (1..6).map(|step| line.commit(step, 1).commit).collect();
    spoil(&storage, &Key::operation(3));
    let spoilt = read(&storage, &Key::operation(3));
    let other = reopen(&storage);
    assert_eq!(other.notices().expect("open"), Vec::<String>::new());
    assert_eq!(other.resolve("main@2", None).expect("on the line").commit, ids[1]);
    let refused = other.operations(None).expect_err("damaged");
    assert_eq!(refused.class(), ErrorClass::Corruption);
    assert_eq!(refused.facts().path, Some(format!("ops/{:020}", 3)));
    assert!(refused.hint().is_some_and(|hint| hint.contains("from a copy")));
    Line::from(&other, "main", ids[4]).commit(6, 2);
    assert_eq!(read(&storage, &Key::operation(3)), spoilt);
}

#[test]
fn operations_behind_a_damaged_or_missing_one_are_listed_taken_back_and_made_again() {
    for gone in [false, true] {
        let (storage, repo) = new();
        let mut line = Line::new(&repo, "main");
        let ids: Vec<_> = (1..6).map(|step| line.commit(step, 1).commit).collect();
        let whole = repo.operations(None).expect("all of them");
        spoil(&storage, &Key::operation(3));
        if gone {
            storage.delete(&Key::operation(3)).expect("gone");
        }
        let other = reopen(&storage);
        let (rows, error) = other.readable_operations(None).expect("some of them");
        let numbers =
            |rows: &[gradient_repo::OperationRow]| -> Vec<u64> { rows.iter().map(|row| row.operation.n).collect() };
        assert_eq!(numbers(&rows), [6, 5], "what operation 4 changed is not known");
        assert_eq!(rows.iter().map(|row| &row.changes).collect::<Vec<_>>(), [&whole[0].changes, &whole[1].changes]);
        let error = error.expect("there are older ones");
        assert_eq!((error.class(), error.facts().path), (ErrorClass::Corruption, Some(format!("ops/{:020}", 3))));
        assert!(error.hint().is_some_and(|hint| hint.contains("from a copy")));
        assert_eq!(numbers(&other.operations(Some(2)).expect("no more were asked for")), [6, 5]);
        assert_eq!(other.operations(Some(3)).expect_err("damaged").class(), ErrorClass::Corruption);

        assert_eq!(other.undo().expect("taken back").operation.n, 6);
        assert_eq!(other.undo().expect("taken back").operation.n, 5);
        assert_eq!(other.resolve("main", None).expect("the branch").commit, ids[2]);
        assert_eq!(other.undo().expect_err("what operation 4 changed is not known").class(), ErrorClass::Corruption);
        assert_eq!(other.redo().expect("made again").operation.n, 5);
        assert_eq!(other.resolve("main", None).expect("the branch").commit, ids[3]);
    }
}

#[test]
fn a_commit_that_can_not_be_read_is_a_hole_in_the_log_and_no_end_of_it() {
    for hole in [1, 2, 4] {
        let (storage, repo) = new();
        let mut line = Line::new(&repo, "main");
        let ids: Vec<_> = (1..6).map(|step| line.commit(step, step as u8).commit).collect();
        let pack = repo.odb().find_pack(&ids[hole].into()).expect("its pack");
        storage.replace(&pack.key(), &[0; 10], Durability::Unsynced).expect("spoilt");
        let other = reopen(&storage);
        let query = LogQuery { start: vec![ids[4]], ..LogQuery::default() };
        let (rows, unreadable) = other.readable_history(&query).expect("the others");
        let shown: Vec<_> = rows.iter().map(|row| row.id).collect();
        let expected: Vec<_> = ids.iter().rev().copied().filter(|id| *id != ids[hole]).collect();
        assert_eq!(shown, expected);
        assert_eq!(unreadable.len(), 1);
        assert_eq!((unreadable[0].id, unreadable[0].child), (ids[hole], ids.get(hole + 1).copied()));
        assert_eq!(other.history(&query).expect_err("it is not whole").class(), ErrorClass::Corruption);
        for (at, id) in ids.iter().enumerate().filter(|(at, _)| *at != hole) {
            let found = other.resolve(&format!("main@{}", at + 1), None).expect("by the operations");
            assert_eq!(found.commit, *id);
            assert_eq!(found.notices.len(), usize::from(at < hole), "what operations say is said to be that");
        }
        let error = other.resolve(&format!("main@{}", hole + 1), None).expect_err("it can not be read");
        assert!(error.to_string().contains(&ids[hole].short()), "{error}");
        assert_eq!(error.facts().object_id, Some(ids[hole].to_hex()));
        assert_eq!(error.class(), ErrorClass::Corruption);
    }
}

#[test]
fn nothing_is_folded_away_over_a_damaged_operation() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    for n in 0..600 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
    }
    spoil(&storage, &Key::operation(100));
    let before = all(&storage);
    let error = repo.maintain().expect_err("it can not be folded");
    assert_eq!(error.facts().path, Some(format!("ops/{:020}", 100)));
    assert_eq!(all(&storage), before);
    let outcome = Line::from(&reopen(&storage), "main", one).commit(2, 2);
    assert!(outcome.notices[0].contains(&format!("ops/{:020} is damaged", 100)), "{:?}", outcome.notices);
}

#[test]
fn a_damaged_folded_file_costs_its_stories_and_no_more() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    for n in 0..600 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
    }
    repo.maintain().expect("folded");
    let folded = all(&storage).pop().expect("files").0;
    assert!(folded.starts_with("folded-"), "{folded}");
    let key = Key::new(Folder::Ops, &folded).expect("a key");
    spoil(&storage, &key);
    let spoilt = read(&storage, &key);
    let other = reopen(&storage);
    assert_eq!(other.refs().expect("refs").0.len(), 601);
    let error = other.operations(None).expect_err("damaged");
    assert_eq!((error.class(), error.facts().path), (ErrorClass::Corruption, Some(format!("ops/{folded}"))));
    Line::from(&other, "main", one).commit(2, 2);
    for n in 0..600 {
        other.delete_tag(&format!("t{n}")).expect("deleted");
    }
    let before = all(&storage).len();
    let error = other.maintain().expect_err("what it held can not be folded again");
    assert_eq!(error.facts().path, Some(format!("ops/{folded}")));
    assert_eq!(all(&storage).len(), before, "and nothing is deleted");
    assert_eq!(read(&storage, &key), spoilt);
}

#[test]
fn a_folded_file_without_which_no_table_can_be_read_is_named_itself() {
    let (storage, repo) = new();
    let (one, _) = with_changes(&repo);
    // The newest whole table comes to lie under the fold: all of the 64 operations that are not folded refer to it.
    for n in 1.. {
        let head = repo.head_state().expect("open");
        if head.operation.n > 600 && head.operation.n - head.whole.0 == 64 {
            break;
        }
        if n % 2 == 1 {
            repo.create_tag("again", one).expect("a tag");
        } else {
            repo.delete_tag("again").expect("deleted");
        }
    }
    repo.maintain().expect("folded");
    let folded = all(&storage).pop().expect("files").0;
    spoil(&storage, &Key::new(Folder::Ops, &folded).expect("a key"));
    let error = Repository::open(storage.clone() as Arc<dyn Storage>).expect_err("no table can be read");
    assert_eq!((error.class(), error.facts().path), (ErrorClass::Corruption, Some(format!("ops/{folded}"))));
    assert!(error.hint().is_some_and(|hint| hint.contains("from a copy")));
}

// A folded repository of two commits of which everything behind the fold is lost; the first commit, the second, the fold.
fn behind_a_fold(lost: impl Fn(&MemoryStorage, &Key)) -> (Arc<MemoryStorage>, CommitId, CommitId, u64) {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    for n in 0..600 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
    }
    let two = Line::from(&repo, "main", one).commit(2, 2).commit;
    repo.maintain().expect("folded");
    drop(repo);
    let (folded, files): (Vec<_>, Vec<_>) =
        all(&storage).into_iter().partition(|(name, _)| name.starts_with("folded-"));
    assert!(files.len() >= 64, "{}", files.len());
    for (name, _) in files {
        lost(&storage, &Key::new(Folder::Ops, &name).expect("a key"));
    }
    let m = folded[0].0.trim_start_matches("folded-").parse().expect("a number");
    (storage, one, two, m)
}

#[test]
fn what_was_lost_behind_a_fold_is_named_and_nothing_is_written_over_it() {
    let (storage, one, _, m) = behind_a_fold(|storage, key| storage.delete(key).expect("lost"));
    let repo = reopen(&storage);
    assert_eq!(repo.resolve("main", None).expect("what was folded is read").commit, one);
    let missing = format!("ops/{:020}", m + 1);
    assert!(repo.notices().expect("open")[0].contains(&missing));
    let before = all(&storage);
    let error = repo.create_tag("more", one).expect_err("refused");
    assert_eq!((error.class(), error.facts().path), (ErrorClass::Corruption, Some(missing.clone())));
    assert_eq!(all(&storage), before);
    let report = check(&storage, FULL).expect("checked");
    assert!(report.findings.iter().any(|found| found.severity == Severity::Error && found.file == missing));
}

#[test]
fn a_repair_goes_on_from_a_fold_whether_what_came_after_it_is_missing_or_damaged() {
    let delete: fn(&MemoryStorage, &Key) = |storage, key| storage.delete(key).expect("lost");
    for lost in [delete, spoil] {
        let (storage, _, two, m) = behind_a_fold(lost);
        let shared = storage.clone() as Arc<dyn Storage>;
        assert!(repair(&shared, false, &Progress::new()).expect("planned").publishes);
        let done = repair(&shared, true, &Progress::new()).expect("repaired");
        assert_eq!(done.rescued, [("main".to_owned(), two)]);
        assert!(check(&storage, FULL).expect("checked").is_clean());
        let again = repair(&shared, true, &Progress::new()).expect("once is enough");
        assert!(!again.publishes && again.moves.is_empty());
        let repo = reopen(&storage);
        assert_eq!(repo.notices().expect("open"), Vec::<String>::new());
        Line::from(&repo, "main", two).commit(3, 3);
        assert_eq!(repo.head_state().expect("open").operation.n, m + 2);
        assert_eq!(repo.operations(Some(2)).expect("listed")[1].operation.n, m + 1);
        assert!(check(&storage, FULL).expect("checked").is_clean());
    }
}

#[test]
fn a_log_that_is_gone_is_not_begun_again_over_packs() {
    let (storage, repo) = new();
    Line::new(&repo, "main").commit(1, 1);
    drop(repo);
    for (name, _) in all(&storage) {
        storage.delete(&Key::new(Folder::Ops, &name).expect("a key")).expect("gone");
    }
    let storage_again = || storage.clone() as Arc<dyn Storage>;
    for error in [
        Repository::open(storage_again()).expect_err("refused"),
        Repository::init(storage_again(), "gpt", "").expect_err("refused"),
    ] {
        assert!(matches!(error, RepoError::Damaged { .. }), "{error}");
    }
    assert!(all(&storage).is_empty());
}

#[test]
fn a_handle_that_reads_on_to_a_damaged_head_has_the_packs_of_what_it_passed() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    line.commit(1, 1);
    let stale = reopen(&storage);
    let two = line.commit(2, 2).commit;
    line.commit(3, 3);
    let newest = repo.head_state().expect("open").operation.n;
    spoil(&storage, &Key::operation(newest));
    stale.refresh().expect("read on");
    let prefix = &two.to_hex()[..12];
    assert_eq!(stale.resolve(prefix, None).expect("its pack is known").commit, two);
    assert_eq!(stale.resolve("main", None).expect("the tip before").commit, two);
    assert_eq!(stale.notices().expect("open").len(), 1);
}
