//! The promises of [`Storage`] in memory: for tests, and for what must not touch a disk.
//!
//! Clones share the content, as two processes share a folder. Nothing here is ever damaged, so errors of the system and
//! poisoning do not occur.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Durability, Folder, Key, Listed, PackWriter, Put, Storage, StorageError};

/// A repository in memory. `clone` gives a second handle on the same content.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    content: Arc<Mutex<Content>>,
}

/// What all clones share.
#[derive(Debug, Default)]
struct Content {
    folders: BTreeSet<Folder>,
    files: BTreeMap<Key, Arc<[u8]>>,
}

impl MemoryStorage {
    /// Makes an empty repository folder, without the fixed folders.
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks the content. Every change of it is one call, so it is whole even if a thread died meanwhile.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the shared bytes of a file.
    fn get(&self, key: &Key) -> Result<Arc<[u8]>, StorageError> {
        let content = self.lock();
        content.files.get(key).cloned().ok_or_else(|| StorageError::NotFound { key: key.to_string() })
    }
}

impl Content {
    /// Checks that a folder was made.
    fn require(&self, folder: Folder) -> Result<(), StorageError> {
        let is_there = matches!(folder, Folder::Root | Folder::Beside) || self.folders.contains(&folder);
        is_there.then_some(()).ok_or_else(|| StorageError::NotFound { key: folder.to_string() })
    }

    /// Stores a file unless one is there.
    fn insert_absent(&mut self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError> {
        self.require(Folder::Tmp)?;
        self.require(key.folder())?;
        if self.files.contains_key(key) {
            return Ok(Put::Taken);
        }
        self.files.insert(key.clone(), bytes.into());
        Ok(Put::Done)
    }
}

impl Storage for MemoryStorage {
    fn create_folders(&self) -> Result<(), StorageError> {
        self.lock().folders.extend(Folder::FIXED);
        Ok(())
    }

    fn put_if_absent(&self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError> {
        self.lock().insert_absent(key, bytes)
    }

    fn replace(&self, key: &Key, bytes: &[u8], _durability: Durability) -> Result<(), StorageError> {
        let mut content = self.lock();
        content.require(Folder::Tmp)?;
        content.require(key.folder())?;
        content.files.insert(key.clone(), bytes.into());
        Ok(())
    }

    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<(), StorageError> {
        self.replace(key, bytes, Durability::Unsynced)
    }

    fn sync(&self, folder: Folder) -> Result<(), StorageError> {
        self.lock().require(folder)
    }

    fn read(&self, key: &Key, max_len: u64) -> Result<Vec<u8>, StorageError> {
        let bytes = self.get(key)?;
        let len = bytes.len() as u64;
        if len > max_len {
            return Err(StorageError::TooLarge { key: key.to_string(), len, max: max_len });
        }
        Ok(bytes.to_vec())
    }

    fn read_at(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let bytes = self.get(key)?;
        let rest = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
        let Some(found) = rest.get(..buf.len()) else {
            return Err(StorageError::Truncated {
                key: key.to_string(),
                offset,
                expected: buf.len() as u64,
                actual: rest.len() as u64,
            });
        };
        buf.copy_from_slice(found);
        Ok(())
    }

    fn len(&self, key: &Key) -> Result<u64, StorageError> {
        Ok(self.get(key)?.len() as u64)
    }

    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        Ok(self.lock().files.contains_key(key))
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>, StorageError> {
        let content = self.lock();
        content.require(folder)?;
        let inside = content.files.iter().filter(|(key, _)| key.folder() == folder);
        Ok(inside.map(|(key, bytes)| Listed { name: key.name().to_owned(), len: bytes.len() as u64 }).collect())
    }

    fn strangers(&self, folder: Folder) -> Result<Vec<String>, StorageError> {
        self.lock().require(folder)?;
        Ok(Vec::new())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let removed = self.lock().files.remove(key);
        removed.map(drop).ok_or_else(|| StorageError::NotFound { key: key.to_string() })
    }

    fn move_to_trash(&self, key: &Key) -> Result<(), StorageError> {
        if key.folder() != Folder::Packs {
            return Err(StorageError::NotAPack { key: key.to_string() });
        }
        let target = Key::new(Folder::Trash, key.name())?;
        let mut content = self.lock();
        content.require(Folder::Trash)?;
        if content.files.contains_key(&target) {
            return Err(StorageError::AlreadyExists { key: target.to_string() });
        }
        let bytes = content.files.remove(key).ok_or_else(|| StorageError::NotFound { key: key.to_string() })?;
        content.files.insert(target, bytes);
        Ok(())
    }

    fn move_aside(&self, key: &Key) -> Result<Key, StorageError> {
        let mut content = self.lock();
        content.require(Folder::LostFound)?;
        for attempt in 0.. {
            let target = Key::aside(key, attempt)?;
            if content.files.contains_key(&target) {
                continue;
            }
            let bytes = content.files.remove(key).ok_or_else(|| StorageError::NotFound { key: key.to_string() })?;
            content.files.insert(target.clone(), bytes);
            return Ok(target);
        }
        Err(StorageError::AlreadyExists { key: key.to_string() })
    }

    fn create_pack(&self, id: &[u8; 16], _expected_len: u64) -> Result<Box<dyn PackWriter + '_>, StorageError> {
        let key = Key::pack(id);
        let content = self.lock();
        content.require(Folder::Tmp)?;
        content.require(Folder::Packs)?;
        if content.files.contains_key(&key) {
            return Err(StorageError::AlreadyExists { key: key.to_string() });
        }
        Ok(Box::new(MemoryPack { storage: self, key, bytes: Vec::new() }))
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

/// A pack in the making.
struct MemoryPack<'a> {
    storage: &'a MemoryStorage,
    key: Key,
    bytes: Vec<u8>,
}

impl PackWriter for MemoryPack<'_> {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), StorageError> {
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn seal(self: Box<Self>) -> Result<(), StorageError> {
        match self.storage.lock().insert_absent(&self.key, &self.bytes)? {
            Put::Done => Ok(()),
            Put::Taken => Err(StorageError::AlreadyExists { key: self.key.to_string() }),
        }
    }
}
