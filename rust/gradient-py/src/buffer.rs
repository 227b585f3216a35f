//! Python's memory as byte sources and sinks: the only unsafe code of this crate.
//!
//! A source is read once, chunk by chunk, into our own memory; a sink is written chunk by chunk. Both hold the buffer
//! (and so its exporter) until they are dropped, which happens with the interpreter attached.
#![expect(unsafe_code, reason = "Python's memory is reached through raw pointers")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use gradient_repo::{ByteSink, ByteSource};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

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
