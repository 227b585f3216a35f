//! Walking commits: ancestors, and the log in topological order.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};

use gradient_object::{Commit, CommitId};
use gradient_odb::{CommitRows, OdbError};

use crate::error::{RepoError, Result};
use crate::operation::{RefTable, Target};
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
        let excluded = Reached::from(&rows, &query.exclude, &Reached::default(), false)?;
        let reached = Reached::from(&rows, &query.start, &excluded, query.first_parent)?;
        let mut num_children = vec![0_usize; reached.rows.len()];
        for parent in reached.parents.iter().flatten() {
            num_children[*parent] += 1;
        }
        let key = |at: usize| {
            let row = &reached.rows[at];
            (row.commit.time_ns, row.commit.step, row.id, at)
        };
        let childless = num_children.iter().enumerate().filter(|(_, count)| **count == 0);
        let mut ready: BinaryHeap<_> = childless.map(|(at, _)| key(at)).collect();
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut order = Vec::new();
        while order.len() < limit
            && let Some((_, _, _, at)) = ready.pop()
        {
            order.push(at);
            for parent in &reached.parents[at] {
                num_children[*parent] -= 1;
                if num_children[*parent] == 0 {
                    ready.push(key(*parent));
                }
            }
        }
        let mut rows: Vec<Option<LogRow>> = reached.rows.into_iter().map(Some).collect();
        Ok(order.into_iter().filter_map(|at| rows[at].take()).collect())
    }
}

impl Repository {
    /// For each row the branch on whose present line `branch@step` leads to it: the one it was made on, else the first
    /// that has it; none if no such name does.
    ///
    /// # Errors
    /// As [`Repository::commit_of`].
    pub fn branches_of(&self, rows: &[LogRow], table: &RefTable) -> Result<Vec<Option<String>>> {
        let stored = self.odb.commits()?;
        let at: HashMap<CommitId, usize> = rows.iter().enumerate().map(|(at, row)| (row.id, at)).collect();
        let mut names: Vec<Option<&str>> = vec![None; rows.len()];
        let mut left = rows.len();
        let mut walked: HashSet<CommitId> = HashSet::new();
        for (name, target) in table {
            let Target::Branch(tip) = target else { continue };
            let (mut next, mut newer) = (Some(*tip), None);
            while let Some(id) = next.filter(|_| left > 0) {
                let known = at.get(&id).copied();
                let read;
                let commit = if let Some(at) = known {
                    &rows[at].commit
                } else {
                    read = Self::commit_in(&stored, &id)?;
                    &read
                };
                // From here on the line is another branch's too, and that one has named it.
                if !walked.insert(id) && commit.branch != *name {
                    break;
                }
                if let Some(at) = known.filter(|_| newer != Some(commit.step))
                    && (names[at].is_none() || commit.branch == *name)
                {
                    left -= usize::from(commit.branch == *name);
                    names[at] = Some(name);
                }
                newer = Some(commit.step);
                next = commit.parents.first().copied();
            }
        }
        Ok(names.into_iter().map(|name| name.map(str::to_owned)).collect())
    }
}

fn row_in(rows: &CommitRows, id: &CommitId) -> Result<LogRow> {
    let commit = Repository::commit_in(rows, id)?;
    Ok(LogRow { id: *id, commit, added_len: rows.added_len(id).unwrap_or(0) })
}

/// Commits that were reached, each with the positions of its parents among them.
#[derive(Default)]
struct Reached {
    at: HashMap<CommitId, usize>,
    rows: Vec<LogRow>,
    parents: Vec<Vec<usize>>,
}

impl Reached {
    fn from(rows: &CommitRows, start: &[CommitId], without: &Self, first_parent: bool) -> Result<Self> {
        let mut reached = Self::default();
        for id in start {
            reached.add(rows, *id, without)?;
        }
        let mut next = 0;
        while let Some(row) = reached.rows.get(next) {
            let parents = row.commit.parents.iter().copied().take(if first_parent { 1 } else { usize::MAX });
            let parents: Vec<CommitId> = parents.collect();
            let parents = parents.into_iter().filter_map(|id| reached.add(rows, id, without).transpose());
            let parents = parents.collect::<Result<_>>()?;
            reached.parents.push(parents);
            next += 1;
        }
        Ok(reached)
    }

    /// Returns the position of a commit; none if it is left out.
    fn add(&mut self, rows: &CommitRows, id: CommitId, without: &Self) -> Result<Option<usize>> {
        if without.at.contains_key(&id) {
            return Ok(None);
        }
        match self.at.entry(id) {
            Entry::Occupied(known) => Ok(Some(*known.get())),
            Entry::Vacant(new) => {
                let at = self.rows.len();
                self.rows.push(row_in(rows, &id)?);
                Ok(Some(*new.insert(at)))
            }
        }
    }
}
