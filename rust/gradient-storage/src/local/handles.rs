//! Keeps the packs that were read last open.
//!
//! A pack's name is never used again and its bytes never change, so an open descriptor stays right for as long as
//! anybody keeps it, even while another process moves the pack to the trash.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Key;

/// How many packs stay open; small beside the 1024 descriptors that a process usually has.
const HANDLES_MAX: usize = 64;

/// Open packs, the one used last at the end.
#[derive(Debug)]
pub(super) struct Handles<H> {
    open: Mutex<Vec<(Key, Arc<H>)>>,
}

impl<H> Default for Handles<H> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

impl<H> Handles<H> {
    /// Returns the open file of a pack, if it is kept.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<H>> {
        let mut open = self.lock();
        let at = open.iter().rposition(|(kept, _)| kept == key)?;
        open[at..].rotate_left(1);
        open.last().map(|(_, file)| Arc::clone(file))
    }

    /// Keeps a pack open, and lets go of the one that was not used for longest.
    pub(super) fn keep(&self, key: &Key, file: Arc<H>) {
        let mut open = self.lock();
        // Two threads may have opened the same pack at once; one of the files is enough.
        open.retain(|(kept, _)| kept != key);
        if open.len() >= HANDLES_MAX {
            open.remove(0);
        }
        open.push((key.clone(), file));
    }

    /// Lets go of a pack.
    pub(super) fn forget(&self, key: &Key) {
        self.lock().retain(|(kept, _)| kept != key);
    }

    /// Locks the list, which is whole after every single change.
    fn lock(&self) -> MutexGuard<'_, Vec<(Key, Arc<H>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_file() -> Arc<std::fs::File> {
        Arc::new(std::fs::File::open(std::env::temp_dir()).expect("there is one"))
    }

    #[test]
    fn lets_go_of_the_pack_that_was_not_used_for_longest() {
        let handles = Handles::default();
        let keys: Vec<Key> = (0..=HANDLES_MAX).map(|i| Key::pack(&[u8::try_from(i).expect("is small"); 16])).collect();
        for key in &keys[..HANDLES_MAX] {
            handles.keep(key, some_file());
        }
        assert!(handles.find(&keys[0]).is_some());
        handles.keep(&keys[HANDLES_MAX], some_file());
        assert!(handles.find(&keys[1]).is_none(), "the oldest was kept");
        assert!(handles.find(&keys[0]).is_some(), "a pack in use was dropped");
        assert_eq!(handles.lock().len(), HANDLES_MAX);
    }

    #[test]
    fn keeps_one_file_a_pack_and_none_that_was_forgotten() {
        let handles = Handles::default();
        let key = Key::pack(&[7; 16]);
        handles.keep(&key, some_file());
        handles.keep(&key, some_file());
        assert_eq!(handles.lock().len(), 1);
        handles.forget(&key);
        assert!(handles.find(&key).is_none());
    }
}
