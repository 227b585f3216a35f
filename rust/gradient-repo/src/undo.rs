//! The operation log for people, and taking back what it says: `ops`, `undo`, `redo`.
//!
//! An undo is a new operation that sets the refs which one operation changed, and HEAD if it moved it, to what they
//! were before; a redo sets them to what they were after. Nothing is ever removed from the log.

use std::collections::{BTreeMap, HashMap, VecDeque};

use gradient_object::{CommitId, OperationId};

use crate::error::{RepoError, Result};
use crate::operation::{Head, Operation, OperationKind, RefTable, Refs, Subject, Target, changed};
use crate::replay::{RefChange, Replayed};
use crate::repository::{Change, Repository};

/// Most that a list of operations takes in memory.
const LISTED_BYTES_MAX: usize = 128 << 20;
/// What a row of the list, and a change in it, take beside their texts.
const ROW_BYTES: usize = 512;

/// An operation with what it changed.
#[derive(Clone, Debug)]
pub struct OperationRow {
    /// The operation, its table of refs left out.
    pub operation: Operation,
    /// Its id.
    pub id: OperationId,
    /// Refs it moved: name, commit before, commit after.
    pub changes: Vec<(String, Option<CommitId>, Option<CommitId>)>,
    /// It was taken back, and not made again.
    pub undone: bool,
}

/// An operation that is taken back or made again.
struct Step {
    row: OperationRow,
    changes: Vec<RefChange>,
    before: Head,
    after: Head,
}

impl Repository {
    /// Operations, newest first.
    ///
    /// # Errors
    /// - [`RepoError::Invalid`]: they are too many to be listed at once.
    /// - Damaged operations, if what is asked for does not lie behind them; storage errors.
    pub fn operations(&self, limit: Option<usize>) -> Result<Vec<OperationRow>> {
        match self.readable_operations(limit)? {
            (rows, None) => Ok(rows),
            (_, Some(error)) => Err(error),
        }
    }

