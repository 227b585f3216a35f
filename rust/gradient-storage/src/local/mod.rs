//! A repository in a folder on a disk.
//!
//! | file           | what it does                                                       |
//! |----------------|--------------------------------------------------------------------|
//! | `system.rs`    | the system calls, one method each; `os.rs` makes them              |
//! | `ancestors.rs` | makes the repository folder and what is missing above it           |
//! | `beneath.rs`   | opens folders and files, follows nothing                           |
//! | `temporary.rs` | files in the making, published by a rename that never replaces     |
//! | `pack.rs`      | the pack writer                                                    |
//! | `handles.rs`   | packs that stay open for reading                                   |
//!
//! A durable file costs two syncs: of the file, before it has its name, and of the folder, after. A sync that fails
//! poisons the whole handle (rule D3): the kernel may have dropped the pages and would call the next sync a success, so
//! the file is abandoned and nothing is written or deleted until the repository is opened again. A closed file has
//! nothing left to report, because it was synced or is not promised to be durable.

mod ancestors;
mod beneath;
mod direct;
mod handles;
mod os;
mod pack;
pub(crate) mod system;
mod temporary;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use self::ancestors::{create_ancestors, sync_folder};
use self::beneath::{Beneath, io_error};
use self::handles::Handles;
use self::os::Os;
use self::pack::LocalPack;
use self::system::{System, retry};
use self::temporary::{Temporary, again_if_removed, write_all};
use crate::{Durability, Folder, Key, Listed, PackWriter, Put, Storage, StorageError};

/// How often a folder is listed again because files in it went meanwhile.
const LISTINGS_MAX: u32 = 8;

/// A repository folder on a local disk or a network file system.
///
/// The parameter is what makes the system calls: the operating system, but in crash tests a simulated file system.
#[derive(Debug)]
pub struct LocalStorage<S: System = Os> {
    beneath: Beneath<S>,
    handles: Handles<S::Handle>,
    is_poisoned: AtomicBool,
}

/// Says whether the system refused for want of a permission.
fn is_refused(error: &StorageError) -> bool {
    error.errno() == Some(Errno::ACCESS.raw_os_error())
}

/// What may be moved.
#[derive(Clone, Copy)]
enum Wanted {
    /// A regular file.
    Regular,
    /// Whatever has the name. It is moved itself, and not followed.
    Anything,
}

impl LocalStorage {
    /// Opens the folder `dir`, usually called `.gradient-repo`. The fixed folders in it may be missing still.
    ///
    /// # Errors
    /// - [`StorageError::NotFound`]: there is no such folder.
    /// - [`StorageError::NotAFolder`]: it, or one of the fixed folders in it, is a symbolic link or no folder.
    /// - [`StorageError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        Self::open_on(Os, dir)
    }

    /// Makes the folder `dir` and its ancestors where they are missing, durably, and opens it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn create(dir: &Path) -> Result<Self, StorageError> {
        Self::create_on(Os, dir)
    }
}

impl<S: System> LocalStorage<S> {
    /// Opens the folder `dir` of that system, as [`open`](LocalStorage::open) does.
    ///
    /// # Errors
    /// As [`open`](LocalStorage::open).
    pub fn open_on(system: S, dir: &Path) -> Result<Self, StorageError> {
        let beneath = Beneath::open(system, dir)?;
        for folder in Folder::FIXED {
            match beneath.folder(folder) {
                Ok(_) | Err(StorageError::NotFound { .. }) => {}
                // Whoever only reads may do without most of them.
                Err(error) if is_refused(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { beneath, handles: Handles::default(), is_poisoned: AtomicBool::new(false) })
    }

    /// Makes the folder `dir` of that system, as [`create`](LocalStorage::create) does.
    ///
    /// # Errors
    /// As [`open`](LocalStorage::open).
    pub fn create_on(system: S, dir: &Path) -> Result<Self, StorageError> {
        let dir: std::path::PathBuf = dir.components().collect();
        create_ancestors(&system, &dir)?;
        Self::open_on(system, &dir)
    }

    /// Returns what makes the system calls.
    fn system(&self) -> &S {
        self.beneath.system()
    }

    /// Refuses to write once a sync has failed.
    fn require_writable(&self, key: &impl std::fmt::Display) -> Result<(), StorageError> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(StorageError::Poisoned { key: key.to_string() });
        }
        Ok(())
    }

