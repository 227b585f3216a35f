//! The operation log from its beginning: every operation with the table of refs after it, one at a time.
//!
//! Two tables are kept, however many operations there are and whatever they say: the newest whole one and the current
//! one. An operation costs the time of what it changes.

use std::collections::{BTreeMap, BTreeSet};

use gradient_object::OperationId;
use gradient_storage::StorageError;

use crate::error::{ErrorClass, RepoError, Result};
use crate::operation::{Head, Operation, RefTable, Refs, Target, differences};
use crate::oplog::{OperationLog, file_name};

/// A ref that an operation moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefChange {
    /// Its name.
    pub name: String,
    /// Where it pointed.
    pub before: Option<Target>,
    /// Where it points.
    pub after: Option<Target>,
}

/// One operation of a replay.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// The operation.
    pub operation: Operation,
    /// Its id.
    pub id: OperationId,
    /// What it changed, rising by name.
    pub changes: Vec<RefChange>,
    /// All refs after it.
    pub table: &'a RefTable,
    /// Where HEAD stood before it.
    pub head_before: Head,
}

impl OperationLog {
    /// Calls `then` with the operations 1 to `newest`, oldest first.
    ///
    /// # Errors
    /// As [`OperationLog::read`]; what `then` returns.
    pub fn replay(&self, newest: u64, mut then: impl FnMut(Replayed<'_>) -> Result<()>) -> Result<()> {
        let mut tables = Tables::new();
        let floor = self.names()?.folded.last().copied().unwrap_or(0);
        let mut n = 1;
        if floor > 0 {
            self.for_each_folded(floor, |number, payload| {
                if number > newest {
                    return Ok(());
                }
                n = number + 1;
                let operation = Operation::decode(payload, number, &file_name(number))?;
                then(tables.step(operation, OperationId::of(payload))?)
            })?;
        }
        while n <= newest {
            let (operation, id) = self.read_for_replay(n)?;
            then(tables.step(operation, id)?)?;
            n += 1;
        }
        Ok(())
    }

    /// As [`OperationLog::replay`], with a fresh `S`; where an old operation can not be read, only of those behind it,
    /// and with the error.
    ///
    /// # Errors
    /// Storage errors; what `then` returns that is no damage.
    pub(crate) fn replay_newest<S: Default>(
        &self,
        newest: u64,
        mut then: impl FnMut(&mut S, Replayed<'_>) -> Result<()>,
    ) -> Result<(S, Option<RepoError>)> {
        let mut all = S::default();
        match self.replay(newest, |step| then(&mut all, step)) {
            Ok(()) => Ok((all, None)),
            Err(error) if is_damage(&error) => {
                let mut some = S::default();
                self.replay_behind_damage(newest, |step| then(&mut some, step))?;
                Ok((some, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Calls `then` with the operations before the oldest one that can not be read and behind the newest one, oldest
    /// first; returns that damage.
    ///
    /// # Errors
    /// As [`OperationLog::replay_newest`].
    pub(crate) fn replay_readable(
        &self,
        newest: u64,
        mut then: impl FnMut(Replayed<'_>) -> Result<()>,
    ) -> Result<Option<RepoError>> {
        match self.replay(newest, &mut then) {
            Ok(()) => Ok(None),
            Err(error) if is_damage(&error) => {
                self.replay_behind_damage(newest, then)?;
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Of the operations behind the newest one that can not be read, all but the first: what that one changed is not
    /// known.
    fn replay_behind_damage(&self, newest: u64, mut then: impl FnMut(Replayed<'_>) -> Result<()>) -> Result<()> {
        let floor = self.names()?.folded.last().copied().unwrap_or(0);
        let mut first = newest;
        while first > floor + 1 && readable(self.read_for_replay(first - 1))?.is_some() {
            first -= 1;
        }
        let mut unreadable = None;
        for n in first..newest {
            let Some((operation, _)) = readable(self.read_for_replay(n))? else { continue };
            let whole = match &operation.refs {
                Refs::Whole(table) => Some((n, table.clone())),
                Refs::Changes { since, .. } if unreadable == Some(*since) => None,
                Refs::Changes { since, .. } => {
                    let base = readable(self.read_for_replay(*since))?;
                    if let Some((Operation { refs: Refs::Whole(table), .. }, _)) = base {
                        Some((*since, table))
                    } else {
                        unreadable = Some(*since);
                        None
                    }
                }
            };
            if let Some(whole) = whole {
                let mut tables = Tables::at(&operation, whole);
                for n in n + 1..=newest {
                    let (operation, id) = self.read_for_replay(n)?;
                    then(tables.step(operation, id)?)?;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_for_replay(&self, n: u64) -> Result<(Operation, OperationId)> {
        let read = match self.read_file(n) {
            // Folded since the folder was listed.
            Err(RepoError::Storage(StorageError::NotFound { .. })) => self.read(n),
            read => read,
        };
        match read {
            Err(RepoError::Storage(StorageError::NotFound { .. })) => {
                Err(RepoError::Damaged { file: file_name(n), reason: "it is missing".into() })
            }
            read => read,
        }
    }
}

fn is_damage(error: &RepoError) -> bool {
    error.class() == ErrorClass::Corruption
}

/// What was read; none if it is damaged.
fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The refs as a replay goes on.
struct Tables {
    /// The newest whole table, and the operation that carries it.
    whole: (u64, RefTable),
    /// What the newest operation changes in it.
    changed: BTreeMap<String, Option<Target>>,
    table: RefTable,
    head: Head,
}

impl Tables {
    /// Before the first operation.
    fn new() -> Self {
        let head = Head::Branch("main".to_owned());
        Self { whole: (0, RefTable::new()), changed: BTreeMap::new(), table: RefTable::new(), head }
    }

    /// After an operation, with the newest whole table at or before it and the number of its operation.
    fn at(operation: &Operation, whole: (u64, RefTable)) -> Self {
        let mut tables = Self { whole, head: operation.head.clone(), ..Self::new() };
        tables.table.clone_from(&tables.whole.1);
        if let Refs::Changes { changes, .. } = &operation.refs {
            tables.change(changes.clone());
        }
        tables
    }

    fn step(&mut self, operation: Operation, id: OperationId) -> Result<Replayed<'_>> {
        let changes = match &operation.refs {
            Refs::Whole(table) => {
                let changes = differences(&self.table, table).into_iter().map(|(name, after)| {
                    let before = self.table.get(&name).copied();
                    RefChange { name, before, after }
                });
                let changes = changes.collect();
                self.whole = (operation.n, table.clone());
                self.changed = BTreeMap::new();
                self.table.clone_from(table);
                changes
            }
            Refs::Changes { since, changes } => {
                if *since != self.whole.0 {
                    let reason = format!("operation {since} is not the newest before it that carries a whole table");
                    return Err(RepoError::Damaged { file: file_name(operation.n), reason });
                }
                self.change(changes.clone())
            }
        };
        let head_before = std::mem::replace(&mut self.head, operation.head.clone());
        Ok(Replayed { operation, id, changes, table: &self.table, head_before })
    }

    /// Makes other changes in the newest whole table than those that were made in it; returns what moves by that.
    fn change(&mut self, changes: BTreeMap<String, Option<Target>>) -> Vec<RefChange> {
        let names: BTreeSet<&String> = self.changed.keys().chain(changes.keys()).collect();
        let mut moved = Vec::new();
        for name in names {
            let before = self.table.get(name).copied();
            let after = changes.get(name).copied().unwrap_or_else(|| self.whole.1.get(name).copied());
            if before == after {
                continue;
            }
            match after {
                Some(target) => self.table.insert(name.clone(), target),
                None => self.table.remove(name),
            };
            moved.push(RefChange { name: name.clone(), before, after });
        }
        self.changed = changes;
        moved
    }
}
