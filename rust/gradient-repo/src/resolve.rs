//! What a ref means: `branch@step`, a branch, a tag, `latest`, `HEAD`, an id prefix.

use gradient_object::CommitId;

use crate::error::{RepoError, Result};
use crate::names::nearest;
use crate::operation::{Head, RefTable, Target};
use crate::repository::Repository;

/// Fewest hexadecimal digits of an id prefix.
pub(crate) const PREFIX_MIN: usize = 4;

/// What a ref resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: CommitId,
    /// Its step.
    pub step: u64,
    /// The branch the ref was resolved on; none for a tag or an id.
    pub branch: Option<String>,
    /// The branch that the commit was made on.
    pub made_on: String,
    /// Things worth saying.
    pub notices: Vec<String>,
}

impl Repository {
    /// Resolves a ref; `branch` is the one that `latest` means, HEAD's if none.
    ///
    /// # Errors
    /// [`RepoError::RefNotFound`] with the nearest names; [`RepoError::EmptyBranch`];
    /// [`RepoError::AmbiguousPrefix`].
    pub fn resolve(&self, text: &str, branch: Option<&str>) -> Result<Resolved> {
        let (table, head) = self.refs()?;
        match (text, &head) {
            ("HEAD", Head::Commit(id)) => return self.resolved(*id, None, Vec::new()),
            ("latest", Head::Commit(id)) if branch.is_none() => return self.resolved(*id, None, Vec::new()),
            ("HEAD", Head::Branch(name)) => return self.tip(&table, name),
            ("latest", _) => {
                let on = match (&head, branch) {
                    (_, Some(name)) => name,
                    (Head::Branch(name), None) => name,
                    (Head::Commit(_), None) => "main",
                };
                return self.tip(&table, on);
            }
            _ => {}
        }
        if let Some((name, step)) = text.rsplit_once('@')
            && let Ok(step) = step.parse::<u64>()
        {
            return self.at_step(&table, name, step);
        }
        if let Some(target) = table.get(text) {
            let on = matches!(target, Target::Branch(_)).then(|| text.to_owned());
            return self.resolved(target.commit(), on, Vec::new());
        }
        if head == Head::Branch(text.to_owned()) {
            return self.tip(&table, text);
        }
        if text.len() >= PREFIX_MIN
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_hexdigit())
            && let Some(id) = self.prefix(text)?
        {
            return self.resolved(id, None, Vec::new());
        }
        let names = table.keys().map(String::as_str).chain(["latest", "HEAD"]);
        Err(RepoError::RefNotFound { name: text.to_owned(), nearest: nearest(text, names) })
    }

    fn prefix(&self, text: &str) -> Result<Option<CommitId>> {
        match self.odb.commit_prefix(&text.to_ascii_lowercase()).as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            several => Err(RepoError::AmbiguousPrefix {
                prefix: text.to_owned(),
                candidates: several.iter().take(8).map(CommitId::to_hex).map(|hex| hex[..16].to_owned()).collect(),
            }),
        }
    }

    fn tip(&self, table: &RefTable, name: &str) -> Result<Resolved> {
        match table.get(name) {
            Some(target) => self.resolved(target.commit(), Some(name.to_owned()), Vec::new()),
            None => Err(RepoError::EmptyBranch { branch: name.to_owned(), others: branches(table) }),
        }
    }

    // The newest commit of that step on the branch's present line; else the newest that was ever its tip.
    fn at_step(&self, table: &RefTable, name: &str, step: u64) -> Result<Resolved> {
        let mut steps = Vec::new();
        let mut unreadable = None;
        if let Some(target) = table.get(name) {
            let mut found = None;
            self.walk(target.commit(), |id, commit| {
                let Some(commit) = commit else {
                    unreadable = unreadable.or(Some(id));
                    return Ok(true);
                };
                steps.push(commit.step);
                found = (commit.step == step).then_some(id);
                Ok(found.is_none())
            })?;
            if let Some(id) = found {
                let notice = unreadable.map(|gap| {
                    let gap = gap.short();
                    format!(
                        "commit {gap} of {name} can not be read: that {name}@{step} is {} is what operations say",
                        id.short()
                    )
                });
                return self.resolved(id, Some(name.to_owned()), notice.into_iter().collect());
            }
        }
        let mut seen = false;
        let (former, damage) = self.former_tips(name)?;
        for tip in former {
            seen = true;
            let Ok(commit) = self.odb.read_commit(&tip) else { continue };
            if commit.step == step {
                let notice = format!("{name}@{step} is not on the present line of {name}: commit {}", tip.short());
                return self.resolved(tip, Some(name.to_owned()), vec![notice]);
            }
        }
        if let Some(gap) = unreadable {
            // It may be this one, or lie behind it.
            return Err(RepoError::LineBroken { name: name.to_owned(), step, commit: gap });
        }
        if let Some(damage) = damage {
            return Err(damage);
        }
        if !seen && !table.contains_key(name) {
            let near = nearest(name, branches(table).iter().map(String::as_str));
            let near = near.into_iter().map(|branch| format!("{branch}@{step}")).collect();
            return Err(RepoError::RefNotFound { name: format!("{name}@{step}"), nearest: near });
        }
        steps.sort_unstable_by_key(|have| (have.abs_diff(step), *have));
        steps.dedup();
        let near = steps.iter().take(2).map(|have| format!("{name}@{have}")).collect();
        Err(RepoError::RefNotFound { name: format!("{name}@{step}"), nearest: near })
    }

    fn resolved(&self, commit: CommitId, branch: Option<String>, notices: Vec<String>) -> Result<Resolved> {
        let read = self.commit_of(&commit)?;
        let notices = self.notices()?.into_iter().chain(notices).collect();
        Ok(Resolved { commit, step: read.step, branch, made_on: read.branch, notices })
    }
}

fn branches(table: &RefTable) -> Vec<String> {
    let branches = table.iter().filter(|(_, target)| matches!(target, Target::Branch(_)));
    branches.map(|(name, _)| name.clone()).collect()
}
