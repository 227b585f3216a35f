//! Writes one pack at the speed of the disk.
//!
//! Space for the expected length is reserved first, which makes the writes cheaper and a full disk known at once. Then
//! there are two ways. `seal` cuts off what was reserved too much, syncs, publishes and syncs the folder; what the kernel
//! did until then is no part of the promise.
//!
//! **Long packs past the page cache**, where the file system lets them: gathered into aligned pieces of 4 MiB, each
//! written while others are coded, the last, which is not whole, through the cache. What decides is the length that is
//! expected when a pack is begun. While both cores code, the copy into the cache and its book-keeping are what makes a
//! commit wait: 204 MB took 40 ms of the processor through it and 13 ms past it; beside two busy threads 127 and 93 ms
//! passed, with both cores free 59 and 76 ms. It also leaves the cache to what training reads. The price is that the first
//! who reads the pack again waits for the disk: 63 against 7 ms. (`benches/pack_write.rs`, two cores, ext4 on a virtual
//! disk.) Whoever refuses it, when it is asked for or at a write, gets the other way from there on.
//!
//! **All others through the page cache**, where they lie, in windows that end on multiples of `WINDOW_BYTES` in the file:
//! a window that is full is handed to the kernel to be written back, and none of its pages is written to again, so that
//! the sync at the end finds little left to do. A writer holds no bytes of its own then.

use rustix::io::Errno;

use super::LocalStorage;
use super::beneath::io_error;
use super::direct::Piece;
use super::system::{System, retry};
use super::temporary::Temporary;
use crate::{Key, PackWriter, Put, StorageError};

/// How much is written between two requests to start writing back. Medians of 25 to 41 on another such machine, lengths in
/// turns: 8 MB took 7.5 ms with 8 MiB, 5.8 with 2 MiB, 5.1 with 1 MiB; 204 MB took 114, 109 and 103 ms, but 176, 182 and
/// 234 where both cores were taken: a request may have to wait, and then for a core. A multiple of every page: one that
/// is on its way to the disk should not be written to.
const WINDOW_BYTES: u64 = 2 << 20;

/// Packs that are expected to be shorter are written through the page cache: they cost it little, and are read soon.
const DIRECT_PIECES_MIN: u64 = 8;

/// A pack in the making, a temporary file until it is sealed.
#[derive(Debug)]
pub(super) struct LocalPack<'a, S: System> {
    storage: &'a LocalStorage<S>,
    key: Key,
    temporary: Temporary<'a, S>,
    position: u64,
    reserved: u64,
    /// The last bytes, on their way past the page cache, from `position` on.
    direct: Option<Piece>,
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
        let direct_bytes = storage.system().direct_bytes();
        // Whatever this says, the pack can be written through the cache.
        let is_direct = is_reserved
            && expected_len >= DIRECT_PIECES_MIN * direct_bytes as u64
            && retry(|| storage.system().set_direct(temporary.file(), true)).is_ok();
        let direct = is_direct.then(|| Piece::new(direct_bytes));
        Ok(Self { storage, key, temporary, position: 0, reserved, direct, has_failed: false })
    }

    /// Gathers the pieces and writes what is aligned past the page cache; or, once that is refused, through it.
    fn gather(&mut self, pieces: &[&[u8]]) -> Result<(), Errno> {
        let mut pieces = pieces.iter();
        let mut rest: &[u8] = &[];
        while let Some(direct) = &mut self.direct {
            rest = direct.fill(rest);
            if direct.is_full() {
                match self.temporary.write_all(&[direct.bytes()], self.position) {
                    Ok(()) => {
                        self.position += direct.bytes().len() as u64;
                        direct.clear();
                    }
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => self.give_up_direct()?,
                    Err(errno) => return Err(errno),
                }
            } else if let Some(next) = pieces.next() {
                rest = next;
            } else {
                return Ok(());
            }
        }
        let left: Vec<&[u8]> = std::iter::once(rest).chain(pieces.copied()).collect();
        self.write(&left)
    }

    /// Writes what was gathered, and all that follows, through the page cache.
    fn give_up_direct(&mut self) -> Result<(), Errno> {
        let Some(direct) = self.direct.take() else { return Ok(()) };
        retry(|| self.storage.system().set_direct(self.temporary.file(), false))?;
        self.write(&[direct.bytes()])
    }

    /// Writes the pieces, window by window.
    fn write(&mut self, pieces: &[&[u8]]) -> Result<(), Errno> {
        let mut window = Vec::with_capacity(pieces.len());
        let mut room = room_in_window(self.position);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let now;
                (now, rest) = rest.split_at(rest.len().min(room));
                window.push(now);
                room -= now.len();
                if room == 0 {
                    self.write_window(&window)?;
                    window.clear();
                    room = room_in_window(self.position);
                }
            }
        }
        self.write_window(&window)
    }

    /// Writes pieces that end where their window does or before, and starts writing back a window that is full.
    fn write_window(&mut self, pieces: &[&[u8]]) -> Result<(), Errno> {
        self.temporary.write_all(pieces, self.position)?;
        self.position += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if !pieces.is_empty() && self.position.is_multiple_of(WINDOW_BYTES) {
            let start = self.position - WINDOW_BYTES;
            self.storage.system().start_write_back(self.temporary.file(), start, WINDOW_BYTES);
        }
        Ok(())
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
        self.gather(pieces).map_err(|errno| {
            self.has_failed = true;
            io_error("write", &self.key, errno)
        })
    }

    fn position(&self) -> u64 {
        self.position + self.direct.as_ref().map_or(0, |direct| direct.bytes().len() as u64)
    }

    fn seal(mut self: Box<Self>) -> Result<(), StorageError> {
        self.require_whole()?;
        self.give_up_direct().map_err(|errno| io_error("write", &self.key, errno))?;
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

/// Returns how many bytes fit into the window that begins or goes on at `position`.
fn room_in_window(position: u64) -> usize {
    (WINDOW_BYTES - position % WINDOW_BYTES) as usize
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
