//! `gradient._core`: the only door between Python and the object database.
//!
//! | part             | what it does                                                    |
//! |------------------|-----------------------------------------------------------------|
//! | `values.rs`      | Python objects to values and back                               |
//! | `tensors.rs`     | `TensorLeaf`, `StoredTensor`, `Alias`, `Named`                  |
//! | `buffer.rs`      | Python's memory as sources, sinks, slices; unsafe               |
//! | `repository.rs`  | `Repository`                                                    |
//! | `records.rs`     | `CommitInfo`, `CommitResult`, `Resolved`, `Operation`           |
//! | `checks.rs`      | `fsck`, `repair`                                                |
//! | `optim.rs`       | steps of optimizers on coded state                              |
//! | `openmp.rs`      | the threads that torch keeps; unsafe, and nothing else is       |
//! | `job.rs`         | long work, away from the interpreter, stopped by Ctrl-C         |
//! | `errors.rs`      | failures to the classes of `gradient.errors`                    |
//!
//! It translates and decides nothing. `python/gradient/_core.pyi` is the contract.
#![deny(unsafe_code)]
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod buffer;
mod checks;
mod errors;
mod job;
mod openmp;
mod optim;
mod records;
mod repository;
mod tensors;
mod values;

use pyo3::prelude::*;

/// The module.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::checks::{Finding, FsckReport, RepairReport, fsck, repair};
    #[pymodule_export]
    use super::optim::{Moments, cpu_capabilities, decode_moment, encode_moment, step_adamw, step_lion, step_sgd};
    #[pymodule_export]
    use super::records::{CommitInfo, CommitResult, Operation, Resolved};
    #[pymodule_export]
    use super::repository::{Repository, check_name};
    #[pymodule_export]
    use super::tensors::{Alias, Named, StoredTensor, TensorLeaf};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
        module.add("CHUNK_BYTES", gradient_object::CHUNK_BYTES)
    }
}
