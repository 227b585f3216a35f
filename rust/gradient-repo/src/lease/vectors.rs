//! Golden vectors of leases: `tests/vectors/repository.json`, made from `docs/format/repository.md` alone.

use std::path::Path;

use serde_json::Value as Json;

use super::Lease;
use crate::error::RepoError;

fn vectors(group: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/repository.json");
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("its JSON");
    let vectors = all[group].as_array().expect("a group").clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_else(|| panic!("not text: {json}"))
}

/// An integer in decimal text.
fn int(json: &Json) -> u64 {
    text(json).parse().unwrap_or_else(|_| panic!("no such integer: {json}"))
}

fn bytes(json: &Json) -> Vec<u8> {
    let digits: Vec<u8> = text(json).bytes().filter(|byte| *byte != b' ').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{json}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    pairs.iter().map(byte).collect()
}

/// The bytes of a refused vector: its own, or those of a good one with changes.
fn refused_bytes(vector: &Json, good: &[Json]) -> Vec<u8> {
    if !vector["hex"].is_null() {
        return bytes(&vector["hex"]);
    }
    let index = |json: &Json| usize::try_from(json.as_u64().expect("a number")).expect("an offset");
    let base = good.iter().find(|good| good["name"] == vector["of"]).expect("a good one");
    let mut changed = bytes(&base["hex"]);
    for change in vector["changes"].as_array().map_or(&[][..], Vec::as_slice) {
        let (at, new) = (index(&change[0]), bytes(&change[1]));
        changed[at..at + new.len()].copy_from_slice(&new);
    }
    if !vector["len"].is_null() {
        changed.truncate(index(&vector["len"]));
    }
    if !vector["more"].is_null() {
        changed.extend(bytes(&vector["more"]));
    }
    changed
}

#[test]
fn leases_have_the_bytes_of_the_page_in_both_directions() {
    for vector in vectors("leases") {
        let (name, file, of) = (&vector["name"], bytes(&vector["hex"]), &vector["lease"]);
        let lease = Lease {
            host: text(&of["host"]).to_owned(),
            boot: text(&of["boot"]).to_owned(),
            pid: int(&of["pid"]),
            started: int(&of["started"]),
            nonce: bytes(&of["nonce"]).try_into().expect("16 bytes"),
            beat: int(&of["beat"]),
            transaction: int(&of["transaction"]),
            active: of["active"].as_bool().expect("a bool"),
        };
        assert_eq!(lease.encode().expect("it can be written"), file, "{name}");
        assert_eq!(Lease::decode(&file).expect("it can be read"), lease, "{name}");
    }
}

#[test]
fn refuses_the_leases_that_the_page_refuses_and_says_why() {
    let good = vectors("leases");
    for vector in vectors("refused_leases") {
        let why = &vector["why"];
        let (variant, what) = match Lease::decode(&refused_bytes(&vector, &good)) {
            Err(RepoError::Damaged { reason, .. }) => ("Damaged", reason),
            Err(RepoError::Unsupported { found, .. }) => ("Unsupported", found),
            other => panic!("{why}: {other:?}"),
        };
        assert_eq!((variant, &what[..]), (text(&vector["error"]), text(&vector["what"])), "{why}");
    }
}
