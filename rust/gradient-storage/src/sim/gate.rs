//! What the calls of one process have to pass: a test that says which process goes on.

use std::fmt;

use rustix::io::Errno;

use super::Call;

/// Stands before every call of one way to a disk.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Waits until the call may be made. No lock is held meanwhile.
    ///
    /// # Errors
    /// What the call gives instead of being made.
    fn pass(&self, call: &Call) -> Result<(), Errno>;
}
