//! `tests/vectors/pack.json`: payloads of every codec, made from `docs/format/pack.md` alone, and others that are refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use gradient_codec::{CodecError, Stage, decode, is_patch, patch};
use serde_json::Value as Json;

/// A group of vectors.
fn vectors(group: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/pack.json");
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = all[group].as_array().unwrap().clone();
    assert!(vectors.len() > 100);
    vectors
}

fn plain_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{hex}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}

/// Hex, or a list of hex and `[hex, times]`.
fn bytes(json: &Json) -> Vec<u8> {
    match json {
        Json::String(hex) => plain_hex(hex),
        parts => parts.as_array().unwrap().iter().flat_map(part).collect(),
    }
}

fn part(json: &Json) -> Vec<u8> {
    match json {
        Json::String(hex) => plain_hex(hex),
        repeated => plain_hex(repeated[0].as_str().unwrap()).repeat(repeated[1].as_u64().unwrap() as usize),
    }
}

struct Vector {
    pipeline: Vec<Stage>,
    payload: Vec<u8>,
    bases: Vec<Vec<u8>>,
}

impl Vector {
    fn read(json: &Json) -> Self {
        let stage = |stage: &Json| Stage { codec: stage[0].as_u64().unwrap() as u8, params: bytes(&stage[1]) };
        Self {
            pipeline: json["pipeline"].as_array().unwrap().iter().map(stage).collect(),
            payload: bytes(&json["payload"]),
            bases: json["bases"].as_array().unwrap().iter().map(bytes).collect(),
        }
    }

    fn decode(&self, raw_len: usize) -> Result<Vec<u8>, CodecError> {
        let bases: Vec<&[u8]> = self.bases.iter().map(Vec::as_slice).collect();
        let mut out = vec![0xaa; raw_len];
        decode(&self.pipeline, &self.payload, raw_len, &bases, &mut out)?;
        Ok(out)
    }

    /// The other way to decode, where the pipeline has one.
    fn patch(&self, raw_len: usize) -> Option<Result<Vec<u8>, CodecError>> {
        let [base] = &self.bases[..] else { return None };
        is_patch(&self.pipeline).then(|| {
            let mut out = base.clone();
            out.resize(raw_len, 0);
            patch(&self.pipeline, &self.payload, &mut out)?;
            Ok(out)
        })
    }
}

#[test]
fn payloads_are_decoded_as_the_page_says() {
    let mut num_patches = 0;
    for json in vectors("codecs") {
        let (vector, raw) = (Vector::read(&json), bytes(&json["raw"]));
        assert_eq!(vector.decode(raw.len()).as_ref(), Ok(&raw), "{}", json["name"]);
        if let Some(patched) = vector.patch(raw.len()) {
            assert_eq!(patched.as_ref(), Ok(&raw), "{}, as a patch", json["name"]);
            num_patches += 1;
        }
    }
    assert!(num_patches > 5);
}

#[test]
fn payloads_that_the_page_forbids_are_refused() {
    for json in vectors("refused_codecs") {
        let (vector, raw_len) = (Vector::read(&json), json["raw_len"].as_u64().unwrap() as usize);
        assert!(vector.decode(raw_len).is_err(), "{}", json["why"]);
        assert!(vector.patch(raw_len).is_none_or(|patched| patched.is_err()), "{}, as a patch", json["why"]);
    }
}
