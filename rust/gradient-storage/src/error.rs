//! Why a storage call failed. Variants carry facts; words for people are made above.

use std::io;

/// What went wrong with which file.
///
/// `key` is the file as `folder/name`, a folder as `folder/`, or the path of the repository folder itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is no such file or folder.
    #[error("{key} does not exist")]
    NotFound {
        /// What is missing.
        key: String,
    },
    /// Something has the name already, and it was left as it is.
    #[error("{key} exists already")]
    AlreadyExists {
        /// What is there.
        key: String,
    },
    /// A file ends before the bytes that were asked for.
    #[error("{key} ends too early: {actual} of {expected} bytes at offset {offset}")]
    Truncated {
        /// The file.
        key: String,
        /// Where the read began.
        offset: u64,
        /// How many bytes were asked for.
        expected: u64,
        /// How many were there.
        actual: u64,
    },
    /// A file is longer than its kind may be.
    #[error("{key} is too large: {len} bytes, at most {max}")]
    TooLarge {
        /// The file.
        key: String,
        /// How long it is, or is at least.
        len: u64,
        /// How long it may be.
        max: u64,
    },
    /// Something else lies where a regular file should be. It was not followed, read or removed.
    #[error("{key} is no regular file but a {found}")]
    NotAFile {
        /// Where.
        key: String,
        /// What lies there: `symbolic link`, `folder`, `pipe`, `socket`, `device`.
        found: &'static str,
    },
    /// Something else lies where a folder should be. It was not followed.
    #[error("{key} is no folder but a {found}")]
    NotAFolder {
        /// Where.
        key: String,
        /// What lies there: `symbolic link`, `file`, `pipe`, `socket`, `device`.
        found: &'static str,
    },
    /// Only packs in `packs/` go to the trash.
    #[error("{key} is no pack")]
    NotAPack {
        /// The key that was asked for.
        key: String,
    },
    /// The operating system refused.
    #[error("{operation} {key}: {source}")]
    Io {
        /// What was tried: `open`, `write`, `sync`, ...
        operation: &'static str,
        /// On what.
        key: String,
        /// The system's error; its number is kept.
        source: io::Error,
    },
    /// An earlier failure left it unknown what the disk holds; nothing more is written through this handle.
    #[error("{key} is not written: an earlier write or sync through this handle failed")]
    Poisoned {
        /// What was to be written.
        key: String,
    },
    /// A name outside the grammar of keys.
    #[error("{name:?} can not be the name of a repository file")]
    BadName {
        /// The name.
        name: String,
    },
}

impl StorageError {
    /// Says whether a file or folder was missing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Returns the file or folder, as `folder/name`.
    pub fn key(&self) -> &str {
        match self {
            Self::NotFound { key }
            | Self::AlreadyExists { key }
            | Self::Truncated { key, .. }
            | Self::TooLarge { key, .. }
            | Self::NotAFile { key, .. }
            | Self::NotAFolder { key, .. }
            | Self::NotAPack { key }
            | Self::Io { key, .. }
            | Self::Poisoned { key } => key,
            Self::BadName { name } => name,
        }
    }

    /// Returns the number of the system's error, if the system refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::Truncated { .. }
            | Self::TooLarge { .. }
            | Self::NotAFile { .. }
            | Self::NotAFolder { .. }
            | Self::NotAPack { .. }
            | Self::Poisoned { .. }
            | Self::BadName { .. } => None,
        }
    }
}
