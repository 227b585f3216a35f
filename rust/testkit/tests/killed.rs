//! What a killed process leaves in doubt and the next one must not take for durable. Each of these was lost once.

use gradient_storage::sim::{CallKind, Crash, CrashMode, SimFs};
use gradient_testkit::{Action, Model, Move, Process, Session, content};

fn play(session: &mut Session, action: Action) {
    let play = Move { who: 0, action, meanwhile: None };
    session.play(&play).expect("as the model").expect("nothing fails");
}

/// How many changes there were when a file of this name had just got it.
fn named(disk: &SimFs, path: &str) -> usize {
    let calls = disk.calls();
    let call = calls.iter().find(|call| call.kind == CallKind::RenameNoReplace && call.path == path);
    call.expect("it was published").changes_before + 1
}

/// The disk once the power has gone and taken all that was not synced.
fn without_power(disk: &SimFs) -> SimFs {
    disk.crash(&Crash { after: disk.num_changes(), mode: CrashMode::Lost, seed: 0 })
}

#[test]
fn a_repository_whose_init_was_killed_is_durable_once_another_process_commits() {
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    play(&mut session, Action::Refresh);
    let disk = session.disk.kill(named(&session.disk, "./format"));
    let mut next = Process::open(&disk).expect("the init is finished by whoever opens");
    next.perform(&Action::Commit(vec![1]), gradient_object::CommitId::from_bytes([0; 32]), 1).expect("it goes on");
    let commit = next.base.expect("it committed");
    let after = Process::open(&without_power(&disk)).expect("it is a repository");
    assert_eq!(after.restore(&commit).expect("it was acknowledged"), [content(1)]);
}

#[test]
fn a_commit_that_is_there_already_is_durable_when_it_is_acknowledged() {
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    play(&mut session, Action::Commit(vec![1]));
    let disk = session.disk.kill(named(&session.disk, "ops/00000000000000000002"));
    let mut next = Process::open(&disk).expect("it opens");
    let nobody = gradient_object::CommitId::from_bytes([0; 32]);
    next.perform(&Action::Resume("main".to_owned()), nobody, 0).expect("the commit is seen");
    next.perform(&Action::Again, nobody, 0).expect("it is there already");
    let commit = next.base.expect("it resumed");
    let after = Process::open(&without_power(&disk)).expect("it is a repository");
    let (table, _) = after.repo.refs().expect("refs");
    assert_eq!(table.get("main").map(|target| target.commit()), Some(commit), "the branch has moved back");
}
