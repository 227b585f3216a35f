//! Rows 1 and 2 of `reliability.md`: a crash after every change, and another one while a new process goes on.

use std::time::Instant;

use gradient_testkit::{
    Scenario, Session, Tally, crashes, explore, explore_next, in_parallel, is_wanted, names_in_doubt, num_states,
    recover, scenarios,
};

/// In `make test` the first crash comes every ten changes, and the second one every seventeen; else after each.
fn steps() -> (usize, usize) {
    if num_states(8) > 8 { (1, 1) } else { (10, 17) }
}

/// Crashes the process that goes on after one crash in ten.
fn second_crashes(session: &Session, tally: &Tally) -> Result<(), String> {
    for first in (0..=session.disk.num_changes()).step_by(steps().0).flat_map(|after| crashes(after, 1)) {
        let named = |error| format!("{first}, {error}");
        let next = recover(session.disk.crash(&first), &session.allowed(first.after), false).map_err(named)?;
        explore_next(&next, 0, steps().1, tally).map_err(named)?;
    }
    Ok(())
}

/// Kills a process where it has made a name that is not durable, lets the next one go on with what it sees, and only
/// then lets the power go.
fn crashes_after_a_kill(session: &Session, tally: &Tally) -> Result<(), String> {
    for after in names_in_doubt(&session.disk) {
        let named = |error| format!("killed after change {after}, {error}");
        let next = recover(session.disk.kill(after), &session.allowed(after), true).map_err(named)?;
        explore_next(&next, after, steps().1, tally).map_err(named)?;
    }
    Ok(())
}

fn for_each_scenario(row: &str, try_all: impl Fn(&Session, &Tally) -> Result<(), String> + Sync) {
    let (tally, start) = (Tally::default(), Instant::now());
    let wanted: Vec<Scenario> = scenarios().into_iter().filter(|scenario| is_wanted(scenario.name)).collect();
    let outcome = in_parallel(&wanted, |scenario| {
        let session = scenario.record();
        session.and_then(|session| try_all(&session, &tally)).map_err(|error| format!("{}: {error}", scenario.name))
    });
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{row}: {} scenarios, {} states, {seconds:.1} s", wanted.len(), tally.num_states());
    assert_eq!(outcome, Ok(()));
}

#[test]
fn whatever_a_crash_leaves_is_the_repository_before_or_after_and_goes_on() {
    for_each_scenario("row 1", |session, tally| explore(session, 0, num_states(8), tally));
}

#[test]
fn a_second_crash_finds_no_more_to_break_than_the_first() {
    for_each_scenario("row 2", second_crashes);
}

#[test]
fn what_a_process_acknowledges_that_found_names_of_a_killed_one_outlives_the_power() {
    for_each_scenario("row 2, killed", crashes_after_a_kill);
}
