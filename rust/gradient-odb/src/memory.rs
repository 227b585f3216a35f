//! Where tensor bytes come from and go to: other people's memory behind two small traits.

use crate::TensorLayout;

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

/// The bytes of one tensor on their way into a transaction, and what is known of them.
#[derive(Clone)]
pub struct Source<'a> {
    /// Where they are.
    pub bytes: &'a dyn ByteSource,
    /// What they are.
    pub layout: TensorLayout,
    /// What the tensor is called in the [`Line`](crate::Line), from commit to commit; none for one that nobody follows.
    pub key: Option<String>,
}

impl<'a> Source<'a> {
    /// Bytes of which nothing is known.
    pub fn plain(bytes: &'a dyn ByteSource) -> Self {
        Self { bytes, layout: TensorLayout::BYTES, key: None }
    }
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
