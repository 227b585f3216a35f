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

#[cfg(feature = "simulated")]
thread_local! {
    static ALONE: std::cell::RefCell<Option<Arc<ThreadPool>>> = const { std::cell::RefCell::new(None) };
}

/// From now on this thread does all work itself, as the one thread of a simulated process: one that waits for its turn
/// keeps nobody else's work, and the order of its calls is always the same.
#[cfg(feature = "simulated")]
pub fn work_alone() {
    let pool = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    ALONE.set(pool.ok().map(Arc::new));
}

/// Runs `work` on the pool of this process; parallel iterators in it use the pool's threads.
///
/// # Errors
/// [`OdbError::Storage`]: the system gives no threads. Else what `work` returns.
pub(crate) fn install<T: Send>(work: impl FnOnce() -> Result<T, OdbError> + Send) -> Result<T, OdbError> {
    pool()?.install(work)
}

fn pool() -> Result<Arc<ThreadPool>, OdbError> {
    #[cfg(feature = "simulated")]
    if let Some(alone) = ALONE.with_borrow(Clone::clone) {
        return Ok(alone);
    }
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
