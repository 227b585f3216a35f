//! The threads of the OpenMP runtime that torch computes with.
//!
//! After each parallel region they look for the next one for some milliseconds before they sleep, on their processors. A
//! step after a backward pass would share those with them if it had threads of its own: it took up to 1.7 times as long.
//! Whoever is compiled by GCC calls `GOMP_parallel`, and runtimes of others have it too.
//!
//! A child of `fork` does not have the threads that its parent had, and the runtime of GCC does not notice. There, and
//! where there is no such runtime, steps have threads of their own.
#![expect(unsafe_code, reason = "a C function, found by its name")]

use std::any::Any;
use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use gradient_optim::Team;

/// `GOMP_parallel(region, data, num_threads, flags)` calls `region(data)` on each thread of a team, and waits for all.
type Parallel = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// The runtime of this process.
#[derive(Debug)]
pub(crate) struct OpenMp {
    parallel: Parallel,
}

/// Whether this process began with `fork` since a runtime was found. (Its number may be the parent's, in a namespace of
/// its own.)
static IS_CHILD: AtomicBool = AtomicBool::new(false);

impl OpenMp {
    /// Returns it, if this process has one that can be used.
    pub(crate) fn here() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<OpenMp>> = OnceLock::new();
        FOUND.get_or_init(Self::find).as_ref().filter(|_| !IS_CHILD.load(Ordering::Relaxed))
    }

    #[cfg(target_os = "linux")]
    fn find() -> Option<Self> {
        extern "C" fn began() {
            IS_CHILD.store(true, Ordering::Relaxed);
        }

        if is_forked() != Some(false) {
            return None;
        }
        // SAFETY: what is called in a child does nothing but write a word.
        if unsafe { libc::pthread_atfork(None, None, Some(began)) } != 0 {
            return None;
        }
        // SAFETY: the name ends with a zero; loaders may be asked at any time.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
        // SAFETY: of this name there is a function of this type, in every runtime: compiled code depends on it.
        (!symbol.is_null()).then(|| Self { parallel: unsafe { std::mem::transmute::<*mut c_void, Parallel>(symbol) } })
    }

    #[cfg(not(target_os = "linux"))]
    fn find() -> Option<Self> {
        None
    }
}

impl Team for OpenMp {
    fn run(&self, num_threads: usize, share: &(dyn Fn() + Sync)) {
        let job = Job { share, panicked: Mutex::new(None) };
        let data = std::ptr::from_ref(&job).cast_mut().cast();
        // SAFETY: `take_part` reads a job, which may be shared and lives until all threads are done.
        unsafe { (self.parallel)(take_part, data, c_uint::try_from(num_threads).unwrap_or(c_uint::MAX), 0) };
        if let Some(payload) = job.panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}

/// What the threads of a team are given.
struct Job<'a> {
    share: &'a (dyn Fn() + Sync),
    /// The first panic: it must not unwind through a runtime that is not Rust's.
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Calls what is shared.
///
/// # Safety
/// `data` is a [`Job`] that lives meanwhile.
unsafe extern "C" fn take_part(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let job = unsafe { &*data.cast::<Job<'_>>() };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job.share)) {
        job.panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
    }
}

/// Says whether the process began with `fork` and nothing was executed since; none if the system does not tell.
#[cfg(target_os = "linux")]
fn is_forked() -> Option<bool> {
    /// `PF_FORKNOEXEC` of the kernel.
    const FORKED: u32 = 0x40;
    let stat = std::fs::read("/proc/self/stat").ok()?;
    // After the name, which may be any bytes: state, parent, group, session, terminal and its group, flags.
    let after_name = stat.rsplit(|byte| *byte == b')').next()?;
    let flags: u32 = std::str::from_utf8(after_name).ok()?.split_ascii_whitespace().nth(6)?.parse().ok()?;
    Some(flags & FORKED != 0)
}
