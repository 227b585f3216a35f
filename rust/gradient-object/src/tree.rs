//! Trees: one mapping each, named by the hash of its canonical bytes.

use std::collections::BTreeMap;

use crate::error::ObjectError;
use crate::id::TreeId;
use crate::mapping::Mapping;

/// Sections that a root tree may have.
pub const SECTIONS: [&str; 8] = ["model", "optim", "scheduler", "scaler", "rng", "data", "grads", "extra"];

/// A component tree: one mapping, with everything below it inlined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(pub Mapping);

/// The root tree of a commit: sections, their components, and the tree of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootTree {
    /// Section to component to tree. No section is empty.
    pub sections: BTreeMap<String, BTreeMap<String, TreeId>>,
}

impl Tree {
    /// Canonical bytes.
    ///
    /// # Errors
    /// What [`crate::encode`] refuses, and a subtree anywhere.
    pub fn encode(&self) -> Result<Vec<u8>, ObjectError> {
        todo!()
    }

    /// The tree of these canonical bytes.
    ///
    /// # Errors
    /// What [`crate::decode`] refuses, what is no mapping, and a subtree anywhere.
    pub fn decode(_bytes: &[u8]) -> Result<Self, ObjectError> {
        todo!()
    }

    /// [`Self::decode`] without encoding again.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_trusted(_bytes: &[u8]) -> Result<Self, ObjectError> {
        todo!()
    }

    /// The id; encodes to hash.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn id(&self) -> Result<TreeId, ObjectError> {
        Ok(TreeId::of(&self.encode()?))
    }
}

impl RootTree {
    /// Canonical bytes.
    ///
    /// # Errors
    /// An unknown or empty section, a name that is too long.
    pub fn encode(&self) -> Result<Vec<u8>, ObjectError> {
        todo!()
    }

    /// The root tree of these canonical bytes.
    ///
    /// # Errors
    /// Bytes that are no canonical root tree.
    pub fn decode(_bytes: &[u8]) -> Result<Self, ObjectError> {
        todo!()
    }

    /// The id; encodes to hash.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn id(&self) -> Result<TreeId, ObjectError> {
        Ok(TreeId::of(&self.encode()?))
    }

    /// The tree of a component.
    pub fn get(&self, section: &str, component: &str) -> Option<&TreeId> {
        self.sections.get(section)?.get(component)
    }
}
