//! Writes one pack at the speed of the disk.
//!
//! Space for the expected length is reserved first, which makes the writes cheaper and a full disk known at once. Pieces
//! go to the page cache where they lie, many in one call. Every `WRITE_BACK_BYTES` the kernel is asked to start writing,
//! so that the sync at the end finds little left to do.

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, retry_on_intr};

use super::beneath::{io_error, stat_regular};
use super::temporary::Temporary;
use super::{LocalStorage, sync};
use crate::{Key, PackWriter, Put, StorageError};

/// How much is written between two requests to start writing back.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// Write-back begins and ends on multiples of this: a page that is on its way to the disk should not be written to.
const WRITE_BACK_ALIGNMENT: u64 = 64 << 10;

/// A pack in the making, a temporary file until it is sealed.
#[derive(Debug)]
pub(super) struct LocalPack<'a> {
    storage: &'a LocalStorage,
    key: Key,
    temporary: Temporary,
    position: u64,
    reserved: u64,
    handed_over: u64,
    has_failed: bool,
}

impl<'a> LocalPack<'a> {
    /// Makes the temporary file and reserves its space.
    pub(super) fn create(storage: &'a LocalStorage, key: Key, expected_len: u64) -> Result<Self, StorageError> {
        storage.require_writable(&key)?;
        let folder = storage.beneath.folder(key.folder())?;
        match stat_regular(rustix::fd::AsFd::as_fd(&folder), &key) {
            Ok(_) => return Err(StorageError::AlreadyExists { key: key.to_string() }),
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let temporary = Temporary::create(&storage.beneath)?;
        let is_reserved =
            reserve(temporary.file(), expected_len).map_err(|errno| io_error("reserve space for", &key, errno))?;
        let reserved = if is_reserved { expected_len } else { 0 };
        Ok(Self { storage, key, temporary, position: 0, reserved, handed_over: 0, has_failed: false })
    }

    /// Starts writing back what is complete, once there is enough of it.
    fn hand_over(&mut self) {
        let end = self.position / WRITE_BACK_ALIGNMENT * WRITE_BACK_ALIGNMENT;
        if end - self.handed_over >= WRITE_BACK_BYTES {
            start_write_back(self.temporary.file(), self.handed_over, end - self.handed_over);
            self.handed_over = end;
        }
    }

    /// Refuses a writer whose file is no longer what was appended.
    fn require_whole(&self) -> Result<(), StorageError> {
        if self.has_failed {
            return Err(StorageError::Poisoned { key: self.key.to_string() });
        }
        self.storage.require_writable(&self.key)
    }
}

impl PackWriter for LocalPack<'_> {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), StorageError> {
        self.require_whole()?;
        self.temporary.write_all(pieces, self.position).map_err(|errno| {
            self.has_failed = true;
            io_error("write", &self.key, errno)
        })?;
        self.position += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.hand_over();
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn seal(self: Box<Self>) -> Result<(), StorageError> {
        self.require_whole()?;
        if self.position < self.reserved {
            retry_on_intr(|| rustix::fs::ftruncate(self.temporary.file(), self.position))
                .map_err(|errno| io_error("cut", &self.key, errno))?;
        }
        let Self { storage, key, temporary, .. } = *self;
        storage.poison_on_error(sync(temporary.file()), &key)?;
        match storage.publish(temporary, &key)? {
            Put::Done => Ok(()),
            Put::Taken => Err(StorageError::AlreadyExists { key: key.to_string() }),
        }
    }
}

/// Reserves the bytes of a file, which then has that length; says whether the file system can.
fn reserve(file: BorrowedFd<'_>, len: u64) -> Result<bool, Errno> {
    if len == 0 {
        return Ok(false);
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        match retry_on_intr(|| rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = file;
        Ok(false)
    }
}

/// Asks the kernel to start writing these bytes to the disk, and does not wait for it.
///
/// The call made for this is `sync_file_range`, which rustix 1.1.6 does not have. Linux starts the same write-back, in
/// `generic_fadvise`, before it looks which pages of the range it could drop for `DONTNEED`; pages on their way to the
/// disk are not dropped, so what was just written stays readable from memory (`fincore` shows all of a pack there). It is a
/// hint, and a failure changes nothing: the pages are written by the sync then. Worth a quarter to a third of the time of
/// a durable pack (`benches/pack_write.rs`, medians 117 to 147 ms with it, 163 to 215 without; 2 busy cores, ext4).
fn start_write_back(file: BorrowedFd<'_>, offset: u64, len: u64) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, offset, len);
    }
}
