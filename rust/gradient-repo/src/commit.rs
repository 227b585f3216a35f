//! The commit transaction: stage and hash, write one pack, publish one operation (`design.md` section 5).
//!
//! Invariants: the pack is durable before the operation that names its commit; an operation is published only on the
//! head that was read before the first look for existing objects, or after looking again; what was acknowledged is
//! on a branch.

use std::collections::BTreeMap;

use gradient_object::{
    Commit, CommitId, CommitKind, Mapping, Metric, RootTree, Tensor, TensorData, Tree, TreeId, Value,
};
use gradient_odb::{ByteSource, Line, OdbError, Progress, Sealed, Source, TensorLayout, Transaction};
use gradient_storage::{Folder, StorageError};

use crate::clock::now_ns;
use crate::error::{RepoError, Result};
use crate::line::{Storing, for_each_tensor, key_of};
use crate::names::{NAME_BYTES_MAX, check_name};
use crate::operation::{OperationKind, RefTable, Subject, Target};
use crate::oplog::HeadState;
use crate::repository::{Change, PUBLISH_ATTEMPTS_MAX, Repository, State};

/// So often a pack is written that is removed before it has its name.
const REMOVALS_MAX: u32 = 3;

/// A component's value on its way in: the data of a tensor is the position of its bytes in [`CommitRequest::sources`].
pub type Staged = Value<usize>;

/// What is to be committed.
pub struct CommitRequest<'a> {
    /// Branch to commit on.
    pub branch: String,
    /// The commit that this line last committed or restored; none for a fresh line.
    pub base: Option<CommitId>,
    /// The writer has committed nothing on the branch yet.
    pub first: bool,
    /// The branch must not exist.
    pub create: bool,
    /// Training step.
    pub step: u64,
    /// Message, for people.
    pub message: String,
    /// Metrics by name.
    pub metrics: Vec<(String, Metric)>,
    /// Versions, devices, flags.
    pub environment: Mapping,
    /// Section to component to mapping.
    pub sections: BTreeMap<String, BTreeMap<String, Staged>>,
    /// The bytes of all tensors.
    pub sources: Vec<&'a dyn ByteSource>,
    /// How it is stored.
    pub storing: Storing,
}

/// What a commit became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOutcome {
    /// Its id.
    pub commit: CommitId,
    /// The root hash of its state.
    pub root: TreeId,
    /// Where it landed.
    pub branch: String,
    /// The step.
    pub step: u64,
    /// Whether any of its own chunks is a delta.
    pub kind: CommitKind,
    /// The line's tip was this state at this step already: no commit was made.
    pub existing: bool,
    /// The branch that keeps the tip which this first commit of a line did not descend from.
    pub displaced: Option<String>,
    /// Somebody else moved the branch to this commit: ours stands on a new branch.
    pub conflict: Option<CommitId>,
    /// Bytes that the commit added.
    pub added_len: u64,
    /// Bytes of its tensors.
    pub raw_len: u64,
    /// Things worth saying.
    pub notices: Vec<String>,
}

/// Where the table sends a new commit.
struct Placement {
    table: RefTable,
    branch: String,
    displaced: Option<String>,
    conflict: Option<CommitId>,
}

impl Repository {
    /// Commits a state; returns once it is durable and on a branch.
    ///
    /// # Errors
    /// - [`RepoError::RefExists`]: `create`, and the branch exists; or a tag of that name.
    /// - [`RepoError::BadName`], [`RepoError::Invalid`], [`RepoError::CaseCollision`].
    /// - [`RepoError::DamagedHead`], [`RepoError::Poisoned`]: this handle takes no commits.
    /// - [`RepoError::Busy`], storage errors, cancellation: nothing was published.
    pub fn commit(&self, request: &CommitRequest<'_>, progress: &Progress) -> Result<CommitOutcome> {
        check_name(&request.branch, "branch")?;
        let mut state = self.lock_for_writing()?;
        state.lease.begin();
        let mut outcome = self.commit_locked(&mut state, request, progress);
        if let Ok(outcome) = &mut outcome {
            state.commits_since_upkeep += 1;
            if let Err(error) = self.upkeep(&mut state, false) {
                outcome.notices.push(format!("upkeep failed and will be tried again: {error}"));
            }
        }
        if let Ok(outcome) = &outcome {
            state.last = Some(outcome.clone());
        }
        // Not before: what a merge writes lies in tmp/ as well.
        state.lease.end();
        outcome
    }

