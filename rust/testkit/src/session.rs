//! Processes and the model side by side, and when which change was acknowledged.

use std::sync::{Arc, Mutex, PoisonError};

use gradient_object::CommitId;
use gradient_repo::{RefTable, RepoError};
use gradient_storage::sim::{Call, CallKind, SimFs};

use crate::attempt::{Attempt, Came, NOBODY, needs_commit};
use crate::model::{Model, World};
use crate::process::{Action, Process};

/// One thing that one process does.
#[derive(Clone, Debug)]
pub struct Move {
    /// Which process.
    pub who: usize,
    /// What it does.
    pub action: Action,
    /// What another one does just before the first one publishes its operation.
    pub meanwhile: Option<(usize, Action)>,
}

/// A state that the repository was in, or was on its way to.
#[derive(Clone, Debug)]
pub struct Moment {
    /// How many changes had been made when the call began that led here.
    pub began: usize,
    /// How many had been made when it returned.
    pub acknowledged: usize,
    /// The state.
    pub model: Arc<Model>,
}

/// Processes on one disk.
#[derive(Debug)]
pub struct Session {
    /// The disk.
    pub disk: SimFs,
    /// The model.
    pub model: Model,
    /// What was acknowledged when.
    pub moments: Vec<Moment>,
    /// States that may be found before anything was acknowledged.
    before: Vec<Arc<Model>>,
    processes: Vec<Option<Process>>,
    step: u64,
    /// What failed, and may have been done all the same.
    failed: Option<Box<Attempt>>,
}

/// What was done, and what it began from.
#[derive(Debug)]
struct Done {
    attempt: Attempt,
    /// How many changes had been made when it was done.
    at: usize,
    outcome: Result<Came, RepoError>,
}

/// What another process did meanwhile, and the process itself.
type Meanwhile = Arc<Mutex<Option<(Process, Done)>>>;

impl Session {
    /// Begins on a disk that is as the model says.
    pub fn new(disk: SimFs, model: Model, step: u64) -> Self {
        let before = Arc::new(model.clone());
        let moments = vec![Moment { began: 0, acknowledged: 0, model: before }];
        Self { disk, model, moments, before: Vec::new(), processes: Vec::new(), step, failed: None }
    }

    /// Begins on a disk that a killed process left: what it shows may be lost again until somebody acknowledges it.
    pub fn after_kill(disk: SimFs, found: Model, allowed: Vec<Arc<Model>>, step: u64) -> Self {
        let mut session = Self::new(disk, found, step);
        session.moments[0].acknowledged = usize::MAX;
        session.before = allowed;
        session
    }

    /// Returns the step of the next commit.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Returns the states that a crash after so many changes may leave.
    pub fn allowed(&self, after: usize) -> Vec<Arc<Model>> {
        let last = self.moments.iter().rposition(|moment| moment.acknowledged <= after);
        let on_the_way = self.moments.iter().skip(last.map_or(0, |last| last + 1));
        let started = on_the_way.filter(|moment| moment.began < after);
        let certain = last.map(|last| &self.moments[last]);
        let models = certain.into_iter().chain(started).map(|moment| Arc::clone(&moment.model));
        if last.is_none() { models.chain(self.before.iter().cloned()).collect() } else { models.collect() }
    }

    /// Opens the process, or makes the repository with it.
    ///
    /// # Errors
    /// What the repository says.
    pub fn start(&mut self, who: usize) -> Result<(), RepoError> {
        while self.processes.len() <= who {
            self.processes.push(None);
        }
        if self.processes[who].is_none() {
            let began = self.disk.num_changes();
            let is_new = !self.model.is_made;
            self.processes[who] = Some(if is_new { Process::init(&self.disk)? } else { Process::open(&self.disk)? });
            if is_new {
                self.model.is_made = true;
                self.acknowledge(began);
            }
        }
        Ok(())
    }

    /// Ends all processes.
    pub fn stop(&mut self) {
        self.processes.clear();
    }

    /// Returns a process that was started.
    pub fn process(&mut self, who: usize) -> Option<&mut Process> {
        self.processes.get_mut(who)?.as_mut()
    }

