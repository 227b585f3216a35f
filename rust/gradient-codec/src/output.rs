//! Memory of a fixed length that an encoder fills from the front; what does not fit is stored otherwise.

use crate::CodecError;

/// What an encoder may take beyond the raw bytes where nobody minds.
const SLACK_BYTES: usize = 1 << 10;

/// Memory that is filled from the front.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Bytes that are filled.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns what is filled, to change it.
    pub(crate) fn written_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Takes back what was filled from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Returns what is not filled yet; [`Output::leave`] then says how much of it is.
    pub(crate) fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// Leaves room that holds anything; none if there is not so much.
    pub(crate) fn leave(&mut self, len: usize) -> Option<()> {
        let end = self.len.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        self.len = end;
        Some(())
    }

    /// Appends bytes; none if there is no room for them.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.len;
        self.leave(bytes.len())?;
        self.bytes[start..self.len].copy_from_slice(bytes);
        Some(())
    }

    /// Inserts bytes before those from `at` on; none if there is no room for them.
    pub(crate) fn insert(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let end = self.len;
        self.leave(bytes.len())?;
        self.bytes.copy_within(at..end, at + bytes.len());
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        Some(())
    }
}

/// Lets the encoder `codec` of `raw_len` bytes fill a vector, in place of what was there.
///
/// # Errors
/// What `work` returns; [`CodecError::OutOfMemory`]; [`CodecError::NotEncoded`] if it is longer than any payload is.
pub(crate) fn into_vec<T>(
    codec: &'static str,
    raw_len: usize,
    out: &mut Vec<u8>,
    work: impl FnOnce(&mut Output<'_>) -> Result<Option<T>, CodecError>,
) -> Result<(), CodecError> {
    // Gaps and lengths of a payload of nothing but exceptions, and what coders add.
    let len = 2 * raw_len + raw_len / 64 + SLACK_BYTES;
    out.try_reserve(len.saturating_sub(out.len())).map_err(|_| CodecError::OutOfMemory { len })?;
    out.resize(len, 0);
    let mut output = Output::new(out);
    let done = work(&mut output)?;
    let len = output.len();
    out.truncate(len);
    done.map(drop).ok_or(CodecError::NotEncoded { codec, what: "it is longer than a payload can be" })
}
