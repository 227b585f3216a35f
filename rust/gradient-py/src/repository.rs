//! `Repository`: the calls of `_core.pyi`, translated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gradient_object::{CommitId, Metric};
use gradient_repo::{
    ByteSink, ByteSource, Checkout, Coding, CommitRequest, Compression, Deltas, LogFormat, LogQuery, LogStyle, Storing,
    Target,
};
use gradient_storage::LocalStorage;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};

use crate::buffer::Sink;
use crate::errors::{IntoPython, invalid, to_python};
use crate::job::{check_callback, run};
use crate::records::{CommitInfo, CommitResult, Operation, Resolved, head};
use crate::tensors::StoredTensor;
use crate::values::{Sources, from_mapping, to_mapping};

pub(crate) const FOLDER: &str = ".gradient-repo";
/// Levels of nesting below a component, so that the whole stays under the format's limit.
const DEPTH_MAX: usize = gradient_object::NESTING_MAX - 8;

/// A repository's folder. Safe to use from several threads; not after a fork.
#[pyclass(frozen, module = "gradient._core")]
pub struct Repository {
    inner: Arc<gradient_repo::Repository>,
}

#[pymethods]
impl Repository {
    #[staticmethod]
    #[pyo3(signature = (path, *, name, description=""))]
    fn init(py: Python<'_>, path: &str, name: &str, description: &str) -> PyResult<(Self, bool)> {
        let made = py.detach(|| {
            let storage = Arc::new(LocalStorage::create(&Path::new(path).join(FOLDER))?);
            gradient_repo::Repository::init(storage, name, description)
        });
        let (inner, created) = made.into_python(py)?;
        Ok((Self { inner: Arc::new(inner) }, created))
    }

    #[staticmethod]
    fn open(py: Python<'_>, path: &str) -> PyResult<Self> {
        let opened = py.detach(|| {
            let folder = Path::new(path).join(FOLDER);
            let storage = match LocalStorage::open(&folder) {
                Err(error) if error.is_not_found() => {
                    return Err(gradient_repo::RepoError::NotARepository { location: path.to_owned() });
                }
                other => Arc::new(other?),
            };
            gradient_repo::Repository::open(storage)
        });
        Ok(Self { inner: Arc::new(opened.into_python(py)?) })
    }

