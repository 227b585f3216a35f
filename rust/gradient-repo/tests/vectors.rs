//! Golden vectors: `tests/vectors/operations.json` and `repository.json`, made from the format pages alone. (Leases are
//! read inside the crate: `src/lease/vectors.rs`.)
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use gradient_object::{CommitId, OperationId};
use gradient_odb::PackId;
use gradient_repo::{
    By, FormatFile, Head, Operation, OperationKind, OperationLog, RefTable, Refs, RepoError, Subject, Target,
};
use gradient_storage::{Durability, Key, MemoryStorage, Storage};
use serde_json::Value as Json;

const OPERATIONS: &str = "operations.json";
const REPOSITORY: &str = "repository.json";

fn vectors(file: &str, group: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("its JSON");
    let vectors = list(&all[group]).to_vec();
    assert!(!vectors.is_empty());
    vectors
}

/// The vector of that name.
fn named<'a>(vectors: &'a [Json], name: &Json) -> &'a Json {
    vectors.iter().find(|vector| vector["name"] == *name).unwrap_or_else(|| panic!("no vector {name}"))
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_else(|| panic!("not text: {json}"))
}

fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("not a list: {json}"))
}

fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("no such number: {json}"))
}

/// An integer in decimal text.
fn int<T: std::str::FromStr>(json: &Json) -> T {
    text(json).parse().unwrap_or_else(|_| panic!("no such integer: {json}"))
}

fn plain_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{hex}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    pairs.iter().map(byte).collect()
}

/// Hex, or a list of hex and `[hex, times]`.
fn bytes(json: &Json) -> Vec<u8> {
    let part = |part: &Json| match part {
        Json::String(hex) => plain_hex(hex),
        repeated => plain_hex(text(&repeated[0])).repeat(usize::try_from(number(&repeated[1])).expect("not too often")),
    };
    match json {
        Json::String(hex) => plain_hex(hex),
        parts => list(parts).iter().flat_map(part).collect(),
    }
}

fn array<const N: usize>(json: &Json) -> [u8; N] {
    bytes(json).try_into().unwrap_or_else(|_| panic!("not {N} bytes: {json}"))
}

/// The bytes of a refused vector: its own, or those of a good one with changes.
fn refused_bytes(vector: &Json, good: &[Json]) -> Vec<u8> {
    if !vector["hex"].is_null() {
        return bytes(&vector["hex"]);
    }
    let index = |json: &Json| usize::try_from(number(json)).expect("an offset");
    let mut changed = bytes(&named(good, &vector["of"])["hex"]);
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

/// Checks that an error is of the variant that a vector names, for its reason.
fn assert_refused(error: Option<&RepoError>, vector: &Json) {
    let (variant, what) = match error {
        Some(RepoError::Damaged { reason, .. }) => ("Damaged", reason.as_str()),
        Some(RepoError::Unsupported { found, .. }) => ("Unsupported", found.as_str()),
        Some(RepoError::Storage(_)) => ("Storage", ""),
        other => panic!("{}: {other:?}", vector["why"]),
    };
    assert_eq!(variant, text(&vector["error"]), "{}: {error:?}", vector["why"]);
    if !vector["what"].is_null() {
        assert_eq!(what, text(&vector["what"]), "{}", vector["why"]);
    }
}

/// A repository folder in memory that holds these files.
fn storage(files: &[(Key, Vec<u8>)]) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders");
    for (key, file) in files {
        storage.replace(key, file, Durability::Unsynced).expect("a file");
    }
    Arc::new(storage)
}

fn log(files: &[(Key, Vec<u8>)]) -> OperationLog {
    OperationLog::new(storage(files))
}

fn target(json: &Json) -> Target {
    let id = CommitId::from_bytes(array(&json[1]));
    match text(&json[0]) {
        "branch" => Target::Branch(id),
        "tag" => Target::Tag(id),
        other => panic!("no kind of ref: {other}"),
    }
}

fn table(json: &Json) -> RefTable {
    json.as_object().expect("a table").iter().map(|(name, to)| (name.clone(), target(to))).collect()
}

fn refs(json: &Json) -> Refs {
    match text(&json[0]) {
        "whole" => Refs::Whole(table(&json[1])),
        "changes" => {
            let rows = json[2].as_object().expect("a table").iter();
            let changes = rows.map(|(name, to)| (name.clone(), (!to.is_null()).then(|| target(to))));
            Refs::Changes { since: int(&json[1]), changes: changes.collect() }
        }
        other => panic!("no kind of table: {other}"),
    }
}

