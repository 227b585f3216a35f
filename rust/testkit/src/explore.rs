//! Goes through the crashes of a session.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gradient_storage::sim::{Call, CallKind, Crash, CrashMode, SimFs};

use crate::check::check;
use crate::leases::bury;
use crate::model::{Model, World};
use crate::process::{Action, Process};
use crate::session::{Move, Session};

/// What was tried.
#[derive(Debug, Default)]
pub struct Tally {
    num_states: AtomicUsize,
}

impl Tally {
    /// Counts one more state.
    pub fn count(&self) {
        self.num_states.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many states were tried.
    pub fn num_states(&self) -> usize {
        self.num_states.load(Ordering::Relaxed)
    }
}

/// How many states are tried after each change: `GRADIENT_CRASH_STATES`, or `usual`.
pub fn num_states(usual: usize) -> usize {
    std::env::var("GRADIENT_CRASH_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Whether a scenario was asked for: `GRADIENT_CRASH_ONLY` is a part of its name, or not set.
pub fn is_wanted(name: &str) -> bool {
    std::env::var("GRADIENT_CRASH_ONLY").map_or(true, |only| name.contains(&only))
}

/// The crashes after one number of changes: the modes in turn, those that draw lots with new seeds each time.
pub fn crashes(after: usize, num: usize) -> impl Iterator<Item = Crash> {
    let random = CrashMode::ALL.into_iter().filter(|mode| mode.is_random()).collect::<Vec<_>>();
    (0..num).map(move |at| {
        let modes = CrashMode::ALL.len();
        // The first round has every mode; where it is cut short, each number of changes leaves out another one.
        let mode = if at < modes { CrashMode::ALL[(after + at) % modes] } else { random[at % random.len()] };
        Crash { after, mode, seed: at as u64 }
    })
}

/// After how many changes a killed process leaves a name that nobody has made durable yet.
pub fn names_in_doubt(disk: &SimFs) -> Vec<usize> {
    let names = |call: &&Call| {
        matches!(
            call.kind,
            CallKind::MakePath | CallKind::MakeFolder | CallKind::RenameNoReplace | CallKind::Rename | CallKind::Link
        )
    };
    let calls = disk.calls();
    let after: BTreeSet<usize> = calls.iter().filter(names).map(|call| call.changes_before + 1).collect();
    after.into_iter().filter(|after| *after <= disk.num_changes()).collect()
}

/// Crashes the next process in turn: wherever something was acknowledged with all that is not durable lost, and
/// elsewhere, every `step` changes, as the modes come.
///
/// # Errors
/// A text for people that names the crash.
pub fn explore_next(next: &Session, from: usize, step: usize, tally: &Tally) -> Result<(), String> {
    let acknowledged =
        next.moments.iter().map(|moment| moment.acknowledged).filter(|at| *at <= next.disk.num_changes());
    let lost = acknowledged.map(|after| Crash { after, mode: CrashMode::Lost, seed: 0 });
    let others = (from..=next.disk.num_changes()).step_by(step).flat_map(|after| crashes(after, 1));
    for crash in lost.chain(others) {
        tally.count();
        let state = next.disk.crash(&crash);
        check(&state, &next.allowed(crash.after)).map_err(|error| format!("then {crash}: {error}"))?;
    }
    Ok(())
}

/// Tries so many crashes after each change from `from` on, and stops at the first that leaves what must not be.
///
/// # Errors
/// A text for people that names the crash.
pub fn explore(session: &Session, from: usize, num: usize, tally: &Tally) -> Result<(), String> {
    for after in from..=session.disk.num_changes() {
        let allowed = session.allowed(after);
        for crash in crashes(after, num) {
            tally.count();
            check(&session.disk.crash(&crash), &allowed).map_err(|error| format!("{crash}: {error}"))?;
        }
    }
    Ok(())
}

/// Lets a new process go on with a disk, as a trainer does that is started again; everything is recorded.
///
/// # Errors
/// A text for people: it can not, or not as it should.
pub fn recover(disk: SimFs, allowed: &[Arc<Model>], is_killed: bool) -> Result<Session, String> {
    bury(&disk);
    let found = match Process::open(&disk) {
        Ok(process) => {
            let (table, head) = process.repo.refs().map_err(|error| error.to_string())?;
            let world = World { table, head };
            let model = allowed.iter().find(|model| model.world == world);
            let mut model = Model::clone(model.ok_or_else(|| format!("refs are {world:?}"))?);
            model.is_made = true;
            model
        }
        Err(error) if allowed.iter().any(|model| !model.is_made) => {
            drop(error);
            Model::default()
        }
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    let has_main = found.world.table.contains_key("main");
    let mut session = if is_killed {
        Session::after_kill(disk, found, allowed.to_vec(), 500_000)
    } else {
        Session::new(disk, found, 500_000)
    };
    let main = || "main".to_owned();
    let mut actions = vec![Action::Commit(vec![1, 900]), Action::Tag("found".to_owned()), Action::Maintain];
    if has_main {
        actions.splice(0..0, [Action::Resume(main()), Action::Again]);
    }
    for action in actions {
        let play = Move { who: 0, action, meanwhile: None };
        let failed = |error: String| format!("{:?} of the next process: {error}", play.action);
        session.play(&play).map_err(failed)?.map_err(|error| failed(error.to_string()))?;
    }
    session.stop();
    Ok(session)
}

/// Does something with each item on as many threads as there are processors; the first failure is returned.
///
/// # Errors
/// What `work` returns.
pub fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<(), String> + Sync) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let run = || -> Result<(), String> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    let num_threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..num_threads).map(|_| scope.spawn(run)).collect();
        let mut outcome = Ok(());
        for thread in threads {
            outcome = outcome.and(thread.join().unwrap_or_else(|_| Err("a check panicked".to_owned())));
        }
        outcome
    })
}
