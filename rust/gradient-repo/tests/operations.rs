//! Operations: undo and redo, folding, writers that slept through a fold, damaged heads.

mod support;

use std::sync::Arc;

use gradient_odb::PackId;
use gradient_repo::{Checkout, ErrorClass, Head, OperationLog, Published, RepoError, Target};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};
use support::{Line, new, reopen};

#[test]
fn every_move_of_a_ref_is_taken_back_and_made_again() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let one = line.commit(1, 1).commit;
    let two = line.commit(2, 2).commit;
    repo.create_branch("exp", one, "").expect("a branch");
    repo.create_tag("v1", two).expect("a tag");
    repo.rename_branch("exp", "trial").expect("renamed");
    repo.delete_branch("trial", "").expect("deleted");
    repo.delete_tag("v1").expect("deleted");
    repo.checkout(&Checkout::Commit(one)).expect("moved");
    let mut states = vec![repo.refs().expect("refs")];
    for _ in 0..8 {
        let repo = reopen(&storage);
        repo.undo().expect("something to undo");
        states.push(repo.refs().expect("refs"));
    }
    assert!(states[8].0.is_empty(), "all commits undone: {:?}", states[8]);
    assert_eq!(states[1].1, Head::Branch("main".into()));
    assert_eq!(states[3].0.get("trial"), Some(&Target::Branch(one)));
    let error = reopen(&storage).undo().expect_err("nothing left");
    assert_eq!(error.class(), ErrorClass::NotFound);
    for state in states.iter().rev().skip(1) {
        let repo = reopen(&storage);
        repo.redo().expect("something to redo");
        assert_eq!(&repo.refs().expect("refs"), state);
    }
    assert!(reopen(&storage).redo().is_err());
}

#[test]
fn redo_is_gone_once_a_ref_moved_again() {
    let (_, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    repo.create_branch("exp", one, "").expect("a branch");
    repo.undo().expect("undone");
    repo.create_branch("other", one, "").expect("a branch");
    assert!(matches!(repo.redo(), Err(RepoError::NothingTo { what: "redo" })));
}

#[test]
fn the_branch_head_stands_on_is_not_deleted() {
    let (_, repo) = new();
    Line::new(&repo, "main").commit(1, 1);
    assert!(matches!(repo.delete_branch("main", ""), Err(RepoError::DeletesHead { .. })));
}

#[test]
fn folding_changes_no_answer_and_keeps_the_newest_operations() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    for n in 0..700 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
        if n % 3 == 0 {
            repo.delete_tag(&format!("t{n}")).expect("deleted");
        }
    }
    let before = repo.operations(None).expect("operations");
    let refs = repo.refs().expect("refs");
    repo.maintain().expect("folded");
    let files = storage.list(Folder::Ops).expect("listed");
    assert!(files.len() < 80, "{} files", files.len());
    let other = reopen(&storage);
    let after = other.operations(None).expect("operations");
    assert_eq!(after.len(), before.len());
    assert!(after.iter().zip(&before).all(|(a, b)| a.operation == b.operation && a.id == b.id));
    assert_eq!(other.refs().expect("refs"), refs);
    other.undo().expect("undo over a fold");
    repo.create_tag("after", one).expect("a handle from before the fold goes on");
    for n in 0..600 {
        repo.create_tag(&format!("u{n}"), one).expect("a tag");
    }
    repo.maintain().expect("folded again");
    assert_eq!(reopen(&storage).operations(None).expect("operations").len(), before.len() + 602);
}

#[test]
fn a_writer_that_slept_through_a_fold_does_not_publish_into_the_past() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    let log = OperationLog::new(storage.clone() as Arc<dyn Storage>);
    let sleeping = log.head().expect("readable").expect("a head");
    let mut late = sleeping.operation.clone();
    late.n += 1;
    late.previous = Some(sleeping.id);
    for n in 0..600 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
    }
    repo.maintain().expect("folded");
    assert!(!storage.exists(&Key::operation(late.n)).expect("looked"), "the test needs its number gone");
    let outcome = log.publish(Some(&sleeping), late.clone()).expect("no failure");
    assert!(matches!(outcome, Published::Lost));
    assert!(!storage.exists(&Key::operation(late.n)).expect("looked"), "what it wrote is gone again");
    assert_eq!(reopen(&storage).refs().expect("refs").0.len(), 601);
}

