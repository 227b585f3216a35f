//! Files in the making: written in `tmp/` under a random name, then published or gone.
//!
//! A temporary is ours alone until it is published by a rename that never replaces (or a link, where the file system
//! has no such rename). Whoever drops it earlier removes it; what a killed process leaves matches
//! `tmp/<32 hexadecimal digits>.tmp` and is harmless.

use std::io::IoSlice;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::beneath::{Beneath, io_error};
use crate::{Folder, Key, Put, StorageError};

/// How many pieces go into one system call; every system takes at least 1024, and more than this gains nothing.
const PIECES_A_CALL: usize = 128;

/// A rename from one folder to another that never replaces.
type Rename = fn(BorrowedFd<'_>, &str, BorrowedFd<'_>, &str) -> Result<(), Errno>;

/// A file in the making. Dropped before it is published, it is removed.
#[derive(Debug)]
pub(super) struct Temporary {
    folder: OwnedFd,
    key: Key,
    file: OwnedFd,
    is_linked: bool,
}

impl Temporary {
    /// Makes an empty file under a name that nobody had before.
    pub(super) fn create(beneath: &Beneath) -> Result<Self, StorageError> {
        let folder = beneath.folder(Folder::Tmp)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| StorageError::Io {
            operation: "draw a random name in",
            key: Folder::Tmp.to_string(),
            source: error.into(),
        })?;
        let key = Key::temporary(&nonce);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = retry_on_intr(|| rustix::fs::openat(&folder, key.name(), flags, Mode::from_raw_mode(0o666)))
            .map_err(|errno| io_error("create", &key, errno))?;
        Ok(Self { folder, key, file, is_linked: true })
    }

    /// Returns the open file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes all pieces one after the other, beginning at `offset`, without copying them together.
    pub(super) fn write_all(&self, pieces: &[&[u8]], offset: u64) -> Result<(), Errno> {
        write_all(self.file.as_fd(), pieces, offset)
    }

    /// Gives the file its name, unless something has it. The caller syncs the folder.
    pub(super) fn publish(self, folder: BorrowedFd<'_>, key: &Key) -> Result<Put, StorageError> {
        self.publish_by(rename_no_replace, folder, key)
    }

    /// Publishes by `rename`, or by a link where there is no rename that never replaces.
    fn publish_by(mut self, rename: Rename, folder: BorrowedFd<'_>, key: &Key) -> Result<Put, StorageError> {
        let outcome = match rename(self.folder.as_fd(), self.key.name(), folder, key.name()) {
            Ok(()) => {
                self.is_linked = false;
                Ok(())
            }
            // The link is the publication; our first name goes when `self` is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => retry_on_intr(|| {
                rustix::fs::linkat(&self.folder, self.key.name(), folder, key.name(), AtFlags::empty())
            }),
            Err(errno) => Err(errno),
        };
        match outcome {
            Ok(()) => Ok(Put::Done),
            // A network file system may do it, lose the answer, try again and report its own success as a failure.
            Err(_) if self.is_published_as(folder, key) => Ok(Put::Done),
            Err(Errno::EXIST) => Ok(Put::Taken),
            Err(errno) => Err(io_error("publish", key, errno)),
        }
    }

    /// Gives the file its name, in place of what has it.
    pub(super) fn replace(mut self, folder: BorrowedFd<'_>, key: &Key) -> Result<(), StorageError> {
        retry_on_intr(|| rustix::fs::renameat(&self.folder, self.key.name(), folder, key.name()))
            .map_err(|errno| io_error("replace", key, errno))?;
        self.is_linked = false;
        Ok(())
    }

    /// Says whether the file under the key is this very file.
    fn is_published_as(&self, folder: BorrowedFd<'_>, key: &Key) -> bool {
        let ours = retry_on_intr(|| rustix::fs::fstat(&self.file));
        let theirs = retry_on_intr(|| rustix::fs::statat(folder, key.name(), AtFlags::SYMLINK_NOFOLLOW));
        matches!((ours, theirs), (Ok(a), Ok(b)) if a.st_dev == b.st_dev && a.st_ino == b.st_ino)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_linked {
            // Nobody can be told; what stays behind is a temporary that the next cleaning takes.
            let _ = retry_on_intr(|| rustix::fs::unlinkat(&self.folder, self.key.name(), AtFlags::empty()));
        }
    }
}

