//! Where bytes live: keys and bytes, put-if-absent, pack writers.
//!
//! A repository is eight fixed folders of small immutable files and a few that are replaced whole. This crate keeps
//! them and knows nothing of what they mean: no objects, no formats, no codecs.
//!
//! | part              | what it is                                                        |
//! |-------------------|-------------------------------------------------------------------|
//! | [`Storage`]       | the promises; every durable byte of a repository goes through it  |
//! | [`PackWriter`]    | one pack in the making: append, append, seal                      |
//! | [`Key`]           | a folder and a name under a grammar; nothing else can be named    |
//! | [`LocalStorage`]  | a folder on a disk, through directory descriptors                 |
//! | [`MemoryStorage`] | the same promises in memory, for tests                            |
//! | `sim`             | a disk that loses what was not synced, under [`LocalStorage`]     |
//!
//! Names on disk are specified in `docs/format/repository.md`.
#![forbid(unsafe_code)]

mod error;
mod key;
mod local;
mod memory;
#[cfg(feature = "simulated")]
pub mod sim;

pub use error::StorageError;
pub use key::{Folder, Key, NAME_BYTES_MAX};
pub use local::LocalStorage;
pub use memory::MemoryStorage;

/// A regular file of a folder, as [`Storage::list`] saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name in the folder; always the name of a valid [`Key`].
    pub name: String,
    /// Its length in bytes when it was listed.
    pub len: u64,
}

/// What became of a [`Storage::put_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a writer that lost the race must not believe that its bytes are there"]
pub enum Put {
    /// The bytes are durable under the key.
    Done,
    /// Somebody else's bytes were there first; ours are nowhere.
    Taken,
}

/// Whether [`Storage::replace`] waits until the new bytes would survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// File and folder are synced: settings that people edit.
    Synced,
    /// Nothing is synced, and a crash may leave the old file, the new one or an empty one: caches, summaries.
    Unsynced,
}

