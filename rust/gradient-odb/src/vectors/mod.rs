//! Golden vectors of what this crate writes: files in `tests/vectors/`, made from the format pages alone.
//!
//! Inside the crate, because a page says more than the public functions show: every field of every row.

use std::path::Path;

use serde_json::Value as Json;

use crate::PackId;

mod caches;
mod packs;

/// A group of vectors of a file.
fn vectors(file: &str, group: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = all[group].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

/// The vector of that name.
fn named(vectors: &[Json], name: &Json) -> Json {
    vectors.iter().find(|vector| vector["name"] == *name).unwrap_or_else(|| panic!("no vector {name}")).clone()
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_else(|| panic!("not text: {json}"))
}

fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("not a list: {json}"))
}

fn number<T: TryFrom<u64>>(json: &Json) -> T {
    json.as_u64().and_then(|number| number.try_into().ok()).unwrap_or_else(|| panic!("no such number: {json}"))
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
    let part = |part: &Json| match part {
        Json::String(hex) => plain_hex(hex),
        repeated => plain_hex(text(&repeated[0])).repeat(number(&repeated[1])),
    };
    match json {
        Json::String(hex) => plain_hex(hex),
        parts => list(parts).iter().flat_map(part).collect(),
    }
}

fn array<const N: usize>(json: &Json) -> [u8; N] {
    bytes(json).try_into().unwrap_or_else(|_| panic!("not {N} bytes: {json}"))
}

fn pack_id(json: &Json) -> PackId {
    PackId::from_bytes(array(json))
}

/// The bytes of a refused vector: its own, or those of a good one with changes.
fn refused_bytes(vector: &Json, good: &[Json]) -> Vec<u8> {
    if !vector["hex"].is_null() {
        return bytes(&vector["hex"]);
    }
    let mut changed = bytes(&named(good, &vector["of"])["hex"]);
    for change in vector["changes"].as_array().map_or(&[][..], Vec::as_slice) {
        let (at, new): (usize, _) = (number(&change[0]), bytes(&change[1]));
        changed[at..at + new.len()].copy_from_slice(&new);
    }
    if !vector["len"].is_null() {
        changed.truncate(number(&vector["len"]));
    }
    if !vector["more"].is_null() {
        changed.extend(bytes(&vector["more"]));
    }
    changed
}
