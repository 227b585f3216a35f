//! Opens the fixed folders and the files in them, and nothing else.
//!
//! Everything starts at one handle of the repository folder. A folder is opened as one component below it, a file as one
//! component below the folder (rule S4). Files are opened without blocking and then asked what they are, so a pipe in
//! place of a pack is an error and no hang.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::system::{Access, Kind, Stat, System, retry};
use crate::{Folder, Key, StorageError};

/// The open repository folder.
#[derive(Debug)]
pub(super) struct Beneath<S: System> {
    system: S,
    path: PathBuf,
    root: S::Handle,
}

impl<S: System> Beneath<S> {
    /// Opens the repository folder, which must be a folder itself; its ancestors may be reached through links.
    pub(super) fn open(system: S, dir: &Path) -> Result<Self, StorageError> {
        // A trailing slash would make the kernel follow a link in the last component.
        let path: PathBuf = dir.components().collect();
        let root = retry(|| system.open_root(&path))
            .map_err(|errno| folder_error(|| system.stat_path(&path), &path.display(), errno))?;
        Ok(Self { system, path, root })
    }

    /// Returns the system that the folder lies on.
    pub(super) fn system(&self) -> &S {
        &self.system
    }

    /// Returns the path that the repository was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder for reading, for its files and to sync it.
    pub(super) fn folder(&self, folder: Folder) -> Result<S::Handle, StorageError> {
        let opened = retry(|| match folder {
            // No name that anyone could have planted is resolved for these two.
            Folder::Root => self.system.open_near(&self.root, "."),
            Folder::Beside => self.system.open_near(&self.root, ".."),
            Folder::Ops
            | Folder::Packs
            | Folder::Leases
            | Folder::Tmp
            | Folder::Trash
            | Folder::LostFound
            | Folder::Cache => self.system.open_folder(&self.root, folder.name()),
        });
        opened.map_err(|errno| folder_error(|| self.system.stat(&self.root, folder.name()), &folder, errno))
    }

    /// Makes a folder below the root; says whether it was missing.
    pub(super) fn make_folder(&self, folder: Folder) -> Result<bool, StorageError> {
        match retry(|| self.system.make_folder(&self.root, folder.name())) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(io_error("create", &folder, errno)),
        }
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, key: &Key) -> Result<(S::Handle, Stat), StorageError> {
        self.open_file(key, Access::Read)
    }

    /// Opens a regular file for writing over what it holds.
    pub(super) fn file_to_overwrite(&self, key: &Key) -> Result<(S::Handle, Stat), StorageError> {
        self.open_file(key, Access::Write)
    }

    fn open_file(&self, key: &Key, access: Access) -> Result<(S::Handle, Stat), StorageError> {
        let folder = self.folder(key.folder())?;
        let opened = retry(|| self.system.open_file(&folder, key.name(), access));
        let file = opened.map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound { key: key.to_string() },
            // A link is refused with LOOP, a socket with NXIO, a device without driver with NODEV: say what it is.
            _ => match self.stat_regular(&folder, key) {
                Err(error @ StorageError::NotAFile { .. }) => error,
                Ok(_) | Err(_) => io_error("open", key, errno),
            },
        })?;
        let stat = retry(|| self.system.stat_open(&file)).map_err(|errno| io_error("examine", key, errno))?;
        require_regular(key, &stat)?;
        Ok((file, stat))
    }

    /// Looks at what lies under a key, without opening or following it.
    pub(super) fn stat_regular(&self, folder: &S::Handle, key: &Key) -> Result<Stat, StorageError> {
        let stat = self.stat(folder, key)?;
        require_regular(key, &stat)?;
        Ok(stat)
    }

    /// Looks at whatever lies under a key, without opening or following it.
    pub(super) fn stat(&self, folder: &S::Handle, key: &Key) -> Result<Stat, StorageError> {
        retry(|| self.system.stat(folder, key.name())).map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound { key: key.to_string() },
            _ => io_error("examine", key, errno),
        })
    }
}

/// Wraps an error of the system.
pub(super) fn io_error(operation: &'static str, key: &impl Display, errno: Errno) -> StorageError {
    StorageError::Io { operation, key: key.to_string(), source: errno.into() }
}

/// Refuses all but a regular file.
fn require_regular(key: &Key, stat: &Stat) -> Result<(), StorageError> {
    if stat.kind == Kind::File {
        return Ok(());
    }
    Err(StorageError::NotAFile { key: key.to_string(), found: stat.kind.name() })
}

/// Says why a folder could not be opened: missing, something else, or what the system said.
fn folder_error(stat: impl Fn() -> Result<Stat, Errno>, shown: &impl Display, errno: Errno) -> StorageError {
    if errno == Errno::NOENT {
        return StorageError::NotFound { key: shown.to_string() };
    }
    match stat() {
        Ok(stat) if stat.kind != Kind::Folder => {
            StorageError::NotAFolder { key: shown.to_string(), found: stat.kind.name() }
        }
        Ok(_) | Err(_) => io_error("open", shown, errno),
    }
}
