//! The threads that share a step.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Elements that it is worth to wake a thread for: some tens of microseconds.
const WORTH: usize = 64 << 10;

/// Threads that work together: those kept here, and whoever calls.
///
/// The caller works from the first moment: it is on a processor already, while others have yet to wake up. Whoever is
/// ready takes the next piece, so what a step takes does not depend on all of them being fast.
#[derive(Debug)]
pub struct Crew {
    others: Option<ThreadPool>,
}

impl Crew {
    /// The caller alone.
    #[must_use]
    pub fn alone() -> Self {
        Self { others: None }
    }

    /// So many threads, the caller among them.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(num_threads: usize) -> Result<Self, ThreadPoolBuildError> {
        if num_threads < 2 {
            return Ok(Self::alone());
        }
        let name = |index| format!("gradient-optim-{index}");
        let others = ThreadPoolBuilder::new().num_threads(num_threads - 1).thread_name(name).build()?;
        Ok(Self { others: Some(others) })
    }

    /// The crew of so many threads that this process has, made where there is none.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn shared(num_threads: usize) -> Result<Arc<Self>, ThreadPoolBuildError> {
        let process = std::process::id();
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |kept: &&Shared| (kept.process, kept.num_threads) == (process, num_threads);
        if let Some(Shared { crew, .. }) = shared.as_ref().filter(same) {
            return Ok(crew.clone());
        }
        let crew = Arc::new(Self::new(num_threads)?);
        let before = shared.replace(Shared { process, num_threads, crew: crew.clone() });
        if let Some(before) = before.filter(|before| before.process != process) {
            // Its threads are the parent's: there is nobody here to be told to stop.
            std::mem::forget(before);
        }
        Ok(crew)
    }

    /// Does `work` on each piece, of `numel` elements together.
    pub(crate) fn each<T: Send>(&self, pieces: Vec<T>, numel: usize, work: impl Fn(T) + Sync) {
        let num_others = (numel / WORTH).min(pieces.len()).saturating_sub(1);
        let Some(others) = self.others.as_ref().filter(|_| num_others > 0) else {
            return pieces.into_iter().for_each(work);
        };
        let num_others = others.current_num_threads().min(num_others);
        let pieces = Mutex::new(pieces.into_iter());
        let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
        let share = || {
            while let Some(piece) = next() {
                work(piece);
            }
        };
        others.in_place_scope(|scope| {
            for _ in 0..num_others {
                scope.spawn(|_| share());
            }
            share();
        });
    }
}

/// A crew, and the process that made it: threads do not come along when a process forks.
struct Shared {
    process: u32,
    num_threads: usize,
    crew: Arc<Crew>,
}

static SHARED: Mutex<Option<Shared>> = Mutex::new(None);
