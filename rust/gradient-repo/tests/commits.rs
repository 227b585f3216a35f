//! The commit transaction: where commits land, what is refused, what two writers do to each other.

mod support;

use gradient_repo::{Checkout, ErrorClass, RepoError, Target};
use support::{Line, commit, new, reopen, weight};

#[test]
fn a_commit_comes_back_bit_for_bit_in_another_process() {
    let (storage, repo) = new();
    let bytes: Vec<u8> = (0..40_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let outcome = commit(&repo, "main", None, true, 7, &bytes).expect("a commit");
    let other = reopen(&storage);
    let resolved = other.resolve("main@7", None).expect("the commit");
    assert_eq!(resolved.commit, outcome.commit);
    assert_eq!(weight(&other, &resolved.commit), bytes);
    assert_eq!(other.resolve("latest", None).expect("the tip").commit, outcome.commit);
}

#[test]
fn equal_states_have_equal_roots_whatever_the_step_and_the_message() {
    let (_, a) = new();
    let (_, b) = new();
    let one = Line::new(&a, "main").commit(1, 5);
    let two = Line::new(&b, "other").commit(9, 5);
    assert_eq!(one.root, two.root);
    assert_ne!(one.commit, two.commit);
}

#[test]
fn the_same_step_with_the_same_state_is_the_commit_that_exists() {
    let (_, repo) = new();
    let mut line = Line::new(&repo, "main");
    let first = line.commit(3, 1);
    let again = line.commit(3, 1);
    assert!(again.existing && !first.existing);
    assert_eq!(again.commit, first.commit);
    let changed = line.commit(3, 2);
    assert!(!changed.existing);
    assert_eq!(repo.resolve("main@3", None).expect("newest").commit, changed.commit);
}

#[test]
fn a_first_commit_that_does_not_descend_from_the_tip_keeps_the_tip_beside() {
    let (_, repo) = new();
    let old = Line::new(&repo, "main").commit(5, 1);
    let fresh = Line::new(&repo, "main").commit(1, 2);
    assert_eq!(fresh.displaced.as_deref(), Some("main.1"));
    let (table, _) = repo.refs().expect("refs");
    assert_eq!(table.get("main.1"), Some(&Target::Branch(old.commit)));
    assert_eq!(table.get("main"), Some(&Target::Branch(fresh.commit)));
    let third = Line::new(&repo, "main").commit(1, 3);
    assert_eq!(third.displaced.as_deref(), Some("main.2"));
}

#[test]
fn the_loser_of_two_writers_keeps_its_commit_on_a_branch_beside() {
    let (storage, a) = new();
    let b = reopen(&storage);
    let start = Line::new(&a, "main").commit(1, 0);
    let mut winner = Line::from(&a, "main", start.commit);
    let mut loser = Line::from(&b, "main", start.commit);
    winner.commit(2, 1);
    // The loser has committed on this branch before, so a moved tip is a conflict.
    loser.first = false;
    let lost = loser.commit(2, 2);
    assert_eq!(lost.branch, "main.1");
    assert_eq!(lost.conflict, winner.base);
    assert_eq!(loser.branch, "main.1");
    let next = loser.commit(3, 3);
    assert_eq!((next.branch.as_str(), next.conflict), ("main.1", None));
    let other = reopen(&storage);
    for outcome in [&lost, &next] {
        let name = format!("{}@{}", outcome.branch, outcome.step);
        assert_eq!(other.resolve(&name, None).expect("kept").commit, outcome.commit, "{name}");
    }
}

#[test]
fn eight_writers_lose_no_commit() {
    let (storage, repo) = new();
    drop(repo);
    let landed: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8_u8)
            .map(|writer| {
                let storage = storage.clone();
                scope.spawn(move || {
                    let repo = reopen(&storage);
                    let mut line = Line::new(&repo, if writer % 2 == 0 { "main" } else { "own" });
                    (0..10_u64)
                        .map(|step| line.try_commit(step, writer * 16 + step as u8, 300).expect("a commit"))
                        .map(|outcome| (outcome.branch, outcome.step, outcome.commit))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    let repo = reopen(&storage);
    let reachable: Vec<_> = {
        let (table, _) = repo.refs().expect("refs");
        let start = table.values().map(|target| target.commit()).collect();
        let query = gradient_repo::LogQuery { start, ..Default::default() };
        repo.history(&query).expect("history").into_iter().map(|row| row.id).collect()
    };
    assert_eq!(landed.len(), 80);
    for (branch, step, id) in landed {
        assert!(reachable.contains(&id), "{branch}@{step} is on no branch");
        assert_eq!(weight(&repo, &id).len(), 1200);
    }
}

#[test]
fn a_branch_that_must_not_exist_is_refused_before_anything_is_written() {
    let (_, repo) = new();
    let tip = Line::new(&repo, "main").commit(1, 1);
    repo.create_branch("exp", tip.commit, "").expect("a branch");
    repo.create_tag("v1", tip.commit).expect("a tag");
    let before = repo.disk_bytes().expect("listed");
    let error = Line::new(&repo, "v1").try_commit(2, 2, 300).expect_err("a tag has the name");
    assert!(matches!(error, RepoError::RefExists { kind: "tag", .. }), "{error}");
    let error = Line::new(&repo, "EXP").try_commit(2, 2, 300).expect_err("differs only in case");
    assert_eq!(error.class(), ErrorClass::AlreadyExists);
    let error = Line::new(&repo, "../x").try_commit(2, 2, 300).expect_err("a path");
    assert!(matches!(error, RepoError::BadName { .. }), "{error}");
    assert!(repo.disk_bytes().expect("listed").abs_diff(before) < 1024, "a lease at most");
}

#[test]
fn a_cancelled_commit_leaves_the_branch_where_it_was() {
    let (storage, repo) = new();
    let mut line = Line::new(&repo, "main");
    let tip = line.commit(1, 1).commit;
    let progress = gradient_repo::Progress::new();
    progress.cancel();
    let bytes = vec![7_u8; 1 << 21];
    let tensor = gradient_object::Tensor {
        flavor: gradient_object::Flavor::Torch,
        dtype: "uint8".to_owned(),
        shape: vec![bytes.len() as u64],
        order: None,
        data: 0,
    };
    let mut model = gradient_object::Mapping::new();
    model.insert("tensors", gradient_object::Value::Tensor(tensor)).expect("a new name");
    let components = std::collections::BTreeMap::from([("main".to_owned(), gradient_object::Value::Map(model))]);
    let request = gradient_repo::CommitRequest {
        branch: "main".into(),
        base: Some(tip),
        first: false,
        create: false,
        step: 2,
        message: String::new(),
        metrics: Vec::new(),
        environment: gradient_object::Mapping::new(),
        sections: std::collections::BTreeMap::from([("model".to_owned(), components)]),
        sources: vec![&bytes as &dyn gradient_repo::ByteSource],
        storing: gradient_repo::Storing::default(),
    };
    let error = repo.commit(&request, &progress).expect_err("cancelled");
    assert_eq!(error.class(), ErrorClass::Cancelled);
    assert_eq!(reopen(&storage).resolve("main", None).expect("the tip").commit, tip);
    assert_eq!(line.commit(2, 2).step, 2, "the next commit succeeds");
}

#[test]
fn head_on_a_new_branch_is_where_latest_looks() {
    let (_, repo) = new();
    let main = Line::new(&repo, "main").commit(1, 1);
    repo.checkout(&Checkout::New("exp".into(), main.commit)).expect("a branch");
    let exp = Line::from(&repo, "exp", main.commit).commit(2, 2);
    assert_eq!(repo.resolve("latest", None).expect("HEAD's tip").commit, exp.commit);
    assert_eq!(repo.resolve("latest", Some("main")).expect("main's tip").commit, main.commit);
    assert_eq!(repo.resolve("exp@1", None).expect("on exp's line").commit, main.commit);
}
