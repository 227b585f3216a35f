//! Plays a scenario on a disk of which a call fails.

use gradient_odb::OdbError;
use gradient_repo::{ErrorClass, RepoError};
use gradient_storage::StorageError;
use gradient_storage::sim::{Call, Canary, Crash, CrashMode, Failure, Fault, SimErrno, SimFs};

use crate::check::{check, check_live, refs_of};
use crate::leases::bury;
use crate::model::Model;
use crate::play::Failed;
use crate::process::Action;
use crate::scenarios::Scenario;
use crate::session::Session;

/// A scenario that is ready to be played again and again.
#[derive(Debug)]
pub struct Faulty {
    scenario: Scenario,
    disk: SimFs,
    model: Model,
    has_rename_no_replace: bool,
    /// A rule that is broken.
    pub canary: Option<Canary>,
    /// Every call that it makes when nothing fails.
    pub calls: Vec<Call>,
}

/// What became of a scenario with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No call failed.
    Missed,
    /// Nobody noticed, or it was not needed.
    Survived,
    /// A call of the repository failed.
    Failed(ErrorClass),
}

impl Faulty {
    /// Prepares a scenario, on a disk with or without a rename that never replaces.
    ///
    /// # Errors
    /// A text for people: it fails without any fault.
    pub fn new(scenario: &Scenario, has_rename_no_replace: bool) -> Result<Self, String> {
        let (disk, model) = scenario.prepare()?;
        let scenario = scenario.clone();
        let mut this = Self { scenario, disk, model, has_rename_no_replace, canary: None, calls: Vec::new() };
        let mut session = this.session();
        for play in &this.scenario.moves {
            session.play(play)?.map_err(|error| format!("{play:?}: {error}"))?;
        }
        session.stop();
        this.calls = session.disk.calls();
        Ok(this)
    }

    fn session(&self) -> Session {
        let disk = self.disk.kill(0);
        self.scenario.set_up(&disk);
        if !self.has_rename_no_replace {
            disk.forbid_rename_no_replace();
        }
        disk.set_canary(self.canary);
        Session::new(disk, self.model.clone(), 1000)
    }

    /// Plays it until something fails; then a new process must find all that was acknowledged, and go on.
    ///
    /// # Errors
    /// A text for people: what does not hold.
    pub fn play(&self, fault: Fault) -> Result<Outcome, String> {
        let mut session = self.session();
        session.disk.set_fault(Some(fault));
        let (error, who) = run(&mut session, &self.scenario)?;
        if session.disk.is_runaway() {
            return Err("it does not stop trying".to_owned());
        }
        let num_failures = session.disk.num_failures();
        if let (Failure::Error(errno), Some(error)) = (fault.failure, &error) {
            let failed = Failed::of(error);
            // After a failure that upkeep put up with, the handle may take no more.
            let is_poisoned = failed.text.contains("an earlier write or sync through this handle failed");
            // What a disk can not read counts as damage of the pack.
            let is_unreadable = errno == SimErrno::IO && error.class() == ErrorClass::Corruption;
            if !is_poisoned && !is_unreadable && !failed.names_a_file_and(&[errno.raw_os_error()]) {
                return Err(format!("{errno} is told as {failed:?}"));
            }
        }
        let is_lost_sync = fault.failure == Failure::LostSync && num_failures > 0;
        if is_lost_sync {
            is_poisoned(&mut session, who)?;
        }
        // Every other process ends on the bad disk, and leaves its lease there.
        if fault.at.is_multiple_of(2) {
            session.disk.set_fault(None);
        }
        session.stop();
        session.disk.set_fault(None);
        let disk = &session.disk;
        if is_lost_sync {
            crash_all(&session)?;
            // A folder that has lost names lets go of them with the file system. Files go on.
            if self.calls.get(fault.at).is_some_and(|call| call.kind == gradient_storage::sim::CallKind::SyncFolder) {
                return Ok(outcome(num_failures, error.as_ref()));
            }
        }
        bury(disk);
        let allowed = session.allowed_after_failure(&refs_of(disk)?);
        let model = check_live(disk, &allowed)?;
        if is_lost_sync || fault.at.is_multiple_of(4) {
            let lost = disk.crash(&Crash { after: disk.num_changes(), mode: CrashMode::Lost, seed: 0 });
            check(&lost, &[model.into()]).map_err(|error| format!("and then the power went: {error}"))?;
        }
        Ok(outcome(num_failures, error.as_ref()))
    }
}

/// Plays until something fails; says what, and whose move it was.
fn run(session: &mut Session, scenario: &Scenario) -> Result<(Option<RepoError>, usize), String> {
    let mut who = 0;
    for play in &scenario.moves {
        who = play.who;
        if let Err(error) = session.play(play).map_err(|error| format!("{play:?}: {error}"))? {
            let class = error.class();
            if !matches!(class, ErrorClass::Storage | ErrorClass::Corruption) {
                return Err(format!("{play:?} fails as {class:?}: {error}"));
            }
            return Ok((Some(error), who));
        }
    }
    Ok((None, who))
}

/// After a failed sync the handle takes no more commits.
fn is_poisoned(session: &mut Session, who: usize) -> Result<(), String> {
    let nobody = gradient_object::CommitId::from_bytes([0; 32]);
    let Some(process) = session.process(who) else { return Ok(()) };
    match process.perform(&Action::Commit(vec![7_000_000]), nobody, 7_000_000) {
        Err(
            RepoError::Storage(StorageError::Poisoned { .. })
            | RepoError::Odb(OdbError::Storage(StorageError::Poisoned { .. }))
            | RepoError::Closed,
        ) => Ok(()),
        other => Err(format!("the handle of a failed sync commits: {other:?}")),
    }
}

/// What was acknowledged outlives the power, whatever the failed sync took with it.
fn crash_all(session: &Session) -> Result<(), String> {
    let disk = &session.disk;
    for mode in CrashMode::ALL {
        let crash = Crash { after: disk.num_changes(), mode, seed: 1 };
        let state = disk.crash(&crash);
        bury(&state);
        let allowed = session.allowed_after_failure(&refs_of(&state)?);
        check(&state, &allowed).map_err(|error| format!("{crash}: {error}"))?;
    }
    Ok(())
}

fn outcome(num_failures: usize, error: Option<&RepoError>) -> Outcome {
    match error {
        Some(error) => Outcome::Failed(error.class()),
        None if num_failures == 0 => Outcome::Missed,
        None => Outcome::Survived,
    }
}
