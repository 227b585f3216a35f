//! Rows 6, 7 and 20 of `reliability.md`: calls that fail, syncs that lose what they should keep, a network file system
//! that does what it was asked for and says otherwise.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use gradient_storage::sim::{Failure, Fault, SimErrno};
use gradient_testkit::{Faulty, Outcome, Scenario, in_parallel, is_wanted, num_states, scenarios};

/// How calls fail. Each does so once, and from one call on for ever.
const FAILURES: [Failure; 11] = [
    Failure::Error(SimErrno::IO),
    Failure::Error(SimErrno::NOSPC),
    Failure::Error(SimErrno::DQUOT),
    Failure::Error(SimErrno::INTR),
    Failure::Error(SimErrno::AGAIN),
    Failure::Error(SimErrno::STALE),
    Failure::Error(SimErrno::ACCESS),
    Failure::Error(SimErrno::ROFS),
    Failure::Error(SimErrno::MFILE),
    Failure::OneByte,
    Failure::Half,
];

/// What a network file system says of what it has done: it sent the request twice, or lost the answer.
const LIES: [Failure; 4] = [
    Failure::DoneAndError(SimErrno::EXIST),
    Failure::DoneAndError(SimErrno::NOENT),
    Failure::DoneAndError(SimErrno::IO),
    Failure::DoneAndError(SimErrno::STALE),
];

/// So many faults of a scenario are tried in `make test`.
const FAULTS: usize = 60;

/// Plays every scenario with the faults that fit its calls, `most` of them at least, spread evenly.
fn for_each_fault(row: &str, failures: &[Failure], lasts: &[bool], has_rename: bool, most: usize) {
    let start = Instant::now();
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let wanted: Vec<Scenario> = scenarios().into_iter().filter(|scenario| is_wanted(scenario.name)).collect();
    let outcome = in_parallel(&wanted, |scenario| {
        let named = |error| format!("{}: {error}", scenario.name);
        let ready = Faulty::new(scenario, has_rename).map_err(named)?;
        let mut faults = Vec::new();
        for (at, call) in ready.calls.iter().enumerate() {
            for failure in failures.iter().copied().filter(|failure| failure.fits(call.kind)) {
                faults.extend(lasts.iter().map(|lasts| Fault { at, failure, lasts: *lasts }));
            }
        }
        // A step that has no divisor in common with the numbers of failures, so that all of them come up.
        let step = if num_states(8) > 8 { 1 } else { (faults.len() / most).max(1) | 1 };
        for fault in faults.into_iter().step_by(step) {
            let call = &ready.calls[fault.at];
            let outcome = ready.play(fault).map_err(|error| named(format!("{fault:?} ({call}): {error}")))?;
            *counts.lock().expect("nobody panics").entry(format!("{outcome:?}")).or_default() += 1;
        }
        Ok(())
    });
    let counts = counts.into_inner().expect("nobody panics");
    let total: usize = counts.values().sum();
    eprintln!("{row}: {total} faults {counts:?}, {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(outcome, Ok(()));
    let num_missed = counts.get(&format!("{:?}", Outcome::Missed)).copied().unwrap_or(0);
    assert!(10 * num_missed < total || wanted.len() < 10, "{num_missed} of {total} faults hit nothing");
}

#[test]
fn a_call_that_fails_loses_nothing_and_is_reported_as_what_it_is() {
    for_each_fault("row 6", &FAILURES, &[false, true], true, FAULTS);
}

#[test]
fn a_sync_that_fails_is_never_believed_and_its_handle_commits_no_more() {
    for_each_fault("row 7", &[Failure::LostSync], &[false], true, usize::MAX);
}

#[test]
fn what_a_network_file_system_did_and_denies_is_found_out() {
    for_each_fault("row 20", &LIES, &[false], false, FAULTS / 2);
}

#[test]
fn what_a_rename_did_and_denies_is_found_out() {
    for_each_fault("row 20, with a rename that never replaces", &LIES, &[false], true, FAULTS / 2);
}
