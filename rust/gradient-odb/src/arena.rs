//! Staging memory: slabs that copies of tensors are made in, kept and used again.
//!
//! Fresh pages cost several times what copying into them costs, so a slab goes back to its arena when the last of its
//! bytes is written or known, and is never cleared. An arena grows to what was in flight at once and stays there.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a slab.
pub(crate) const SLAB_BYTES: usize = 16 << 20;

/// Slabs that are free.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Arena {
    /// Takes a free slab, the one used last if there are many, or makes one. What is in it is old.
    pub(crate) fn take(self: &Arc<Self>) -> Slab {
        let free = self.lock().pop();
        Slab { bytes: free.unwrap_or_else(|| vec![0; SLAB_BYTES]), arena: Arc::clone(self) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One slab; goes back to its arena when dropped.
#[derive(Debug)]
pub(crate) struct Slab {
    bytes: Vec<u8>,
    arena: Arc<Arena>,
}

impl Slab {
    /// Returns its memory to write in.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.arena.lock().push(bytes);
    }
}

/// A range of a slab that nobody writes any more.
#[derive(Clone, Debug)]
pub(crate) struct StagedBytes {
    slab: Arc<Slab>,
    range: Range<usize>,
}

impl StagedBytes {
    /// Keeps the slab as long as its range is needed; the range lies within it.
    pub(crate) fn new(slab: &Arc<Slab>, range: Range<usize>) -> Self {
        Self { slab: Arc::clone(slab), range }
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.slab.bytes[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_used_again_once_its_last_range_is_dropped() {
        let arena = Arc::new(Arena::default());
        let mut slab = arena.take();
        slab.bytes_mut()[5] = 7;
        let address = slab.bytes_mut().as_ptr();
        let slab = Arc::new(slab);
        let staged = StagedBytes::new(&slab, 4..6);
        drop(slab);
        let other = arena.take();
        assert_ne!(other.bytes.as_ptr(), address);
        assert_eq!(staged.bytes(), [0, 7]);
        drop(staged);
        assert_eq!(arena.take().bytes.as_ptr(), address);
    }
}
