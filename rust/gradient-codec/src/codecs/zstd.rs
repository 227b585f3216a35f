//! zstd: one frame that carries its content size, and nothing after it. No parameters.
//!
//! zstd itself would take several frames, frames to be skipped, and frames of unknown size. Here each chunk has one
//! encoding in mind, so the frame is measured before it is decoded: a size that lies costs an error and no memory. No
//! checksum in the frame: the entry has one, and the chunk's id is better than either.

use std::cell::RefCell;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, ParamSwitch};

use super::Codec;
use crate::pipeline::require_len;
use crate::{CodecError, Scratch};

/// The level for chunks; higher ones find little more in tensors and take several times as long (`codecs.md`).
pub(crate) const CHUNK_LEVEL: i32 = 1;

/// How every frame starts, other than frames to be skipped and those of zstd before 0.8.
const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

const NAME: &str = "zstd";

/// The codec.
pub(crate) struct Zstd;

impl Codec for Zstd {
    fn id(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn wants_bases(&self) -> bool {
        false
    }

    fn encode(
        &self,
        params: &[u8],
        _bases: &[&[u8]],
        raw: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        require_no_params(params)?;
        encode_frame(raw, CHUNK_LEVEL, scratch, out)
    }

    fn decoded_len(&self, params: &[u8], encoded: &[u8]) -> Result<u64, CodecError> {
        require_no_params(params)?;
        content_len(encoded)
    }

    fn decode(&self, params: &[u8], _bases: &[&[u8]], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        require_no_params(params)?;
        decode_frame(encoded, out)
    }
}

/// Encodes `raw` as one frame into `out`, in place of what was there.
pub(crate) fn encode_frame(raw: &[u8], level: i32, scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.clear();
    let len = zstd_safe::compress_bound(raw.len());
    out.try_reserve(len).map_err(|_| CodecError::OutOfMemory { len })?;
    let written = scratch.zstd_context()?.compress(out, raw, level);
    written.map_err(|code| CodecError::NotEncoded { codec: NAME, what: zstd_safe::get_error_name(code) })?;
    Ok(())
}

/// A level at which zstd hardly looks for matches.
const LITERALS_LEVEL: i32 = -131_072;

/// Makes the context of [`encode_literals`].
pub(crate) fn literals_context() -> Result<CCtx<'static>, CodecError> {
    let refused = |code| CodecError::NotEncoded { codec: NAME, what: zstd_safe::get_error_name(code) };
    let mut context = CCtx::try_create().ok_or(CodecError::OutOfMemory { len: CONTEXT_BYTES })?;
    context.set_parameter(CParameter::CompressionLevel(LITERALS_LEVEL)).map_err(refused)?;
    context.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable)).map_err(refused)?;
    Ok(context)
}

/// Encodes `raw` as one frame of literals, which only their frequencies make shorter, in place of what was in `out`;
/// for what [`crate::literals`] does not take.
///
/// In the exponents of floats matches are false friends: they cost time and leave more bytes.
pub(crate) fn encode_literals(raw: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.clear();
    let len = zstd_safe::compress_bound(raw.len());
    out.try_reserve(len).map_err(|_| CodecError::OutOfMemory { len })?;
    let written = scratch.literals_context()?.compress2(out, raw);
    written.map_err(|code| CodecError::NotEncoded { codec: NAME, what: zstd_safe::get_error_name(code) })?;
    Ok(())
}

/// Returns the content size of the one frame that `encoded` must be.
pub(crate) fn content_len(encoded: &[u8]) -> Result<u64, CodecError> {
    let damaged = |what| CodecError::Damaged { codec: NAME, what };
    if !encoded.starts_with(&FRAME_MAGIC) {
        return Err(damaged("no zstd frame"));
    }
    match zstd_safe::get_frame_content_size(encoded) {
        Ok(Some(len)) => Ok(len),
        Ok(None) => Err(damaged("the frame does not say how long its content is")),
        Err(_) => Err(damaged("the frame's header is cut or wrong")),
    }
}

/// Returns how many bytes the frame at the start of `encoded` takes.
pub(crate) fn frame_len(encoded: &[u8]) -> Result<usize, CodecError> {
    content_len(encoded)?;
    let damaged = |code| CodecError::Damaged { codec: NAME, what: zstd_safe::get_error_name(code) };
    zstd_safe::find_frame_compressed_size(encoded).map_err(damaged)
}

/// Decodes the one frame that `encoded` must be to exactly all of `out`.
pub(crate) fn decode_frame(encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let damaged = |code| CodecError::Damaged { codec: NAME, what: zstd_safe::get_error_name(code) };
    let content = content_len(encoded)?;
    if content != out.len() as u64 {
        return Err(CodecError::WrongLength { expected: out.len() as u64, actual: content });
    }
    if zstd_safe::find_frame_compressed_size(encoded).map_err(damaged)? != encoded.len() {
        return Err(CodecError::Damaged { codec: NAME, what: "there are bytes after the frame" });
    }
    let written = with_context(|context| context.decompress(out, encoded))?.map_err(damaged)?;
    require_len(out.len(), written)
}

/// Lends the thread's decoding context, made when it is first wanted.
///
/// A context is about 100 KB; the threads that decode are few and live long.
fn with_context<T>(work: impl FnOnce(&mut DCtx<'static>) -> T) -> Result<T, CodecError> {
    thread_local! {
        static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = DCtx::try_create();
        }
        kept.as_mut().map(work).ok_or(CodecError::OutOfMemory { len: CONTEXT_BYTES })
    })
}

/// About what a context takes; only for the words of an error.
pub(crate) const CONTEXT_BYTES: usize = 100 << 10;

fn require_no_params(params: &[u8]) -> Result<(), CodecError> {
    super::require_no_params(NAME, params)
}