    /// Makes a move and holds what comes of it to the model. The inner error is one that is no refusal.
    ///
    /// # Errors
    /// A text for people: the repository and the model differ.
    pub fn play(&mut self, play: &Move) -> Result<Result<(), RepoError>, String> {
        if let Err(error) = self.start(play.who) {
            return Ok(Err(error));
        }
        let Some((other, action)) = &play.meanwhile else {
            return self.perform(play.who, &play.action, None);
        };
        if let Err(error) = self.start(*other) {
            return Ok(Err(error));
        }
        let meanwhile = Meanwhile::default();
        let (newest, step) = (self.newest(), self.step);
        self.step += 1;
        if let Some(mut process) = self.processes[*other].take() {
            let (disk, meanwhile, action) = (self.disk.clone(), Arc::clone(&meanwhile), action.clone());
            self.disk.before(publishes, move || {
                let done = act(&mut process, action, newest, step, &disk);
                *meanwhile.lock().unwrap_or_else(PoisonError::into_inner) = Some((process, done));
            });
        }
        self.perform(play.who, &play.action, Some((*other, meanwhile)))
    }

    fn perform(
        &mut self,
        who: usize,
        action: &Action,
        beside: Option<(usize, Meanwhile)>,
    ) -> Result<Result<(), RepoError>, String> {
        let began = self.disk.num_changes();
        let (newest, step) = (self.newest(), self.step);
        if newest == NOBODY && needs_commit(action) {
            return Ok(Ok(()));
        }
        self.step += 1;
        let disk = self.disk.clone();
        let process = self.process(who).ok_or("no such process")?;
        let mut all = vec![act(process, action.clone(), newest, step, &disk)];
        if let Some((other, meanwhile)) = beside {
            let first = meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
            match first {
                Some((process, first)) => {
                    self.processes[other] = Some(process);
                    all.insert(0, first);
                }
                None if all[0].outcome.is_err() => self.disk.undisturbed(),
                None => return Err(format!("nothing happened during {action:?}")),
            }
        }
        for done in all {
            let acknowledged = done.at;
            match self.compare(done)? {
                Ok(true) => {
                    let model = Arc::new(self.model.clone());
                    self.moments.push(Moment { began, acknowledged, model });
                }
                Ok(false) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Lets the model do the same; says whether something was acknowledged.
    fn compare(&mut self, done: Done) -> Result<Result<bool, RepoError>, String> {
        match done.outcome {
            Ok(came) => done.attempt.hold(&mut self.model, &came).map(Ok),
            Err(error) => {
                self.failed = Some(Box::new(done.attempt));
                Ok(Err(error))
            }
        }
    }

    fn acknowledge(&mut self, began: usize) {
        let (acknowledged, model) = (self.disk.num_changes(), Arc::new(self.model.clone()));
        self.moments.push(Moment { began, acknowledged, model });
    }

    /// Returns the states that may be found after a call has failed: as if it had done nothing, and as if it had done
    /// all. `found` is the table of refs as it is.
    pub fn allowed_after_failure(&self, found: &RefTable) -> Vec<Arc<Model>> {
        match &self.failed {
            Some(failed) => failed.may_leave(&self.model, found),
            None => vec![Arc::new(self.model.clone())],
        }
    }

    fn newest(&self) -> CommitId {
        self.model.newest.unwrap_or(NOBODY)
    }

    /// Compares what a process sees with the model.
    ///
    /// # Errors
    /// A text for people.
    pub fn compare_refs(&mut self, who: usize) -> Result<(), String> {
        let expected = self.model.world.clone();
        let Some(process) = self.process(who) else { return Ok(()) };
        process.repo.refresh().map_err(|error| error.to_string())?;
        let (table, head) = process.repo.refs().map_err(|error| error.to_string())?;
        let found = World { table, head };
        if found == expected { Ok(()) } else { Err(format!("refs are {found:?} and should be {expected:?}")) }
    }
}

fn publishes(call: &Call) -> bool {
    call.kind == CallKind::RenameNoReplace && call.path.starts_with("ops/0")
}

fn act(process: &mut Process, action: Action, newest: CommitId, step: u64, disk: &SimFs) -> Done {
    let attempt = Attempt { action, line: process.line(), newest, step };
    let outcome = process.attempt(&attempt);
    Done { attempt, at: disk.num_changes(), outcome }
}
