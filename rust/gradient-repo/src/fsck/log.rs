//! Operations: each against its hash, its number, the one before it and the table that it refers to.

use std::collections::BTreeMap;
use std::sync::Arc;

use gradient_object::{CommitId, OperationId};
use gradient_odb::PackId;
use gradient_storage::Storage;

use super::{FsckReport, Severity};
use crate::error::{RepoError, Result};
use crate::operation::{Head, Operation, Refs};
use crate::oplog::{OperationLog, file_name};

/// How often the folder is listed again because operations were folded meanwhile.
const LOOKS_MAX: u32 = 8;
/// Of a gap in the numbers so many are looked for and named: a name may claim any number.
const GAP_LOOKS_MAX: usize = 1000;

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
        match report.take(attempt.read(&log))? {
            Some(true) => return Ok(attempt.finish(report)),
            Some(false) => {}
            None => return Ok(Roots::default()),
        }
    }
    report.add(Severity::Error, "ops", "its files keep vanishing");
    Ok(Roots::default())
}

/// One look at the folder. Of the operations it keeps the newest and what they name, however many there are.
#[derive(Default)]
struct Walk {
    damage: Vec<(String, String)>,
    below: Vec<u64>,
    num_operations: u64,
    newest: Option<(u64, Operation, OperationId)>,
    /// The newest operation that carries a whole table.
    whole: Option<u64>,
    /// The newest operation that could not be read.
    unreadable: u64,
    roots: Roots,
}

impl Walk {
    /// Reads all operations; false if some were folded while we read.
    fn read(&mut self, log: &OperationLog) -> Result<bool> {
        let names = log.names()?;
        let floor = names.folded.last().copied().unwrap_or(0);
        self.below.clone_from(&names.below);
        if floor > 0 {
            let read = log.for_each_folded(floor, |n, payload| {
                let decoded = Operation::decode(payload, n, &file_name(n));
                self.take(n, decoded.map(|operation| (operation, OperationId::of(payload))))
            });
            match read {
                Ok(()) => {}
                Err(RepoError::Damaged { file, reason }) => {
                    self.unreadable = floor;
                    self.damage.push((file, reason));
                }
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
        let Some(missing) = Self::missing(log, &names.numbers, floor)? else { return Ok(false) };
        self.damage.extend(missing);
        if newest == 0 {
            self.damage.push(("ops".to_owned(), "there is no operation".to_owned()));
        }
        Ok(true)
    }

    /// Tells the gaps in the numbers; none if the log moved while we read.
    fn missing(log: &OperationLog, numbers: &[u64], floor: u64) -> Result<Option<Vec<(String, String)>>> {
        let mut damage = Vec::new();
        let mut before = floor;
        // A fold leaves the newest ones in files.
        if numbers.is_empty()
            && floor > 0
            && let Some(next) = floor.checked_add(1)
        {
            match log.read_file(next) {
                Err(RepoError::Storage(error)) if error.is_not_found() => {
                    damage.push((file_name(next), "it is missing, and so is all that came after it".to_owned()));
                }
                // What is there and is no file is a finding already.
                Err(RepoError::Damaged { .. }) => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(None),
            }
        }
        for n in numbers {
            if *n > before + 1 {
                if log.names()?.folded.last().copied().unwrap_or(0) > floor {
                    return Ok(None);
                }
                // A listing may miss what was published while it ran.
                let gap = before + 1..*n;
                for one in gap.clone().take(GAP_LOOKS_MAX) {
                    if !matches!(log.read_file(one), Err(RepoError::Storage(error)) if error.is_not_found()) {
                        return Ok(None);
                    }
                }
                damage.extend(gap.clone().take(GAP_LOOKS_MAX).map(|n| (file_name(n), "it is missing".to_owned())));
                let more = (gap.end - gap.start).saturating_sub(GAP_LOOKS_MAX as u64);
                if more > 0 {
                    damage.push((file_name(n - 1), format!("it is missing, with all of the {more} before it")));
                }
            }
            before = *n;
        }
        Ok(Some(damage))
    }

    fn take(&mut self, n: u64, outcome: Result<(Operation, OperationId)>) -> Result<()> {
        match outcome {
            Ok((operation, id)) => self.look_at(n, operation, id),
            Err(RepoError::Damaged { file, reason }) => {
                self.unreadable = n;
                self.damage.push((file, reason));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn look_at(&mut self, n: u64, operation: Operation, id: OperationId) {
        self.num_operations += 1;
        let before = self.newest.as_ref().filter(|(before, _, _)| n - before == 1);
        if before.is_none() {
            self.unreadable = n - 1;
        }
        let is_first = n == 1 && operation.previous.is_none();
        if before.is_some_and(|(_, _, id)| operation.previous != Some(*id)) || (n == 1 && !is_first) {
            self.damage.push((file_name(n), format!("it does not follow operation {}", n - 1)));
        }
        let named = &mut self.roots.named;
        if let Head::Commit(id) = operation.head {
            named.insert(id, "HEAD".to_owned());
        }
        match &operation.refs {
            Refs::Whole(table) => {
                self.whole = Some(n);
                named.extend(table.iter().map(|(name, target)| (target.commit(), name.clone())));
            }
            Refs::Changes { since, changes } => {
                // A table that can not be read, or may lie where nothing could be, is a finding already.
                if self.whole.is_some_and(|whole| whole != *since) && *since > self.unreadable {
                    let what = format!("operation {since}, which it refers to, is not the newest with a whole table");
                    self.damage.push((file_name(n), what));
                }
                let targets = changes.iter().filter_map(|(name, target)| Some((name, (*target)?)));
                named.extend(targets.map(|(name, target)| (target.commit(), name.clone())));
            }
        }
        self.newest = Some((n, operation, id));
    }

    fn finish(self, report: &mut FsckReport) -> Roots {
        report.num_operations = self.num_operations;
        for (file, reason) in self.damage {
            report.add(Severity::Error, file, reason);
        }
        for n in self.below {
            report.add(Severity::Note, file_name(n), "it was folded, or written after the fold by a writer that slept");
        }
        let condemned = self.newest.map(|(_, operation, _)| operation.condemned).unwrap_or_default();
        Roots { condemned, ..self.roots }
    }
}
