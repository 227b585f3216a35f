//! What the repository answers with: commits, results, resolved refs, operations.

use gradient_object::{Commit, CommitKind, Metric};
use gradient_repo::{CommitOutcome, Head, LogRow, OperationRow};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// One commit, as the log shows it.
#[pyclass(frozen, module = "gradient._core")]
pub struct CommitInfo {
    #[pyo3(get)]
    id: String,
    #[pyo3(get)]
    root: String,
    #[pyo3(get)]
    added_bytes: u64,
    commit: Commit,
}

impl From<LogRow> for CommitInfo {
    fn from(row: LogRow) -> Self {
        Self { id: row.id.to_hex(), root: row.commit.tree.to_hex(), added_bytes: row.added_len, commit: row.commit }
    }
}

#[pymethods]
impl CommitInfo {
    #[getter]
    fn parents<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.commit.parents.iter().map(gradient_object::CommitId::to_hex))
    }

    #[getter]
    fn branch(&self) -> &str {
        &self.commit.branch
    }

    #[getter]
    fn step(&self) -> u64 {
        self.commit.step
    }

    #[getter]
    fn message(&self) -> &str {
        &self.commit.message
    }

    #[getter]
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = PyDict::new(py);
        for (name, metric) in &self.commit.metrics {
            match metric {
                Metric::Int(value) => metrics.set_item(name, value)?,
                Metric::Float(value) => metrics.set_item(name, value)?,
            }
        }
        Ok(metrics)
    }

    #[getter]
    fn time_ns(&self) -> i64 {
        self.commit.time_ns
    }

    #[getter]
    fn kind(&self) -> &'static str {
        kind(self.commit.kind)
    }

    #[getter]
    fn mode(&self) -> &str {
        &self.commit.mode
    }

    fn __repr__(&self) -> String {
        format!("CommitInfo({}, {}@{})", &self.id[..8], self.commit.branch, self.commit.step)
    }
}

fn kind(kind: CommitKind) -> &'static str {
    match kind {
        CommitKind::Anchor => "anchor",
        CommitKind::Delta => "delta",
    }
}

/// What a commit became.
#[pyclass(frozen, get_all, module = "gradient._core")]
pub(crate) struct CommitResult {
    id: String,
    root: String,
    branch: String,
    step: u64,
    kind: &'static str,
    existing: bool,
    displaced: Option<String>,
    conflict: bool,
    actual_tip: Option<String>,
    added_bytes: u64,
    raw_bytes: u64,
    notices: Vec<String>,
}

impl From<CommitOutcome> for CommitResult {
    fn from(outcome: CommitOutcome) -> Self {
        Self {
            id: outcome.commit.to_hex(),
            root: outcome.root.to_hex(),
            branch: outcome.branch,
            step: outcome.step,
            kind: kind(outcome.kind),
            existing: outcome.existing,
            displaced: outcome.displaced,
            conflict: outcome.conflict.is_some(),
            actual_tip: outcome.conflict.map(|tip| tip.to_hex()),
            added_bytes: outcome.added_len,
            raw_bytes: outcome.raw_len,
            notices: outcome.notices,
        }
    }
}

/// What a ref means.
#[pyclass(frozen, get_all, module = "gradient._core")]
pub(crate) struct Resolved {
    id: String,
    step: u64,
    branch: Option<String>,
    name: String,
    notices: Vec<String>,
}

impl From<gradient_repo::Resolved> for Resolved {
    fn from(resolved: gradient_repo::Resolved) -> Self {
        let branch = resolved.branch.as_ref().unwrap_or(&resolved.made_on);
        let name = format!("{branch}@{}", resolved.step);
        Self {
            id: resolved.commit.to_hex(),
            step: resolved.step,
            branch: resolved.branch,
            name,
            notices: resolved.notices,
        }
    }
}

/// One published change.
#[pyclass(frozen, module = "gradient._core")]
pub struct Operation {
    row: OperationRow,
}

impl From<OperationRow> for Operation {
    fn from(row: OperationRow) -> Self {
        Self { row }
    }
}

#[pymethods]
impl Operation {
    #[getter]
    fn number(&self) -> u64 {
        self.row.operation.n
    }

    #[getter]
    fn id(&self) -> String {
        self.row.id.to_hex()
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.row.operation.kind.name()
    }

    #[getter]
    fn why(&self) -> &str {
        &self.row.operation.why
    }

    #[getter]
    fn time_ns(&self) -> i64 {
        self.row.operation.time_ns
    }

    #[getter]
    fn by<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let by = &self.row.operation.by;
        let dict = PyDict::new(py);
        dict.set_item("host", &by.host)?;
        dict.set_item("pid", by.pid)?;
        dict.set_item("user", &by.user)?;
        dict.set_item("version", &by.version)?;
        Ok(dict)
    }

    #[getter]
    fn changes(&self) -> Vec<(String, Option<String>, Option<String>)> {
        let hex = |id: &Option<gradient_object::CommitId>| id.map(|id| id.to_hex());
        self.row.changes.iter().map(|(name, before, after)| (name.clone(), hex(before), hex(after))).collect()
    }

    #[getter]
    fn head(&self) -> (&'static str, String) {
        head(&self.row.operation.head)
    }

    #[getter]
    fn undone(&self) -> bool {
        self.row.undone
    }
}

/// HEAD as a pair.
pub(crate) fn head(head: &Head) -> (&'static str, String) {
    match head {
        Head::Branch(name) => ("branch", name.clone()),
        Head::Commit(id) => ("commit", id.to_hex()),
    }
}
