//! Tensors and marked values on their way in and out.

use std::sync::Arc;

use gradient_object::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::errors::IntoPython;
use crate::job;

/// A tensor or array on its way into a commit.
#[pyclass(frozen, module = "gradient._core")]
pub struct TensorLeaf {
    #[pyo3(get)]
    dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) order: Option<Vec<u32>>,
    #[pyo3(get)]
    numpy: bool,
    pub(crate) data: Py<PyAny>,
}

#[pymethods]
impl TensorLeaf {
    #[new]
    #[pyo3(signature = (dtype, shape, data, *, order=None, numpy=false))]
    fn new(dtype: String, shape: Vec<u64>, data: Py<PyAny>, order: Option<Vec<u32>>, numpy: bool) -> Self {
        Self { dtype, shape, order, numpy, data }
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    #[getter]
    fn order<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.order.as_ref().map(|order| PyTuple::new(py, order)).transpose()
    }

    fn __repr__(&self) -> String {
        format!("TensorLeaf({}, {:?})", self.dtype, self.shape)
    }
}

impl TensorLeaf {
    pub(crate) fn dtype_name(&self) -> &str {
        &self.dtype
    }

    pub(crate) fn is_numpy(&self) -> bool {
        self.numpy
    }
}

/// This tensor is the one at `path` of the same component.
#[pyclass(frozen, module = "gradient._core")]
pub struct Alias {
    pub(crate) path: Py<PyTuple>,
}

#[pymethods]
impl Alias {
    #[new]
    fn new(py: Python<'_>, path: Vec<Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self { path: PyTuple::new(py, path)?.unbind() })
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.path.bind(py).clone()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Alias({})", self.path.bind(py).repr()?))
    }
}

/// A value of the closed table of names.
#[pyclass(frozen, module = "gradient._core")]
pub struct Named {
    #[pyo3(get)]
    pub(crate) name: String,
    #[pyo3(get)]
    pub(crate) value: Py<PyAny>,
    #[pyo3(get)]
    pub(crate) extra: Py<PyAny>,
}

#[pymethods]
impl Named {
    #[new]
    #[pyo3(signature = (name, value, extra=None))]
    fn new(py: Python<'_>, name: String, value: Py<PyAny>, extra: Option<Py<PyAny>>) -> Self {
        Self { name, value, extra: extra.unwrap_or_else(|| py.None()) }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Named({:?}, {}, {})", self.name, self.value.bind(py).repr()?, self.extra.bind(py).repr()?))
    }
}

/// A tensor of a commit: described at once, read when asked, verified always.
#[pyclass(frozen, module = "gradient._core")]
pub struct StoredTensor {
    pub(crate) tensor: Tensor,
    pub(crate) repository: Arc<gradient_repo::Repository>,
}

#[pymethods]
impl StoredTensor {
    #[getter]
    fn dtype(&self) -> &str {
        &self.tensor.dtype
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.tensor.shape)
    }

    #[getter]
    fn order<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.tensor.order.as_ref().map(|order| PyTuple::new(py, order)).transpose()
    }

    #[getter]
    fn numpy(&self) -> bool {
        matches!(self.tensor.flavor, gradient_object::Flavor::Numpy)
    }

    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.tensor.raw_len().into_python(py)
    }

    #[getter]
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        gradient_repo::tensor_digest(&self.tensor).into_python(py)
    }

    /// The elements in row-major order, little-endian.
    fn bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let total = self.tensor.raw_len().into_python(py)?;
        self.repository.check_process().into_python(py)?;
        let bytes =
            job::run(py, None, total, || false, |_| Ok(self.repository.odb().read_tensor_bytes(&self.tensor)?))?;
        // Where memory is short this is a MemoryError, where `PyBytes::new` panics.
        PyBytes::new_with(py, bytes.len(), |buffer| {
            buffer.copy_from_slice(&bytes);
            Ok(())
        })
    }

    fn __repr__(&self) -> String {
        format!("StoredTensor({}, {:?})", self.tensor.dtype, self.tensor.shape)
    }
}

impl StoredTensor {
    pub(crate) fn into_value(tensor: &Tensor, repository: &Arc<gradient_repo::Repository>) -> Self {
        Self { tensor: tensor.clone(), repository: repository.clone() }
    }
}
