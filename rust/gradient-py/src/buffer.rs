//! Python's memory as byte sources and sinks, and as slices: the only unsafe code of this crate.
//!
//! A source is read once, chunk by chunk, into our own memory; a sink is written chunk by chunk. Both hold the buffer
//! (and so its exporter) until they are dropped, which happens with the interpreter attached. [`Regions`] are memory that
//! an optimizer's step works in; none that is written overlaps another.
#![expect(unsafe_code, reason = "Python's memory is reached through raw pointers")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use gradient_repo::{ByteSink, ByteSource};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{Borrowed, intern};

use crate::errors::raise;

/// A contiguous buffer of bytes, held.
struct Held {
    // Keeps `start` valid; released with the interpreter attached.
    _buffer: PyBuffer<u8>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is held, so `start..start + len` stays mapped for the life of `Held`; the bytes are only copied,
// through raw pointers, and no reference to them is ever made. Another thread of Python's that writes meanwhile may
// tear what is copied, as it may tear any reader; it can not make the copy leave the range.
unsafe impl Send for Held {}
// SAFETY: as above; `Held` has no interior state.
unsafe impl Sync for Held {}

impl Held {
    fn new(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not contiguous"));
        }
        if writable && buffer.readonly() {
            return Err(PyBufferError::new_err("the buffer is read-only"));
        }
        let len = buffer.len_bytes();
        let start = NonNull::new(buffer.buf_ptr().cast::<u8>()).unwrap_or(NonNull::dangling());
        Ok(Self { _buffer: buffer, start, len })
    }
}

/// Bytes on their way into a commit.
pub(crate) struct Source(Held);

impl Source {
    /// Holds the contiguous buffer of `object`.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Held::new(object, false).map(Self)
    }
}

impl ByteSource for Source {
    fn len(&self) -> usize {
        self.0.len
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        assert!(offset.checked_add(out.len()).is_some_and(|end| end <= self.0.len), "a copy stays in its buffer");
        let len = out.len();
        // SAFETY: the range was checked; `out` is ours and can not overlap memory that Python exports.
        unsafe { self.0.start.add(offset).copy_to_nonoverlapping(NonNull::from(out).cast(), len) }
    }
}

/// Memory that a tensor is restored into.
pub(crate) struct Sink<'a> {
    held: Held,
    touched: &'a AtomicBool,
}

impl<'a> Sink<'a> {
    /// Holds the contiguous, writable buffer of `object`; `touched` is set with the first byte written.
    pub(crate) fn new(object: &Bound<'_, PyAny>, touched: &'a AtomicBool) -> PyResult<Self> {
        Ok(Self { held: Held::new(object, true)?, touched })
    }
}

impl ByteSink for Sink<'_> {
    fn len(&self) -> usize {
        self.held.len
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset.checked_add(bytes.len()).is_some_and(|end| end <= self.held.len), "a write stays in its buffer");
        self.touched.store(true, Ordering::Relaxed);
        // SAFETY: the range was checked; callers write disjoint ranges, and `bytes` is ours.
        unsafe { self.held.start.add(offset).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) }
    }
}

/// A tensor that is stepped again and again: contiguous, in the memory of the processor.
///
/// It is asked each time where its elements are: torch moves them, to share them with another process for one.
pub(crate) struct Kept {
    tensor: Py<PyAny>,
    len: usize,
}

impl Kept {
    /// Holds a tensor.
    ///
    /// # Errors
    /// It is no torch tensor, or not contiguous in the memory of the processor.
    pub(crate) fn new(tensor: Bound<'_, PyAny>) -> PyResult<Self> {
        check_tensor(tensor.as_borrowed())?;
        let len = tensor.getattr(intern!(tensor.py(), "nbytes"))?.extract()?;
        Ok(Self { tensor: tensor.unbind(), len })
    }

    /// Returns how many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// Memory that a step reads or writes, one region after the other.
#[derive(Default)]
pub(crate) struct Regions<'py> {
    all: Vec<Region>,
    // What the regions are memory of.
    tensors: Vec<Bound<'py, PyAny>>,
}

