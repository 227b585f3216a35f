//! Follows, on the model alone, a scenario that another process plays, by what that process tells.

use std::sync::Arc;

use gradient_repo::RefTable;

use crate::attempt::{Attempt, Line, NOBODY};
use crate::model::Model;
use crate::play::{Failed, Told};
use crate::process::Action;
use crate::scenarios::Scenario;

/// The step of the first commit of a played scenario.
const FIRST_STEP: u64 = 1000;

/// One thing of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) who: usize,
    pub(crate) action: Action,
    pub(crate) step: u64,
    /// It is done while the one after it is on its way.
    pub(crate) is_meanwhile: bool,
}

/// What a scenario comes to, one thing after the other.
pub(crate) fn plan(scenario: &Scenario) -> Vec<Planned> {
    let mut all: Vec<Planned> = Vec::new();
    let mut add = |who, action: &Action, is_meanwhile| {
        all.push(Planned { who, action: action.clone(), step: FIRST_STEP + all.len() as u64, is_meanwhile });
    };
    for play in &scenario.moves {
        if let Some((who, action)) = &play.meanwhile {
            add(*who, action, true);
        }
        add(play.who, &play.action, false);
    }
    all
}

/// What must be there, by what was told.
#[derive(Clone, Debug)]
pub struct Replay {
    /// All that was acknowledged.
    pub model: Model,
    /// What failed, and how.
    pub failed: Option<Failed>,
    /// How many things were acknowledged or refused.
    pub num_told: usize,
    plan: Vec<Planned>,
    lines: Vec<Line>,
    /// What comes next began when the one before it did.
    before: Option<(Line, gradient_object::CommitId)>,
}

impl Replay {
    /// Begins with what the scenario begins with.
    pub fn new(scenario: &Scenario, model: Model) -> Self {
        let plan = plan(scenario);
        let processes = plan.iter().map(|planned| planned.who + 1).max().unwrap_or(0);
        Self { model, failed: None, num_told: 0, plan, lines: vec![Line::default(); processes], before: None }
    }

    /// Says whether everything was told.
    pub fn is_over(&self) -> bool {
        self.num_told == self.plan.len()
    }

    /// Hears what came of the next thing.
    ///
    /// # Errors
    /// A text for people: the model says something else.
    pub fn hear(&mut self, told: &Told) -> Result<(), String> {
        let came = match told {
            Told::Made => {
                self.model.is_made = true;
                return Ok(());
            }
            Told::Failed(failed) => {
                self.failed = Some(failed.clone());
                return Ok(());
            }
            Told::Came(came) => came,
        };
        let attempt = self.next().ok_or_else(|| format!("more was done than there is: {came:?}"))?;
        let planned = &self.plan[self.num_told];
        self.before = match self.plan.get(self.num_told + 1) {
            Some(next) if planned.is_meanwhile => Some((self.lines[next.who].clone(), self.newest())),
            _ => None,
        };
        attempt.hold(&mut self.model, came)?;
        self.lines[planned.who] = attempt.line_after(&self.model, came);
        self.num_told += 1;
        Ok(())
    }

    /// What may be found now; `found` is the table of refs as it is.
    pub fn allowed(&self, found: &RefTable) -> Vec<Arc<Model>> {
        match self.next() {
            Some(attempt) => attempt.may_leave(&self.model, found),
            None => vec![Arc::new(self.model.clone())],
        }
    }

    fn next(&self) -> Option<Attempt> {
        let planned = self.plan.get(self.num_told)?;
        let (line, newest) = self.before.clone().unwrap_or_else(|| (self.lines[planned.who].clone(), self.newest()));
        Some(Attempt { action: planned.action.clone(), line, newest, step: planned.step })
    }

    fn newest(&self) -> gradient_object::CommitId {
        self.model.newest.unwrap_or(NOBODY)
    }
}
