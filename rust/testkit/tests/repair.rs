//! A repair that is cut off anywhere is finished by the next one.

use std::sync::Arc;
use std::time::Instant;

use gradient_repo::{Progress, repair};
use gradient_storage::sim::SimFs;
use gradient_testkit::{
    Action, Model, Move, Session, Tally, World, bury, check, crashes, num_states, open_storage, refs_of,
    tear_newest_operation,
};

fn play(session: &mut Session, action: Action) {
    let play = Move { who: 0, action, meanwhile: None };
    session.play(&play).expect("as the model").expect("nothing fails");
}

/// Repairs a disk whose processes are dead.
fn mend(disk: &SimFs) -> Result<(), String> {
    bury(disk);
    let storage = open_storage(disk).map_err(|error| error.to_string())?;
    repair(&storage, true, &Progress::new()).map(drop).map_err(|error| format!("repair: {error}"))
}

/// Two commits, then `last`, whose operation is damaged; every crash of the repair is repaired again.
fn every_crash_of_a_repair(last: Action, tally: &Tally) -> Result<(), String> {
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    play(&mut session, Action::Commit(vec![1, 2]));
    play(&mut session, Action::Commit(vec![1, 3]));
    let before = session.model.clone();
    play(&mut session, last);
    let after = session.model.clone();
    session.stop();
    let disk = session.disk;
    tear_newest_operation(&disk);
    disk.settle();

    mend(&disk)?;
    let found = refs_of(&disk)?;
    // A commit is found again by itself; what else the operation did is lost with it.
    let rescued = [&before, &after].into_iter().find(|model| model.world.table == found);
    let mut expected = rescued.ok_or_else(|| format!("refs are {found:?}"))?.clone();
    expected.world = World { table: found, ..expected.world };
    let allowed = [Arc::new(expected)];
    for at in 0..=disk.num_changes() {
        for crash in crashes(at, num_states(8)) {
            tally.count();
            let state = disk.crash(&crash);
            mend(&state).and_then(|()| check(&state, &allowed)).map_err(|error| format!("{crash}: {error}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_repair_that_is_cut_off_is_finished_by_the_next_one() {
    let (tally, start) = (Tally::default(), Instant::now());
    for last in [Action::Tag("v1".to_owned()), Action::Commit(vec![4, 1])] {
        assert_eq!(every_crash_of_a_repair(last.clone(), &tally), Ok(()), "{last:?}");
    }
    eprintln!("repair: {} states, {:.1} s", tally.num_states(), start.elapsed().as_secs_f64());
}
