//! A repair that is cut off anywhere, or of which a call fails, loses nothing: whoever comes next finds what it leads to,
//! or is told of the damage and writes nothing; and the next repair finishes it.

use std::sync::Arc;
use std::time::Instant;

use gradient_repo::{ErrorClass, Progress, RepoError, repair};
use gradient_storage::sim::{Crash, CrashMode, Failure, Fault, SimErrno as Errno, SimFs};
use gradient_testkit::{
    Action, Model, Move, Process, Session, Tally, World, bury, check, crashes, num_states, open_storage,
    tear_newest_operations,
};

/// A disk with damage, and what a repair makes of it.
struct Torn {
    disk: SimFs,
    mended: Arc<Model>,
}

/// Two commits, then `later`, of which the operations are damaged. Commits are found again by themselves; what else an
/// operation did is lost with it.
fn torn(later: &[Action]) -> Torn {
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    let mut play = |action: &Action| {
        let play = Move { who: 0, action: action.clone(), meanwhile: None };
        session.play(&play).expect("as the model").expect("nothing fails");
        session.model.clone()
    };
    play(&Action::Commit(vec![1, 2]));
    let mut mended = play(&Action::Commit(vec![1, 3]));
    for action in later {
        let after = play(action);
        if matches!(action, Action::Commit(_)) {
            mended = after;
        }
    }
    session.stop();
    let disk = session.disk;
    tear_newest_operations(&disk, later.len());
    disk.settle();
    Torn { disk, mended: Arc::new(mended) }
}

/// What is tried: the newest operation, the two newest.
fn all() -> Vec<(&'static str, Torn)> {
    let commit = |number| Action::Commit(vec![number, 1]);
    vec![
        ("a tag", torn(&[Action::Tag("v1".to_owned())])),
        ("a commit", torn(&[commit(4)])),
        ("two commits", torn(&[commit(4), commit(5)])),
    ]
}

/// Repairs a disk whose processes are dead.
fn mend(disk: &SimFs) -> Result<(), RepoError> {
    bury(disk);
    repair(&open_storage(disk)?, true, &Progress::new()).map(drop)
}

/// Whoever comes before the next repair: the log is whole, or a commit is refused.
fn next_is_right_or_refused(disk: &SimFs, mended: &Model) -> Result<(), String> {
    bury(disk);
    let mut process = Process::open(disk).map_err(|error| format!("it does not open: {error}"))?;
    if process.repo.notices().map_err(|error| error.to_string())?.is_empty() {
        let (table, head) = process.repo.refs().map_err(|error| error.to_string())?;
        let found = World { table, head };
        return if found == mended.world { Ok(()) } else { Err(format!("without a word refs are {found:?}")) };
    }
    let nobody = gradient_object::CommitId::from_bytes([0; 32]);
    match process.perform(&Action::Commit(vec![99]), nobody, 99_000) {
        Err(error) if error.class() == ErrorClass::Corruption => Ok(()),
        other => Err(format!("behind a damaged head a commit is {other:?}")),
    }
}

/// What must hold of a disk on which a repair was cut off; `again` makes another copy of it.
fn holds(again: impl Fn() -> SimFs, mended: &Arc<Model>) -> Result<(), String> {
    next_is_right_or_refused(&again(), mended)?;
    let disk = again();
    mend(&disk).map_err(|error| format!("the next repair: {error}"))?;
    check(&disk, &[Arc::clone(mended)])
}

#[test]
fn a_repair_that_is_cut_off_is_seen_by_whoever_comes_next_and_finished_by_the_next_one() {
    let (tally, start) = (Tally::default(), Instant::now());
    for (name, torn) in all() {
        let disk = torn.disk;
        mend(&disk).expect("it can be mended");
        for at in 0..=disk.num_changes() {
            for crash in crashes(at, num_states(8)) {
                tally.count();
                let held = holds(|| disk.crash(&crash), &torn.mended);
                assert_eq!(held, Ok(()), "{name}, {crash}");
            }
        }
    }
    eprintln!("repair: {} states, {:.1} s", tally.num_states(), start.elapsed().as_secs_f64());
}

#[test]
fn a_repair_of_which_a_call_fails_says_so_and_loses_nothing() {
    let (mut num_faults, mut num_failed, start) = (0, 0, Instant::now());
    for (name, torn) in all() {
        let undisturbed = torn.disk.kill(0);
        mend(&undisturbed).expect("it can be mended");
        // Each call fails in one of three ways; where more is wanted, in all.
        let stride = if num_states(0) == 0 { 3 } else { 1 };
        for (first, failure) in
            [Failure::Error(Errno::IO), Failure::Error(Errno::NOSPC), Failure::LostSync].into_iter().enumerate()
        {
            let calls = (first % stride..undisturbed.calls().len()).step_by(stride);
            for (at, lasts) in calls.flat_map(|at| [(at, false), (at, true)]) {
                let disk = torn.disk.kill(0);
                disk.set_fault(Some(Fault { at, failure, lasts }));
                let outcome = mend(&disk);
                let was_hit = disk.num_failures() > 0;
                disk.set_fault(None);
                if !was_hit {
                    continue;
                }
                num_faults += 1;
                let case = format!("{name}, {failure:?} at {at}, for ever: {lasts}: {outcome:?}");
                if let Err(error) = &outcome {
                    assert!(matches!(error.class(), ErrorClass::Storage | ErrorClass::Corruption), "{case}");
                    num_failed += 1;
                }
                // What a failed sync took is gone with the power.
                let is_lost = failure == Failure::LostSync;
                let crash = Crash { after: disk.num_changes(), mode: CrashMode::Lost, seed: 0 };
                let again = || if is_lost { disk.crash(&crash) } else { disk.kill(disk.num_changes()) };
                assert_eq!(holds(again, &torn.mended), Ok(()), "{case}");
            }
        }
    }
    eprintln!("repair: {num_faults} faults, {num_failed} failed, {:.1} s", start.elapsed().as_secs_f64());
    assert!(2 * num_failed > num_faults, "of {num_faults} faults only {num_failed} were told");
}
