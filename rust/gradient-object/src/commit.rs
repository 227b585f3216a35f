//! Commits: one root tree, where it came from, and what to say about it.

use crate::error::ObjectError;
use crate::id::{CommitId, TreeId};
use crate::mapping::Mapping;

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The root tree.
    pub tree: TreeId,
    /// The commits before, the line's own first.
    pub parents: Vec<CommitId>,
    /// The branch that the writer worked on.
    pub branch: String,
    /// The step of the training loop.
    pub step: u64,
    /// What its author says.
    pub message: String,
    /// What its author measured, in the order given.
    pub metrics: Vec<(String, Metric)>,
    /// Nanoseconds since 1970-01-01 UTC.
    pub time_ns: i64,
    /// The tree that describes versions, devices and flags.
    pub environment: TreeId,
    /// How it was first written.
    pub kind: CommitKind,
    /// `exact`, or the name of a lossy transform.
    pub mode: String,
    /// The measured error of a lossy commit; holds no tensor, alias or subtree.
    pub error: Option<Mapping>,
}

/// How a commit was first written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitKind {
    /// None of its own chunks is a delta.
    Anchor,
    /// Some of its own chunks are deltas.
    Delta,
}

/// A measured number. Floats compare by bits.
#[derive(Debug, Clone, Copy)]
pub enum Metric {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
}

impl CommitKind {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Delta => "delta",
        }
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Int(_), Self::Float(_)) | (Self::Float(_), Self::Int(_)) => false,
        }
    }
}

impl Eq for Metric {}

impl Commit {
    /// Canonical bytes.
    ///
    /// # Errors
    /// A metric that stands twice, a name or an error mapping that breaks a limit.
    pub fn encode(&self) -> Result<Vec<u8>, ObjectError> {
        todo!()
    }

    /// The commit of these canonical bytes.
    ///
    /// # Errors
    /// Bytes that are no canonical commit.
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
    pub fn id(&self) -> Result<CommitId, ObjectError> {
        Ok(CommitId::of(&self.encode()?))
    }
}
