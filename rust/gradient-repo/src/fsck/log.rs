//! Operations: each against its hash, its number, the one before it and the table that it refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gradient_object::{CommitId, OperationId};
use gradient_odb::PackId;
use gradient_storage::Storage;

use super::{FsckReport, Severity};
use crate::error::{RepoError, Result};
use crate::operation::{Head, Operation, RefTable, Refs};
use crate::oplog::{OperationLog, file_name};

/// How often the folder is listed again because operations were folded meanwhile.
const LOOKS_MAX: u32 = 8;

/// Commits that operations name.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    /// What each commit is called: the newest ref that named it.
    pub(crate) named: BTreeMap<CommitId, String>,
    /// Packs that the newest operation condemns: they go soon.
    pub(crate) condemned: Vec<PackId>,
}

pub(super) fn check(storage: &Arc<dyn Storage>, report: &mut FsckReport) -> Result<Roots> {
    let log = OperationLog::new(Arc::clone(storage));
    for _ in 0..LOOKS_MAX {
        let mut attempt = Walk::default();
        if attempt.read(&log)? {
            return Ok(attempt.finish(report));
        }
    }
    report.add(Severity::Error, "ops", "its files keep vanishing");
    Ok(Roots::default())
}

/// One look at the folder.
#[derive(Default)]
struct Walk {
    operations: BTreeMap<u64, (Operation, OperationId)>,
    damage: Vec<(String, String)>,
    below: Vec<u64>,
}

impl Walk {
    /// Reads all operations; false if some were folded while we read.
    fn read(&mut self, log: &OperationLog) -> Result<bool> {
        let names = log.names()?;
        let floor = names.folded.last().copied().unwrap_or(0);
        self.below.clone_from(&names.below);
        if floor > 0 {
            match log.read_folded(floor) {
                Ok(payloads) => {
                    for (n, payload) in (1..).zip(payloads) {
                        let decoded = Operation::decode(&payload, n, &file_name(n));
                        self.take(n, decoded.map(|operation| (operation, OperationId::of(&payload))))?;
                    }
                }
                Err(RepoError::Damaged { file, reason }) => self.damage.push((file, reason)),
                Err(RepoError::Storage(error)) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        for n in &names.numbers {
            match log.read_file(*n) {
                Err(RepoError::Storage(error)) if error.is_not_found() => return Ok(false),
                outcome => self.take(*n, outcome)?,
            }
        }
        let newest = names.numbers.last().copied().unwrap_or(floor);
        let present: BTreeSet<u64> = names.numbers.into_iter().collect();
        let missing: Vec<u64> = (floor + 1..=newest).filter(|n| !present.contains(n)).collect();
        if !missing.is_empty() && log.names()?.folded.last().copied().unwrap_or(0) > floor {
            return Ok(false);
        }
        for n in &missing {
            // A listing may miss what was published while it ran.
            if !matches!(log.read_file(*n), Err(RepoError::Storage(error)) if error.is_not_found()) {
                return Ok(false);
            }
        }
        self.damage.extend(missing.into_iter().map(|n| (file_name(n), "it is missing".to_owned())));
        if newest == 0 {
            self.damage.push(("ops".to_owned(), "there is no operation".to_owned()));
        }
        Ok(true)
    }

    fn take(&mut self, n: u64, outcome: Result<(Operation, OperationId)>) -> Result<()> {
        match outcome {
            Ok(read) => drop(self.operations.insert(n, read)),
            Err(RepoError::Damaged { file, reason }) => self.damage.push((file, reason)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn finish(self, report: &mut FsckReport) -> Roots {
        report.num_operations = self.operations.len() as u64;
        for (file, reason) in self.damage {
            report.add(Severity::Error, file, reason);
        }
        for n in self.below {
            report.add(Severity::Note, file_name(n), "it was folded, or written after the fold by a writer that slept");
        }
        let newest = self.operations.last_key_value();
        let condemned = newest.map(|(_, (operation, _))| operation.condemned.clone()).unwrap_or_default();
        let mut roots = Roots { condemned, ..Roots::default() };
        let mut wholes: BTreeMap<u64, &RefTable> = BTreeMap::new();
        for (n, (operation, _)) in &self.operations {
            let before = n.checked_sub(1).and_then(|before| self.operations.get(&before));
            let is_first = *n == 1 && operation.previous.is_none();
            if before.is_some_and(|(_, id)| operation.previous != Some(*id)) || (*n == 1 && !is_first) {
                report.add(Severity::Error, file_name(*n), format!("it does not follow operation {}", n - 1));
            }
            if let Head::Commit(id) = operation.head {
                roots.named.insert(id, "HEAD".to_owned());
            }
            match &operation.refs {
                Refs::Whole(table) => {
                    wholes.insert(*n, table);
                    roots.named.extend(table.iter().map(|(name, target)| (target.commit(), name.clone())));
                }
                Refs::Changes { since, changes } => {
                    // A table that can not be read is a finding already.
                    if !wholes.contains_key(since) && self.operations.contains_key(since) {
                        let what = format!("operation {since}, which it refers to, carries no whole table");
                        report.add(Severity::Error, file_name(*n), what);
                    }
                    let targets = changes.iter().filter_map(|(name, target)| Some((name, (*target)?)));
                    roots.named.extend(targets.map(|(name, target)| (target.commit(), name.clone())));
                }
            }
        }
        roots
    }
}
