//! Where tensor bytes come from and go to: other people's memory behind two small traits.

/// Memory that a tensor's bytes are copied from. Each byte is read once.
pub trait ByteSource: Sync {
    /// Returns the number of bytes.
    fn len(&self) -> usize;

    /// Says whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes from `offset` into all of `out`, which lies within [`len`](Self::len).
    fn copy_to(&self, offset: usize, out: &mut [u8]);
}

/// Memory that a tensor's bytes are written to. Many threads write disjoint ranges at once.
pub trait ByteSink: Sync {
    /// Returns the number of bytes.
    fn len(&self) -> usize;

    /// Says whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `bytes` at `offset`; the range lies within [`len`](Self::len).
    fn write(&self, offset: usize, bytes: &[u8]);
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[offset..offset + out.len()]);
    }
}

impl ByteSource for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[offset..offset + out.len()]);
    }
}
