//! One process: a handle on a repository, and the line of commits it is on.

use std::collections::BTreeMap;
use std::sync::Arc;

use gradient_object::{CommitId, Flavor, Key, Mapping, Tensor, Value};
use gradient_odb::MergeLimits;
use gradient_repo::{
    ByteSource, Checkout, CommitOutcome, CommitRequest, Progress, RepoError, Repository, Result, Staged, UpkeepLimits,
};
use gradient_storage::Storage;
use gradient_storage::sim::Random;

use crate::attempt::{Attempt, Came, Line};
use crate::disk::Disk;
use crate::model::Refused;

/// Where the repository lies on a simulated disk.
pub const DIR: &str = "/home/model/.gradient-repo";

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Commits tensors; each number stands for other bytes, so equal numbers are chunks that are there already.
    Commit(Vec<u64>),
    /// Commits what the line's newest commit holds, at its step: nothing new.
    Again,
    /// Begins a fresh line on a branch.
    Line(String),
    /// Goes on from the tip of a branch.
    Resume(String),
    /// Makes a branch at the newest commit.
    Branch(String),
    /// Renames a branch.
    Rename(String, String),
    /// Deletes a branch.
    DeleteBranch(String),
    /// Makes a tag at the newest commit.
    Tag(String),
    /// Deletes a tag.
    DeleteTag(String),
    /// Takes the newest operation back.
    Undo,
    /// Makes it again.
    Redo,
    /// Moves HEAD.
    Checkout(Goto),
    /// Folds, merges, sweeps.
    Maintain,
    /// Reads what others published.
    Refresh,
    /// Closes the handle and opens another one.
    Reopen,
}

/// Where a checkout goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goto {
    /// To a branch.
    Branch(String),
    /// To a new branch at the newest commit.
    New(String),
    /// To a new branch without commits.
    Unborn(String),
    /// To the newest commit and no branch.
    Newest,
}

/// What an action did.
#[derive(Clone, Debug)]
pub enum Performed {
    /// It made a commit, or found that there is one.
    Commit(CommitOutcome),
    /// Something else.
    Done,
}

/// A handle, and where its line of commits stands.
#[derive(Debug)]
pub struct Process {
    disk: Box<dyn Disk>,
    /// The handle.
    pub repo: Repository,
    /// The branch of the line.
    pub branch: String,
    /// The newest commit of the line.
    pub base: Option<CommitId>,
    /// Nothing was committed on the line yet.
    pub first: bool,
    /// The step of the newest commit, and its tensors.
    pub last: (u64, Vec<u64>),
}

/// Limits that small repositories reach.
pub fn limits() -> UpkeepLimits {
    let merge = MergeLimits { small_len: 1 << 20, num_small_max: 18, merged_len_max: 1 << 20 };
    UpkeepLimits { merge, fold_at: 68 }
}

/// The bytes that a number stands for: without order, of a length of its own, longer than what is inlined.
pub fn content(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let len = 4 * (700 + random.index(600));
    (0..len).map(|_| random.number() as u8).collect()
}

/// Opens the folder of the repository.
///
/// # Errors
/// Storage errors.
pub fn open_storage(disk: &dyn Disk) -> Result<Arc<dyn Storage>> {
    Ok(disk.open()?)
}