#[test]
fn a_stale_handle_reads_on_across_a_fold() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    let stale = reopen(&storage);
    for n in 0..600 {
        repo.create_tag(&format!("t{n}"), one).expect("a tag");
    }
    repo.maintain().expect("folded");
    stale.create_tag("late", one).expect("published after reading on");
    assert_eq!(reopen(&storage).refs().expect("refs").0.len(), 602);
}

#[test]
fn a_damaged_head_is_read_past_and_not_written_past() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let one = line.commit(1, 1).commit;
    line.commit(2, 2);
    let n = repo.head_state().expect("open").operation.n;
    let whole = storage.read(&Key::operation(n), 1 << 20).expect("read");
    for damaged in [&whole[..0], &whole[..whole.len() / 2], &[0; 64][..]] {
        storage.replace(&Key::operation(n), damaged, Durability::Unsynced).expect("damaged");
        let other = reopen(&storage);
        assert_eq!(other.resolve("main", None).expect("the tip before").commit, one);
        let error = Line::from(&other, "main", one).try_commit(3, 3, 300).expect_err("refused");
        assert_eq!(error.class(), ErrorClass::Corruption);
        assert!(error.hint().is_some_and(|hint| hint.contains(&format!("repair --apply moves ops/{n:020} aside"))));
        assert_eq!(other.notices().expect("open").len(), 1);
        assert_eq!(other.resolve("latest", None).expect("the tip before").notices.len(), 1, "nobody is misled");
    }
    storage.replace(&Key::operation(n), &whole, Durability::Unsynced).expect("mended");
    Line::from(&reopen(&storage), "main", one).commit(3, 3);
}

#[test]
fn an_interrupted_init_is_finished_by_the_next_open() {
    let (storage, repo) = new();
    drop(repo);
    storage.delete(&Key::operation(1)).expect("as if never written");
    let repo = reopen(&storage);
    assert_eq!(repo.refs().expect("refs").1, Head::Branch("main".into()));
    Line::new(&repo, "main").commit(1, 1);
}

#[test]
fn a_repository_of_a_newer_format_is_refused_for_what_it_is() {
    let (storage, repo) = new();
    drop(repo);
    let mut file = storage.read(&Key::format(), 1 << 16).expect("read");
    file.truncate(file.len() - 32);
    file[4] = 9;
    let hash = blake3::hash(&file);
    file.extend_from_slice(hash.as_bytes());
    storage.replace(&Key::format(), &file, Durability::Unsynced).expect("replaced");
    let error = gradient_repo::Repository::open(storage as Arc<dyn Storage>).expect_err("refused");
    assert_eq!(error.class(), ErrorClass::Format);
    assert_eq!(error.facts().found.as_deref(), Some("format version 9"));
}

#[test]
fn merging_small_packs_loses_nothing_and_its_condemnation_is_forgotten() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let ids: Vec<_> = (0..1100_u64).map(|step| line.commit(step, (step % 251) as u8).commit).collect();
    repo.maintain().expect("merged");
    let packs = storage.list(Folder::Packs).expect("listed").len();
    assert!(packs < 1000, "{packs} packs are left");
    repo.create_tag("after", ids[0]).expect("a tag");
    let other = reopen(&storage);
    assert!(other.head_state().expect("open").operation.condemned.is_empty(), "they are gone from packs/");
    for (step, id) in ids.iter().enumerate().step_by(97) {
        assert_eq!(support::weight(&other, id), vec![(step % 251) as u8; 4000]);
    }
    other.maintain().expect("emptied");
    assert!(storage.list(Folder::Trash).expect("listed").is_empty());
    let added: u64 = ids.iter().map(|id| other.log_row(id).expect("a row").added_len).sum();
    assert!(added > 1100 * 500, "the bytes each commit added are kept: {added}");
}

