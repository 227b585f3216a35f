//! Walking commits: ancestors, and the log in topological order.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};

use gradient_object::{Commit, CommitId};
use gradient_odb::{CommitRows, OdbError};

use crate::error::{ErrorClass, RepoError, Result};
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

/// A commit that refs lead to and that can not be read, and so neither can what it says of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id.
    pub id: CommitId,
    /// The commit that names it as its parent; none if only a ref does.
    pub child: Option<CommitId>,
    /// What is wrong.
    pub why: String,
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
        self.row_in(&*self.odb.commits()?, id)?.or_else(|_| {
            let commit = self.commit_of(id)?;
            Ok(LogRow { id: *id, commit, added_len: 0 })
        })
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
        let (rows, unreadable) = self.readable_history(query)?;
        match unreadable.first() {
            Some(first) => Err(self.commit_of(&first.id).err().unwrap_or_else(|| RepoError::missing_commit(&first.id))),
            None => Ok(rows),
        }
    }

    /// As [`Repository::history`], without what can not be read, and that beside it.
    ///
    /// Behind a commit that can not be read it goes on where the operations say that the branch was before.
    ///
    /// # Errors
    /// Storage errors.
    pub fn readable_history(&self, query: &LogQuery) -> Result<(Vec<LogRow>, Vec<Unreadable>)> {
        let rows = self.odb.commits()?;
        let mut before = Before::new(self);
        let excluded = Reached::from(&rows, &query.exclude, &Reached::default(), false, &mut before)?;
        let mut reached = Reached::from(&rows, &query.start, &excluded, query.first_parent, &mut before)?;
        let mut unreadable = std::mem::take(&mut reached.unreadable);
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
        let rows: Vec<LogRow> = order.into_iter().filter_map(|at| rows[at].take()).collect();
        if query.limit.is_some() {
            let shown: HashSet<CommitId> = rows.iter().map(|row| row.id).collect();
            unreadable.retain(|hole| hole.child.is_none_or(|child| shown.contains(&child)));
        }
        Ok((rows, unreadable))
    }
}

