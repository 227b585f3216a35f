//! The checks of codecs: payloads as decoders meet them, and chunks through the choice of a coding and back.
//!
//! What is accepted need not be written again byte for byte, but what is written instead must give the same bytes; and
//! no byte of a payload may be one too many, or one that could be missing.

use gradient_codec::{
    Base, DeltaGain, ElementClass, Layout, Scratch, Stage, codecs, decode, encode_best, find_codec, is_patch, patch,
};
use gradient_object::{CHUNK_BYTES, ChunkId};

/// Stages and bases of a payload that are looked at, at most.
const STAGES_MAX: u8 = 3;
const BASES_MAX: u8 = 2;

/// An encoded chunk: raw length (4), number of stages (1), each codec (1), length of its parameters (1) and those; number
/// of bases (1), each length (4) and bytes; payload.
#[derive(Clone, Debug)]
pub(super) struct Coded {
    pub(super) raw_len: usize,
    pub(super) pipeline: Vec<Stage>,
    pub(super) bases: Vec<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

/// Takes so many bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_len(bytes: &mut &[u8]) -> Option<usize> {
    let len = take(bytes, 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(len) as usize)
}

impl Coded {
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let raw_len = take_len(rest)?.min(CHUNK_BYTES);
        let mut pipeline = Vec::new();
        for _ in 0..take(rest, 1)?[0] % (STAGES_MAX + 1) {
            let [codec, len] = *take(rest, 2)? else { return None };
            pipeline.push(Stage { codec, params: take(rest, usize::from(len))?.to_vec() });
        }
        let mut bases = Vec::new();
        for _ in 0..take(rest, 1)?[0] % (BASES_MAX + 1) {
            let len = take_len(rest)?.min(rest.len());
            bases.push(take(rest, len)?.to_vec());
        }
        Some(Self { raw_len, pipeline, bases, payload: rest.to_vec() })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = (self.raw_len as u32).to_le_bytes().to_vec();
        bytes.push(self.pipeline.len() as u8);
        for Stage { codec, params } in &self.pipeline {
            bytes.extend([*codec, params.len() as u8]);
            bytes.extend(params);
        }
        bytes.push(self.bases.len() as u8);
        for base in &self.bases {
            bytes.extend((base.len() as u32).to_le_bytes());
            bytes.extend(base);
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn bases(&self) -> Vec<&[u8]> {
        self.bases.iter().map(Vec::as_slice).collect()
    }

    /// Decodes over bytes that are all `fill`.
    fn decode(&self, payload: &[u8], fill: u8) -> Option<Vec<u8>> {
        let mut out = vec![fill; self.raw_len];
        decode(&self.pipeline, payload, self.raw_len, &self.bases(), &mut out).ok()?;
        Some(out)
    }

    fn check(&self) {
        let raw = self.decode(&self.payload, 0);
        assert!(raw == self.decode(&self.payload, 0xff), "nothing depends on what the output held");
        if let [base] = &self.bases[..]
            && is_patch(&self.pipeline)
        {
            let mut patched = base.clone();
            patched.resize(self.raw_len, 0);
            let patched = patch(&self.pipeline, &self.payload, &mut patched).ok().map(|()| patched);
            assert!(patched == raw, "a patch gives what decoding gives, and refuses what that refuses");
        }
        let Some(raw) = raw else { return };
        for more in [&[0][..], &[0xff; 9], &self.payload] {
            let longer = [&self.payload, more].concat();
            assert!(longer == self.payload || self.decode(&longer, 0).is_none(), "bytes after the end are refused");
        }
        if let Some((_, shorter)) = self.payload.split_last() {
            assert!(self.decode(shorter, 0).is_none(), "a payload without its last byte is refused");
        }
        // The stage that gives the raw bytes, once more by our own encoder.
        let Some(first) = self.pipeline.first() else { return };
        let codec = find_codec(first.codec).expect("was decoded");
        let bases = if codec.wants_bases() { self.bases() } else { Vec::new() };
        let mut written = Vec::new();
        codec
            .encode(&first.params, &bases, &raw, &mut Scratch::new(), &mut written)
            .expect("what was decoded is encoded");
        let mut back = vec![0xff; self.raw_len];
        decode(std::slice::from_ref(first), &written, self.raw_len, &bases, &mut back).expect("was just encoded");
        assert!(back == raw, "what is written again gives the same bytes");
    }
}

/// Any pipeline.
pub(super) fn codec(bytes: &[u8]) {
    if let Some(coded) = Coded::read(bytes) {
        coded.check();
    }
}

/// A pipeline that begins with that codec.
pub(super) fn codec_of(name: &str, bytes: &[u8]) {
    let Some(mut coded) = Coded::read(bytes) else { return };
    let wanted = codecs().iter().find(|codec| codec.name() == name).expect("a codec of the table");
    match coded.pipeline.first_mut() {
        Some(first) => first.codec = wanted.id(),
        None => coded.pipeline.push(Stage { codec: wanted.id(), params: Vec::new() }),
    }
    coded.check();
}

/// Raw bytes of a chunk after what is said of them: width, class, gain and base (1 together), row length (2), offset (2).
pub(super) fn chunk(bytes: &[u8]) {
    let Some(([kind, row_len @ .., offset_low, offset_high], rest)) = bytes.split_first_chunk::<5>() else { return };
    let rest = &rest[..rest.len().min(CHUNK_BYTES)];
    let (former, latter) = rest.split_at(rest.len() / 2);
    let close: Vec<u8> = rest.iter().enumerate().map(|(i, byte)| byte ^ u8::from(i % 64 < 3)).collect();
    let (raw, base) = match kind >> 5 {
        0 => (rest, None),
        1 => (rest, Some(rest)),
        2 => (latter, Some(former)),
        3 => (rest, Some(former)),
        4 => (former, Some(rest)),
        5 => (rest, Some(&[][..])),
        _ => (rest, Some(&close[..])),
    };
    let classes = [ElementClass::Float, ElementClass::Integer, ElementClass::Bytes, ElementClass::Float];
    let layout = Layout {
        width: 1 << (kind & 3),
        class: classes[usize::from(kind >> 2 & 3)],
        row_len: usize::from(u16::from_le_bytes(*row_len)),
        row_offset: usize::from(u16::from_le_bytes([*offset_low, *offset_high])),
    };
    let gain = if kind >> 4 & 1 == 0 { DeltaGain::Tenth } else { DeltaGain::Any };
    let base = base.map(|bytes| Base { bytes, anchor_len: (kind & 1 == 0).then_some(bytes.len() / 2) });
    let mut payload = vec![0; raw.len()];
    let encoded = encode_best(raw, &layout, base.as_ref(), gain, &mut Scratch::new(), &mut payload).expect("memory");
    assert!(encoded.len.is_none_or(|len| len < raw.len()) && encoded.len.is_none() == encoded.pipeline.is_empty());
    let bases: Vec<&[u8]> = base.iter().map(|base| base.bytes).filter(|_| encoded.is_delta).collect();
    let payload = encoded.len.map_or(raw, |len| &payload[..len]);
    let mut back = vec![0xff; raw.len()];
    decode(&encoded.pipeline, payload, raw.len(), &bases, &mut back).expect("was just encoded");
    assert!(back == raw, "bytes come back as they went in");
    assert_eq!(ChunkId::of(&back), ChunkId::of(raw));
    if is_patch(&encoded.pipeline) {
        let mut patched = bases[0].to_vec();
        patched.resize(raw.len(), 0);
        patch(&encoded.pipeline, payload, &mut patched).expect("was just encoded");
        assert!(patched == raw, "a patch gives what decoding gives");
    }
}
