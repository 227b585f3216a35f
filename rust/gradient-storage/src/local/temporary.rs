//! Files in the making: written in `tmp/` under a random name, then published or gone.
//!
//! A temporary is ours alone until it is published by a rename that never replaces (or a link, where the file system
//! has no such rename). Whoever drops it earlier removes it; what a killed process leaves matches
//! `tmp/<32 hexadecimal digits>.tmp` and is harmless.

use std::io::IoSlice;

use rustix::io::Errno;

use super::beneath::{Beneath, io_error};
use super::system::{System, retry};
use crate::{Folder, Key, Put, StorageError};

/// How many pieces go into one system call; every system takes at least 1024, and more than this gains nothing.
const PIECES_A_CALL: usize = 128;

/// So often a file is written that is removed before it has its name.
const REMOVALS_MAX: u32 = 4;

/// A file in the making. Dropped before it is published, it is removed.
#[derive(Debug)]
pub(super) struct Temporary<'a, S: System> {
    system: &'a S,
    folder: S::Handle,
    key: Key,
    file: S::Handle,
    is_linked: bool,
}

impl<'a, S: System> Temporary<'a, S> {
    /// Makes an empty file under a name that nobody had before.
    pub(super) fn create(beneath: &'a Beneath<S>) -> Result<Self, StorageError> {
        let system = beneath.system();
        let folder = beneath.folder(Folder::Tmp)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| StorageError::Io {
            operation: "draw a random name in",
            key: Folder::Tmp.to_string(),
            source: error.into(),
        })?;
        let key = Key::temporary(&nonce);
        let file =
            retry(|| system.create_file(&folder, key.name())).map_err(|errno| io_error("create", &key, errno))?;
        Ok(Self { system, folder, key, file, is_linked: true })
    }

    /// Returns the open file.
    pub(super) fn file(&self) -> &S::Handle {
        &self.file
    }

    /// Writes all pieces one after the other, beginning at `offset`, without copying them together.
    pub(super) fn write_all(&self, pieces: &[&[u8]], offset: u64) -> Result<(), Errno> {
        write_all(self.system, &self.file, pieces, offset)
    }

    /// Gives the file its name, unless something has it. The caller syncs the folder.
    ///
    /// [`StorageError::NotFound`] of the temporary's own key: somebody removed it.
    pub(super) fn publish(self, folder: &S::Handle, key: &Key) -> Result<Put, StorageError> {
        let system = self.system;
        self.publish_by(|from, old, to, new| system.rename_no_replace(from, old, to, new), folder, key)
    }

    /// Publishes by `rename`, or by a link where there is no rename that never replaces.
    fn publish_by(
        mut self,
        rename: impl Fn(&S::Handle, &str, &S::Handle, &str) -> Result<(), Errno>,
        folder: &S::Handle,
        key: &Key,
    ) -> Result<Put, StorageError> {
        let outcome = match retry(|| rename(&self.folder, self.key.name(), folder, key.name())) {
            Ok(()) => {
                self.is_linked = false;
                Ok(())
            }
            // The link is the publication; our first name goes when `self` is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                retry(|| self.system.link(&self.folder, self.key.name(), folder, key.name()))
            }
            Err(errno) => Err(errno),
        };
        match outcome {
            Ok(()) => Ok(Put::Done),
            // A network file system may do it, lose the answer, try again and report its own success as a failure.
            Err(_) if self.is_published_as(folder, key) => Ok(Put::Done),
            Err(Errno::EXIST) => Ok(Put::Taken),
            Err(errno) => Err(self.failed("publish", key, errno)),
        }
    }

    /// Tells a temporary that is gone from other failures: others took us for dead, and removed what we left.
    fn failed(&mut self, operation: &'static str, key: &Key, errno: Errno) -> StorageError {
        let is_gone = || retry(|| self.system.stat(&self.folder, self.key.name())).is_err_and(|it| it == Errno::NOENT);
        if errno == Errno::NOENT && is_gone() {
            self.is_linked = false;
            return StorageError::NotFound { key: self.key.to_string() };
        }
        io_error(operation, key, errno)
    }

    /// Gives the file its name, in place of what has it. Errors as [`publish`](Self::publish).
    pub(super) fn replace(mut self, folder: &S::Handle, key: &Key) -> Result<(), StorageError> {
        match retry(|| self.system.rename(&self.folder, self.key.name(), folder, key.name())) {
            Ok(()) => {
                self.is_linked = false;
                Ok(())
            }
            Err(errno) => Err(self.failed("replace", key, errno)),
        }
    }

    /// Says whether the file under the key is this very file.
    fn is_published_as(&self, folder: &S::Handle, key: &Key) -> bool {
        let ours = retry(|| self.system.stat_open(&self.file));
        let theirs = retry(|| self.system.stat(folder, key.name()));
        matches!((ours, theirs), (Ok(a), Ok(b)) if a.identity == b.identity)
    }
}

