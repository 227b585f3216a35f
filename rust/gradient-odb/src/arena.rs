//! Staging memory: a buffer for each chunk, kept and used again.
//!
//! Fresh pages cost several times what copying into them costs, so a buffer goes back to its arena when its bytes are
//! written, and is never cleared. One whose bytes turn out to be known already stays with its thread, so that a state
//! that has not changed passes through memory that never leaves the processor's cache. An arena grows to what was in
//! flight at once, and stays there.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use gradient_object::CHUNK_BYTES;

use crate::odb::lock;

/// Shorter chunks are last pieces of small tensors; they get memory of their own length, for once.
const POOLED_BYTES_MIN: usize = CHUNK_BYTES / 4;

thread_local! {
    /// What this thread used last.
    static SPARE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Buffers of [`CHUNK_BYTES`] that are free.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Arena {
    /// Takes memory for `len` bytes, at most [`CHUNK_BYTES`]. What is in it is old.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> StagedBytes {
        if len < POOLED_BYTES_MIN {
            return StagedBytes { buffer: vec![0; len], len, arena: None };
        }
        let free = SPARE.take().or_else(|| lock(&self.free).pop());
        StagedBytes { buffer: free.unwrap_or_else(|| vec![0; CHUNK_BYTES]), len, arena: Some(Arc::clone(self)) }
    }
}

/// The staged copy of a chunk; its memory goes back to the arena when it is dropped.
#[derive(Debug)]
pub(crate) struct StagedBytes {
    buffer: Vec<u8>,
    len: usize,
    arena: Option<Arc<Arena>>,
}

impl StagedBytes {
    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Returns the bytes to write them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Returns a copy that takes no more memory than it has bytes; none if this one takes no more.
    pub(crate) fn shortened(&self) -> Option<Self> {
        (self.len < self.buffer.len()).then(|| Self::copy_of(self.bytes()))
    }

    /// Copies bytes to memory of just their length.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self { buffer: bytes.to_vec(), len: bytes.len(), arena: None }
    }

    /// Leaves the memory to the next chunk of this thread.
    pub(crate) fn keep_for_this_thread(mut self) {
        if self.arena.is_some() {
            let before = SPARE.replace(Some(std::mem::take(&mut self.buffer)));
            self.buffer = before.unwrap_or_default();
        }
    }
}

impl Drop for StagedBytes {
    fn drop(&mut self) {
        if let Some(arena) = &self.arena
            && !self.buffer.is_empty()
        {
            lock(&arena.free).push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_only_after_it_was_given_back() {
        let arena = Arc::new(Arena::default());
        let mut first = arena.take(CHUNK_BYTES);
        first.bytes_mut().fill(7);
        let address = first.bytes().as_ptr();
        let mut second = arena.take(CHUNK_BYTES - 1);
        second.bytes_mut().fill(8);
        assert!(first.bytes().iter().all(|byte| *byte == 7));
        drop(first);
        let again = arena.take(POOLED_BYTES_MIN);
        assert_eq!(again.bytes().as_ptr(), address);
        assert_eq!(again.bytes().len(), POOLED_BYTES_MIN);
        again.keep_for_this_thread();
        assert!(lock(&arena.free).is_empty());
        assert_eq!(arena.take(CHUNK_BYTES).bytes().as_ptr(), address);
        assert_eq!(arena.take(3).bytes(), [0; 3]);
        drop(second);
        assert_eq!(lock(&arena.free).len(), 2);
    }
}
