//! The operation log from its beginning: every operation with the table of refs after it, one at a time.
//!
//! Two tables are kept, however many operations there are and whatever they say: the newest whole one and the current
//! one. An operation costs the time of what it changes.

use std::collections::{BTreeMap, BTreeSet};

use gradient_object::OperationId;
use gradient_storage::StorageError;

use crate::error::{RepoError, Result};
use crate::operation::{Operation, RefTable, Refs, Target, differences};
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
}

impl OperationLog {
    /// Calls `then` with the operations 1 to `newest`, oldest first.
    ///
    /// # Errors
    /// As [`OperationLog::read`]; what `then` returns.
    pub fn replay(&self, newest: u64, mut then: impl FnMut(Replayed<'_>) -> Result<()>) -> Result<()> {
        let mut tables = Tables::default();
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
            let (operation, id) = match self.read_file(n) {
                // Folded since the folder was listed.
                Err(RepoError::Storage(StorageError::NotFound { .. })) => self.read(n)?,
                read => read?,
            };
            then(tables.step(operation, id)?)?;
            n += 1;
        }
        Ok(())
    }
}

/// The refs as a replay goes on.
#[derive(Default)]
struct Tables {
    /// The newest whole table, and the operation that carries it.
    whole: (u64, RefTable),
    /// What the newest operation changes in it.
    changed: BTreeMap<String, Option<Target>>,
    table: RefTable,
}

impl Tables {
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
        Ok(Replayed { operation, id, changes, table: &self.table })
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