impl<S: System> Drop for Temporary<'_, S> {
    fn drop(&mut self) {
        if self.is_linked {
            // Nobody can be told; what stays behind is a temporary that the next cleaning takes.
            let _ = retry(|| self.system.unlink(&self.folder, self.key.name()));
        }
    }
}

/// Does again what failed because its temporary was removed meanwhile: whoever was stopped for so long that others took
/// it for dead (rule G3). A few times, so that a folder in which nothing stays is an error in the end.
pub(super) fn again_if_removed<T>(mut work: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
    for _ in 1..REMOVALS_MAX {
        match work() {
            Err(StorageError::NotFound { key }) if key.starts_with("tmp/") => {}
            done => return done,
        }
    }
    work()
}

/// Writes all pieces into `file`, one after the other, beginning at `offset`.
pub(super) fn write_all<S: System>(
    system: &S,
    file: &S::Handle,
    pieces: &[&[u8]],
    mut offset: u64,
) -> Result<(), Errno> {
    let mut slices = [IoSlice::new(&[]); PIECES_A_CALL];
    for batch in pieces.chunks(PIECES_A_CALL) {
        for (slot, piece) in slices.iter_mut().zip(batch) {
            *slot = IoSlice::new(piece);
        }
        let mut rest = &mut slices[..batch.len()];
        // Advancing by nothing skips empty pieces, so a call that writes nothing is an error below.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = match retry(|| system.write_at(file, rest, offset)) {
                #[cfg(feature = "simulated")]
                Err(Errno::NOSPC) if system.has_canary(crate::sim::Canary::IgnoreFullDisk) => rest[0].len(),
                outcome => outcome?,
            };
            if written == 0 {
                return Err(Errno::IO);
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::os::Os;

    /// A repository folder with `tmp/` and `ops/`.
    fn beneath() -> (tempfile::TempDir, Beneath<Os>) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let beneath = Beneath::open(Os, dir.path()).expect("it opens");
        assert!(beneath.make_folder(Folder::Tmp).expect("tmp/ can be made"));
        assert!(beneath.make_folder(Folder::Ops).expect("ops/ can be made"));
        (dir, beneath)
    }

    fn write<'a>(beneath: &'a Beneath<Os>, bytes: &[u8]) -> Temporary<'a, Os> {
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
            let put = write(&beneath, bytes).publish_by(|_, _, _, _| Err(Errno::INVAL), &ops, &key);
            assert_eq!(put.expect("links exist"), expected);
            assert_eq!(num_temporaries(&dir), 0);
        }
        assert_eq!(std::fs::read(dir.path().join("ops").join(key.name())).expect("was published"), b"first");
    }

    #[test]
    fn knows_its_own_file_when_a_success_is_reported_as_a_failure() {
        let (_dir, beneath) = beneath();
        let ops = beneath.folder(Folder::Ops).expect("ops/ is there");
        let lying =
            |from: &_, old: &str, to: &_, new: &str| Os.rename_no_replace(from, old, to, new).and(Err(Errno::EXIST));
        let put = write(&beneath, b"ours").publish_by(lying, &ops, &Key::operation(1));
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
