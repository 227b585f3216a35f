//! Folded operations (`ops/folded-<m>`, magic `GROF`): operations 1 to m in one file, read and written in pieces.
//!
//! An envelope around one zstd frame of payloads, each with its length (8 bytes) before it. The file, and what its frame
//! says that it holds, may be a thousand times what a stranger had to send: whatever they are, reading costs the memory
//! of one operation, a piece of the file and the frame's window.
//! Specified in `docs/format/operations.md`.

use std::io::Write;

use gradient_object::METADATA_BYTES_MAX;
use gradient_storage::{Key, Storage};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::envelope::{ENVELOPE_BYTES, FORMAT_VERSION};
use crate::error::{RepoError, Result};

/// Longest folded file, and most that its frame may hold.
pub(crate) const FOLDED_BYTES_MAX: u64 = 256 << 20;

const MAGIC: [u8; 4] = *b"GROF";
const HEADER_BYTES: usize = 16;
const HASH_BYTES: u64 = 32;
/// A window of 8 MiB, which the zstd specification asks every decoder to support.
const WINDOW_LOG_MAX: u32 = 23;
const LEVEL: i32 = 3;
const PIECE_BYTES: usize = 256 << 10;
/// The keys of an operation alone are longer.
const PAYLOAD_BYTES_MIN: usize = 64;
const LENGTH_BYTES: usize = 8;

const LIES: &str = "its frame lies";
const NOT_DECODED: &str = "its frame can not be decoded";
const NOT_THOSE: &str = "it does not hold the operations its name says";

/// Returns the name of the file of the operations 1 to `m`.
pub(crate) fn file_name(m: u64) -> String {
    format!("ops/folded-{m:020}")
}

/// Calls `then` with number and payload of each of the operations 1 to `m`, in order.
///
/// The whole file is hashed before the first call, and again while it is decoded.
///
/// # Errors
/// - [`RepoError::Damaged`], [`RepoError::Unsupported`]: the file is not as it was written. What was found out up to
///   then is worth nothing.
/// - What `then` returns; storage errors.
pub(crate) fn for_each(storage: &dyn Storage, m: u64, mut then: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let file = File::open(storage, m)?;
    let Checked { header, content, hash } = file.check()?;
    // What is decoded is hashed again: it is read a second time, and may not be what it was.
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header);
    let mut split = Split { m, number: 0, pending: Vec::new(), left: content, problem: None };
    let mut decoder = DCtx::try_create().ok_or_else(|| file.damaged(NOT_DECODED))?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|_| file.damaged(NOT_DECODED))?;
    let mut produced = 0;
    let mut out = vec![0; PIECE_BYTES];
    let mut is_whole = false;
    file.pieces(HEADER_BYTES as u64, file.frame_end(), |piece| {
        hasher.update(piece);
        let mut input = InBuffer::around(piece);
        loop {
            let mut output = OutBuffer::around(&mut out[..]);
            let hint = decoder.decompress_stream(&mut output, &mut input).map_err(|_| file.damaged(NOT_DECODED))?;
            let is_full = output.pos() == PIECE_BYTES;
            produced += output.pos() as u64;
            if produced > content {
                return Err(file.damaged(NOT_DECODED));
            }
            is_whole = hint == 0;
            split.take(output.as_slice(), &mut then)?;
            if input.pos == piece.len() && !is_full {
                return Ok(());
            }
        }
    })?;
    if hasher.finalize() != hash {
        return Err(file.damaged("it reads otherwise than a moment before"));
    }
    if !is_whole || produced != content {
        return Err(file.damaged(NOT_DECODED));
    }
    match split.problem {
        Some(problem) => Err(file.damaged(problem)),
        None if split.number != m || !split.pending.is_empty() => Err(file.damaged(NOT_THOSE)),
        None => Ok(()),
    }
}

/// Returns how many bytes the frame of a folded file says that it holds, without reading the rest.
///
/// # Errors
/// As [`for_each`].
pub(crate) fn content_len(storage: &dyn Storage, m: u64) -> Result<u64> {
    let file = File::open(storage, m)?;
    file.frame_header().map(|header| header.content).ok_or_else(|| file.damaged(LIES))
}

/// A frame of payloads in the making.
pub(crate) struct FoldedWriter {
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    hasher: blake3::Hasher,
    m: u64,
}