impl Repository {
    /// For each row the branch on whose present line `branch@step` leads to it: the one it was made on, else the first
    /// that has it; none if no such name does. A commit that can not be read ends a line, unless operations lead on.
    ///
    /// # Errors
    /// Storage errors.
    pub fn branches_of(&self, rows: &[LogRow], table: &RefTable) -> Result<Vec<Option<String>>> {
        let stored = self.odb.commits()?;
        let mut before = Before::new(self);
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
                } else if let Ok(found) = before.row(&stored, &id)? {
                    read = found.commit;
                    &read
                } else {
                    next = before.of(&id)?.filter(|_| walked.insert(id));
                    continue;
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

impl Repository {
    /// The row of a commit, or why it can not be read.
    ///
    /// # Errors
    /// Storage errors that are no damage.
    fn row_in(&self, rows: &CommitRows, id: &CommitId) -> Result<Result<LogRow, String>> {
        if let Ok(Some(commit)) = rows.get(id) {
            return Ok(Ok(LogRow { id: *id, commit, added_len: rows.added_len(id).unwrap_or(0) }));
        }
        match self.commit_of(id) {
            Ok(commit) => Ok(Ok(LogRow { id: *id, commit, added_len: 0 })),
            Err(error) if error.class() == ErrorClass::Corruption => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Walks a line: calls `then` with each commit of it that can be read, and with none for others, until it returns
    /// false.
    ///
    /// # Errors
    /// Storage errors.
    pub(crate) fn walk(
        &self,
        tip: CommitId,
        mut then: impl FnMut(CommitId, Option<&Commit>) -> Result<bool>,
    ) -> Result<()> {
        let rows = self.odb.commits()?;
        let mut before = Before::new(self);
        // What operations say need not be a line: it could lead round.
        let mut passed = HashSet::new();
        let mut next = Some(tip);
        while let Some(id) = next.filter(|id| passed.insert(*id)) {
            let found = before.row(&rows, &id)?.ok();
            if !then(id, found.as_ref().map(|row| &row.commit))? {
                return Ok(());
            }
            next = match found {
                Some(row) => row.commit.parents.first().copied(),
                None => before.of(&id)?,
            };
        }
        Ok(())
    }
}

/// Where branches were before they went to a commit: read from the operations when the first is asked for.
struct Before<'a> {
    repo: &'a Repository,
    by_commit: Option<HashMap<CommitId, CommitId>>,
    has_looked: bool,
}

impl<'a> Before<'a> {
    fn new(repo: &'a Repository) -> Self {
        Self { repo, by_commit: None, has_looked: false }
    }

    /// As [`Repository::row_in`], but packs are listed anew for the first commit that none holds, and then no more.
    fn row(&mut self, rows: &CommitRows, id: &CommitId) -> Result<Result<LogRow, String>> {
        if self.has_looked && !rows.contains(id) && !self.repo.odb.has_commit(id) {
            return Ok(Err(RepoError::missing_commit(id).to_string()));
        }
        let found = self.repo.row_in(rows, id)?;
        self.has_looked |= found.is_err();
        Ok(found)
    }

    fn of(&mut self, id: &CommitId) -> Result<Option<CommitId>> {
        let by_commit = match &mut self.by_commit {
            Some(by_commit) => by_commit,
            None => self.by_commit.insert(self.repo.tips_before()?),
        };
        Ok(by_commit.get(id).copied())
    }
}

/// Commits that were reached, each with the positions of its parents among them.
#[derive(Default)]
struct Reached {
    at: HashMap<CommitId, usize>,
    rows: Vec<LogRow>,
    parents: Vec<Vec<usize>>,
    passed: HashSet<CommitId>,
    unreadable: Vec<Unreadable>,
}

impl Reached {
    fn from(
        rows: &CommitRows,
        start: &[CommitId],
        without: &Self,
        first_parent: bool,
        before: &mut Before<'_>,
    ) -> Result<Self> {
        let mut reached = Self::default();
        for id in start {
            reached.add(rows, *id, None, without, before)?;
        }
        let mut next = 0;
        while let Some(row) = reached.rows.get(next) {
            let child = row.id;
            let parents = row.commit.parents.iter().copied().take(if first_parent { 1 } else { usize::MAX });
            let parents: Vec<CommitId> = parents.collect();
            let parents =
                parents.into_iter().filter_map(|id| reached.add(rows, id, Some(child), without, before).transpose());
            let parents = parents.collect::<Result<_>>()?;
            reached.parents.push(parents);
            next += 1;
        }
        Ok(reached)
    }

    /// Returns the position of a commit; none if it is left out or can not be read.
    fn add(
        &mut self,
        rows: &CommitRows,
        id: CommitId,
        child: Option<CommitId>,
        without: &Self,
        before: &mut Before<'_>,
    ) -> Result<Option<usize>> {
        let (mut next, mut behind_hole) = (Some(id), false);
        while let Some(id) = next {
            if without.at.contains_key(&id) || self.passed.contains(&id) {
                return Ok(None);
            }
            // What lies behind a commit that can not be read need not be its parent.
            match self.at.entry(id) {
                Entry::Occupied(known) => return Ok(Some(*known.get()).filter(|_| !behind_hole)),
                Entry::Vacant(new) => match before.row(rows, &id)? {
                    Ok(row) => {
                        let at = self.rows.len();
                        self.rows.push(row);
                        new.insert(at);
                        return Ok(Some(at).filter(|_| !behind_hole));
                    }
                    Err(why) => {
                        self.passed.insert(id);
                        self.unreadable.push(Unreadable { id, child, why });
                        (next, behind_hole) = (before.of(&id)?, true);
                    }
                },
            }
        }
        Ok(None)
    }
}