#[test]
fn packs_whose_condemnation_outlived_their_removal_are_removed_again() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let mut ids: Vec<_> = (0..1000_u64).map(|step| line.commit(step, (step % 251) as u8).commit).collect();
    let packs = |storage: &MemoryStorage| -> Vec<(String, Vec<u8>)> {
        let listed = storage.list(Folder::Packs).expect("listed").into_iter();
        let read = |name: &str| storage.read(&Key::new(Folder::Packs, name).expect("a key"), 1 << 30).expect("read");
        listed.map(|file| (file.name.clone(), read(&file.name))).collect()
    };
    let before = packs(&storage);
    ids.extend((1000..1100_u64).map(|step| line.commit(step, (step % 251) as u8).commit));
    repo.maintain().expect("merged");
    let after = packs(&storage);
    // As after a crash that lost the moves to the trash, which are not synced: the condemned packs are back.
    let mut num_back = 0;
    for (name, bytes) in before.iter().filter(|(name, _)| after.iter().all(|(other, _)| other != name)) {
        let id = PackId::from_file_name(name).expect("a pack");
        let mut writer = storage.create_pack(id.as_bytes(), 0).expect("created");
        writer.append(&[bytes]).expect("written");
        writer.seal().expect("sealed");
        num_back += 1;
    }
    assert!(num_back > 50, "{num_back}: the test needs a merge");
    let other = reopen(&storage);
    other.maintain().expect("finished");
    assert!(storage.list(Folder::Packs).expect("listed").len() <= after.len(), "retired, or merged again");
    other.maintain().expect("emptied");
    assert!(storage.list(Folder::Trash).expect("listed").is_empty());
    for (step, id) in ids.iter().enumerate().step_by(97) {
        assert_eq!(support::weight(&other, id), vec![(step % 251) as u8; 4000]);
    }
}

#[test]
fn what_the_dead_left_behind_is_cleared_with_the_first_commit_of_the_next_process() {
    let (storage, repo) = new();
    Line::new(&repo, "main").commit(1, 1);
    drop(repo);
    let temporary = Key::new(Folder::Tmp, "0123456789abcdef0123456789abcdef.tmp").expect("a key");
    storage.replace(&temporary, b"half a pack", Durability::Unsynced).expect("left behind");
    let other = reopen(&storage);
    Line::new(&other, "exp").commit(1, 2);
    assert!(!storage.exists(&temporary).expect("looked"));
}

#[test]
fn an_operation_that_a_sleeping_writer_left_below_the_fold_leads_nobody_astray() {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    let idle = reopen(&storage);
    let n = idle.head_state().expect("open").operation.n;
    repo.create_tag("t", one).expect("a tag");
    let left = storage.read(&Key::operation(n + 1), 1 << 20).expect("read");
    for at in 0..600 {
        repo.create_tag(&format!("t{at}"), one).expect("a tag");
    }
    repo.maintain().expect("folded");
    // As if a writer had published n + 1 over its own folded twin and died before it looked for n.
    storage.replace(&Key::operation(n + 1), &left, Durability::Unsynced).expect("left behind");
    idle.create_tag("late", one).expect("published after the true head");
    let (table, _) = reopen(&storage).refs().expect("refs");
    assert!(table.contains_key("late") && table.len() == 603, "{}", table.len());
}

#[test]
fn a_branch_with_the_longest_name_keeps_its_old_tip_under_a_name_that_can_be_read() {
    let (storage, repo) = new();
    for name in ["z".repeat(254), format!("{}/{}", "y".repeat(233), "x".repeat(20)), "main".to_owned()] {
        let old = Line::new(&repo, &name).commit(5, 1);
        let new = Line::new(&repo, &name).commit(1, 2);
        let beside = new.displaced.expect("kept");
        let (table, _) = reopen(&storage).refs().expect("refs");
        assert_eq!(table.get(&beside), Some(&Target::Branch(old.commit)), "{beside}");
        assert_eq!(table.get(&name), Some(&Target::Branch(new.commit)));
    }
}