impl FoldedWriter {
    /// Begins the file of the operations 1 to `m`, whose payloads and lengths are `content` bytes together.
    ///
    /// # Errors
    /// [`RepoError::Damaged`]: zstd refuses.
    pub(crate) fn new(m: u64, content: u64) -> Result<Self> {
        let make = || {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
            encoder.set_pledged_src_size(Some(content))?;
            Ok(encoder)
        };
        let encoder = make().map_err(|source| not_coded(m, &source))?;
        Ok(Self { encoder, hasher: blake3::Hasher::new(), m })
    }

    /// Adds the next operation.
    ///
    /// # Errors
    /// As [`FoldedWriter::new`].
    pub(crate) fn push(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        self.hasher.update(&length).update(payload);
        let written = self.encoder.write_all(&length).and_then(|()| self.encoder.write_all(payload));
        written.map_err(|source| not_coded(self.m, &source))
    }

    /// Returns the file, and a hash of what its frame holds.
    ///
    /// # Errors
    /// As [`FoldedWriter::new`]; it is not as long as was said.
    pub(crate) fn finish(self) -> Result<(Vec<u8>, blake3::Hash)> {
        let frame = self.encoder.finish().map_err(|source| not_coded(self.m, &source))?;
        Ok((crate::envelope::wrap(MAGIC, &frame), self.hasher.finalize()))
    }
}

/// Returns the hash of what the frame of a folded file holds, as [`FoldedWriter::finish`] does.
///
/// # Errors
/// As [`for_each`].
pub(crate) fn content_hash(storage: &dyn Storage, m: u64) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for_each(storage, m, |_, payload| {
        hasher.update(&(payload.len() as u64).to_le_bytes()).update(payload);
        Ok(())
    })?;
    Ok(hasher.finalize())
}

fn not_coded(m: u64, source: &std::io::Error) -> RepoError {
    RepoError::Damaged { file: file_name(m), reason: format!("it can not be coded: {source}") }
}

/// Cuts what the frame holds into payloads.
struct Split {
    m: u64,
    /// Operations that came whole.
    number: u64,
    /// The beginning of the next one, its length before it.
    pending: Vec<u8>,
    /// What the frame holds behind `pending`, it says.
    left: u64,
    /// What is wrong with the payloads. The frame is decoded to its end all the same: where that fails, that is told.
    problem: Option<&'static str>,
}

impl Split {
    fn take(&mut self, mut decoded: &[u8], then: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        while !decoded.is_empty() && self.problem.is_none() {
            let wanted = match self.pending.first_chunk::<LENGTH_BYTES>() {
                None => LENGTH_BYTES,
                Some(length) => LENGTH_BYTES + u64::from_le_bytes(*length) as usize,
            };
            let missing = (wanted - self.pending.len()).min(decoded.len());
            let (new, rest) = decoded.split_at(missing);
            self.pending.extend_from_slice(new);
            self.left = self.left.saturating_sub(new.len() as u64);
            decoded = rest;
            if self.pending.len() < wanted {
                continue;
            }
            if wanted == LENGTH_BYTES {
                self.problem = self.check_length();
                continue;
            }
            self.number += 1;
            then(self.number, &self.pending[LENGTH_BYTES..])?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Looks at a length before anything of it is kept.
    fn check_length(&self) -> Option<&'static str> {
        let length = self.pending.first_chunk::<LENGTH_BYTES>().map_or(0, |length| u64::from_le_bytes(*length));
        if length < PAYLOAD_BYTES_MIN as u64 || self.number >= self.m {
            return Some(NOT_THOSE);
        }
        if length > self.left {
            return Some("it ends inside an operation");
        }
        (length > METADATA_BYTES_MAX as u64).then_some("an operation is too large")
    }
}

/// A folded file, read in pieces.
struct File<'a> {
    storage: &'a dyn Storage,
    key: Key,
    m: u64,
    len: u64,
}

/// A file whose envelope and frame are right.
struct Checked {
    header: [u8; HEADER_BYTES],
    /// What the frame says that it holds.
    content: u64,
    hash: blake3::Hash,
}

/// What a frame says of itself.
struct FrameHeader {
    len: u64,
    content: u64,
    has_checksum: bool,
}

impl<'a> File<'a> {
    fn open(storage: &'a dyn Storage, m: u64) -> Result<Self> {
        let key = Key::folded(m);
        let len = storage.len(&key)?;
        let file = Self { storage, key, m, len };
        if len > FOLDED_BYTES_MAX {
            return Err(file.damaged("it is too large"));
        }
        Ok(file)
    }

    fn damaged(&self, reason: &str) -> RepoError {
        RepoError::Damaged { file: file_name(self.m), reason: reason.to_owned() }
    }

    fn frame_end(&self) -> u64 {
        self.len.saturating_sub(HASH_BYTES)
    }