/// Where a repository's bytes live.
///
/// Every key is a [`Folder`] and a name, so no caller can name anything outside the repository. Two promises carry the
/// whole project: [`put_if_absent`](Storage::put_if_absent) never replaces and lets one of many racing writers win, and
/// a pack is sealed or absent. An implementation is used from many threads at once, and other processes use the same
/// bytes through implementations of their own.
///
/// # Errors
/// Unless a method says more: [`StorageError::NotFound`] for a file or folder that is not there,
/// [`StorageError::NotAFile`] for a symbolic link, folder, pipe, socket or device where a file should be,
/// [`StorageError::Io`] for what the system refused, and, for everything that writes durably or deletes,
/// [`StorageError::Poisoned`] once an earlier sync through this handle has failed: what the disk holds is unknown then,
/// and only a newly opened handle may write.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Makes the fixed folders that are not there yet; those it made are durable when it returns. Idempotent.
    ///
    /// # Errors
    /// - [`StorageError::NotAFolder`]: something else lies where a folder should be.
    /// - [`StorageError::Io`], [`StorageError::Poisoned`].
    fn create_folders(&self) -> Result<(), StorageError>;

    /// Stores `bytes` under `key` unless something is there already; never replaces, never shows a part.
    ///
    /// On [`Put::Done`] file and folder entry are synced (two syncs). Of many callers racing for one key, in any number
    /// of processes, exactly one gets `Done`.
    ///
    /// # Errors
    /// As the trait. After an error the bytes may be there or not, whole in either case.
    fn put_if_absent(&self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError>;

    /// Stores `bytes` under `key`, in place of what may be there; a reader sees the old bytes or the new ones.
    ///
    /// # Errors
    /// As the trait.
    fn replace(&self, key: &Key, bytes: &[u8], durability: Durability) -> Result<(), StorageError>;

    /// Stores `bytes` under `key`, over what may be there; a reader may see some of the old bytes and some of the new.
    ///
    /// For hints that are written with every commit and carry a hash: leases. Not synced. Cheaper than
    /// [`replace`](Storage::replace), which makes a file and removes one.
    ///
    /// # Errors
    /// As the trait.
    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes durable what other processes have put into a folder: one that was killed may not have come to its sync.
    ///
    /// # Errors
    /// As the trait.
    fn sync(&self, folder: Folder) -> Result<(), StorageError>;

    /// Returns all bytes of a file that must not be longer than `max_len`.
    ///
    /// # Errors
    /// - [`StorageError::TooLarge`]: the file is longer; nothing was allocated for it.
    /// - As the trait.
    fn read(&self, key: &Key, max_len: u64) -> Result<Vec<u8>, StorageError>;

    /// Fills all of `buf` from the bytes at `offset`.
    ///
    /// # Errors
    /// - [`StorageError::Truncated`]: the file ends before `offset + buf.len()`; what `buf` holds is unspecified.
    /// - As the trait.
    fn read_at(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<(), StorageError>;

    /// Returns the length of a file in bytes.
    ///
    /// # Errors
    /// As the trait.
    fn len(&self, key: &Key) -> Result<u64, StorageError>;

    /// Says whether a file is there.
    ///
    /// # Errors
    /// As the trait, but a missing file is `false`.
    fn exists(&self, key: &Key) -> Result<bool, StorageError>;

    /// Returns the regular files of a folder whose names are names of keys, sorted by name.
    ///
    /// Files that come or go meanwhile may be in it or not, all others are in it once. Where one goes while it is looked
    /// at, the folder is listed again, a few times: what has taken its place is in the list.
    ///
    /// # Errors
    /// As the trait.
    fn list(&self, folder: Folder) -> Result<Vec<Listed>, StorageError>;

    /// Returns what else lies in a folder, sorted: names that no key has, and what is no regular file. The fixed
    /// folders are no strangers to the root. What is not UTF-8 in a name is shown as U+FFFD.
    ///
    /// # Errors
    /// As the trait.
    fn strangers(&self, folder: Folder) -> Result<Vec<String>, StorageError>;

    /// Returns the fixed folders that are not there.
    ///
    /// # Errors
    /// As [`create_folders`](Storage::create_folders).
    fn missing_folders(&self) -> Result<Vec<Folder>, StorageError> {
        let mut missing = Vec::new();
        for folder in Folder::FIXED {
            match self.list(folder) {
                Ok(_) => {}
                Err(StorageError::NotFound { .. }) => missing.push(folder),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// Removes a file. Not synced: after a crash it may be back.
    ///
    /// # Errors
    /// As the trait.
    fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// Moves a file of `packs/` to the same name in `trash/`. Not synced: after a crash it may be back.
    ///
    /// # Errors
    /// - [`StorageError::NotAPack`]: the key is in another folder.
    /// - [`StorageError::AlreadyExists`]: the trash holds that name.
    /// - As the trait.
    fn move_to_trash(&self, key: &Key) -> Result<(), StorageError>;

    /// Moves a file of `ops/`, `packs/`, `leases/` or `cache/`, or whatever lies under its key, to `lost+found/`, under
    /// its folder's name and its own: `ops-00000000000000000007`. Not synced.
    ///
    /// Returns its new key: with `.1`, `.2` ... behind it where the plain name is taken.
    ///
    /// # Errors
    /// - [`StorageError::BadName`]: the file is in another folder, or its name would be too long.
    /// - As the trait.
    fn move_aside(&self, key: &Key) -> Result<Key, StorageError>;

    /// Starts the pack `id`. It can not be seen under its key before [`PackWriter::seal`].
    ///
    /// `expected_len` is an estimate of its length, rather too long than too short, or 0 when nothing is known. Space for
    /// it is reserved where the file system can, so a full disk is known before the first byte is written; how the pack
    /// is written may depend on it. Writing more is no error.
    ///
    /// # Errors
    /// - [`StorageError::AlreadyExists`]: a pack of that id is there.
    /// - As the trait.
    fn create_pack(&self, id: &[u8; 16], expected_len: u64) -> Result<Box<dyn PackWriter + '_>, StorageError>;

    /// Returns where the bytes live, in words for people.
    fn location(&self) -> String;
}

/// A pack in the making. Dropped without [`seal`](PackWriter::seal), it was never there.
pub trait PackWriter: Send {
    /// Appends the pieces one after the other, with as few system calls and copies as can be.
    ///
    /// # Errors
    /// - [`StorageError::Io`]: the system refused; the pack can only be dropped.
    /// - [`StorageError::Poisoned`]: an earlier call on this writer failed.
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), StorageError>;

    /// Returns how many bytes were appended: the offset of the next one.
    fn position(&self) -> u64;

    /// Makes the pack durable under its name, exactly as long as what was appended (two syncs).
    ///
    /// # Errors
    /// - [`StorageError::AlreadyExists`]: a pack of that id came first; it is untouched.
    /// - [`StorageError::NotFound`]: somebody took its writer for dead and removed it; it has to be written again.
    /// - [`StorageError::Io`]: the pack is absent, or whole but perhaps not durable.
    /// - [`StorageError::Poisoned`]: an earlier call on this writer, or a sync through its storage, failed.
    fn seal(self: Box<Self>) -> Result<(), StorageError>;
}
