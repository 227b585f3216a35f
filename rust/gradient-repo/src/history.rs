//! Walking commits: ancestors, and the log in topological order.

use std::collections::{BinaryHeap, HashMap, HashSet};

use gradient_object::{Commit, CommitId};
use gradient_odb::{CommitRows, OdbError};

use crate::error::{RepoError, Result};
use crate::repository::Repository;

/// One commit of a log.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// Its id.
    pub id: CommitId,
    /// The commit.
    pub commit: Commit,
    /// Bytes that it added when it was written.
    pub added_len: u64,
}

/// Which commits a log shows.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Commits to start from.
    pub start: Vec<CommitId>,
    /// Commits whose whole history is left out.
    pub exclude: Vec<CommitId>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Follow first parents only.
    pub first_parent: bool,
}

impl Repository {
    /// Reads one commit, verified against its id.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] if no pack holds it; object database errors.
    pub fn commit_of(&self, id: &CommitId) -> Result<Commit> {
        match self.odb.read_commit(id) {
            Err(OdbError::NotFound { .. }) => Err(RepoError::missing_commit(id)),
            other => Ok(other?),
        }
    }

    pub(crate) fn commit_in(rows: &CommitRows, id: &CommitId) -> Result<Commit> {
        rows.get(id)?.ok_or_else(|| RepoError::missing_commit(id))
    }

    /// One commit with the bytes it added.
    ///
    /// # Errors
    /// As [`Repository::commit_of`].
    pub fn log_row(&self, id: &CommitId) -> Result<LogRow> {
        row_in(&*self.odb.commits()?, id)
    }

    /// Whether `ancestor` is `descendant` or is reached from it through parents.
    ///
    /// # Errors
    /// As [`Repository::commit_of`].
    pub fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        if ancestor == descendant {
            return Ok(true);
        }
        let rows = self.odb.commits()?;
        let mut seen = HashSet::from([*descendant]);
        let mut next = vec![*descendant];
        while let Some(id) = next.pop() {
            for parent in Self::commit_in(&rows, &id)?.parents {
                if parent == *ancestor {
                    return Ok(true);
                }
                if seen.insert(parent) {
                    next.push(parent);
                }
            }
        }
        Ok(false)
    }

    /// Commits that lead to the start, children before parents, otherwise newest first.
    ///
    /// # Errors
    /// As [`Repository::commit_of`].
    pub fn history(&self, query: &LogQuery) -> Result<Vec<LogRow>> {
        let rows = self.odb.commits()?;
        let excluded = reach(&rows, &query.exclude, &HashMap::new(), false)?;
        let mut commits = reach(&rows, &query.start, &excluded, query.first_parent)?;
        let mut children: HashMap<CommitId, usize> = HashMap::new();
        for row in commits.values() {
            for parent in parents(row, query.first_parent) {
                *children.entry(*parent).or_default() += 1;
            }
        }
        let ready = commits.values().filter(|row| !children.contains_key(&row.id));
        let mut ready: BinaryHeap<_> = ready.map(|row| (row.commit.time_ns, row.commit.step, row.id)).collect();
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut log = Vec::new();
        while let Some((_, _, id)) = ready.pop() {
            if log.len() >= limit {
                break;
            }
            let Some(row) = commits.remove(&id) else { continue };
            for parent in parents(&row, query.first_parent) {
                let Some(left) = children.get_mut(parent) else { continue };
                *left -= 1;
                if *left == 0
                    && let Some(row) = commits.get(parent)
                {
                    ready.push((row.commit.time_ns, row.commit.step, row.id));
                }
            }
            log.push(row);
        }
        Ok(log)
    }
}

fn row_in(rows: &CommitRows, id: &CommitId) -> Result<LogRow> {
    let commit = Repository::commit_in(rows, id)?;
    Ok(LogRow { id: *id, commit, added_len: rows.added_len(id).unwrap_or(0) })
}

fn parents(row: &LogRow, first_only: bool) -> &[CommitId] {
    let parents = row.commit.parents.as_slice();
    if first_only { parents.get(..1).unwrap_or(parents) } else { parents }
}

fn reach(
    rows: &CommitRows,
    start: &[CommitId],
    without: &HashMap<CommitId, LogRow>,
    first_parent: bool,
) -> Result<HashMap<CommitId, LogRow>> {
    let mut reached = HashMap::new();
    let mut next = start.to_vec();
    while let Some(id) = next.pop() {
        if without.contains_key(&id) || reached.contains_key(&id) {
            continue;
        }
        let row = row_in(rows, &id)?;
        next.extend(parents(&row, first_parent));
        reached.insert(id, row);
    }
    Ok(reached)
}