    /// Operations, newest first, as far as they can be read: those behind the newest damaged one, but for the first of
    /// them, whose changes are not known; and why there are no more, if more were asked for.
    ///
    /// # Errors
    /// As [`Repository::operations`], but for damage.
    pub fn readable_operations(&self, limit: Option<usize>) -> Result<(Vec<OperationRow>, Option<RepoError>)> {
        let newest = self.lock()?.head.operation.n;
        let limit = limit.unwrap_or(usize::MAX);
        let (mut listing, error): (Listing, _) = self.log.replay_newest(newest, |listing: &mut Listing, step| {
            listing.take(step, limit);
            if listing.len > LISTED_BYTES_MAX {
                let message = format!("the list of {newest} operations is longer than {} MiB", LISTED_BYTES_MAX >> 20);
                return Err(RepoError::invalid(message, "list the newest ones: gradient ops --limit 1000"));
            }
            Ok(())
        })?;
        for row in &mut listing.rows {
            row.undone = listing.stacks.undone.contains(row.operation.n);
        }
        let error = error.filter(|_| listing.rows.len() < limit);
        Ok((listing.rows.into_iter().rev().collect(), error))
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
            // Of a log with a damaged operation what lies behind it is enough, if there is something to take back.
            let (stacks, mut damage): (Stacks, _) =
                self.log.replay_newest(head.operation.n, |stacks: &mut Stacks, step| {
                    stacks.take(&step);
                    Ok(())
                })?;
            let number = if undo { stacks.applied.newest() } else { stacks.undone.newest() };
            let step = number.map(|number| self.step(number, head.operation.n, undo)).transpose()?.flatten();
            let step = step.ok_or_else(|| damage.take().unwrap_or(RepoError::NothingTo { what }))?;
            let number = step.row.operation.n;
            let mut changes = BTreeMap::new();
            for RefChange { name, before, after } in step.changes {
                let (from, to) = if undo { (after, before) } else { (before, after) };
                if head.table.get(&name).copied() != from {
                    return Err(RepoError::MovedSince { number, name });
                }
                changes.insert(name, to);
            }
            let (from, to) = if undo { (step.after, step.before) } else { (step.before, step.after) };
            let change = Change {
                kind,
                subject: Subject::Operation(number),
                why: format!("{what} {}: {}", step.row.operation.kind.name(), step.row.operation.why),
                table: changed(&head.table, &changes),
                head: if from == to { head.operation.head.clone() } else { to },
            };
            Ok((change, step.row))
        })
    }

    /// The commits that a branch ever pointed to, newest first, and why they may not be all.
    ///
    /// # Errors
    /// Storage errors.
    pub(crate) fn former_tips(&self, branch: &str) -> Result<(Vec<CommitId>, Option<RepoError>)> {
        let newest = self.lock()?.head.operation.n;
        let mut tips = Vec::new();
        let damage = self.log.replay_readable(newest, |step| {
            if let Some(Target::Branch(tip)) = step.table.get(branch)
                && tips.last() != Some(tip)
            {
                tips.push(*tip);
            }
            Ok(())
        })?;
        tips.reverse();
        Ok((tips, damage))
    }

    /// For each commit that was made on a branch, where the branch was before; of operations that can be read.
    ///
    /// # Errors
    /// Storage errors.
    pub(crate) fn tips_before(&self) -> Result<HashMap<CommitId, CommitId>> {
        let newest = self.lock()?.head.operation.n;
        let mut before = HashMap::new();
        self.log.replay_readable(newest, |step| {
            if step.operation.kind == OperationKind::Commit {
                for change in &step.changes {
                    if let (Some(Target::Branch(old)), Some(Target::Branch(new))) = (change.before, change.after) {
                        before.insert(new, old);
                    }
                }
            }
            Ok(())
        })?;
        Ok(before)
    }

    /// Operation `number` of `newest` with all that it moved.
    fn step(&self, number: u64, newest: u64, undone: bool) -> Result<Option<Step>> {
        let mut found = None;
        self.log.replay_readable(newest, |step| {
            if step.operation.n == number {
                let (before, after) = (step.head_before.clone(), step.operation.head.clone());
                let changes = step.changes.clone();
                found = Some(Step { row: row(step, undone), changes, before, after });
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// The rows of a list of operations.
#[derive(Default)]
struct Listing {
    rows: VecDeque<OperationRow>,
    len: usize,
    stacks: Stacks,
}

impl Listing {
    /// Takes the next operation, and lets the oldest go where there are more than `limit`.
    fn take(&mut self, step: Replayed<'_>, limit: usize) {
        self.stacks.take(&step);
        let row = row(step, false);
        self.len += row_len(&row);
        self.rows.push_back(row);
        while self.rows.len() > limit
            && let Some(gone) = self.rows.pop_front()
        {
            self.len -= row_len(&gone);
        }
    }
}

/// Numbers of operations in the order in which they were put here; one goes in no more time than the others come.
#[derive(Default)]
struct Stack {
    next: u64,
    by_place: BTreeMap<u64, u64>,
    places: HashMap<u64, Vec<u64>>,
}

impl Stack {
    fn push(&mut self, n: u64) {
        self.by_place.insert(self.next, n);
        self.places.entry(n).or_default().push(self.next);
        self.next += 1;
    }

    fn remove(&mut self, n: u64) {
        for place in self.places.remove(&n).unwrap_or_default() {
            self.by_place.remove(&place);
        }
    }

    fn contains(&self, n: u64) -> bool {
        self.places.contains_key(&n)
    }

    fn newest(&self) -> Option<u64> {
        self.by_place.last_key_value().map(|(_, n)| *n)
    }
}

/// The operations that stand, and those taken back that a redo can make again.
#[derive(Default)]
struct Stacks {
    applied: Stack,
    undone: Stack,
}

impl Stacks {
    fn take(&mut self, step: &Replayed<'_>) {
        let operation = &step.operation;
        match (operation.kind, &operation.subject) {
            (OperationKind::Undo, Subject::Operation(n)) => {
                self.applied.remove(*n);
                self.undone.push(*n);
            }
            (OperationKind::Redo, Subject::Operation(n)) => {
                self.undone.remove(*n);
                self.applied.push(*n);
            }
            _ if (step.changes.is_empty() && operation.head == step.head_before) || operation.n == 1 => {}
            _ => {
                self.applied.push(operation.n);
                self.undone = Stack::default();
            }
        }
    }
}

fn row(step: Replayed<'_>, undone: bool) -> OperationRow {
    let changes = step
        .changes
        .into_iter()
        .map(|RefChange { name, before, after }| (name, before.map(Target::commit), after.map(Target::commit)));
    let operation = Operation { refs: Refs::Whole(RefTable::new()), ..step.operation };
    OperationRow { operation, id: step.id, changes: changes.collect(), undone }
}

/// About what a row takes.
fn row_len(row: &OperationRow) -> usize {
    let Operation { by, why, head, subject, condemned, .. } = &row.operation;
    let named = |text: &String| text.len();
    let head = if let Head::Branch(name) = head { name.len() } else { 0 };
    let subject = if let Subject::Name(name) = subject { name.len() } else { 0 };
    let texts: usize = [why, &by.host, &by.user, &by.version].into_iter().map(named).sum();
    let changes: usize = row.changes.iter().map(|(name, _, _)| ROW_BYTES / 4 + name.len()).sum();
    ROW_BYTES + texts + head + subject + changes + condemned.len() * 16
}
