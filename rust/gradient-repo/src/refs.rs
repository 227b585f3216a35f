//! Moving refs and HEAD: branches, tags, checkout. Each change is one operation and can be undone.

use gradient_object::CommitId;

use crate::error::{RepoError, Result};
use crate::names::{check_name, nearest};
use crate::operation::{Head, OperationKind, RefTable, Subject, Target};
use crate::oplog::HeadState;
use crate::repository::{Change, Repository};

/// Where a checkout goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// To a branch that exists, or to the branch HEAD stands on already.
    Branch(String),
    /// To a new branch at a commit.
    New(String, CommitId),
    /// To a new branch without commits, whose first commit starts a line.
    Unborn(String),
    /// To a commit and no branch.
    Commit(CommitId),
}

impl Repository {
    /// All branches, tags and HEAD, as this handle knows them.
    ///
    /// # Errors
    /// [`RepoError::Closed`].
    pub fn refs(&self) -> Result<(RefTable, Head)> {
        let state = self.lock()?;
        Ok((state.head.table.clone(), state.head.operation.head.clone()))
    }

    /// Makes a branch at a commit.
    ///
    /// # Errors
    /// [`RepoError::BadName`], [`RepoError::RefExists`], [`RepoError::CaseCollision`]; as [`Repository::commit`].
    pub fn create_branch(&self, name: &str, at: CommitId, why: &str) -> Result<()> {
        self.create(name, Target::Branch(at), why)
    }

    /// Makes a tag at a commit.
    ///
    /// # Errors
    /// As [`Repository::create_branch`].
    pub fn create_tag(&self, name: &str, at: CommitId) -> Result<()> {
        self.create(name, Target::Tag(at), "")
    }

    fn create(&self, name: &str, target: Target, why: &str) -> Result<()> {
        let (kind, what) = match target {
            Target::Branch(_) => (OperationKind::Branch, "branch"),
            Target::Tag(_) => (OperationKind::Tag, "tag"),
        };
        check_name(name, what)?;
        self.commit_of(&target.commit())?;
        self.change(|head| {
            check_free(&head.table, name)?;
            if what == "tag" && head.operation.head == Head::Branch(name.to_owned()) {
                return Err(RepoError::RefExists { kind: "branch", name: name.to_owned() });
            }
            let mut table = head.table.clone();
            table.insert(name.to_owned(), target);
            let why = if why.is_empty() { format!("{what} {name}") } else { why.to_owned() };
            Ok((change(head, kind, name, why, table), ()))
        })
    }

    /// Deletes a branch; returns the commit it pointed to.
    ///
    /// # Errors
    /// [`RepoError::RefNotFound`]; [`RepoError::DeletesHead`] for the branch HEAD stands on.
    pub fn delete_branch(&self, name: &str, why: &str) -> Result<CommitId> {
        self.change(|head| {
            let at = find_branch(&head.table, name)?;
            if head.operation.head == Head::Branch(name.to_owned()) {
                return Err(RepoError::DeletesHead { name: name.to_owned() });
            }
            let mut table = head.table.clone();
            table.remove(name);
            let why = if why.is_empty() { format!("delete branch {name}") } else { why.to_owned() };
            Ok((change(head, OperationKind::Delete, name, why, table), at))
        })
    }

    /// Deletes a tag; returns the commit it pointed to.
    ///
    /// # Errors
    /// [`RepoError::RefNotFound`].
    pub fn delete_tag(&self, name: &str) -> Result<CommitId> {
        self.change(|head| {
            let Some(Target::Tag(at)) = head.table.get(name).copied() else {
                let tags = head.table.iter().filter(|(_, target)| matches!(target, Target::Tag(_)));
                let nearest = nearest(name, tags.map(|(name, _)| name.as_str()));
                return Err(RepoError::RefNotFound { name: format!("tag {name}"), nearest });
            };
            let mut table = head.table.clone();
            table.remove(name);
            Ok((change(head, OperationKind::Delete, name, format!("delete tag {name}"), table), at))
        })
    }

    /// Renames a branch; HEAD follows if it stands on it.
    ///
    /// # Errors
    /// As [`Repository::create_branch`] and [`Repository::delete_branch`].
    pub fn rename_branch(&self, old: &str, new: &str) -> Result<()> {
        check_name(new, "branch")?;
        self.change(|head| {
            let at = find_branch(&head.table, old)?;
            let mut table = head.table.clone();
            table.remove(old);
            check_free(&table, new)?;
            table.insert(new.to_owned(), Target::Branch(at));
            let mut change = change(head, OperationKind::Rename, new, format!("rename branch {old} to {new}"), table);
            if head.operation.head == Head::Branch(old.to_owned()) {
                change.head = Head::Branch(new.to_owned());
            }
            Ok((change, ()))
        })
    }

    /// Moves HEAD.
    ///
    /// # Errors
    /// [`RepoError::RefNotFound`] for a branch that does not exist; as [`Repository::create_branch`] for a new one.
    pub fn checkout(&self, to: &Checkout) -> Result<()> {
        if let Checkout::New(name, _) | Checkout::Unborn(name) = to {
            check_name(name, "branch")?;
        }
        if let Checkout::New(_, at) | Checkout::Commit(at) = to {
            self.commit_of(at)?;
        }
        self.change(|head| {
            let mut table = head.table.clone();
            let (to, subject) = match to {
                Checkout::Branch(name) => {
                    if head.operation.head != Head::Branch(name.clone()) {
                        find_branch(&table, name)?;
                    }
                    (Head::Branch(name.clone()), name.clone())
                }
                Checkout::New(name, at) => {
                    check_free(&table, name)?;
                    table.insert(name.clone(), Target::Branch(*at));
                    (Head::Branch(name.clone()), name.clone())
                }
                Checkout::Unborn(name) => {
                    check_free(&table, name)?;
                    (Head::Branch(name.clone()), name.clone())
                }
                Checkout::Commit(id) => (Head::Commit(*id), id.short()),
            };
            let mut change = change(head, OperationKind::Checkout, &subject, format!("checkout {subject}"), table);
            change.head = to;
            Ok((change, ()))
        })
    }
}

fn change(head: &HeadState, kind: OperationKind, name: &str, why: String, table: RefTable) -> Change {
    Change { kind, subject: Subject::Name(name.to_owned()), why, table, head: head.operation.head.clone() }
}

fn find_branch(table: &RefTable, name: &str) -> Result<CommitId> {
    match table.get(name) {
        Some(Target::Branch(at)) => Ok(*at),
        Some(Target::Tag(_)) | None => {
            let branches = table.iter().filter(|(_, target)| matches!(target, Target::Branch(_)));
            let nearest = nearest(name, branches.map(|(name, _)| name.as_str()));
            Err(RepoError::RefNotFound { name: format!("branch {name}"), nearest })
        }
    }
}

/// Refuses a name that a ref has, or has but for case.
pub(crate) fn check_free(table: &RefTable, name: &str) -> Result<()> {
    match table.get(name) {
        Some(Target::Branch(_)) => return Err(RepoError::RefExists { kind: "branch", name: name.to_owned() }),
        Some(Target::Tag(_)) => return Err(RepoError::RefExists { kind: "tag", name: name.to_owned() }),
        None => {}
    }
    let folded = name.to_lowercase();
    match table.keys().find(|existing| existing.to_lowercase() == folded) {
        Some(existing) => Err(RepoError::CaseCollision { name: name.to_owned(), existing: existing.clone() }),
        None => Ok(()),
    }
}