    /// Checks envelope and frame from end to end.
    fn check(&self) -> Result<Checked> {
        if self.len < ENVELOPE_BYTES as u64 {
            return Err(self.damaged("it is too short"));
        }
        let mut header = [0; HEADER_BYTES];
        self.read(0, &mut header)?;
        let [m0, m1, m2, m3, v0, v1, v2, v3, length @ ..] = header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(self.damaged("its magic is wrong"));
        }
        let frame = self.frame_header();
        let mut blocks = Blocks { skip: frame.as_ref().map_or(0, |frame| frame.len), ..Blocks::default() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        self.pieces(HEADER_BYTES as u64, self.frame_end(), |piece| {
            hasher.update(piece);
            blocks.take(piece);
            Ok(())
        })?;
        let mut written = [0; HASH_BYTES as usize];
        self.read(self.frame_end(), &mut written)?;
        let hash = hasher.finalize();
        if *hash.as_bytes() != written {
            return Err(self.damaged("its checksum is wrong"));
        }
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != FORMAT_VERSION {
            return Err(RepoError::Unsupported {
                file: file_name(self.m),
                found: format!("format version {version}"),
                supported: format!("format version {FORMAT_VERSION}"),
            });
        }
        if u64::from_le_bytes(length) != self.len - ENVELOPE_BYTES as u64 {
            return Err(self.damaged("its length is wrong"));
        }
        let is_one = |frame: &FrameHeader| {
            let rest = if frame.has_checksum { 4 } else { 0 };
            blocks.behind == Some(rest) && frame.content <= FOLDED_BYTES_MAX
        };
        let frame = frame.filter(is_one).ok_or_else(|| self.damaged(LIES))?;
        Ok(Checked { header, content: frame.content, hash })
    }

    /// Reads the header of the frame (RFC 8878, section 3.1.1.1); none if it is none or does not say what it holds.
    fn frame_header(&self) -> Option<FrameHeader> {
        let mut bytes = [0; 14];
        let available = self.frame_end().saturating_sub(HEADER_BYTES as u64).min(bytes.len() as u64) as usize;
        self.read(HEADER_BYTES as u64, &mut bytes[..available]).ok()?;
        let content = zstd::zstd_safe::get_frame_content_size(&bytes[..available]).ok()??;
        let (magic, rest) = bytes[..available].split_first_chunk::<4>()?;
        let descriptor = *rest.first()?;
        let is_single_segment = descriptor & 0x20 != 0;
        let window_len = u64::from(!is_single_segment);
        let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_len = match descriptor >> 6 {
            0 => u64::from(is_single_segment),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let len = 5 + window_len + dictionary_len + content_len;
        let is_frame = *magic == 0xFD2F_B528_u32.to_le_bytes();
        is_frame.then_some(FrameHeader { len, content, has_checksum: descriptor & 4 != 0 })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match self.storage.read_at(&self.key, offset, out) {
            Err(gradient_storage::StorageError::Truncated { .. }) => Err(self.damaged("it is too short")),
            other => Ok(other?),
        }
    }

    fn pieces(&self, start: u64, end: u64, mut then: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES.min(end.saturating_sub(start) as usize)];
        let mut at = start;
        while at < end {
            let len = piece.len().min((end - at) as usize);
            self.read(at, &mut piece[..len])?;
            then(&piece[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

/// Walks over the blocks of a frame (RFC 8878, section 3.1.1.2) to see where it ends.
#[derive(Default)]
struct Blocks {
    /// Bytes until the next header of a block.
    skip: u64,
    header: Vec<u8>,
    is_last: bool,
    is_bad: bool,
    /// Bytes behind the last block.
    behind: Option<u64>,
}

impl Blocks {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_bad {
            if let Some(behind) = &mut self.behind {
                *behind += bytes.len() as u64;
                return;
            }
            let skipped = self.skip.min(bytes.len() as u64) as usize;
            bytes = &bytes[skipped..];
            self.skip -= skipped as u64;
            if self.skip == 0 && self.is_last {
                self.behind = Some(0);
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.header.push(*byte);
            if let [a, b, c] = self.header[..] {
                let header = u32::from_le_bytes([a, b, c, 0]);
                self.header.clear();
                self.is_last = header & 1 == 1;
                self.is_bad = header >> 1 & 3 == 3;
                self.skip = if header >> 1 & 3 == 1 { 1 } else { u64::from(header >> 3) };
                if self.skip == 0 && self.is_last {
                    self.behind = Some(0);
                }
            }
        }
        if self.skip == 0 && self.is_last && self.behind.is_none() {
            self.behind = Some(0);
        }
    }
}