fn operation(json: &Json) -> Operation {
    let kinds = [
        OperationKind::Init,
        OperationKind::Commit,
        OperationKind::Branch,
        OperationKind::Rename,
        OperationKind::Delete,
        OperationKind::Tag,
        OperationKind::Checkout,
        OperationKind::Undo,
        OperationKind::Redo,
        OperationKind::Condemn,
        OperationKind::Repair,
    ];
    let kind = kinds.into_iter().find(|kind| format!("{kind:?}").to_lowercase() == text(&json["kind"]));
    let own = |json: &Json| text(json).to_owned();
    Operation {
        n: int(&json["n"]),
        previous: (!json["previous"].is_null()).then(|| OperationId::from_bytes(array(&json["previous"]))),
        kind: kind.expect("a kind"),
        why: own(&json["why"]),
        subject: match &json["subject"] {
            Json::Null => Subject::None,
            Json::String(name) => Subject::Name(name.clone()),
            other => Subject::Operation(int(&other["operation"])),
        },
        time_ns: int(&json["time"]),
        by: By {
            host: own(&json["by"]["host"]),
            pid: int(&json["by"]["pid"]),
            user: own(&json["by"]["user"]),
            version: own(&json["by"]["version"]),
        },
        head: match text(&json["head"][0]) {
            "branch" => Head::Branch(own(&json["head"][1])),
            "commit" => Head::Commit(CommitId::from_bytes(array(&json["head"][1]))),
            other => panic!("no head: {other}"),
        },
        refs: refs(&json["refs"]),
        condemned: list(&json["condemned"]).iter().map(|id| PackId::from_bytes(array(id))).collect(),
    }
}

/// The operations of these names, with their ids and files.
fn operations(names: &Json) -> Vec<(Operation, OperationId, Vec<u8>)> {
    let all = vectors(OPERATIONS, "operations");
    let chosen = list(names).iter().map(|name| named(&all, name));
    chosen
        .map(|vector| {
            let id = OperationId::from_bytes(array(&vector["id"]));
            (operation(&vector["operation"]), id, bytes(&vector["hex"]))
        })
        .collect()
}

#[test]
fn operations_have_the_bytes_and_ids_of_the_page_in_both_directions() {
    for vector in vectors(OPERATIONS, "operations") {
        let (name, file) = (&vector["name"], bytes(&vector["hex"]));
        let operation = operation(&vector["operation"]);
        let id = OperationId::from_bytes(array(&vector["id"]));
        assert_eq!(operation.encode().expect("it can be written"), (file.clone(), id), "{name}");
        let log = log(&[(Key::operation(operation.n), file)]);
        assert_eq!(log.read(operation.n).expect("it can be read"), (operation, id), "{name}");
    }
}

#[test]
fn refuses_the_operations_that_the_page_refuses_and_says_why() {
    let good = vectors(OPERATIONS, "operations");
    for vector in vectors(OPERATIONS, "refused_operations") {
        let n = number(&vector["n"]);
        let log = log(&[(Key::operation(n), refused_bytes(&vector, &good))]);
        assert_refused(log.read(n).err().as_ref(), &vector);
    }
}

#[test]
fn the_refs_after_operations_are_those_of_the_page() {
    for vector in vectors(OPERATIONS, "logs") {
        let (name, all) = (&vector["name"], operations(&vector["operations"]));
        let files: Vec<_> =
            all.iter().map(|(operation, _, file)| (Key::operation(operation.n), file.clone())).collect();
        let log = log(&files);
        let head = log.head().expect("a log").expect("a head");
        let (newest, id, _) = all.last().expect("an operation");
        assert_eq!((&head.operation, &head.id, &head.table), (newest, id, &table(&vector["table"])), "{name}");
        let mut replayed = Vec::new();
        log.replay(newest.n, |step| {
            replayed.push((step.operation.n, step.table.clone()));
            Ok(())
        })
        .expect("a log");
        assert_eq!(replayed.len(), all.len(), "{name}");
        assert_eq!(replayed.last(), Some(&(newest.n, table(&vector["table"]))), "{name}");
    }
}