    /// Passes on the outcome of a sync; a failure is the last one this handle writes.
    fn poison_on_error(&self, outcome: Result<(), Errno>, key: &impl std::fmt::Display) -> Result<(), StorageError> {
        outcome.map_err(|errno| {
            self.is_poisoned.store(true, Ordering::Release);
            io_error("sync", key, errno)
        })
    }

    /// Waits until a file's bytes would survive a power cut.
    fn sync_file(&self, file: &S::Handle, key: &Key) -> Result<(), StorageError> {
        self.poison_on_error(retry(|| self.system().sync(file)), key)
    }

    /// Waits until a folder's entries would survive a power cut, where the file system knows of such a thing.
    fn sync_folder(&self, folder: &S::Handle, key: &impl std::fmt::Display) -> Result<(), StorageError> {
        self.poison_on_error(sync_folder(self.system(), folder), key)
    }

    /// Gives a synced temporary its name, and syncs the folder if the name is ours.
    fn publish(&self, temporary: Temporary<'_, S>, key: &Key) -> Result<Put, StorageError> {
        let folder = self.beneath.folder(key.folder())?;
        let put = temporary.publish(&folder, key)?;
        if put == Put::Done {
            self.sync_folder(&folder, key)?;
        }
        Ok(put)
    }

    /// Gives a file another name, unless something has it.
    fn rename_to(&self, key: &Key, target: &Key, wanted: Wanted) -> Result<(), StorageError> {
        let from = self.beneath.folder(key.folder())?;
        let to = self.beneath.folder(target.folder())?;
        let file = match wanted {
            Wanted::Regular => self.beneath.stat_regular(&from, key)?,
            Wanted::Anything => self.beneath.stat(&from, key)?,
        };
        self.handles.forget(key);
        let system = self.system();
        let unlink = || retry(|| system.unlink(&from, key.name()));
        let moved = match retry(|| system.rename_no_replace(&from, key.name(), &to, target.name())) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                retry(|| system.link(&from, key.name(), &to, target.name())).and_then(|()| unlink())
            }
            done => done,
        };
        // A move that a crash cut off left the file both names.
        let is_half_moved = || {
            let there = retry(|| system.stat(&to, target.name()));
            there.is_ok_and(|there| there.identity == file.identity)
        };
        let moved = if moved == Err(Errno::EXIST) && is_half_moved() { unlink() } else { moved };
        moved.map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound { key: key.to_string() },
            Errno::EXIST => StorageError::AlreadyExists { key: target.to_string() },
            _ => io_error("move", key, errno),
        })
    }

    /// Lists a folder; says whether everything in it was still there when it was looked at.
    fn list_once(&self, folder: Folder, open: &S::Handle, found: &mut Vec<Listed>) -> Result<bool, StorageError> {
        found.clear();
        let mut is_whole = true;
        let failed = |errno| io_error("list", &folder, errno);
        for name in retry(|| self.system().list(open)).map_err(failed)? {
            let Ok(key) = Key::new(folder, &name) else { continue };
            match self.beneath.stat_regular(open, &key) {
                Ok(stat) => found.push(Listed { name, len: stat.len }),
                Err(StorageError::NotFound { .. }) => is_whole = false,
                // Nothing of ours.
                Err(StorageError::NotAFile { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(is_whole)
    }

    /// Opens a file for reading; packs stay open.
    fn open_for_reading(&self, key: &Key) -> Result<Arc<S::Handle>, StorageError> {
        if key.folder() != Folder::Packs {
            return Ok(Arc::new(self.beneath.file(key)?.0));
        }
        if let Some(file) = self.handles.find(key) {
            return Ok(file);
        }
        let file = Arc::new(self.beneath.file(key)?.0);
        self.handles.keep(key, Arc::clone(&file));
        Ok(file)
    }
}

impl<S: System> Storage for LocalStorage<S> {
    fn create_folders(&self) -> Result<(), StorageError> {
        self.require_writable(&Folder::Root)?;
        for folder in Folder::FIXED {
            let is_new = self.beneath.make_folder(folder)?;
            let made = self.beneath.folder(folder)?;
            if is_new {
                self.sync_folder(&made, &folder)?;
            }
        }
        // Always: whoever made the folders may have died before syncing their parent.
        let root = self.beneath.folder(Folder::Root)?;
        self.sync_folder(&root, &Folder::Root)
    }

    fn put_if_absent(&self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError> {
        self.require_writable(key)?;
        let folder = self.beneath.folder(key.folder())?;
        // Saves the loser of a race that is long over two syncs; the rename below decides.
        match self.beneath.stat_regular(&folder, key) {
            Ok(_) => return Ok(Put::Taken),
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        again_if_removed(|| {
            let temporary = Temporary::create(&self.beneath)?;
            temporary.write_all(&[bytes], 0).map_err(|errno| io_error("write", key, errno))?;
            self.sync_file(temporary.file(), key)?;
            self.publish(temporary, key)
        })
    }

    fn replace(&self, key: &Key, bytes: &[u8], durability: Durability) -> Result<(), StorageError> {
        if durability == Durability::Synced {
            self.require_writable(key)?;
        }
        let folder = self.beneath.folder(key.folder())?;
        match self.beneath.stat_regular(&folder, key) {
            Ok(_) | Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        again_if_removed(|| {
            let temporary = Temporary::create(&self.beneath)?;
            temporary.write_all(&[bytes], 0).map_err(|errno| io_error("write", key, errno))?;
            match durability {
                Durability::Unsynced => temporary.replace(&folder, key),
                Durability::Synced => {
                    self.sync_file(temporary.file(), key)?;
                    temporary.replace(&folder, key)?;
                    self.sync_folder(&folder, key)
                }
            }
        })
    }

    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<(), StorageError> {
        let (file, stat) = match self.beneath.file_to_overwrite(key) {
            // A second name means that somebody else's file was put there: it must not be written.
            Ok((file, stat)) if stat.has_one_name => (file, stat),
            Ok(_) | Err(StorageError::NotFound { .. }) => return self.replace(key, bytes, Durability::Unsynced),
            Err(error) => return Err(error),
        };
        let failed = |errno| io_error("write", key, errno);
        write_all(self.system(), &file, &[bytes], 0).map_err(failed)?;
        let len = bytes.len() as u64;
        if stat.len == len {
            return Ok(());
        }
        retry(|| self.system().truncate(&file, len)).map_err(failed)
    }

    fn sync(&self, folder: Folder) -> Result<(), StorageError> {
        self.require_writable(&folder)?;
        self.sync_folder(&self.beneath.folder(folder)?, &folder)
    }

    fn read(&self, key: &Key, max_len: u64) -> Result<Vec<u8>, StorageError> {
        let (file, stat) = self.beneath.file(key)?;
        let too_large = |len| StorageError::TooLarge { key: key.to_string(), len, max: max_len };
        let len = stat.len;
        if len > max_len {
            return Err(too_large(len));
        }
        let mut bytes = Vec::new();
        // One byte more than there should be, so that the end is seen without growing.
        let wanted = usize::try_from(len).ok().and_then(|len| len.checked_add(1));
        wanted
            .and_then(|wanted| bytes.try_reserve_exact(wanted).ok())
            .ok_or_else(|| io_error("read", key, Errno::NOMEM))?;
        loop {
            let offset = bytes.len() as u64;
            let read = retry(|| self.system().read_into(&file, &mut bytes, offset))
                .map_err(|errno| io_error("read", key, errno))?;
            if read == 0 {
                return Ok(bytes);
            }
            // A file that grew after it was measured.
            if bytes.len() as u64 > max_len {
                return Err(too_large(bytes.len() as u64));
            }
            bytes.try_reserve(1).map_err(|_| io_error("read", key, Errno::NOMEM))?;
        }
    }

    fn read_at(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let file = self.open_for_reading(key)?;
        let truncated = |actual: usize, expected: usize| StorageError::Truncated {
            key: key.to_string(),
            offset,
            expected: expected as u64,
            actual: actual as u64,
        };
        // Beyond this the system says INVAL instead of giving nothing.
        if offset.checked_add(buf.len() as u64).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(truncated(0, buf.len()));
        }
        let mut done = 0;
        while done < buf.len() {
            let read = retry(|| self.system().read_at(&file, &mut buf[done..], offset + done as u64))
                .map_err(|errno| io_error("read", key, errno))?;
            if read == 0 {
                return Err(truncated(done, buf.len()));
            }
            done += read;
        }
        Ok(())
    }

    fn len(&self, key: &Key) -> Result<u64, StorageError> {
        let folder = self.beneath.folder(key.folder())?;
        Ok(self.beneath.stat_regular(&folder, key)?.len)
    }

    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        match self.len(key) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>, StorageError> {
        let open = self.beneath.folder(folder)?;
        let mut found = Vec::new();
        for _ in 0..LISTINGS_MAX {
            if self.list_once(folder, &open, &mut found)? {
                break;
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn strangers(&self, folder: Folder) -> Result<Vec<String>, StorageError> {
        let open = self.beneath.folder(folder)?;
        let is_fixed = |name: &str| folder == Folder::Root && Folder::FIXED.iter().any(|fixed| fixed.name() == name);
        let mut found = Vec::new();
        for name in retry(|| self.system().list(&open)).map_err(|errno| io_error("list", &folder, errno))? {
            if [".", ".."].contains(&name.as_str()) || is_fixed(&name) {
                continue;
            }
            let outcome = Key::new(folder, &name).map(|key| self.beneath.stat_regular(&open, &key));
            match outcome {
                Err(_) | Ok(Err(StorageError::NotAFile { .. })) => found.push(name),
                Ok(Ok(_) | Err(StorageError::NotFound { .. })) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn missing_folders(&self) -> Result<Vec<Folder>, StorageError> {
        let mut missing = Vec::new();
        for folder in Folder::FIXED {
            match self.beneath.folder(folder) {
                Ok(_) => {}
                Err(error) if is_refused(&error) => {}
                Err(StorageError::NotFound { .. }) => missing.push(folder),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.require_writable(key)?;
        let folder = self.beneath.folder(key.folder())?;
        self.beneath.stat_regular(&folder, key)?;
        self.handles.forget(key);
        retry(|| self.system().unlink(&folder, key.name())).map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound { key: key.to_string() },
            _ => io_error("delete", key, errno),
        })
    }

    fn move_to_trash(&self, key: &Key) -> Result<(), StorageError> {
        if key.folder() != Folder::Packs {
            return Err(StorageError::NotAPack { key: key.to_string() });
        }
        self.require_writable(key)?;
        self.rename_to(key, &Key::new(Folder::Trash, key.name())?, Wanted::Regular)
    }

    fn move_aside(&self, key: &Key) -> Result<Key, StorageError> {
        self.require_writable(key)?;
        for attempt in 0.. {
            let target = Key::aside(key, attempt)?;
            match self.rename_to(key, &target, Wanted::Anything) {
                Err(StorageError::AlreadyExists { .. }) => {}
                outcome => return outcome.map(|()| target),
            }
        }
        Err(StorageError::AlreadyExists { key: key.to_string() })
    }

    fn create_pack(&self, id: &[u8; 16], expected_len: u64) -> Result<Box<dyn PackWriter + '_>, StorageError> {
        Ok(Box::new(LocalPack::create(self, Key::pack(id), expected_len)?))
    }

    fn location(&self) -> String {
        self.beneath.path().display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, LocalStorage) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let storage = LocalStorage::create(&dir.path().join("repo")).expect("a new folder opens");
        storage.create_folders().expect("a new folder takes folders");
        (dir, storage)
    }

    #[test]
    fn writes_and_deletes_nothing_durable_after_a_failed_sync_and_still_reads() {
        let (_dir, storage) = storage();
        let (old, new) = (Key::operation(1), Key::operation(2));
        assert_eq!(storage.put_if_absent(&old, b"before").expect("is the first"), Put::Done);
        let mut pack = storage.create_pack(&[1; 16], 0).expect("is the first pack");
        pack.append(&[b"entry"]).expect("there is room");

        let error = storage.poison_on_error(Err(Errno::IO), &old).expect_err("a failed sync is an error");
        assert_eq!(error.errno(), Some(Errno::IO.raw_os_error()));

        let is_poisoned = |outcome: Result<(), StorageError>| matches!(outcome, Err(StorageError::Poisoned { .. }));
        assert!(is_poisoned(pack.append(&[b"more"])), "append");
        assert!(is_poisoned(pack.seal()), "seal");
        assert!(is_poisoned(storage.put_if_absent(&new, b"after").map(drop)), "put");
        assert!(is_poisoned(storage.replace(&old, b"after", Durability::Synced)), "replace");
        assert!(is_poisoned(storage.create_pack(&[2; 16], 0).map(drop)), "create_pack");
        assert!(is_poisoned(storage.delete(&old)), "delete");
        assert!(is_poisoned(storage.move_to_trash(&Key::pack(&[1; 16]))), "move_to_trash");
        assert!(is_poisoned(storage.create_folders()), "create_folders");
        assert_eq!(storage.read(&old, 64).expect("reading goes on"), b"before");
        assert!(storage.list(Folder::Tmp).expect("listing goes on").is_empty(), "the abandoned pack was left");
        assert!(!storage.exists(&new).expect("looking goes on"));

        let reopened = LocalStorage::open(storage.beneath.path()).expect("opens again");
        assert_eq!(reopened.put_if_absent(&new, b"after").expect("a new handle writes"), Put::Done);
    }

    #[test]
    fn moves_a_link_itself_aside_and_not_what_it_points_to() {
        let (dir, storage) = storage();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, b"canary").expect("there is room");
        let key = Key::operation(1);
        std::os::unix::fs::symlink(&outside, dir.path().join("repo").join(key.to_string())).expect("links exist");
        assert!(matches!(storage.read(&key, 64), Err(StorageError::NotAFile { .. })), "a link was followed");
        assert!(matches!(storage.delete(&key), Err(StorageError::NotAFile { .. })));
        let aside = storage.move_aside(&key).expect("it is moved");
        assert_eq!(std::fs::read_link(dir.path().join("repo").join(aside.to_string())).expect("is a link"), outside);
        assert_eq!(std::fs::read(&outside).expect("is there"), b"canary");
        assert!(!storage.exists(&key).expect("looked"));
    }

    #[test]
    fn names_the_folders_that_are_missing_and_makes_them() {
        let (dir, storage) = storage();
        for folder in [Folder::Trash, Folder::Cache] {
            std::fs::remove_dir(dir.path().join("repo").join(folder.name())).expect("it is empty");
        }
        assert_eq!(storage.missing_folders().expect("looked"), [Folder::Trash, Folder::Cache]);
        storage.create_folders().expect("made");
        assert!(storage.missing_folders().expect("looked").is_empty());
    }

    #[test]
    fn makes_missing_ancestors_and_opens_what_was_made() {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let deep = dir.path().join("a/b/c/.gradient-repo");
        LocalStorage::create(&deep).expect("ancestors are made");
        LocalStorage::create(&deep).expect("making it again opens it");
        assert!(deep.is_dir());
    }
}