    #[getter]
    fn id(&self) -> String {
        self.inner.id_hex()
    }

    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let config = self.inner.config();
        let dict = PyDict::new(py);
        dict.set_item("name", &config.name)?;
        dict.set_item("description", &config.description)?;
        dict.set_item("created_at", &config.created_at)?;
        Ok(dict)
    }

    #[getter]
    fn notices(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let inner = self.inner(py)?;
        inner.notices().into_python(py)
    }

    fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.refresh()).into_python(py)
    }

    #[expect(clippy::too_many_arguments, reason = "the signature is Python's, all by keyword")]
    #[pyo3(signature = (branch, state, *, base, first, step, message="", metrics=None, environment=None, create=false, compression="auto", deltas="auto", staging_bytes_max=None, reanchor_interval=None, progress=None))]
    fn commit(
        &self,
        py: Python<'_>,
        branch: &str,
        state: &Bound<'_, PyDict>,
        base: Option<&str>,
        first: bool,
        step: u64,
        message: &str,
        metrics: Option<&Bound<'_, PyDict>>,
        environment: Option<&Bound<'_, PyDict>>,
        create: bool,
        compression: &str,
        deltas: &str,
        staging_bytes_max: Option<u64>,
        reanchor_interval: Option<u32>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<CommitResult> {
        let inner = self.inner(py)?;
        check_callback(py, progress.as_ref())?;
        let mut sources = Sources::default();
        let mut sections = BTreeMap::new();
        for (section, components) in state {
            let mut roots = BTreeMap::new();
            for (name, component) in components.cast::<PyDict>()? {
                let mapping = to_mapping(component.cast::<PyDict>()?, &mut sources, DEPTH_MAX)?;
                roots.insert(name.extract()?, gradient_object::Value::Map(mapping));
            }
            sections.insert(section.extract()?, roots);
        }
        let mut request = CommitRequest {
            branch: branch.to_owned(),
            base: base.map(|id| commit_id(py, id)).transpose()?,
            first,
            create,
            step,
            message: message.to_owned(),
            metrics: metrics.map(read_metrics).transpose()?.unwrap_or_default(),
            environment: plain_mapping(py, environment)?,
            sections,
            sources: sources.0.iter().map(|source| source as &dyn ByteSource).collect(),
            storing: Storing { coding: coding(py, compression, deltas)?, resident_max: u64::MAX, reanchor_interval },
        };
        let total: u64 = request.sources.iter().map(|source| source.len() as u64).sum();
        request.storing.resident_max = staging_bytes_max.unwrap_or(u64::MAX).min(2 * total);
        let outcome = run(py, progress.as_ref(), total, || false, |progress| inner.commit(&request, progress))?;
        Ok(outcome.into())
    }

    #[pyo3(signature = (r#ref, *, branch=None))]
    fn resolve(&self, py: Python<'_>, r#ref: &str, branch: Option<&str>) -> PyResult<Resolved> {
        let inner = self.inner(py)?;
        Ok(py.detach(|| inner.resolve(r#ref, branch)).into_python(py)?.into())
    }

    fn commit_info(&self, py: Python<'_>, id: &str) -> PyResult<CommitInfo> {
        let inner = self.inner(py)?;
        let id = commit_id(py, id)?;
        Ok(py.detach(|| inner.log_row(&id)).into_python(py)?.into())
    }

    fn environment<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.inner(py)?;
        let id = commit_id(py, id)?;
        from_mapping(py, &py.detach(|| inner.environment(&id)).into_python(py)?, inner)
    }

    fn components(&self, py: Python<'_>, id: &str) -> PyResult<BTreeMap<String, Vec<String>>> {
        let inner = self.inner(py)?;
        let id = commit_id(py, id)?;
        let sections = py.detach(|| inner.components(&id)).into_python(py)?;
        Ok(sections.into_iter().map(|(section, components)| (section, components.into_keys().collect())).collect())
    }

    fn component<'py>(&self, py: Python<'py>, id: &str, section: &str, name: &str) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.inner(py)?;
        let id = commit_id(py, id)?;
        let mapping = py.detach(|| inner.component(&id, section, name)).into_python(py)?;
        from_mapping(py, &mapping, inner)
    }

    fn component_root(&self, py: Python<'_>, id: &str, section: &str, name: &str) -> PyResult<String> {
        let inner = self.inner(py)?;
        let id = commit_id(py, id)?;
        Ok(py.detach(|| inner.component_root(&id, section, name)).into_python(py)?.to_hex())
    }

    #[pyo3(signature = (jobs, *, progress=None))]
    fn read_into(
        &self,
        py: Python<'_>,
        jobs: Vec<(Bound<'_, StoredTensor>, Bound<'_, PyAny>)>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let inner = self.inner(py)?;
        check_callback(py, progress.as_ref())?;
        let touched = AtomicBool::new(false);
        let sinks = jobs.iter().map(|(_, buffer)| Sink::new(buffer, &touched)).collect::<PyResult<Vec<_>>>()?;
        let tensors: Vec<_> = jobs.iter().map(|(tensor, _)| &tensor.get().tensor).collect();
        let pairs: Vec<_> = tensors.into_iter().zip(sinks.iter().map(|sink| sink as &dyn ByteSink)).collect();
        let total = sinks.iter().map(|sink| sink.len() as u64).sum();
        let partial = || touched.load(Ordering::Relaxed);
        run(py, progress.as_ref(), total, partial, |progress| Ok(inner.odb().read_tensors(&pairs, progress)?))
    }

    #[pyo3(signature = (id, *, progress=None))]
    fn verify(&self, py: Python<'_>, id: &str, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let inner = self.inner(py)?;
        check_callback(py, progress.as_ref())?;
        let id = commit_id(py, id)?;
        run(py, progress.as_ref(), 0, || false, |progress| inner.verify(&id, progress))
    }

    fn head(&self, py: Python<'_>) -> PyResult<(&'static str, String)> {
        let inner = self.inner(py)?;
        Ok(head(&inner.refs().into_python(py)?.1))
    }

    fn branches(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        self.targets(py, |target| matches!(target, Target::Branch(_)))
    }

    fn tags(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        self.targets(py, |target| matches!(target, Target::Tag(_)))
    }

    fn is_ancestor(&self, py: Python<'_>, ancestor: &str, descendant: &str) -> PyResult<bool> {
        let inner = self.inner(py)?;
        let (ancestor, descendant) = (commit_id(py, ancestor)?, commit_id(py, descendant)?);
        py.detach(|| inner.is_ancestor(&ancestor, &descendant)).into_python(py)
    }

    #[pyo3(signature = (start, *, exclude=Vec::new(), limit=None, first_parent=false))]
    fn log(
        &self,
        py: Python<'_>,
        start: Vec<String>,
        exclude: Vec<String>,
        limit: Option<usize>,
        first_parent: bool,
    ) -> PyResult<Vec<CommitInfo>> {
        let inner = self.inner(py)?;
        let query = query(py, &start, &exclude, limit, first_parent)?;
        let rows = py.detach(|| inner.history(&query)).into_python(py)?;
        Ok(rows.into_iter().map(CommitInfo::from).collect())
    }

    #[pyo3(signature = (start, *, exclude=Vec::new(), limit=None, first_parent=false))]
    fn readable_log(
        &self,
        py: Python<'_>,
        start: Vec<String>,
        exclude: Vec<String>,
        limit: Option<usize>,
        first_parent: bool,
    ) -> PyResult<(Vec<CommitInfo>, BTreeMap<String, String>)> {
        let inner = self.inner(py)?;
        let query = query(py, &start, &exclude, limit, first_parent)?;
        let (rows, unreadable) = py.detach(|| inner.readable_history(&query)).into_python(py)?;
        Ok((rows.into_iter().map(CommitInfo::from).collect(), reasons(unreadable)))
    }

    #[expect(clippy::too_many_arguments, reason = "the signature is Python's, all by keyword")]
    #[pyo3(signature = (start, *, exclude=Vec::new(), limit=None, style="full", graph=false, color=false, now_ns=None, width=None))]
    fn render_log(
        &self,
        py: Python<'_>,
        start: Vec<String>,
        exclude: Vec<String>,
        limit: Option<usize>,
        style: &str,
        graph: bool,
        color: bool,
        now_ns: Option<i64>,
        width: Option<usize>,
    ) -> PyResult<(String, BTreeMap<String, String>)> {
        let inner = self.inner(py)?;
        let style = match style {
            "full" => LogStyle::Full,
            "oneline" => LogStyle::Oneline,
            "json" => LogStyle::Json,
            other => return Err(invalid(py, "invalid-input", &format!("{other:?} is no style of log"))),
        };
        let query = query(py, &start, &exclude, limit, false)?;
        let format = LogFormat { style, graph, color, now_ns, width };
        let text = py.detach(|| {
            let (rows, unreadable) = inner.readable_history(&query)?;
            let (table, head) = inner.refs()?;
            let branches = inner.branches_of(&rows, &table)?;
            let text = gradient_repo::render(&rows, &branches, &unreadable, &table, &head, format);
            Ok::<_, gradient_repo::RepoError>((text, reasons(unreadable)))
        });
        text.into_python(py)
    }

    #[pyo3(signature = (name, at, *, why=""))]
    fn create_branch(&self, py: Python<'_>, name: &str, at: &str, why: &str) -> PyResult<()> {
        let inner = self.inner(py)?;
        let at = commit_id(py, at)?;
        py.detach(|| inner.create_branch(name, at, why)).into_python(py)
    }

    #[pyo3(signature = (name, *, why=""))]
    fn delete_branch(&self, py: Python<'_>, name: &str, why: &str) -> PyResult<String> {
        let inner = self.inner(py)?;
        Ok(py.detach(|| inner.delete_branch(name, why)).into_python(py)?.to_hex())
    }

    fn rename_branch(&self, py: Python<'_>, old: &str, new: &str) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.rename_branch(old, new)).into_python(py)
    }

    fn create_tag(&self, py: Python<'_>, name: &str, at: &str) -> PyResult<()> {
        let inner = self.inner(py)?;
        let at = commit_id(py, at)?;
        py.detach(|| inner.create_tag(name, at)).into_python(py)
    }

    fn delete_tag(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let inner = self.inner(py)?;
        Ok(py.detach(|| inner.delete_tag(name)).into_python(py)?.to_hex())
    }

    #[pyo3(signature = (*, branch=None, commit=None, create=false, create_at=None))]
    fn checkout(
        &self,
        py: Python<'_>,
        branch: Option<String>,
        commit: Option<&str>,
        create: bool,
        create_at: Option<&str>,
    ) -> PyResult<()> {
        let inner = self.inner(py)?;
        let to = match (branch, commit, create || create_at.is_some(), create_at) {
            (Some(name), None, false, None) => Checkout::Branch(name),
            (Some(name), None, true, None) => Checkout::Unborn(name),
            (Some(name), None, true, Some(at)) => Checkout::New(name, commit_id(py, at)?),
            (None, Some(id), false, None) => Checkout::Commit(commit_id(py, id)?),
            _ => return Err(invalid(py, "invalid-input", "checkout wants a branch, a new branch, or a commit")),
        };
        py.detach(|| inner.checkout(&to)).into_python(py)
    }

    #[pyo3(signature = (*, limit=None))]
    fn operations(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<Vec<Operation>> {
        let inner = self.inner(py)?;
        let rows = py.detach(|| inner.operations(limit)).into_python(py)?;
        Ok(rows.into_iter().map(Operation::from).collect())
    }

    #[pyo3(signature = (*, limit=None))]
    fn readable_operations(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<(Vec<Operation>, Option<PyErr>)> {
        let inner = self.inner(py)?;
        let (rows, damage) = py.detach(|| inner.readable_operations(limit)).into_python(py)?;
        let damage = damage.map(|error| to_python(py, &error, false));
        Ok((rows.into_iter().map(Operation::from).collect(), damage))
    }

    fn undo(&self, py: Python<'_>) -> PyResult<Operation> {
        let inner = self.inner(py)?;
        Ok(py.detach(|| inner.undo()).into_python(py)?.into())
    }

    fn redo(&self, py: Python<'_>) -> PyResult<Operation> {
        let inner = self.inner(py)?;
        Ok(py.detach(|| inner.redo()).into_python(py)?.into())
    }

    #[getter]
    fn last_commit(&self, py: Python<'_>) -> PyResult<Option<CommitResult>> {
        let inner = self.inner(py)?;
        Ok(py.detach(|| inner.last_commit()).into_python(py)?.map(CommitResult::from))
    }

    fn maintain(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        run(py, None, 0, || false, |_| inner.maintain())
    }

    fn disk_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        let inner = self.inner(py)?;
        py.detach(|| inner.disk_bytes()).into_python(py)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.close()).into_python(py)
    }
}

