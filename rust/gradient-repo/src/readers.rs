//! The readers of this crate that no public function shows. For fuzzing and its replay in `cargo test`
//! (`rust/testkit/src/readers`); no release has it.

use gradient_storage::{Durability, Key, MemoryStorage, Storage};

/// Reads a lease; says whether it is one.
pub fn lease(file: &[u8]) -> bool {
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders in memory");
    let key = Key::lease(&[0; 16]);
    storage.replace(&key, file, Durability::Unsynced).expect("a file in memory");
    crate::lease::check(&storage, &key).is_ok()
}
