//! Calls, and how one of them is made to fail.

use std::fmt;

use rustix::io::Errno;

/// What is asked of the system: the methods of `System`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the methods")]
pub enum CallKind {
    OpenRoot,
    OpenPath,
    MakePath,
    StatPath,
    OpenNear,
    OpenFolder,
    OpenFile,
    OpenToWrite,
    CreateFile,
    MakeFolder,
    Stat,
    StatOpen,
    Read,
    Write,
    Truncate,
    Reserve,
    SetDirect,
    Sync,
    SyncFolder,
    RenameNoReplace,
    Rename,
    Link,
    Unlink,
    List,
}

impl CallKind {
    /// Says whether it opens a file or folder.
    pub fn opens(self) -> bool {
        matches!(
            self,
            Self::OpenRoot
                | Self::OpenPath
                | Self::OpenNear
                | Self::OpenFolder
                | Self::OpenFile
                | Self::OpenToWrite
                | Self::CreateFile
                | Self::List
        )
    }

    /// Says whether it needs room on the disk.
    pub fn needs_room(self) -> bool {
        matches!(
            self,
            Self::MakePath
                | Self::CreateFile
                | Self::MakeFolder
                | Self::Write
                | Self::Reserve
                | Self::Sync
                | Self::SyncFolder
                | Self::RenameNoReplace
                | Self::Rename
                | Self::Link
        )
    }

    /// Says whether a disk that can only be read refuses it.
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::MakePath
                | Self::OpenToWrite
                | Self::CreateFile
                | Self::MakeFolder
                | Self::Write
                | Self::Truncate
                | Self::Reserve
                | Self::RenameNoReplace
                | Self::Rename
                | Self::Link
                | Self::Unlink
        )
    }

    /// Says whether it gives or takes a name: what a network file system may do and then report as failed.
    pub fn names(self) -> bool {
        matches!(self, Self::CreateFile | Self::RenameNoReplace | Self::Rename | Self::Link | Self::Unlink)
    }
}

/// One call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub kind: CallKind,
    /// Of what: a path below the folder that was opened first.
    pub path: String,
    /// How many changes had been made before it.
    pub changes_before: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.path)
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does nothing and gives this error.
    Error(Errno),
    /// A write or read moves one byte.
    OneByte,
    /// A write or read moves half of what it was asked for.
    Half,
    /// A sync fails, and what it should have made durable never will be, though later syncs succeed.
    LostSync,
    /// It does what it was asked for, and gives this error.
    DoneAndError(Errno),
}

impl Failure {
    /// Says whether a call of this kind can fail so.
    pub fn fits(self, kind: CallKind) -> bool {
        match self {
            Self::Error(Errno::NOSPC | Errno::DQUOT) => kind.needs_room(),
            Self::Error(Errno::MFILE | Errno::NFILE) => kind.opens(),
            Self::Error(Errno::ROFS) => kind.changes(),
            Self::Error(Errno::ACCESS) => kind.opens() || (kind.names() && kind != CallKind::Write),
            Self::Error(_) => true,
            Self::OneByte | Self::Half => matches!(kind, CallKind::Write | CallKind::Read),
            Self::LostSync => matches!(kind, CallKind::Sync | CallKind::SyncFolder),
            Self::DoneAndError(_) => kind.names(),
        }
    }
}

/// A call that fails, and whether the ones after it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the call, from 0. One that can not fail so is let through, and the next one fails.
    pub at: usize,
    /// How it fails.
    pub failure: Failure,
    /// Every call from there on that can fail so does.
    pub lasts: bool,
}

/// A rule that is broken on purpose, to see whether anybody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Folders are not synced.
    SkipFolderSync,
    /// A pack gets its name before its bytes are durable, and so does the operation that relies on it.
    PublishBeforeSync,
    /// A pack gets its name only after the operation that names its commit.
    OperationBeforePack,
    /// A write that finds the disk full counts as done.
    IgnoreFullDisk,
}
