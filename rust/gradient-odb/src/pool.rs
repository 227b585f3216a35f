//! The threads that hash, code and read: one pool a process.
//!
//! Threads do not survive `fork`, and work given to a pool of the parent would wait for ever in the child. So the pool
//! is kept with the id of the process that made it, and a child makes its own.

use std::io;
use std::sync::{Arc, Mutex};

use gradient_storage::StorageError;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::OdbError;
use crate::odb::lock;

static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// Runs `work` on the pool of this process; parallel iterators in it use the pool's threads.
///
/// # Errors
/// [`OdbError::Storage`]: the system gives no threads. Else what `work` returns.
pub(crate) fn install<T: Send>(work: impl FnOnce() -> Result<T, OdbError> + Send) -> Result<T, OdbError> {
    pool()?.install(work)
}

fn pool() -> Result<Arc<ThreadPool>, OdbError> {
    let process = std::process::id();
    let mut kept = lock(&POOL);
    if let Some((owner, pool)) = &*kept
        && *owner == process
    {
        return Ok(Arc::clone(pool));
    }
    let named = ThreadPoolBuilder::new().thread_name(|i| format!("gradient-{i}"));
    let pool = Arc::new(named.build().map_err(|error| StorageError::Io {
        operation: "start threads",
        key: "odb".to_owned(),
        source: io::Error::other(error),
    })?);
    if let Some((_, parents)) = kept.replace((process, Arc::clone(&pool))) {
        // Its threads are not here to be told to end.
        std::mem::forget(parents);
    }
    Ok(pool)
}
