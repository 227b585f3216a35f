//! How far long work has come, and the wish to stop it; shared between threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::OdbError;

/// Counts bytes of long work and carries the wish to stop it. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    is_cancelled: AtomicBool,
}

impl Progress {
    /// Starts at zero of an unknown total.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to what there is to do.
    pub fn add_total(&self, bytes: u64) {
        self.shared.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to what is done.
    pub fn advance(&self, bytes: u64) {
        self.shared.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns how many bytes are done.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Returns how many bytes there are to do, as far as is known.
    pub fn total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Asks the work to stop; it does so within a batch.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Says whether the work was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::Relaxed)
    }

    /// Turns the wish to stop into an error.
    ///
    /// # Errors
    /// [`OdbError::Cancelled`].
    pub fn check(&self) -> Result<(), OdbError> {
        if self.is_cancelled() {
            return Err(OdbError::Cancelled);
        }
        Ok(())
    }
}
