//! Opens the fixed folders and the files in them, and nothing else.
//!
//! Everything starts at one descriptor of the repository folder. A folder is opened as one component below it, a file as
//! one component below the folder (rule S4): on Linux `openat2` lets the kernel refuse every symbolic link and every way
//! out, elsewhere, or where a sandbox forbids that call, one component with `O_NOFOLLOW` comes to the same. Files are
//! opened without blocking and then asked what they are, so a pipe in place of a pack is an error and no hang.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use crate::{Folder, Key, StorageError};

/// The open repository folder.
#[derive(Debug)]
pub(super) struct Beneath {
    path: PathBuf,
    root: OwnedFd,
}

impl Beneath {
    /// Opens the repository folder, which must be a folder itself; its ancestors may be reached through links.
    pub(super) fn open(dir: &Path) -> Result<Self, StorageError> {
        // A trailing slash would make the kernel follow a link in the last component.
        let path: PathBuf = dir.components().collect();
        let root = retry_on_intr(|| rustix::fs::open(&path, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty()))
            .map_err(|errno| folder_error(rustix::fs::CWD, &path, &path.display(), errno))?;
        Ok(Self { path, root })
    }

    /// Returns the path that the repository was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder for reading, for its files and to sync it.
    pub(super) fn folder(&self, folder: Folder) -> Result<OwnedFd, StorageError> {
        let opened = match folder {
            // No name that anyone could have planted is resolved for these two.
            Folder::Root => retry_on_intr(|| rustix::fs::openat(&self.root, ".", FOLDER_FLAGS, Mode::empty())),
            Folder::Beside => retry_on_intr(|| rustix::fs::openat(&self.root, "..", FOLDER_FLAGS, Mode::empty())),
            Folder::Ops
            | Folder::Packs
            | Folder::Leases
            | Folder::Tmp
            | Folder::Trash
            | Folder::LostFound
            | Folder::Cache => open_beneath(self.root.as_fd(), folder.name(), FOLDER_FLAGS),
        };
        opened.map_err(|errno| folder_error(self.root.as_fd(), Path::new(folder.name()), &folder, errno))
    }

    /// Makes a folder below the root; says whether it was missing.
    pub(super) fn make_folder(&self, folder: Folder) -> Result<bool, StorageError> {
        match retry_on_intr(|| rustix::fs::mkdirat(&self.root, folder.name(), Mode::from_raw_mode(0o777))) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(io_error("create", &folder, errno)),
        }
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, key: &Key) -> Result<(OwnedFd, Stat), StorageError> {
        self.open_file(key, OFlags::RDONLY)
    }

    /// Opens a regular file for writing over what it holds.
    pub(super) fn file_to_overwrite(&self, key: &Key) -> Result<(OwnedFd, Stat), StorageError> {
        self.open_file(key, OFlags::WRONLY)
    }

    fn open_file(&self, key: &Key, access: OFlags) -> Result<(OwnedFd, Stat), StorageError> {
        let folder = self.folder(key.folder())?;
        let file = open_beneath(folder.as_fd(), key.name(), FILE_FLAGS | access).map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound { key: key.to_string() },
            // A link is refused with LOOP, a socket with NXIO, a device without driver with NODEV: say what it is.
            _ => match stat_regular(folder.as_fd(), key) {
                Err(error @ StorageError::NotAFile { .. }) => error,
                Ok(_) | Err(_) => io_error("open", key, errno),
            },
        })?;
        let stat = retry_on_intr(|| rustix::fs::fstat(&file)).map_err(|errno| io_error("examine", key, errno))?;
        require_regular(key, &stat)?;
        Ok((file, stat))
    }
}

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const FILE_FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens the one component `name` of `folder`, following nothing.
fn open_beneath(folder: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW;
        match retry_on_intr(|| rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve)) {
            // Linux before 5.6 lacks the call, and sandboxes that do not know it answer PERM.
            Err(Errno::NOSYS | Errno::PERM) => {}
            done => return done,
        }
    }
    open_not_following(folder, name, flags)
}

/// The same where the kernel can not be asked to: one component, and no link in it.
fn open_not_following(folder: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW, Mode::empty()))
}

/// Looks at what lies under a key, without opening or following it.
pub(super) fn stat_regular(folder: BorrowedFd<'_>, key: &Key) -> Result<Stat, StorageError> {
    let stat = retry_on_intr(|| rustix::fs::statat(folder, key.name(), AtFlags::SYMLINK_NOFOLLOW)).map_err(
        |errno| match errno {
            Errno::NOENT => StorageError::NotFound { key: key.to_string() },
            _ => io_error("examine", key, errno),
        },
    )?;
    require_regular(key, &stat)?;
    Ok(stat)
}

/// Returns the length that a file had when it was looked at.
pub(super) fn stat_len(stat: &Stat) -> u64 {
    // The system's type is signed; a regular file's length is not negative.
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Says in a word what something is.
pub(super) fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "thing of unknown kind",
    }
}

/// Wraps an error of the system.
pub(super) fn io_error(operation: &'static str, key: &impl Display, errno: Errno) -> StorageError {
    StorageError::Io { operation, key: key.to_string(), source: errno.into() }
}

/// Refuses all but a regular file.
fn require_regular(key: &Key, stat: &Stat) -> Result<(), StorageError> {
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(());
    }
    Err(StorageError::NotAFile { key: key.to_string(), found: kind(stat) })
}

/// Says why a folder could not be opened: missing, something else, or what the system said.
fn folder_error(parent: BorrowedFd<'_>, name: &Path, shown: &impl Display, errno: Errno) -> StorageError {
    if errno == Errno::NOENT {
        return StorageError::NotFound { key: shown.to_string() };
    }
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            StorageError::NotAFolder { key: shown.to_string(), found: kind(&stat) }
        }
        Ok(_) | Err(_) => io_error("open", shown, errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_no_link_with_or_without_the_kernels_help() {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(dir.path().join("file"), b"bytes").expect("there is room");
        std::os::unix::fs::symlink("file", dir.path().join("link")).expect("links exist");
        std::os::unix::fs::symlink(".", dir.path().join("link-to-folder")).expect("links exist");
        let root = Beneath::open(dir.path()).expect("it opens").root;
        for open in [open_beneath, open_not_following] {
            open(root.as_fd(), "file", FILE_FLAGS).expect("a file opens");
            assert_eq!(open(root.as_fd(), "link", FILE_FLAGS).expect_err("a link was followed"), Errno::LOOP);
            open(root.as_fd(), "link-to-folder", FOLDER_FLAGS).expect_err("a link was followed");
        }
    }
}
