//! Bytes that are gathered to be written past the page cache: there addresses, offsets and lengths have to be aligned.

/// What they are multiples of: a page, and a block of nearly any file system. One that wants more refuses the first write.
const ALIGNMENT: usize = 4096;

/// A piece of a file in the making.
#[derive(Debug)]
pub(super) struct Piece {
    memory: Vec<u8>,
    /// Where in the memory it begins.
    start: usize,
    len: usize,
    max: usize,
}

impl Piece {
    /// Makes an empty one of `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        let memory = vec![0; max + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, len: 0, max }
    }

    /// Takes what still fits; returns the rest.
    pub(super) fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(self.max - self.len));
        self.memory[self.start + self.len..][..now.len()].copy_from_slice(now);
        self.len += now.len();
        rest
    }

    /// Returns what it holds.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.max
    }

    /// Lets go of what it holds.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}
