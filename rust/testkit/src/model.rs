//! What a repository should be, as plain tables: refs, HEAD, what each commit holds, what can be undone.

use std::collections::BTreeMap;

use gradient_object::CommitId;
use gradient_repo::{Head, RefTable, RepoError, Target};

use crate::process::{Action, Goto};

/// Refs and HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Names to commits.
    pub table: RefTable,
    /// Where HEAD stands.
    pub head: Head,
}

/// What a commit was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The commit before it.
    pub parent: Option<CommitId>,
    /// Its step.
    pub step: u64,
    /// Numbers of what its tensors hold.
    pub tensors: Vec<u64>,
}

/// Why a repository must refuse something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The name is taken.
    Exists,
    /// Nothing has the name.
    NotFound,
    /// HEAD stands on the branch.
    DeletesHead,
    /// There is nothing to undo or redo.
    Nothing,
}

impl Refused {
    /// What an error of a repository comes to; none if it is no refusal.
    pub fn of(error: &RepoError) -> Option<Self> {
        match error {
            RepoError::RefExists { .. } | RepoError::CaseCollision { .. } => Some(Self::Exists),
            RepoError::RefNotFound { .. } | RepoError::EmptyBranch { .. } => Some(Self::NotFound),
            RepoError::DeletesHead { .. } => Some(Self::DeletesHead),
            RepoError::NothingTo { .. } => Some(Self::Nothing),
            _ => None,
        }
    }
}

/// A repository as it should be.
#[derive(Clone, Debug)]
pub struct Model {
    /// Whether there is a repository.
    pub is_made: bool,
    /// Refs and HEAD.
    pub world: World,
    /// Every commit that was acknowledged.
    pub commits: BTreeMap<CommitId, Made>,
    /// The commit that was made last.
    pub newest: Option<CommitId>,
    applied: Vec<(World, World)>,
    undone: Vec<(World, World)>,
}

impl Default for Model {
    fn default() -> Self {
        let world = World { table: RefTable::new(), head: Head::Branch("main".to_owned()) };
        Self { is_made: false, world, commits: BTreeMap::new(), newest: None, applied: Vec::new(), undone: Vec::new() }
    }
}

impl Model {
    /// Does what needs no commit. `newest` is the commit that new branches and tags point to.
    ///
    /// # Errors
    /// What the repository must refuse; nothing has changed then.
    pub fn apply(&mut self, action: &Action, newest: CommitId) -> Result<(), Refused> {
        let mut world = self.world.clone();
        let table = &mut world.table;
        match action {
            Action::Commit(_)
            | Action::Again
            | Action::Line(_)
            | Action::Maintain
            | Action::Refresh
            | Action::Reopen => {}
            Action::Resume(name) => drop(table.get(name).ok_or(Refused::NotFound)?),
            Action::Branch(name) => {
                self.free(name)?;
                table.insert(name.clone(), Target::Branch(newest));
            }
            Action::Tag(name) => {
                self.free(name)?;
                if world.head == Head::Branch(name.clone()) {
                    return Err(Refused::Exists);
                }
                table.insert(name.clone(), Target::Tag(newest));
            }
            Action::Rename(old, new) => {
                let at = self.branch(old)?;
                if old != new {
                    self.free(new)?;
                }
                table.remove(old);
                table.insert(new.clone(), Target::Branch(at));
                if world.head == Head::Branch(old.clone()) {
                    world.head = Head::Branch(new.clone());
                }
            }
            Action::DeleteBranch(name) => {
                self.branch(name)?;
                if world.head == Head::Branch(name.clone()) {
                    return Err(Refused::DeletesHead);
                }
                table.remove(name);
            }
            Action::DeleteTag(name) => match table.get(name) {
                Some(Target::Tag(_)) => drop(table.remove(name)),
                Some(Target::Branch(_)) | None => return Err(Refused::NotFound),
            },
            Action::Undo => return self.travel(true),
            Action::Redo => return self.travel(false),
            Action::Checkout(to) => world.head = self.go(to, table, newest)?,
        }
        self.step_to(world);
        Ok(())
    }

    /// Takes a new commit on a line: where it lands, and what becomes of the tip that was there.
    ///
    /// # Errors
    /// What the repository must refuse.
    pub fn commit(&mut self, line: (&str, bool), id: CommitId, made: Made) -> Result<String, Refused> {
        let (branch, is_first) = line;
        let mut world = self.world.clone();
        let tip = match world.table.get(branch) {
            Some(Target::Tag(_)) => return Err(Refused::Exists),
            Some(Target::Branch(tip)) => Some(*tip),
            None => None,
        };
        let is_ours = match (tip, made.parent) {
            (None, _) => true,
            (Some(tip), Some(base)) => self.leads_to(tip, base),
            (Some(_), None) => false,
        };
        let mut landed = branch.to_owned();
        if !is_ours {
            let names = (1..).map(|n| format!("{branch}.{n}"));
            let beside = names.into_iter().find(|name| !world.table.contains_key(name)).ok_or(Refused::Exists)?;
            match tip {
                Some(tip) if is_first => drop(world.table.insert(beside, Target::Branch(tip))),
                Some(_) | None => landed = beside,
            }
        }
        world.table.insert(landed.clone(), Target::Branch(id));
        self.commits.insert(id, made);
        self.newest = Some(id);
        self.step_to(world);
        Ok(landed)
    }

    /// Takes a world that came about without the model having been told how.
    pub fn jump(&mut self, world: World) {
        self.step_to(world);
    }

    fn step_to(&mut self, world: World) {
        if world != self.world {
            self.applied.push((self.world.clone(), world.clone()));
            self.undone.clear();
            self.world = world;
        }
    }

    fn travel(&mut self, is_undo: bool) -> Result<(), Refused> {
        let (from, to) =
            if is_undo { (&mut self.applied, &mut self.undone) } else { (&mut self.undone, &mut self.applied) };
        let step = from.pop().ok_or(Refused::Nothing)?;
        let world = if is_undo { step.0.clone() } else { step.1.clone() };
        to.push(step);
        self.world = world;
        Ok(())
    }

    fn go(&self, to: &Goto, table: &mut RefTable, newest: CommitId) -> Result<Head, Refused> {
        match to {
            Goto::Branch(name) => {
                let head = Head::Branch(name.clone());
                if self.world.head != head {
                    self.branch(name)?;
                }
                Ok(head)
            }
            Goto::New(name) => {
                self.free(name)?;
                table.insert(name.clone(), Target::Branch(newest));
                Ok(Head::Branch(name.clone()))
            }
            Goto::Unborn(name) => {
                self.free(name)?;
                Ok(Head::Branch(name.clone()))
            }
            Goto::Newest => Ok(Head::Commit(newest)),
        }
    }

    fn free(&self, name: &str) -> Result<(), Refused> {
        if self.world.table.contains_key(name) { Err(Refused::Exists) } else { Ok(()) }
    }

    fn branch(&self, name: &str) -> Result<CommitId, Refused> {
        match self.world.table.get(name) {
            Some(Target::Branch(at)) => Ok(*at),
            Some(Target::Tag(_)) | None => Err(Refused::NotFound),
        }
    }

    fn leads_to(&self, tip: CommitId, base: CommitId) -> bool {
        let mut at = Some(base);
        while let Some(id) = at {
            if id == tip {
                return true;
            }
            at = self.commits.get(&id).and_then(|made| made.parent);
        }
        false
    }
}
