//! Writes one pack at the speed of the disk.
//!
//! Space for the expected length is reserved first, which makes the writes cheaper and a full disk known at once. Pieces
//! go to the page cache where they lie, many in one call. Every `WRITE_BACK_BYTES` the kernel is asked to start writing,
//! so that the sync at the end finds little left to do.

use rustix::io::Errno;

use super::LocalStorage;
use super::beneath::io_error;
use super::system::{System, retry};
use super::temporary::Temporary;
use crate::{Key, PackWriter, Put, StorageError};

/// How much is written between two requests to start writing back.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// Write-back begins and ends on multiples of this: a page that is on its way to the disk should not be written to.
const WRITE_BACK_ALIGNMENT: u64 = 64 << 10;

/// A pack in the making, a temporary file until it is sealed.
#[derive(Debug)]
pub(super) struct LocalPack<'a, S: System> {
    storage: &'a LocalStorage<S>,
    key: Key,
    temporary: Temporary<'a, S>,
    position: u64,
    reserved: u64,
    handed_over: u64,
    has_failed: bool,
}

impl<'a, S: System> LocalPack<'a, S> {
    /// Makes the temporary file and reserves its space.
    pub(super) fn create(storage: &'a LocalStorage<S>, key: Key, expected_len: u64) -> Result<Self, StorageError> {
        storage.require_writable(&key)?;
        let folder = storage.beneath.folder(key.folder())?;
        match storage.beneath.stat_regular(&folder, &key) {
            Ok(_) => return Err(StorageError::AlreadyExists { key: key.to_string() }),
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let temporary = Temporary::create(&storage.beneath)?;
        let is_reserved = reserve(storage.system(), temporary.file(), expected_len)
            .map_err(|errno| io_error("reserve space for", &key, errno))?;
        let reserved = if is_reserved { expected_len } else { 0 };
        Ok(Self { storage, key, temporary, position: 0, reserved, handed_over: 0, has_failed: false })
    }

    /// Starts writing back what is complete, once there is enough of it.
    fn hand_over(&mut self) {
        let end = self.position / WRITE_BACK_ALIGNMENT * WRITE_BACK_ALIGNMENT;
        if end - self.handed_over >= WRITE_BACK_BYTES {
            let len = end - self.handed_over;
            self.storage.system().start_write_back(self.temporary.file(), self.handed_over, len);
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

impl<S: System> PackWriter for LocalPack<'_, S> {
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
            retry(|| self.storage.system().truncate(self.temporary.file(), self.position))
                .map_err(|errno| io_error("cut", &self.key, errno))?;
        }
        let Self { storage, key, temporary, .. } = *self;
        #[cfg(feature = "simulated")]
        if storage.system().has_canary(crate::sim::Canary::PublishBeforeSync) {
            let folder = storage.beneath.folder(key.folder())?;
            return temporary.publish(&folder, &key).map(drop);
        }
        storage.sync_file(temporary.file(), &key)?;
        match storage.publish(temporary, &key)? {
            Put::Done => Ok(()),
            Put::Taken => Err(StorageError::AlreadyExists { key: key.to_string() }),
        }
    }
}

/// Reserves the bytes of a file, which then has that length; says whether the file system can.
fn reserve<S: System>(system: &S, file: &S::Handle, len: u64) -> Result<bool, Errno> {
    if len == 0 {
        return Ok(false);
    }
    match retry(|| system.reserve(file, len)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}
