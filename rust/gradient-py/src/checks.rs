//! `fsck` and `repair`, on a folder that need not open.

use std::path::Path;
use std::sync::Arc;

use gradient_repo::{FsckLevel, FsckOptions, RepoError};
use gradient_storage::{LocalStorage, Storage};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::invalid;
use crate::job::{check_callback, run};
use crate::repository::FOLDER;

/// One thing that a check found.
#[pyclass(frozen, get_all, module = "gradient._core")]
pub struct Finding {
    severity: &'static str,
    file: String,
    offset: Option<u64>,
    object: Option<String>,
    what: String,
}

impl From<&gradient_repo::Finding> for Finding {
    fn from(finding: &gradient_repo::Finding) -> Self {
        Self {
            severity: finding.severity.name(),
            file: finding.file.clone(),
            offset: finding.offset,
            object: finding.object.clone(),
            what: finding.what.clone(),
        }
    }
}

#[pymethods]
impl Finding {
    fn __repr__(&self) -> String {
        format!("Finding({}, {}: {})", self.severity, self.file, self.what)
    }
}

/// What a check looked at and found.
#[pyclass(frozen, module = "gradient._core")]
pub struct FsckReport {
    report: gradient_repo::FsckReport,
}

#[pymethods]
impl FsckReport {
    #[getter]
    fn clean(&self) -> bool {
        self.report.is_clean()
    }

    #[getter]
    fn findings(&self) -> Vec<Finding> {
        self.report.findings.iter().map(Finding::from).collect()
    }

    #[getter]
    fn lost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let lost = PyDict::new(py);
        for (id, reason) in &self.report.lost {
            lost.set_item(id.to_hex(), reason)?;
        }
        Ok(lost)
    }

    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for (name, count) in [
            ("operations", self.report.num_operations),
            ("packs", self.report.num_packs),
            ("packs_read_in_full", self.report.num_packs_full),
            ("commits", self.report.num_commits),
            ("trees", self.report.num_trees),
            ("chunks", self.report.num_chunks),
            ("raw_bytes", self.report.raw_len),
            ("orphans", self.report.num_orphans),
        ] {
            counts.set_item(name, count)?;
        }
        Ok(counts)
    }

    fn __repr__(&self) -> String {
        format!("FsckReport({} findings, {} commits lost)", self.report.findings.len(), self.report.lost.len())
    }
}

/// What a repair does, or would do.
#[pyclass(frozen, module = "gradient._core")]
pub struct RepairReport {
    repair: gradient_repo::Repair,
}

#[pymethods]
impl RepairReport {
    #[getter]
    fn moves(&self) -> Vec<(String, String, Option<String>)> {
        self.repair.moves.iter().map(|step| (step.file.clone(), step.why.clone(), step.to.clone())).collect()
    }

    #[getter]
    fn rescued(&self) -> Vec<(String, String)> {
        self.repair.rescued.iter().map(|(branch, id)| (branch.clone(), id.to_hex())).collect()
    }

    #[getter]
    fn publishes(&self) -> bool {
        self.repair.publishes
    }

    #[getter]
    fn unnamed(&self) -> Vec<String> {
        self.repair.unnamed.iter().map(gradient_object::CommitId::to_hex).collect()
    }

    #[getter]
    fn left(&self) -> Vec<Finding> {
        self.repair.left.iter().map(Finding::from).collect()
    }

    #[getter]
    fn log(&self) -> Option<String> {
        self.repair.log.clone()
    }
}

/// Checks the repository in a folder; changes nothing.
#[pyfunction]
#[pyo3(signature = (path, *, level="metadata", sample_percent=0.0, progress=None))]
pub(crate) fn fsck(
    py: Python<'_>,
    path: &str,
    level: &str,
    sample_percent: f64,
    progress: Option<Py<PyAny>>,
) -> PyResult<FsckReport> {
    check_callback(py, progress.as_ref())?;
    let level = match level {
        "quick" => FsckLevel::Quick,
        "metadata" => FsckLevel::Metadata,
        "full" => FsckLevel::Full,
        other => return Err(invalid(py, "bad-option", &format!("{other:?} is no level of a check"))),
    };
    if !(0.0..=100.0).contains(&sample_percent) {
        return Err(invalid(py, "bad-option", &format!("{sample_percent} is no percentage from 0 to 100")));
    }
    let options = FsckOptions { level, sample_percent };
    let report =
        run(py, progress.as_ref(), 0, || false, |progress| gradient_repo::fsck(&storage(path)?, options, progress))?;
    Ok(FsckReport { report })
}

/// Plans a repair of the repository in a folder, and carries it out if `apply`.
#[pyfunction]
#[pyo3(signature = (path, *, apply=false, progress=None))]
pub(crate) fn repair(py: Python<'_>, path: &str, apply: bool, progress: Option<Py<PyAny>>) -> PyResult<RepairReport> {
    check_callback(py, progress.as_ref())?;
    let repair =
        run(py, progress.as_ref(), 0, || false, |progress| gradient_repo::repair(&storage(path)?, apply, progress))?;
    Ok(RepairReport { repair })
}

fn storage(path: &str) -> Result<Arc<dyn Storage>, RepoError> {
    match LocalStorage::open(&Path::new(path).join(FOLDER)) {
        Err(error) if error.is_not_found() => Err(RepoError::NotARepository { location: path.to_owned() }),
        other => Ok(Arc::new(other?)),
    }
}