impl Process {
    /// Makes the repository, or opens the one that is there.
    ///
    /// # Errors
    /// As [`Repository::init`].
    pub fn init(disk: &dyn Disk) -> Result<Self> {
        Ok(Self::of(disk, Repository::init(disk.create()?, "model", "")?.0))
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open(disk: &dyn Disk) -> Result<Self> {
        Ok(Self::of(disk, Repository::open(open_storage(disk)?)?))
    }

    fn of(disk: &dyn Disk, mut repo: Repository) -> Self {
        repo.set_upkeep_limits(limits());
        let Line { branch, base, first, last } = Line::default();
        Self { disk: disk.share(), repo, branch, base, first, last }
    }

    /// Where its line of commits stands.
    pub fn line(&self) -> Line {
        Line { branch: self.branch.clone(), base: self.base, first: self.first, last: self.last.clone() }
    }

    /// Tries something from where its line stands; a refusal is no error.
    ///
    /// # Errors
    /// What the repository says.
    pub fn attempt(&mut self, attempt: &Attempt) -> Result<Came> {
        match self.perform(&attempt.action, attempt.newest, attempt.step) {
            Ok(Performed::Commit(CommitOutcome { commit: id, branch, existing, .. })) => {
                Ok(Came::Commit { id, branch, existing })
            }
            Ok(Performed::Done) => Ok(Came::Done),
            Err(error) => Refused::of(&error).map(Came::Refused).ok_or(error),
        }
    }

    /// Does it. `newest` is the commit that new branches and tags point to, `step` the next step.
    ///
    /// # Errors
    /// What the repository says.
    pub fn perform(&mut self, action: &Action, newest: CommitId, step: u64) -> Result<Performed> {
        match action {
            Action::Commit(tensors) => return self.commit(step, tensors),
            Action::Again if self.base.is_none() => {}
            Action::Again => {
                let (step, tensors) = self.last.clone();
                return self.commit(step, &tensors);
            }
            Action::Line(branch) => {
                self.branch.clone_from(branch);
                (self.base, self.first) = (None, true);
            }
            Action::Resume(name) => self.resume(name)?,
            Action::Branch(name) => self.repo.create_branch(name, newest, "")?,
            Action::Rename(old, new) => self.repo.rename_branch(old, new)?,
            Action::DeleteBranch(name) => drop(self.repo.delete_branch(name, "")?),
            Action::Tag(name) => self.repo.create_tag(name, newest)?,
            Action::DeleteTag(name) => drop(self.repo.delete_tag(name)?),
            Action::Undo => drop(self.repo.undo()?),
            Action::Redo => drop(self.repo.redo()?),
            Action::Checkout(to) => self.repo.checkout(&match to {
                Goto::Branch(name) => Checkout::Branch(name.clone()),
                Goto::New(name) => Checkout::New(name.clone(), newest),
                Goto::Unborn(name) => Checkout::Unborn(name.clone()),
                Goto::Newest => Checkout::Commit(newest),
            })?,
            Action::Maintain => self.repo.maintain()?,
            Action::Refresh => self.repo.refresh()?,
            Action::Reopen => self.reopen()?,
        }
        Ok(Performed::Done)
    }

    /// Closes the handle and opens another one, on the same line.
    ///
    /// # Errors
    /// What the repository says.
    pub fn reopen(&mut self) -> Result<()> {
        self.repo.close()?;
        let Line { branch, base, first, last } = self.line();
        *self = Self { branch, base, first, last, ..Self::open(&*self.disk)? };
        Ok(())
    }

    /// The way of this process to the disk.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The numbers of what the tensors of a commit hold.
    ///
    /// # Errors
    /// What the repository says.
    pub fn numbers(&self, commit: &CommitId) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for (name, _) in self.repo.component(commit, "model", "main")?.iter() {
            // The number of what a tensor holds stands in its name, behind its place.
            let Key::Text(name) = name else { continue };
            numbers.extend(name.rsplit('-').next().and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    fn resume(&mut self, name: &str) -> Result<()> {
        self.repo.refresh()?;
        let tip = self.repo.resolve(name, None)?;
        let tensors = self.numbers(&tip.commit)?;
        name.clone_into(&mut self.branch);
        (self.base, self.first) = (Some(tip.commit), true);
        self.last = (tip.step, tensors);
        Ok(())
    }

    fn commit(&mut self, step: u64, tensors: &[u64]) -> Result<Performed> {
        let outcome = commit(&self.repo, (&self.branch, self.base, self.first), step, tensors)?;
        self.branch.clone_from(&outcome.branch);
        (self.base, self.first) = (Some(outcome.commit), false);
        self.last = (step, tensors.to_vec());
        Ok(Performed::Commit(outcome))
    }

    /// The tensors of a commit, read back.
    ///
    /// # Errors
    /// What the repository says.
    pub fn restore(&self, commit: &CommitId) -> Result<Vec<Vec<u8>>> {
        let model = Value::Map(self.repo.component(commit, "model", "main")?);
        let mut tensors = Vec::new();
        model.for_each_tensor(&mut |tensor| tensors.push(self.repo.odb().read_tensor_bytes(tensor)));
        tensors.into_iter().map(|bytes| bytes.map_err(RepoError::from)).collect()
    }
}

fn commit(
    repo: &Repository,
    (branch, base, first): (&str, Option<CommitId>, bool),
    step: u64,
    tensors: &[u64],
) -> Result<CommitOutcome> {
    let sources: Vec<Vec<u8>> = tensors.iter().map(|number| content(*number)).collect();
    let mut mapping: Mapping<usize> = Mapping::new();
    for (at, (number, bytes)) in tensors.iter().zip(&sources).enumerate() {
        let shape = vec![bytes.len() as u64 / 4];
        let dtype = "float32".to_owned();
        let tensor = Tensor { flavor: Flavor::Torch, dtype, shape, order: None, data: at };
        mapping.insert(format!("t{at:03}-{number}"), Value::Tensor(tensor))?;
    }
    let model: Staged = Value::Map(mapping);
    let request = CommitRequest {
        branch: branch.to_owned(),
        base,
        first,
        create: false,
        step,
        message: format!("step {step}"),
        metrics: Vec::new(),
        environment: Mapping::new(),
        sections: BTreeMap::from([("model".to_owned(), BTreeMap::from([("main".to_owned(), model)]))]),
        sources: sources.iter().map(|bytes| bytes as &dyn ByteSource).collect(),
        storing: gradient_repo::Storing::default(),
    };
    repo.commit(&request, &Progress::new())
}