impl Repository {
    /// The repository, unless this process was forked from the one that opened it.
    fn inner(&self, py: Python<'_>) -> PyResult<&Arc<gradient_repo::Repository>> {
        self.inner.check_process().into_python(py)?;
        Ok(&self.inner)
    }

    fn targets(&self, py: Python<'_>, wanted: fn(&Target) -> bool) -> PyResult<BTreeMap<String, String>> {
        let inner = self.inner(py)?;
        let (table, _) = inner.refs().into_python(py)?;
        let rows = table.into_iter().filter(|(_, target)| wanted(target));
        Ok(rows.map(|(name, target)| (name, target.commit().to_hex())).collect())
    }
}

/// Raise `InvalidInputError` if `name` can not name a branch, tag or component.
#[pyfunction]
#[pyo3(signature = (name, what="branch"))]
pub(crate) fn check_name(py: Python<'_>, name: &str, what: &str) -> PyResult<()> {
    gradient_repo::check_name(name, what).into_python(py)
}

fn commit_id(py: Python<'_>, hex: &str) -> PyResult<CommitId> {
    CommitId::from_hex(hex).ok_or_else(|| invalid(py, "invalid-id", &format!("{hex:?} is no full commit id")))
}

fn query(
    py: Python<'_>,
    start: &[String],
    exclude: &[String],
    limit: Option<usize>,
    first_parent: bool,
) -> PyResult<LogQuery> {
    let ids = |all: &[String]| all.iter().map(|id| commit_id(py, id)).collect::<PyResult<Vec<_>>>();
    Ok(LogQuery { start: ids(start)?, exclude: ids(exclude)?, limit, first_parent })
}

