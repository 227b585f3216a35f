//! One thing that a process tries, what came of it, and what the model makes of that.

use std::sync::Arc;

use gradient_object::CommitId;
use gradient_repo::RefTable;

use crate::model::{Made, Model, Refused};
use crate::process::{Action, Goto};

/// The commit of a repository that has none.
pub(crate) const NOBODY: CommitId = CommitId::from_bytes([0; 32]);

/// Where the line of commits of a process stands.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its branch.
    pub branch: String,
    /// Its newest commit.
    pub base: Option<CommitId>,
    /// Nothing was committed on it yet.
    pub first: bool,
    /// The step of the newest commit, and its tensors.
    pub last: (u64, Vec<u64>),
}

impl Default for Line {
    fn default() -> Self {
        Self { branch: "main".to_owned(), base: None, first: true, last: (0, Vec::new()) }
    }
}

/// What a process tries.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it does.
    pub action: Action,
    /// Where its line of commits stands.
    pub line: Line,
    /// The commit that new branches and tags point to.
    pub newest: CommitId,
    /// The step of a commit.
    pub step: u64,
}

/// What came of it, if it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// A commit, on that branch; made now, or before.
    Commit {
        /// Which.
        id: CommitId,
        /// Where it landed.
        branch: String,
        /// It was there already.
        existing: bool,
    },
    /// Something else.
    Done,
    /// It was refused.
    Refused(Refused),
}

impl Attempt {
    /// Lets the model do what was done and holds one to the other; says whether something was acknowledged.
    ///
    /// # Errors
    /// A text for people: they differ.
    pub fn hold(&self, model: &mut Model, came: &Came) -> Result<bool, String> {
        let Self { action, line, newest, .. } = self;
        let refused = match came {
            Came::Commit { id, existing: true, .. } => {
                let is_right = *action == Action::Again && line.base == Some(*id);
                return if is_right { Ok(true) } else { Err(format!("{action:?} made nothing: {came:?}")) };
            }
            Came::Commit { id, branch, .. } => {
                return match model.commit((&line.branch, line.first), *id, self.made()) {
                    Ok(landed) if landed == *branch => Ok(true),
                    landed => Err(format!("{action:?} landed on {branch} and not {landed:?}")),
                };
            }
            Came::Done => None,
            Came::Refused(refused) => Some(*refused),
        };
        let mut after = model.clone();
        let expected = match action {
            Action::Commit(_) | Action::Again if refused.is_some() => {
                after.commit((&line.branch, line.first), NOBODY, self.made()).err()
            }
            _ => after.apply(action, *newest).err(),
        };
        if expected != refused {
            return Err(format!("{action:?}: refused as {refused:?}, and not as {expected:?}"));
        }
        if expected.is_none() {
            *model = after;
        }
        Ok(refused.is_none() && promises(action))
    }

    /// The states that may be found after it failed or was cut off: as if it had done nothing, and as if it had done
    /// all. `found` is the table of refs as it is.
    pub fn may_leave(&self, model: &Model, found: &RefTable) -> Vec<Arc<Model>> {
        let mut allowed = vec![Arc::new(model.clone())];
        if !matches!(self.action, Action::Commit(_) | Action::Again) {
            let mut after = model.clone();
            if after.apply(&self.action, self.newest).is_ok() {
                allowed.push(Arc::new(after));
            }
            return allowed;
        }
        // The id of a commit that was not acknowledged is known only if a branch has it.
        for id in found.values().map(|target| target.commit()).filter(|id| !model.commits.contains_key(id)) {
            let mut after = model.clone();
            if after.commit((&self.line.branch, self.line.first), id, self.made()).is_ok() {
                allowed.push(Arc::new(after));
            }
        }
        allowed
    }

    /// Where the line stands once that has come of it.
    pub fn line_after(&self, model: &Model, came: &Came) -> Line {
        let mut line = self.line.clone();
        match (came, &self.action) {
            (Came::Commit { id, branch, .. }, _) => {
                branch.clone_into(&mut line.branch);
                (line.base, line.first) = (Some(*id), false);
                line.last = (self.made().step, self.made().tensors);
            }
            (Came::Done, Action::Line(branch)) => {
                branch.clone_into(&mut line.branch);
                (line.base, line.first) = (None, true);
            }
            (Came::Done, Action::Resume(name)) => {
                let tip = model.world.table.get(name).map(|target| target.commit());
                name.clone_into(&mut line.branch);
                (line.base, line.first) = (tip, true);
                if let Some(made) = tip.and_then(|tip| model.commits.get(&tip)) {
                    line.last = (made.step, made.tensors.clone());
                }
            }
            (Came::Done | Came::Refused(_), _) => {}
        }
        line
    }

    fn made(&self) -> Made {
        let (step, tensors) = match &self.action {
            Action::Commit(tensors) => (self.step, tensors.clone()),
            _ => self.line.last.clone(),
        };
        Made { parent: self.line.base, step, tensors }
    }
}

/// Whether it means nothing before there is a commit.
pub(crate) fn needs_commit(action: &Action) -> bool {
    matches!(action, Action::Branch(_) | Action::Tag(_) | Action::Again | Action::Checkout(Goto::New(_) | Goto::Newest))
}

/// Whether that the call returned means that something is durable.
fn promises(action: &Action) -> bool {
    !matches!(action, Action::Line(_) | Action::Resume(_) | Action::Maintain | Action::Refresh | Action::Reopen)
}