    fn commit_locked(
        &self,
        state: &mut State,
        request: &CommitRequest<'_>,
        progress: &Progress,
    ) -> Result<CommitOutcome> {
        let mut num_removals = 0;
        for _ in 0..PUBLISH_ATTEMPTS_MAX {
            self.place(&state.head, request, CommitId::from_bytes([0; 32]))?;
            let coding = state.line.before(self, request.base, request.storing);
            let mut transaction = self.odb.begin();
            transaction.set_coding(coding);
            let (root, raw_len) = stage(&mut transaction, request, state.line.line(), progress)?;
            if let Some(existing) = self.existing(&state.head, request, root, raw_len)? {
                let updates = transaction.take_updates();
                // Chunks that were found damaged, written again.
                if transaction.has_new_chunks() && seal(transaction, &mut num_removals, progress)?.is_none() {
                    continue;
                }
                // Whoever published the commit may have been killed before its operation was durable.
                if state.durable < state.head.operation.n {
                    self.storage.sync(Folder::Ops)?;
                    state.durable = state.head.operation.n;
                }
                state.line.stay(updates);
                return Ok(existing);
            }
            let commit = Commit {
                tree: root,
                parents: request.base.into_iter().collect(),
                branch: request.branch.clone(),
                step: request.step,
                message: request.message.clone(),
                metrics: request.metrics.clone(),
                time_ns: now_ns(),
                environment: transaction.add_tree(&Tree(request.environment.clone()))?,
                kind: if transaction.has_deltas() { CommitKind::Delta } else { CommitKind::Anchor },
                mode: "exact".to_owned(),
                error: None,
            };
            let id = transaction.add_commit(&commit)?;
            let (mut updates, has_deltas) = (Some(transaction.take_updates()), transaction.has_deltas());
            let Some(sealed) = seal(transaction, &mut num_removals, progress)? else { continue };
            for attempt in 0..PUBLISH_ATTEMPTS_MAX {
                if attempt > 0 && !self.odb.still_holds(&sealed)? {
                    break; // Something we relied on was condemned while we wrote: write it again.
                }
                let placement = self.place(&state.head, request, id)?;
                let change = Change {
                    kind: OperationKind::Commit,
                    subject: Subject::Name(placement.branch.clone()),
                    why: format!("{}@{}", placement.branch, request.step),
                    table: placement.table,
                    head: state.head.operation.head.clone(),
                };
                if self.publish(state, change)? {
                    let updates = updates.take().unwrap_or_default();
                    let notice = state.line.advance(id, updates, has_deltas, request.storing);
                    return Ok(CommitOutcome {
                        commit: id,
                        root,
                        branch: placement.branch,
                        step: request.step,
                        kind: commit.kind,
                        existing: false,
                        displaced: placement.displaced,
                        conflict: placement.conflict,
                        added_len: sealed.added_len,
                        raw_len,
                        notices: notice.into_iter().collect(),
                    });
                }
                self.advance(state)?;
            }
        }
        Err(RepoError::Busy { attempts: PUBLISH_ATTEMPTS_MAX })
    }

    // The line's own newest commit already is this state at this step.
    fn existing(
        &self,
        head: &HeadState,
        request: &CommitRequest<'_>,
        root: TreeId,
        raw_len: u64,
    ) -> Result<Option<CommitOutcome>> {
        let Some(base) = request.base.filter(|_| !request.create) else { return Ok(None) };
        let commit = self.commit_of(&base)?;
        let on_branch =
            commit.branch == request.branch || head.table.get(&request.branch) == Some(&Target::Branch(base));
        if commit.step != request.step || commit.tree != root || !on_branch {
            return Ok(None);
        }
        Ok(Some(CommitOutcome {
            commit: base,
            root,
            branch: request.branch.clone(),
            step: request.step,
            kind: commit.kind,
            existing: true,
            displaced: None,
            conflict: None,
            added_len: 0,
            raw_len,
            notices: Vec::new(),
        }))
    }

    fn place(&self, head: &HeadState, request: &CommitRequest<'_>, id: CommitId) -> Result<Placement> {
        let branch = &request.branch;
        let mut table = head.table.clone();
        let tip = match table.get(branch) {
            Some(Target::Tag(_)) => return Err(RepoError::RefExists { kind: "tag", name: branch.clone() }),
            Some(Target::Branch(_)) if request.create => {
                return Err(RepoError::RefExists { kind: "branch", name: branch.clone() });
            }
            Some(Target::Branch(tip)) => Some(*tip),
            None => {
                crate::refs::check_free(&table, branch)?;
                None
            }
        };
        let moved = match (tip, request.base) {
            (None, _) => false,
            (Some(tip), Some(base)) => tip != base && !self.is_ancestor(&tip, &base)?,
            (Some(_), None) => true,
        };
        if !moved {
            table.insert(branch.clone(), Target::Branch(id));
            return Ok(Placement { table, branch: branch.clone(), displaced: None, conflict: None });
        }
        let beside = free_name(&table, branch);
        if request.first {
            if let Some(tip) = tip {
                table.insert(beside.clone(), Target::Branch(tip));
            }
            table.insert(branch.clone(), Target::Branch(id));
            return Ok(Placement { table, branch: branch.clone(), displaced: Some(beside), conflict: None });
        }
        table.insert(beside.clone(), Target::Branch(id));
        Ok(Placement { table, branch: beside, displaced: None, conflict: tip })
    }
}

