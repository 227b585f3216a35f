//! Row 4 of `reliability.md`: a process that is killed at any system call that changes a file; and of row 6 the part
//! that a real process can show. `GRADIENT_KILL=all` tries all scenarios, on a disk; else two of three, in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use gradient_testkit::{Driver, Harm, Ready, Scenario, When, in_parallel, is_all_wanted, is_wanted, scenarios, tally};

fn driver() -> &'static Driver {
    static DRIVER: LazyLock<Driver> =
        LazyLock::new(|| Driver::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("what is needed is there"));
    &DRIVER
}

/// Scenarios with the calls that each of them makes when nothing is done to it: all, or those that are `usual` by their
/// place in the list.
fn wanted(driver: &Driver, usual: impl Fn(usize) -> bool) -> Vec<(Ready, Vec<String>)> {
    let ready = |scenario: &Scenario| {
        let ready = Ready::new(scenario)?;
        let calls = driver.count(&ready)?;
        Ok::<_, String>((ready, calls))
    };
    let all = scenarios().into_iter().enumerate();
    let chosen = all.filter(|(at, scenario)| is_wanted(scenario.name) && (is_all_wanted() || usual(*at)));
    let made = chosen.map(|(_, scenario)| ready(&scenario).map_err(|error| format!("{}: {error}", scenario.name)));
    made.collect::<Result<_, _>>().expect("undisturbed, they work")
}

fn named(name: &str) -> Scenario {
    scenarios().into_iter().find(|scenario| scenario.name == name).expect("there is such a scenario")
}

/// Every kill that there is of these calls.
fn kills(calls: &[String]) -> Vec<Harm> {
    let mut all = Vec::new();
    for (name, at) in calls.iter().zip(1..) {
        let halves = if name.contains("write") { &[When::Half][..] } else { &[] };
        all.extend([When::Before, When::After].iter().chain(halves).map(|when| Harm::Kill(*when, at)));
    }
    all
}

#[test]
fn a_process_that_is_killed_at_any_call_loses_nothing_that_it_acknowledged() {
    let driver = driver();
    let start = Instant::now();
    let wanted = wanted(driver, |at| at % 3 != 2);
    let all: Vec<(&Ready, &String, Harm)> = wanted
        .iter()
        .flat_map(|(ready, calls)| kills(calls).into_iter().map(move |harm| (ready, call_of(calls, harm), harm)))
        .collect();
    let (num_killed, num_lived) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outcome = in_parallel(&all, |(ready, call, harm)| {
        let ended = driver.harm(ready, *harm, None);
        let ended = ended.map_err(|error| format!("{}: killed {harm} ({call}): {error}", ready.scenario.name))?;
        let count = if ended.is_killed() { &num_killed } else { &num_lived };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let (killed, lived) = (num_killed.into_inner(), num_lived.into_inner());
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("row 4: {} scenarios, {killed} kills, {lived} ended before, {seconds:.1} s", wanted.len());
    assert_eq!(outcome, Ok(()));
    assert!(20 * lived < killed, "{lived} runs were not killed, {killed} were");
}

fn call_of(calls: &[String], harm: Harm) -> &String {
    match harm {
        Harm::Kill(_, at) | Harm::Fail { at, .. } => &calls[at - 1],
    }
}

#[test]
fn an_operation_that_comes_before_its_pack_turns_row_4_red() {
    let (driver, start) = (driver(), Instant::now());
    let ready = Ready::new(&named("second commit")).expect("it can be prepared");
    let calls = driver.count(&ready).expect("undisturbed, it works");
    let try_all = |canary| kills(&calls).into_iter().try_for_each(|harm| driver.harm(&ready, harm, canary).map(drop));
    assert_eq!(try_all(None), Ok(()));
    let error = try_all(Some("late-pack")).expect_err("a published commit has no pack");
    assert!(error.contains("no pack holds it"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn the_shim_sees_syncs() {
    let ready = Ready::new(&named("first commit of a new repository")).expect("it can be prepared");
    let calls = driver().count(&ready).expect("it can be counted");
    let seen = tally(&calls);
    assert!(seen.get("fsync").is_some_and(|num| *num > 3), "no syncs are seen: {seen:?}");
}

#[test]
fn the_shim_sees_every_call_that_strace_sees() {
    if Command::new("strace").arg("-V").output().is_err() {
        let is_required = std::env::var("REQUIRE_TEST_TOOLS").is_ok_and(|value| !["", "0"].contains(&value.as_str()));
        assert!(!is_required, "strace is missing, and REQUIRE_TEST_TOOLS is set");
        eprintln!("SKIPPED: strace is missing, so nobody counts what the shim counts");
        return;
    }
    let driver = driver();
    for name in ["first commit of a new repository", "merge after a commit"] {
        let ready = Ready::new(&named(name)).expect("it can be prepared");
        let (seen, traced) = driver.traced(&ready).expect("it can be traced");
        assert_eq!(tally(&seen), tally(&traced), "{name}");
        assert!(tally(&seen).get("fsync").is_some_and(|num| *num > 3), "no syncs are seen: {:?}", tally(&seen));
        eprintln!("{name}: {:?}", tally(&seen));
    }
}

/// What fails in the slice of row 6: a disk that is broken, and one that is full.
const ERRNOS: [i32; 2] = [5, 28];

/// Says whether a commit may go on although this call failed. A sync never is one.
fn may_fail_unseen(call: &str) -> bool {
    !call.contains("sync")
}

#[test]
fn a_real_process_of_which_a_call_fails_says_so_and_loses_nothing() {
    let driver = driver();
    let start = Instant::now();
    let wanted = wanted(driver, |at| at % 8 == 1);
    // Where two processes meet, the fault may hit either; the simulated disk tries those.
    let wanted: Vec<_> = wanted.into_iter().filter(|(ready, _)| !ready.scenario.is_raced()).collect();
    let mut all = Vec::new();
    for (ready, calls) in &wanted {
        for at in 1..=calls.len() {
            let harms = ERRNOS.map(|errno| [false, true].map(|ever| Harm::Fail { at, errno, ever }));
            all.extend(harms.as_flattened().iter().map(|harm| (ready, call_of(calls, *harm), *harm)));
        }
    }
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let outcome = in_parallel(&all, |(ready, call, harm)| {
        let named = |error| format!("{}: failing {harm} ({call}): {error}", ready.scenario.name);
        let ended = driver.harm(ready, *harm, None).map_err(named)?;
        let Harm::Fail { errno, .. } = *harm else { return Err(named("it is no failure".to_owned())) };
        let class = match &ended.replay.failed {
            Some(failed) if ended.status.code() == Some(6) && failed.names_a_file_and(&[errno]) => "Storage",
            // After a failure that upkeep put up with, the handle may take no more.
            Some(failed) if ended.status.code() == Some(6) && failed.text.contains("an earlier write or sync") => {
                "Poisoned"
            }
            // What is only tidied up, or done another way where the first one fails.
            None if ended.status.success() && ended.replay.is_over() && may_fail_unseen(call) => "Survived",
            other => return Err(named(format!("{:?}, {other:?}", ended.status))),
        };
        *counts.lock().expect("nobody panics").entry(class.to_owned()).or_default() += 1;
        Ok(())
    });
    let counts = counts.into_inner().expect("nobody panics");
    eprintln!("row 6, real: {} faults {counts:?}, {:.1} s", all.len(), start.elapsed().as_secs_f64());
    assert_eq!(outcome, Ok(()));
    assert!(counts.get("Storage").is_some_and(|num| 3 * num > all.len()), "too few failed: {counts:?}");
}
