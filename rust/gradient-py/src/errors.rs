//! Failures of the repository to the exception classes of `gradient.errors`.

use gradient_repo::{ErrorClass, RepoError};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// An exception of `gradient.errors` by the name of its class.
pub(crate) fn raise(py: Python<'_>, class: &str, message: &str, facts: &Bound<'_, PyDict>) -> PyErr {
    let module = ERRORS.get_or_try_init(py, || PyModule::import(py, "gradient.errors").map(Bound::unbind));
    let made = module.and_then(|module| module.bind(py).getattr(class)?.call((message,), Some(facts)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// `InvalidInputError` with a code.
pub(crate) fn invalid(py: Python<'_>, code: &str, message: &str) -> PyErr {
    let facts = PyDict::new(py);
    match facts.set_item("code", code) {
        Ok(()) => raise(py, "InvalidInputError", message, &facts),
        Err(error) => error,
    }
}

/// The exception for a failure; `partial`: live memory was written before it.
pub(crate) fn to_python(py: Python<'_>, error: &RepoError, partial: bool) -> PyErr {
    build(py, error, partial).unwrap_or_else(|error| error)
}

fn build(py: Python<'_>, error: &RepoError, partial: bool) -> PyResult<PyErr> {
    let known = error.facts();
    let facts = PyDict::new(py);
    facts.set_item("code", error.code())?;
    facts.set_item("hint", error.hint())?;
    let class = match error.class() {
        ErrorClass::NotFound => "NotFoundError",
        ErrorClass::AlreadyExists => "AlreadyExistsError",
        ErrorClass::InvalidInput => "InvalidInputError",
        ErrorClass::Conflict => "ConflictError",
        ErrorClass::Corruption => {
            facts.set_item("object_id", known.object_id)?;
            facts.set_item("path", known.path)?;
            facts.set_item("partial", partial)?;
            "CorruptionError"
        }
        ErrorClass::Format => {
            facts.set_item("found", known.found)?;
            facts.set_item("supported", known.supported)?;
            "FormatError"
        }
        ErrorClass::Storage => {
            facts.set_item("errno", known.errno)?;
            facts.set_item("path", known.path)?;
            "StorageError"
        }
        ErrorClass::Cancelled => return Ok(PyKeyboardInterrupt::new_err(())),
        ErrorClass::Internal => "InternalError",
    };
    Ok(raise(py, class, &error.to_string(), &facts))
}

/// Turns results into Python's.
pub(crate) trait IntoPython<T> {
    /// The value, or the exception for the failure.
    fn into_python(self, py: Python<'_>) -> PyResult<T>;
}

impl<T, E: Into<RepoError>> IntoPython<T> for Result<T, E> {
    fn into_python(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| to_python(py, &error.into(), false))
    }
}