#[test]
fn folded_operations_are_read_as_the_page_says() {
    let logs = vectors(OPERATIONS, "logs");
    for vector in vectors(OPERATIONS, "folded") {
        let (name, m) = (&vector["name"], number(&vector["m"]));
        let folded = (Key::folded(m), bytes(&vector["hex"]));
        let of_page = log(std::slice::from_ref(&folded));
        for (operation, id, _) in operations(&vector["operations"]) {
            assert_eq!(of_page.read(operation.n).expect("it is folded"), (operation, id), "{name}");
        }
        assert!(of_page.read(m + 1).is_err(), "{name}");
        // Whatever is separate, the refs are the same; files at or below m stand for nothing.
        for log_vector in &logs {
            let all = operations(&log_vector["operations"]);
            if (all.len() as u64) < m {
                continue;
            }
            let newer = all.iter().filter(|(operation, _, _)| operation.n > m);
            let mut files: Vec<_> =
                newer.map(|(operation, _, file)| (Key::operation(operation.n), file.clone())).collect();
            files.extend([folded.clone(), (Key::operation(m), b"of a writer that slept".to_vec())]);
            let head = log(&files).head().expect("a log").expect("a head");
            assert_eq!(head.operation.n, all.len() as u64, "{name}");
            assert_eq!(head.table, table(&log_vector["table"]), "{name}");
        }
    }
}

#[test]
fn refuses_the_folded_operations_that_the_page_refuses_and_says_why() {
    let good = vectors(OPERATIONS, "folded");
    for vector in vectors(OPERATIONS, "refused_folded") {
        let log = log(&[(Key::folded(number(&vector["m"])), refused_bytes(&vector, &good))]);
        assert_refused(log.read(1).err().as_ref(), &vector);
    }
}

/// The frame is that of a zstd, so the bytes are taken apart here, by the page.
#[test]
fn a_log_is_folded_into_the_file_of_the_page() {
    const NEWEST: u64 = 520;
    const M: usize = 456;
    let template = operations(&vec!["2: a commit"].into());
    let (mut previous, mut files, mut payloads) = (None, Vec::new(), Vec::new());
    for n in 1..=NEWEST {
        let subject = Subject::None;
        let operation = Operation { n, previous, subject, why: format!("step {n}"), ..template[0].0.clone() };
        let (file, id) = operation.encode().expect("it can be written");
        payloads.push(file[16..file.len() - 32].to_vec());
        files.push((Key::operation(n), file));
        previous = Some(id);
    }
    let storage = storage(&files);
    assert_eq!(OperationLog::new(storage.clone()).fold(NEWEST).expect("folded"), M as u64);
    let file = storage.read(&Key::folded(M as u64), u64::MAX).expect("a file");
    let (body, hash) = file.split_last_chunk::<32>().expect("a hash");
    assert_eq!(blake3::hash(body).as_bytes(), hash);
    let (head, frame) = body.split_at(16);
    assert_eq!(head[..8], *b"GROF\x01\0\0\0");
    assert_eq!(head[8..], (frame.len() as u64).to_le_bytes());
    let expected: Vec<u8> = payloads[..M]
        .iter()
        .flat_map(|payload| [&(payload.len() as u64).to_le_bytes()[..], payload].concat())
        .collect();
    assert!(zstd::bulk::decompress(frame, expected.len()).expect("one frame") == expected);
    for n in 1..=NEWEST {
        let is_there = storage.exists(&Key::operation(n)).expect("storage");
        assert_eq!(is_there, n > M as u64, "{n}");
    }
}

fn names(json: &Json) -> Vec<String> {
    list(json).iter().map(|name| text(name).to_owned()).collect()
}

#[test]
fn the_format_file_has_the_bytes_of_the_page_in_both_directions() {
    for vector in vectors(REPOSITORY, "formats") {
        let (name, file) = (&vector["name"], bytes(&vector["hex"]));
        let format = FormatFile {
            repo: array(&vector["repo"]),
            created_ns: int(&vector["created"]),
            mandatory: names(&vector["mandatory"]),
            optional: names(&vector["optional"]),
        };
        let read = FormatFile::read(&*storage(&[(Key::format(), file.clone())])).expect("it can be read");
        assert_eq!(read, format, "{name}");
        match format.check_writable() {
            Ok(()) => {
                let storage = storage(&[]);
                let made = FormatFile::create(&*storage, format.repo, format.created_ns).expect("made");
                assert_eq!(made, (format, true), "{name}");
                assert_eq!(storage.read(&Key::format(), u64::MAX).expect("a file"), file, "{name}");
            }
            Err(error) => {
                assert!(matches!(error, RepoError::Unsupported { .. }), "{name}: {error}");
                assert!(!format.optional.is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn refuses_the_format_files_that_the_page_refuses_and_says_why() {
    let good = vectors(REPOSITORY, "formats");
    for vector in vectors(REPOSITORY, "refused_formats") {
        let storage = storage(&[(Key::format(), refused_bytes(&vector, &good))]);
        assert_refused(FormatFile::read(&*storage).err().as_ref(), &vector);
    }
}