/// Commits that can not be read, and why.
fn reasons(unreadable: Vec<gradient_repo::Unreadable>) -> BTreeMap<String, String> {
    unreadable.into_iter().map(|hole| (hole.id.to_hex(), hole.why)).collect()
}

fn coding(py: Python<'_>, compression: &str, deltas: &str) -> PyResult<Coding> {
    let deltas = match deltas {
        "off" => Deltas::Off,
        "auto" => Deltas::Auto,
        "all" => Deltas::All,
        other => {
            let message = format!("deltas is \"off\", \"auto\" or \"all\", not {other:?}");
            return Err(invalid(py, "bad-option", &message));
        }
    };
    match compression {
        "off" => Ok(Coding { compression: Compression::Off, deltas: Deltas::Off }),
        "auto" => Ok(Coding { compression: Compression::Auto, deltas }),
        other => {
            let message = format!("compression is \"off\" or \"auto\", not {other:?}");
            Err(invalid(py, "bad-option", &message))
        }
    }
}

fn read_metrics(metrics: &Bound<'_, PyDict>) -> PyResult<Vec<(String, Metric)>> {
    let mut rows = Vec::new();
    for (name, value) in metrics {
        let whole = value.is_instance_of::<PyInt>().then(|| value.extract::<i64>().ok()).flatten();
        let metric = match whole {
            Some(value) => Metric::Int(value),
            None if value.is_instance_of::<PyInt>() => {
                return Err(invalid(metrics.py(), "bad-metric", &format!("metric {name} does not fit 64 bits")));
            }
            None => Metric::Float(value.extract()?),
        };
        rows.push((name.extract()?, metric));
    }
    Ok(rows)
}

// The environment holds no tensors: their data would have nowhere to go.
fn plain_mapping(py: Python<'_>, dict: Option<&Bound<'_, PyDict>>) -> PyResult<gradient_object::Mapping> {
    let Some(dict) = dict else { return Ok(gradient_object::Mapping::new()) };
    let mut sources = Sources::default();
    let mapping = to_mapping(dict, &mut sources, DEPTH_MAX)?;
    mapping.map_data(&mut |_, _| Err(invalid(py, "invalid-input", "the environment holds a tensor")))
}
