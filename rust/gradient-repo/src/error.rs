//! What can go wrong in a repository, with the facts, the kebab-case code and the hint of each failure.

use gradient_object::{CommitId, ObjectError};
use gradient_odb::OdbError;
use gradient_storage::StorageError;

/// What a caller would do next about a failure: one class for each exception of `gradient.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// A repository, ref or object that does not exist.
    NotFound,
    /// A name that is taken.
    AlreadyExists,
    /// A bad name, option or value.
    InvalidInput,
    /// Somebody moved the ref first.
    Conflict,
    /// Bytes are not what they were.
    Corruption,
    /// A version or feature this release does not know.
    Format,
    /// Disk or permission.
    Storage,
    /// Stopped on request.
    Cancelled,
    /// Our bug.
    Internal,
}

/// A failure of a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// The folder holds no repository.
    #[error("{location} is no repository: it has no `format` file")]
    NotARepository {
        /// The folder that was looked at.
        location: String,
    },
    /// A ref that nothing answers to.
    #[error("{name} not found{}", suggestion(.nearest))]
    RefNotFound {
        /// The ref as given.
        name: String,
        /// Names close to it, best first.
        nearest: Vec<String>,
    },
    /// A ref that could mean several commits.
    #[error("{prefix} is ambiguous: it begins the ids of {}", candidates.join(", "))]
    AmbiguousPrefix {
        /// The prefix as given.
        prefix: String,
        /// Ids that begin with it, at most eight.
        candidates: Vec<String>,
    },
    /// `latest` or HEAD on a branch without commits.
    #[error("branch {branch} has no commits yet{}", listed(.others))]
    EmptyBranch {
        /// The branch.
        branch: String,
        /// Branches that have commits.
        others: Vec<String>,
    },
    /// A commit of the branch can not be read, and what lies behind it is not known.
    #[error(
        "{name}@{step} can not be found: commit {} of {name} can not be read, and so not what it came from",
        .commit.short()
    )]
    LineBroken {
        /// The branch.
        name: String,
        /// The step that was looked for.
        step: u64,
        /// The commit.
        commit: CommitId,
    },
    /// There is nothing of this kind in the commit.
    #[error("commit {commit} has no {section}/{name}")]
    ComponentNotFound {
        /// Short id of the commit.
        commit: String,
        /// The section.
        section: String,
        /// The component.
        name: String,
    },
    /// A branch or tag of that name exists.
    #[error("a {kind} named {name} exists already")]
    RefExists {
        /// `branch` or `tag`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A name that differs from an existing one only in case.
    #[error("{name} differs from {existing} only in case")]
    CaseCollision {
        /// The name as given.
        name: String,
        /// The one that exists.
        existing: String,
    },
    /// A name that can not name a ref or component.
    #[error("{name:?} can not name a {what}: {reason}")]
    BadName {
        /// The name as given.
        name: String,
        /// What it was to name.
        what: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The branch HEAD stands on can not be deleted.
    #[error("branch {name} is where HEAD stands")]
    DeletesHead {
        /// The branch.
        name: String,
    },
    /// Nothing to take back or make again.
    #[error("nothing to {what}")]
    NothingTo {
        /// `undo` or `redo`.
        what: &'static str,
    },
    /// An operation that `undo` can not take back, because refs have moved since.
    #[error("operation {number} can not be taken back: {name} has moved since")]
    MovedSince {
        /// The operation.
        number: u64,
        /// The ref.
        name: String,
    },
    /// Input that breaks a rule stated in the message.
    #[error("{message}")]
    Invalid {
        /// What is wrong, with the thing's name.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The newest operation can not be read; older ones can.
    #[error(
        "operation {number} can not be read ({file} is damaged: {reason}); reading goes on from operation {readable}"
    )]
    DamagedHead {
        /// The newest operation.
        number: u64,
        /// The newest one that can be read.
        readable: u64,
        /// The damaged file: that of the newest operation, or of the one whose table it refers to.
        file: String,
        /// What is wrong with that file.
        reason: String,
    },
    /// A small file that does not hold what it must.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file, as a path below the repository's folder.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A version or feature that this release does not know.
    #[error("the repository needs {found} ({file}); this release reads {supported}")]
    Unsupported {
        /// The file that says so.
        file: String,
        /// What it asks for.
        found: String,
        /// What is known here.
        supported: String,
    },
    /// Others kept publishing first.
    #[error("others published {attempts} operations in a row before this one")]
    Busy {
        /// Times tried.
        attempts: u32,
    },
    /// The handle was closed.
    #[error("this repository handle is closed")]
    Closed,
    /// The handle was opened by the process that this one was forked from.
    #[error("this repository was opened before the process was forked and can not be used in the child")]
    Forked,
    /// The object database failed.
    #[error(transparent)]
    Odb(#[from] OdbError),
    /// An object is malformed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Result of a repository's operation.
pub type Result<T, E = RepoError> = std::result::Result<T, E>;

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [first, rest @ ..] => format!("; did you mean {first} or {}?", rest.join(" or ")),
    }
}

fn listed(branches: &[String]) -> String {
    if branches.is_empty() { String::new() } else { format!("; these have: {}", branches.join(", ")) }
}

/// Facts of an error that the Python class keeps as attributes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Id of the object that is damaged or missing.
    pub object_id: Option<String>,
    /// File it lies in.
    pub path: Option<String>,
    /// Whether a restore had written some of the state already.
    pub partial: bool,
    /// Version found, for format errors.
    pub found: Option<String>,
    /// Version supported, for format errors.
    pub supported: Option<String>,
    /// errno of the system call that failed.
    pub errno: Option<i32>,
}

impl RepoError {
    /// Refuses input with a message and, if there is one, a hint.
    pub(crate) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self::Invalid { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
    }

    /// A commit that a ref names and the object database does not have.
    pub(crate) fn missing_commit(id: &CommitId) -> Self {
        Self::Damaged { file: format!("commit {}", id.short()), reason: "a ref names it and no pack holds it".into() }
    }
}