#[derive(Clone, Copy)]
struct Region {
    start: NonNull<u8>,
    len: usize,
    is_written: bool,
}

/// A region as it is given away, once.
pub(crate) enum Slice<'s> {
    Read(&'s [u8]),
    Write(&'s mut [u8]),
}

static TENSOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn check_tensor(tensor: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
    let py = tensor.py();
    if !tensor.is_instance(TENSOR.import(py, "torch", "Tensor")?)? {
        return Err(PyTypeError::new_err(format!("{} is no tensor", tensor.get_type().name()?)));
    }
    let is_cpu: bool = tensor.getattr(intern!(py, "is_cpu"))?.extract()?;
    if !is_cpu || !tensor.call_method0(intern!(py, "is_contiguous"))?.extract::<bool>()? {
        return Err(PyValueError::new_err("a tensor is not contiguous in the memory of the processor"));
    }
    Ok(())
}

impl<'py> Regions<'py> {
    /// Adds the elements of a tensor that is kept, to be written.
    ///
    /// # Errors
    /// They are nowhere.
    pub(crate) fn push_kept(&mut self, py: Python<'py>, kept: &Kept) -> PyResult<()> {
        self.push(kept.tensor.bind(py).clone(), kept.len, true)
    }

    /// Adds the elements of a tensor.
    ///
    /// # Errors
    /// It is no torch tensor, or not contiguous in the memory of the processor.
    pub(crate) fn push_tensor(&mut self, tensor: Borrowed<'_, 'py, PyAny>, is_written: bool) -> PyResult<()> {
        check_tensor(tensor)?;
        let len = tensor.getattr(intern!(tensor.py(), "nbytes"))?.extract()?;
        self.push(tensor.to_owned(), len, is_written)
    }

    fn push(&mut self, tensor: Bound<'py, PyAny>, len: usize, is_written: bool) -> PyResult<()> {
        let start: usize = tensor.call_method0(intern!(tensor.py(), "data_ptr"))?.extract()?;
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut(start));
        if start.is_none() && len > 0 {
            return Err(PyValueError::new_err("the memory of a tensor was given up"));
        }
        self.all.push(Region { start: start.unwrap_or(NonNull::dangling()), len, is_written });
        self.tensors.push(tensor);
        Ok(())
    }

    /// Gives all regions as slices, in the order in which they were added.
    ///
    /// # Errors
    /// One that is written overlaps another.
    pub(crate) fn slices(&mut self, py: Python<'py>) -> PyResult<Vec<Slice<'_>>> {
        let mut by_start: Vec<_> = self.all.iter().filter(|region| region.len > 0).collect();
        by_start.sort_unstable_by_key(|region| region.start);
        // The furthest end so far of what is written, and of anything.
        let (mut written, mut any) = (0, 0);
        for region in by_start {
            let start = region.start.addr().get();
            let end = start.saturating_add(region.len);
            if start < written || (region.is_written && start < any) {
                let text = "two parameters, gradients or states share memory that is to be written";
                let facts = pyo3::types::PyDict::new(py);
                facts.set_item("hint", "give each memory of its own, or step them with the optimizer unwrapped")?;
                return Err(raise(py, "InvalidInputError", text, &facts));
            }
            any = any.max(end);
            written = if region.is_written { written.max(end) } else { written };
        }
        let slice = |region: &Region| {
            // SAFETY: the tensors are held by `self`, and torch says that so many bytes lie there; no region that is
            // written overlaps another, and each is given away once for each borrow of `self`.
            // Another thread of Python's that writes the same tensors meanwhile, or gives them other memory, breaks
            // torch's own steps as it breaks this one: `_core.pyi` forbids it.
            unsafe {
                if region.is_written {
                    Slice::Write(std::slice::from_raw_parts_mut(region.start.as_ptr(), region.len))
                } else {
                    Slice::Read(std::slice::from_raw_parts(region.start.as_ptr(), region.len))
                }
            }
        };
        Ok(self.all.iter().map(slice).collect())
    }
}
