//! The operation log for people, and taking back what it says: `ops`, `undo`, `redo`.
//!
//! An undo is a new operation that sets the refs which one operation changed, and HEAD if it moved it, to what they
//! were before; a redo sets them to what they were after. Nothing is ever removed from the log.

use std::collections::BTreeMap;

use gradient_object::{CommitId, OperationId};

use crate::error::{RepoError, Result};
use crate::operation::{Head, Operation, OperationKind, RefTable, Subject, Target, changed, differences};
use crate::repository::{Change, Repository};

/// An operation with what it changed.
#[derive(Clone, Debug)]
pub struct OperationRow {
    /// The operation.
    pub operation: Operation,
    /// Its id.
    pub id: OperationId,
    /// Refs it moved: name, commit before, commit after.
    pub changes: Vec<(String, Option<CommitId>, Option<CommitId>)>,
    /// It was taken back, and not made again.
    pub undone: bool,
}

struct Step {
    operation: Operation,
    id: OperationId,
    before: (RefTable, Head),
    after: (RefTable, Head),
}

impl Repository {
    /// Operations, newest first.
    ///
    /// # Errors
    /// Damaged operations; storage errors.
    pub fn operations(&self, limit: Option<usize>) -> Result<Vec<OperationRow>> {
        let newest = self.lock()?.head.operation.n;
        let steps = self.steps(newest)?;
        let (_, undone) = stacks(&steps);
        let rows = steps.iter().rev().take(limit.unwrap_or(usize::MAX));
        Ok(rows.map(|step| row(step, undone.contains(&step.operation.n))).collect())
    }

    /// Takes back the newest operation that moved a ref or HEAD and was not taken back yet.
    ///
    /// # Errors
    /// [`RepoError::NothingTo`]; as [`Repository::commit`].
    pub fn undo(&self) -> Result<OperationRow> {
        self.travel(OperationKind::Undo)
    }

    /// Makes the operation again that was taken back last.
    ///
    /// # Errors
    /// [`RepoError::NothingTo`], also when refs were moved since the undo; as [`Repository::commit`].
    pub fn redo(&self) -> Result<OperationRow> {
        self.travel(OperationKind::Redo)
    }

    fn travel(&self, kind: OperationKind) -> Result<OperationRow> {
        let undo = kind == OperationKind::Undo;
        let what = if undo { "undo" } else { "redo" };
        self.change(|head| {
            let steps = self.steps(head.operation.n)?;
            let (applied, undone) = stacks(&steps);
            let number = if undo { applied.last() } else { undone.last() };
            let number = *number.ok_or(RepoError::NothingTo { what })?;
            let step = steps.iter().find(|step| step.operation.n == number).ok_or(RepoError::NothingTo { what })?;
            let (from, to) = if undo { (&step.after, &step.before) } else { (&step.before, &step.after) };
            let changes = differences(&from.0, &to.0);
            for name in changes.keys() {
                if head.table.get(name) != from.0.get(name) {
                    return Err(RepoError::MovedSince { number, name: name.clone() });
                }
            }
            let change = Change {
                kind,
                subject: Subject::Operation(number),
                why: format!("{what} {}: {}", step.operation.kind.name(), step.operation.why),
                table: changed(&head.table, &changes),
                head: if from.1 == to.1 { head.operation.head.clone() } else { to.1.clone() },
            };
            Ok((change, row(step, undo)))
        })
    }

    /// The commits that a branch ever pointed to, newest first.
    ///
    /// # Errors
    /// Damaged operations; storage errors.
    pub(crate) fn former_tips(&self, branch: &str) -> Result<Vec<CommitId>> {
        let newest = self.lock()?.head.operation.n;
        let mut tips = Vec::new();
        for (_, _, table) in self.log.replay(newest)?.into_iter().rev() {
            if let Some(Target::Branch(tip)) = table.get(branch)
                && tips.last() != Some(tip)
            {
                tips.push(*tip);
            }
        }
        Ok(tips)
    }

    fn steps(&self, newest: u64) -> Result<Vec<Step>> {
        let mut before = (RefTable::new(), Head::Branch("main".to_owned()));
        let mut steps = Vec::new();
        for (operation, id, table) in self.log.replay(newest)? {
            let after = (table, operation.head.clone());
            steps.push(Step { operation, id, before: std::mem::replace(&mut before, after.clone()), after });
        }
        Ok(steps)
    }
}

// Numbers of the operations that stand, and of those taken back that a redo can make again; newest last.
fn stacks(steps: &[Step]) -> (Vec<u64>, Vec<u64>) {
    let (mut applied, mut undone) = (Vec::new(), Vec::new());
    for step in steps {
        match (step.operation.kind, &step.operation.subject) {
            (OperationKind::Undo, Subject::Operation(n)) => {
                applied.retain(|m| m != n);
                undone.push(*n);
            }
            (OperationKind::Redo, Subject::Operation(n)) => {
                undone.retain(|m| m != n);
                applied.push(*n);
            }
            _ if step.before == step.after || step.operation.n == 1 => {}
            _ => {
                applied.push(step.operation.n);
                undone.clear();
            }
        }
    }
    (applied, undone)
}

fn row(step: &Step, undone: bool) -> OperationRow {
    let changes: BTreeMap<_, _> = differences(&step.before.0, &step.after.0);
    let changes = changes.into_iter().map(|(name, after)| {
        let before = step.before.0.get(&name).map(|target| target.commit());
        (name, before, after.map(Target::commit))
    });
    OperationRow { operation: step.operation.clone(), id: step.id, changes: changes.collect(), undone }
}
