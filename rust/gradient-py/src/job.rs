//! Long work: on a thread of its own, detached from the interpreter, with progress and Ctrl-C.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use gradient_repo::{Progress, RepoError};
use pyo3::prelude::*;

use crate::errors::{invalid, to_python};

const TICK: Duration = Duration::from_millis(100);

/// Runs `work`; calls `callback(done, total)` about ten times a second; a signal handler that raises stops the work.
/// With a `total` of 0 it is what the work says of itself.
///
/// # Errors
/// The failure of `work`; what the callback or a signal handler raised, once the work has stopped.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    callback: Option<&Py<PyAny>>,
    total: u64,
    partial: impl Fn() -> bool + Sync,
    work: impl FnOnce(&Progress) -> Result<T, RepoError> + Send,
) -> PyResult<T> {
    let progress = Progress::new();
    let (outcome, raised) = py.detach(|| {
        thread::scope(|scope| {
            let (done, wait) = sync_channel::<()>(1);
            let progress = &progress;
            let worker = scope.spawn(move || {
                let _done = done; // Dropped at the end, also by a panic: the receiver wakes.
                work(progress)
            });
            let mut raised = None;
            while matches!(wait.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
                if raised.is_none() {
                    let total = if total == 0 { progress.total() } else { total };
                    // The interpreter may have ended while this thread was detached: then nobody is left to be told.
                    raised = Python::try_attach(|py| tick(py, callback, progress.done(), total)).and_then(Result::err);
                    if raised.is_some() {
                        progress.cancel();
                    }
                }
            }
            (worker.join(), raised)
        })
    });
    match (outcome, raised) {
        (Ok(Ok(value)), None) => {
            if let Some(callback) = callback {
                callback.call1(py, (total, total))?;
            }
            Ok(value)
        }
        // The work was done before it could be stopped: the signal must still be heard.
        (_, Some(raised)) => Err(raised),
        (Ok(Err(error)), None) => Err(to_python(py, &error, partial())),
        (Err(panic), None) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let facts = pyo3::types::PyDict::new(py);
            Err(crate::errors::raise(py, "InternalError", &format!("a worker thread failed: {text}"), &facts))
        }
    }
}

fn tick(py: Python<'_>, callback: Option<&Py<PyAny>>, done: u64, total: u64) -> PyResult<()> {
    py.check_signals()?;
    match callback {
        Some(callback) => callback.call1(py, (done, total)).map(drop),
        None => Ok(()),
    }
}

/// Refuses a callback that can not be called.
pub(crate) fn check_callback(py: Python<'_>, callback: Option<&Py<PyAny>>) -> PyResult<()> {
    match callback {
        Some(callback) if !callback.bind(py).is_callable() => {
            Err(invalid(py, "invalid-input", "progress is not callable"))
        }
        _ => Ok(()),
    }
}