/// Renames without ever replacing; `NOSYS` where that does not exist.
pub(super) fn rename_no_replace(from: BorrowedFd<'_>, old: &str, to: BorrowedFd<'_>, new: &str) -> Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        retry_on_intr(|| rustix::fs::renameat_with(from, old, to, new, rustix::fs::RenameFlags::NOREPLACE))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = (from, old, to, new);
        Err(Errno::NOSYS)
    }
}

/// Writes all pieces into `file`, one after the other, beginning at `offset`.
pub(super) fn write_all(file: BorrowedFd<'_>, pieces: &[&[u8]], mut offset: u64) -> Result<(), Errno> {
    let mut slices = [IoSlice::new(&[]); PIECES_A_CALL];
    for batch in pieces.chunks(PIECES_A_CALL) {
        for (slot, piece) in slices.iter_mut().zip(batch) {
            *slot = IoSlice::new(piece);
        }
        let mut rest = &mut slices[..batch.len()];
        // Advancing by nothing skips empty pieces, so a call that writes nothing is an error below.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = write_some(file, rest, offset)?;
            if written == 0 {
                return Err(Errno::IO);
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    Ok(())
}

/// Writes as much as one call takes.
fn write_some(file: BorrowedFd<'_>, pieces: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno> {
    retry_on_intr(|| rustix::io::pwritev(file, pieces, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository folder with `tmp/` and `ops/`.
    fn beneath() -> (tempfile::TempDir, Beneath) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let beneath = Beneath::open(dir.path()).expect("it opens");
        assert!(beneath.make_folder(Folder::Tmp).expect("tmp/ can be made"));
        assert!(beneath.make_folder(Folder::Ops).expect("ops/ can be made"));
        (dir, beneath)
    }

    fn write(beneath: &Beneath, bytes: &[u8]) -> Temporary {
        let temporary = Temporary::create(beneath).expect("a temporary can be made");
        temporary.write_all(&[bytes], 0).expect("there is room");
        temporary
    }

    fn num_temporaries(dir: &tempfile::TempDir) -> usize {
        std::fs::read_dir(dir.path().join("tmp")).expect("tmp/ is there").count()
    }

    #[test]
    fn publishes_by_a_link_where_no_rename_keeps_what_is_there() {
        let (dir, beneath) = beneath();
        let ops = beneath.folder(Folder::Ops).expect("ops/ is there");
        let key = Key::operation(1);
        for (bytes, expected) in [(b"first", Put::Done), (b"later", Put::Taken)] {
            let put = write(&beneath, bytes).publish_by(|_, _, _, _| Err(Errno::INVAL), ops.as_fd(), &key);
            assert_eq!(put.expect("links exist"), expected);
            assert_eq!(num_temporaries(&dir), 0);
        }
        assert_eq!(std::fs::read(dir.path().join("ops").join(key.name())).expect("was published"), b"first");
    }

    #[test]
    fn knows_its_own_file_when_a_success_is_reported_as_a_failure() {
        let (_dir, beneath) = beneath();
        let ops = beneath.folder(Folder::Ops).expect("ops/ is there");
        let lying: Rename = |from, old, to, new| rename_no_replace(from, old, to, new).and(Err(Errno::EXIST));
        let put = write(&beneath, b"ours").publish_by(lying, ops.as_fd(), &Key::operation(1));
        assert_eq!(put.expect("was published"), Put::Done);
    }

    #[test]
    fn writes_more_pieces_than_one_call_takes_and_skips_empty_ones() {
        let (dir, beneath) = beneath();
        let pieces: Vec<Vec<u8>> = (0..1000_u32).map(|i| i.to_le_bytes()[..(i % 4) as usize].to_vec()).collect();
        let borrowed: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let temporary = Temporary::create(&beneath).expect("a temporary can be made");
        temporary.write_all(&borrowed, 3).expect("there is room");
        let written = std::fs::read(dir.path().join("tmp").join(temporary.key.name())).expect("it is there");
        assert_eq!(written, [vec![0; 3], pieces.concat()].concat());
    }
}
