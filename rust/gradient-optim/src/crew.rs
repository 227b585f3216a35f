//! The threads that share a step.

use std::sync::{Arc, Mutex, PoisonError};

use gradient_codec::with_ieee_floats;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Elements that it is worth to wake a thread for: some tens of microseconds.
const WORTH: usize = 64 << 10;

/// Threads that somebody else keeps.
///
/// Where they are kept awake for a while after work, in the hope of more, they are sooner there than threads that have to
/// be woken, and do not take processors away from them.
pub trait Team: std::fmt::Debug + Send + Sync {
    /// Calls `share` on at most so many threads at once, the caller's among them; all have returned when it returns.
    fn run(&self, num_threads: usize, share: &(dyn Fn() + Sync));
}

/// Threads that work together: those kept here or a [`Team`], and whoever calls.
///
/// The caller works from the first moment: it is on a processor already, while others have yet to wake up. Whoever is
/// ready takes the next piece, so what a step takes does not depend on all of them being fast, nor on how many came.
#[derive(Debug)]
pub struct Crew(Others);

#[derive(Debug)]
enum Others {
    Nobody,
    Kept(ThreadPool),
    Team { team: &'static dyn Team, num_threads: usize },
}

impl Crew {
    /// The caller alone.
    #[must_use]
    pub fn alone() -> Self {
        Self(Others::Nobody)
    }

    /// So many threads of a team, the caller among them.
    #[must_use]
    pub fn of(team: &'static dyn Team, num_threads: usize) -> Self {
        if num_threads < 2 { Self::alone() } else { Self(Others::Team { team, num_threads }) }
    }

    /// So many threads, the caller among them, the others being started now.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(num_threads: usize) -> Result<Self, ThreadPoolBuildError> {
        if num_threads < 2 {
            return Ok(Self::alone());
        }
        let name = |index| format!("gradient-optim-{index}");
        let others = ThreadPoolBuilder::new().num_threads(num_threads - 1).thread_name(name).build()?;
        Ok(Self(Others::Kept(others)))
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
        let pieces = Mutex::new(pieces.into_iter());
        let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
        // Threads have modes of their own, and the bits must not depend on who does a piece.
        let share = || {
            with_ieee_floats(|| {
                while let Some(piece) = next() {
                    work(piece);
                }
            });
        };
        match &self.0 {
            Others::Kept(others) if num_others > 0 => others.in_place_scope(|scope| {
                for _ in 0..others.current_num_threads().min(num_others) {
                    scope.spawn(|_| share());
                }
                share();
            }),
            // Always as many: a team of another size would have to be made anew.
            Others::Team { team, num_threads } if num_others > 0 => team.run(*num_threads, &share),
            _ => share(),
        }
    }
}

/// A crew, and the process that made it: threads do not come along when a process forks.
struct Shared {
    process: u32,
    num_threads: usize,
    crew: Arc<Crew>,
}

static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A team of which so many come, and how often it was called.
    #[derive(Debug)]
    struct Comers {
        num: usize,
        calls: AtomicUsize,
    }

    impl Comers {
        const fn new(num: usize) -> Self {
            Self { num, calls: AtomicUsize::new(0) }
        }
    }

    impl Team for Comers {
        fn run(&self, num_threads: usize, share: &(dyn Fn() + Sync)) {
            // A team of another size would have to be made anew.
            assert_eq!(num_threads, 8);
            self.calls.fetch_add(1, Ordering::Relaxed);
            std::thread::scope(|scope| {
                for _ in 1..self.num {
                    scope.spawn(share);
                }
                share();
            });
        }
    }

    /// How often each of so many pieces is done.
    fn done(crew: &Crew, num_pieces: usize, numel: usize) -> Vec<usize> {
        let times: Vec<AtomicUsize> = (0..num_pieces).map(|_| AtomicUsize::new(0)).collect();
        crew.each((0..num_pieces).collect(), numel, |piece| {
            times[piece].fetch_add(1, Ordering::Relaxed);
        });
        times.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_piece_is_done_once_however_many_come() {
        static TEAMS: [Comers; 3] = [Comers::new(1), Comers::new(2), Comers::new(8)];
        for num_pieces in [2, 3, 100] {
            let once = vec![1; num_pieces];
            for crew in [Crew::alone(), Crew::new(2).expect("a thread"), Crew::new(8).expect("threads")] {
                assert_eq!(done(&crew, num_pieces, 100 * WORTH), once);
            }
            for team in &TEAMS {
                assert_eq!(done(&Crew::of(team, 8), num_pieces, 100 * WORTH), once, "{team:?}");
            }
        }
        assert!(TEAMS.iter().all(|team| team.calls.load(Ordering::Relaxed) == 3));
    }

    #[test]
    fn nobody_is_called_for_little() {
        static TEAM: Comers = Comers::new(8);
        for (crew, num_pieces, numel) in [
            (Crew::of(&TEAM, 8), 1, 100 * WORTH),
            (Crew::of(&TEAM, 8), 50, WORTH),
            (Crew::of(&TEAM, 1), 50, 100 * WORTH),
        ] {
            assert_eq!(done(&crew, num_pieces, numel), vec![1; num_pieces]);
        }
        assert_eq!(TEAM.calls.load(Ordering::Relaxed), 0);
    }
}
