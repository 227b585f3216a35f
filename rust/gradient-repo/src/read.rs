//! Reading a commit's state: its components, one tensor or many, everything verified.

use std::collections::BTreeMap;

use gradient_object::{CommitId, Mapping, Tensor, TreeId, Value};

use crate::error::{RepoError, Result};
use crate::repository::Repository;

impl Repository {
    /// Sections of a commit's state, the components in each, and their trees.
    ///
    /// # Errors
    /// As [`Repository::commit_of`]; object database errors.
    pub fn components(&self, commit: &CommitId) -> Result<BTreeMap<String, BTreeMap<String, TreeId>>> {
        let commit = self.commit_of(commit)?;
        Ok(self.odb.read_root(&commit.tree)?.sections)
    }

    /// The tree of one component.
    ///
    /// # Errors
    /// [`RepoError::ComponentNotFound`]; as [`Repository::components`].
    pub fn component_root(&self, commit: &CommitId, section: &str, name: &str) -> Result<TreeId> {
        let sections = self.components(commit)?;
        sections.get(section).and_then(|components| components.get(name)).copied().ok_or_else(|| {
            RepoError::ComponentNotFound { commit: commit.short(), section: section.to_owned(), name: name.to_owned() }
        })
    }

    /// One component's mapping; no tensor data is read.
    ///
    /// # Errors
    /// As [`Repository::component_root`].
    pub fn component(&self, commit: &CommitId, section: &str, name: &str) -> Result<Mapping> {
        let root = self.component_root(commit, section, name)?;
        Ok(self.odb.read_tree(&root)?.0)
    }

    /// The environment that a commit was made in.
    ///
    /// # Errors
    /// As [`Repository::commit_of`].
    pub fn environment(&self, commit: &CommitId) -> Result<Mapping> {
        let commit = self.commit_of(commit)?;
        Ok(self.odb.read_tree(&commit.environment)?.0)
    }

    /// Reads every chunk of a commit's state and checks its hash.
    ///
    /// # Errors
    /// Object database errors that name the object and where it lies.
    pub fn verify(&self, commit: &CommitId, progress: &gradient_odb::Progress) -> Result<()> {
        for trees in self.components(commit)?.values() {
            for root in trees.values() {
                let tree = Value::Map(self.odb.read_tree(root)?.0);
                let mut tensors = Vec::new();
                tree.for_each_tensor(&mut |tensor| tensors.push(tensor));
                self.odb.verify_tensors(&tensors, progress)?;
            }
        }
        Ok(())
    }
}

/// Hash of a tensor's dtype, shape, order and content ids: equal for equal tensors, found without the data.
///
/// # Errors
/// [`RepoError::Object`] for a tensor that breaks the format.
pub fn tensor_digest(tensor: &Tensor) -> Result<String> {
    let bytes = gradient_object::encode(&Value::Tensor(tensor.clone()))?;
    let mut hasher = blake3::Hasher::new_derive_key("gradient-store 2026-11 format 1 tensor");
    Ok(hasher.update(&bytes).finalize().to_hex().to_string())
}
