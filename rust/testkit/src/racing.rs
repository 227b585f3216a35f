//! A disk on which another process comes first: something is done just before the next operation is published.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gradient_storage::{Durability, Folder, Key, Listed, PackWriter, Put, Storage, StorageError};

use crate::disk::Disk;

type Result<T> = std::result::Result<T, StorageError>;
type Action = Box<dyn FnOnce() + Send>;

/// A disk that can be raced on.
#[derive(Clone)]
pub(crate) struct Racing {
    disk: Arc<dyn Disk>,
    meanwhile: Arc<Mutex<Option<Action>>>,
}

impl fmt::Debug for Racing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Racing({:?})", self.disk)
    }
}

impl Racing {
    pub(crate) fn new(disk: &dyn Disk) -> Self {
        Self { disk: Arc::from(disk.share()), meanwhile: Arc::default() }
    }

    /// Sets what is done before the next operation is published; none forgets it.
    pub(crate) fn set_meanwhile(&self, action: Option<Action>) {
        *self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner) = action;
    }

    fn raced(&self, storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
        Arc::new(Raced { storage, racing: self.clone() })
    }
}

impl Disk for Racing {
    fn share(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self) -> Result<Arc<dyn Storage>> {
        Ok(self.raced(self.disk.open()?))
    }

    fn create(&self) -> Result<Arc<dyn Storage>> {
        Ok(self.raced(self.disk.create()?))
    }

    fn files_in(&self, folder: Folder) -> Vec<(String, Vec<u8>)> {
        self.disk.files_in(folder)
    }

    fn remove(&self, folder: Folder, name: &str) {
        self.disk.remove(folder, name);
    }

    fn bury(&self) -> Vec<String> {
        self.disk.bury()
    }
}

/// Passes everything on.
#[derive(Debug)]
struct Raced {
    storage: Arc<dyn Storage>,
    racing: Racing,
}

impl Storage for Raced {
    fn put_if_absent(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        if key.folder() == Folder::Ops {
            let action = self.racing.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(action) = action {
                action();
            }
        }
        self.storage.put_if_absent(key, bytes)
    }

    fn create_folders(&self) -> Result<()> {
        self.storage.create_folders()
    }

    fn replace(&self, key: &Key, bytes: &[u8], durability: Durability) -> Result<()> {
        self.storage.replace(key, bytes, durability)
    }

    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.storage.overwrite(key, bytes)
    }

    fn sync(&self, folder: Folder) -> Result<()> {
        self.storage.sync(folder)
    }

    fn read(&self, key: &Key, max_len: u64) -> Result<Vec<u8>> {
        self.storage.read(key, max_len)
    }

    fn read_at(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.storage.read_at(key, offset, buf)
    }

    fn len(&self, key: &Key) -> Result<u64> {
        self.storage.len(key)
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        self.storage.exists(key)
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        self.storage.list(folder)
    }

    fn strangers(&self, folder: Folder) -> Result<Vec<String>> {
        self.storage.strangers(folder)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.storage.delete(key)
    }

    fn move_to_trash(&self, key: &Key) -> Result<()> {
        self.storage.move_to_trash(key)
    }

    fn move_aside(&self, key: &Key) -> Result<Key> {
        self.storage.move_aside(key)
    }

    fn create_pack(&self, id: &[u8; 16], expected_len: u64) -> Result<Box<dyn PackWriter + '_>> {
        self.storage.create_pack(id, expected_len)
    }

    fn location(&self) -> String {
        self.storage.location()
    }
}