// `<branch>.<n>` with the lowest n from 1 that is free; a name that would be too long is shortened.
fn free_name(table: &RefTable, branch: &str) -> String {
    let longest = NAME_BYTES_MAX - ".18446744073709551615".len();
    let end = (0..=longest.min(branch.len())).rev().find(|at| branch.is_char_boundary(*at)).unwrap_or(0);
    let (stem, _) = branch.split_at(end);
    (1..=u64::MAX)
        .map(|n| format!("{stem}.{n}"))
        .find(|name| check_name(name, "branch").is_err() || crate::refs::check_free(table, name).is_ok())
        .filter(|name| check_name(name, "branch").is_ok())
        // A name that was cut at a place where no name may end.
        .unwrap_or_else(|| free_name(table, "kept"))
}

/// Seals the pack of a transaction. None, the first times: it was removed under its writer, who had been stopped for so
/// long that others took it for dead; then it has to be written again (rule G3).
fn seal(transaction: Transaction<'_>, num_removals: &mut u32, progress: &Progress) -> Result<Option<Sealed>> {
    match transaction.seal(progress) {
        Err(OdbError::Storage(StorageError::NotFound { .. })) if *num_removals < REMOVALS_MAX => {
            *num_removals += 1;
            Ok(None)
        }
        sealed => Ok(Some(sealed?)),
    }
}

/// Copies and hashes all tensors, builds the component trees and the root; returns the root hash and the raw bytes.
fn stage(
    transaction: &mut Transaction<'_>,
    request: &CommitRequest<'_>,
    line: &Line,
    progress: &Progress,
) -> Result<(TreeId, u64)> {
    let mut inline = Vec::new();
    let mut large = Vec::new();
    for (source, known) in request.sources.iter().zip(known_sources(request)) {
        let is_inline = source.len() <= gradient_object::INLINE_BYTES_MAX;
        inline.push(is_inline.then(|| {
            let mut bytes = vec![0; source.len()];
            source.copy_to(0, &mut bytes);
            bytes
        }));
        if !is_inline {
            large.push(Source { bytes: *source, ..known.unwrap_or_else(|| Source::plain(*source)) });
        }
    }
    let raw_len = request.sources.iter().map(|source| source.len() as u64).sum();
    let mut chunks = transaction.add_sources(&large, Some(line), progress)?.into_iter();
    let data: Vec<TensorData> = inline
        .into_iter()
        .map(|bytes| match bytes {
            Some(bytes) => TensorData::Inline(bytes),
            None => TensorData::Chunks(chunks.next().unwrap_or_default()),
        })
        .collect();
    let mut sections = BTreeMap::new();
    for (section, components) in &request.sections {
        let mut roots = BTreeMap::new();
        for (name, staged) in components {
            let value = staged.clone().map_data(&mut |tensor: &Tensor<()>, source: usize| {
                let data = data.get(source).cloned().ok_or_else(|| {
                    RepoError::invalid(format!("{section}/{name} names tensor data that was not given"), "")
                })?;
                check_len(section, name, tensor, request.sources.get(source).map_or(0, |bytes| bytes.len()))?;
                Ok::<_, RepoError>(data)
            })?;
            let Value::Map(mapping) = value else {
                return Err(RepoError::invalid(format!("{section}/{name} is no mapping"), ""));
            };
            roots.insert(name.clone(), transaction.add_tree(&Tree(mapping))?);
        }
        sections.insert(section.clone(), roots);
    }
    Ok((transaction.add_root(&RootTree { sections })?, raw_len))
}

/// What is known of each source: that of the first tensor that names it.
fn known_sources<'a>(request: &CommitRequest<'a>) -> Vec<Option<Source<'a>>> {
    let mut known: Vec<Option<Source<'a>>> = vec![None; request.sources.len()];
    for (section, components) in &request.sections {
        for (name, staged) in components {
            for_each_tensor(staged, &mut format!("{section}/{name}"), &mut |path, tensor| {
                if let (Some(slot @ None), Some(bytes)) = (known.get_mut(tensor.data), request.sources.get(tensor.data))
                {
                    let (layout, key) = (TensorLayout::of(tensor), Some(key_of(path, tensor)));
                    *slot = Some(Source { bytes: *bytes, layout, key });
                }
            });
        }
    }
    known
}

fn check_len(section: &str, name: &str, tensor: &Tensor<()>, actual: usize) -> Result<()> {
    let expected = tensor.raw_len()?;
    if expected == actual as u64 {
        return Ok(());
    }
    let message = format!(
        "a tensor of {section}/{name}, {} of shape {:?}, has {actual} bytes and not {expected}",
        tensor.dtype, tensor.shape
    );
    Err(RepoError::invalid(message, ""))
}
