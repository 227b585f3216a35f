//! Every change of every file is found and named by file; nobody is given wrong bytes; commits that do not need what
//! was damaged still come back (rows 11 and 12 of the fault table).
//!
//! With `GRADIENT_FLIPS=all` each byte is flipped in eight ways (in the merged index, most of which is a table of zeros,
//! in one), each length is tried and no byte is left out (`make flip`); else each byte in one way.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gradient_object::{CommitId, CommitKind};
use gradient_odb::MergeLimits;
use gradient_repo::{FsckReport, OperationLog, Progress, RepoError, Repository, Severity};
use gradient_storage::{Folder, Key, MemoryStorage, Storage};
use support::{FULL, Line, Made, all, check, commit, new, put, weight};

/// All commits are read back after one change of so many; the check runs after each.
const READ_EVERY: u64 = 13;

/// Says whether all was asked for.
fn is_exhaustive() -> bool {
    std::env::var_os("GRADIENT_FLIPS").is_some_and(|value| value == "all")
}

/// A repository under attack.
struct Case {
    name: &'static str,
    storage: Arc<MemoryStorage>,
    made: Made,
    files: Vec<(Key, Vec<u8>)>,
    /// Commits that can not be read without a file.
    needing: HashMap<Key, HashSet<CommitId>>,
    /// So many changes were tried.
    tried: u64,
}

impl Case {
    fn new(name: &'static str, storage: Arc<MemoryStorage>, repo: &Repository, made: Vec<CommitId>) -> Self {
        let made = made.into_iter().map(|id| (id, weight(repo, &id))).collect();
        // People edit `config.json`: a change of it is no damage.
        let files = all(&storage).into_iter().filter(|(key, _)| *key != Key::config()).collect();
        let mut case = Self { name, storage, made, files, needing: HashMap::new(), tried: 0 };
        let packs = case.files.iter().filter(|(key, _)| key.folder() == Folder::Packs);
        let needing = packs.map(|(key, bytes)| {
            case.storage.delete(key).expect("gone");
            let repo = Repository::open(case.storage.clone() as Arc<dyn Storage>).expect("it opens");
            let is_lost = |id: &CommitId| repo.verify(id, &Progress::new()).is_err() || repo.environment(id).is_err();
            let lost = case.made.iter().map(|(id, _)| *id).filter(is_lost).collect();
            put(&case.storage, key, bytes);
            (key.clone(), lost)
        });
        case.needing = needing.collect();
        let report = check(&case.storage, FULL).expect("checked");
        assert!(report.is_clean(), "{:?}", report.findings);
        case.assert_others_restore(&report, "untouched");
        case
    }

    /// Puts `changed` in the place of a file, looks whether it is found, and puts the file back.
    fn attack(&mut self, at: usize, changed: &[u8], what: &str) {
        let (key, bytes) = &self.files[at];
        assert_ne!(changed, bytes, "{key}: {what} changes nothing");
        put(&self.storage, key, changed);
        let what = format!("{}, {key}: {what}", self.name);
        // Coprime to the bits of a byte and to every stride, so that each bit of each field has its turn.
        let is_read = self.tried.is_multiple_of(READ_EVERY);
        match check(&self.storage, FULL) {
            Ok(report) => {
                let found = report.findings.iter().find(|finding| finding.file == key.to_string());
                let found = found.unwrap_or_else(|| unreachable!("{what}: {:?}", report.findings));
                // Caches and leases are hints; what else is damaged is an error.
                let is_hint = [Folder::Cache, Folder::Leases].contains(&key.folder());
                let expected = if is_hint { Severity::Warning } else { Severity::Error };
                assert_eq!(found.severity, expected, "{what}: {found:?}");
                let is_needed = |id| self.needing.get(key).is_some_and(|needing| needing.contains(id));
                assert!(report.lost.keys().all(is_needed), "{what}: called lost: {:?}", report.lost);
                if is_read && *key != Key::format() {
                    self.assert_others_restore(&report, &what);
                }
            }
            // The version in `format`.
            Err(RepoError::Unsupported { file, .. }) => assert_eq!(file, key.to_string(), "{what}"),
            Err(error) => unreachable!("{what}: {error}"),
        }
        if is_read {
            self.assert_no_wrong_bytes(&what);
        }
        self.tried += 1;
        put(&self.storage, key, bytes);
    }

    fn read(&self, id: &CommitId) -> Result<Vec<u8>, String> {
        let repo = Repository::open(self.storage.clone() as Arc<dyn Storage>).map_err(|error| error.to_string())?;
        let model = repo.component(id, "model", "main").map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        gradient_object::Value::Map(model).for_each_tensor(&mut |tensor| {
            read.push(repo.odb().read_tensor_bytes(tensor).map_err(|error| error.to_string()));
        });
        read.pop().unwrap_or_else(|| Err("no tensor".to_owned()))
    }

    /// What a reader gets of each commit is what was committed, or an error.
    fn assert_no_wrong_bytes(&self, what: &str) {
        for (id, bytes) in &self.made {
            if let Ok(read) = self.read(id) {
                assert!(read == *bytes, "{what}: wrong bytes were returned");
            }
        }
    }

    /// What the check does not call lost comes back.
    fn assert_others_restore(&self, report: &FsckReport, what: &str) {
        for (id, bytes) in self.made.iter().filter(|(id, _)| !report.lost.contains_key(id)) {
            let read = self.read(id).unwrap_or_else(|error| unreachable!("{what}: {id} is lost: {error}"));
            assert!(read == *bytes, "{what}: wrong bytes were returned");
        }
    }
}

/// Noise, which is stored as it is.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(state >> 24).expect("eight bits")
    };
    (0..len).map(|_| next()).collect()
}

/// Three commits on two branches, a tag, a chunk that two of them share, one of noise, caches, a writer at work.
fn small() -> Case {
    let (storage, repo) = new();
    let (even, odd) = (vec![2; 4400], noise(4400, 7));
    let first = commit(&repo, "main", None, true, 1, &odd).expect("a commit").commit;
    let second = commit(&repo, "main", Some(first), false, 2, &even).expect("a commit").commit;
    repo.create_tag("best", first).expect("a tag");
    let third = commit(&repo, "fork", Some(first), true, 7, &even).expect("a commit").commit;
    repo.odb().write_caches().expect("caches");
    Case::new("small", storage, &repo, vec![first, second, third])
}

/// A line of commits whose chunk is coded against that of the one before it.
fn chained() -> Case {
    let (storage, repo) = new();
    let mut bytes = noise(1200, 5);
    let mut made = Vec::new();
    for step in 1..4 {
        let outcome = commit(&repo, "main", made.last().copied(), step == 1, step, &bytes).expect("a commit");
        let expected = if step == 1 { CommitKind::Anchor } else { CommitKind::Delta };
        assert_eq!(outcome.kind, expected, "commit {step}");
        made.push(outcome.commit);
        bytes[300 * usize::try_from(step).expect("small")] ^= 1;
    }
    let mut case = Case::new("chained", storage, &repo, made);
    assert!(case.needing.values().any(|needing| needing.len() == 3), "the first pack is what all rest on");
    // The other kinds of file are in the small one.
    case.files.retain(|(key, _)| key.folder() == Folder::Packs);
    assert_eq!(case.files.len(), 3);
    case
}

/// Folded operations, and packs that were merged: the pack of all, with the old ones still beside it.
fn folded() -> Case {
    let (storage, repo) = new();
    let mut main = Line::new(&repo, "main");
    // Of so many packs a merge takes the oldest few.
    let made: Vec<CommitId> =
        (1..21).map(|step| main.commit(step, u8::try_from(step).expect("small")).commit).collect();
    for n in 0..300 {
        repo.create_tag("moves", made[n % made.len()]).expect("a tag");
        repo.delete_tag("moves").expect("gone");
    }
    let head = repo.head_state().expect("open").operation.n;
    let log = OperationLog::new(storage.clone() as Arc<dyn Storage>);
    assert!(log.fold(head).expect("folded") > 0);
    let limits = MergeLimits { small_len: 1 << 20, num_small_max: 2, merged_len_max: 1 << 20 };
    let merged =
        repo.odb().merge_small(&limits, &Progress::new()).expect("merged").expect("there was something to merge");
    repo.odb().write_caches().expect("caches");
    let mut case = Case::new("folded", storage, &repo, made.into_iter().take(6).collect());
    // The other kinds of file are in the small one.
    let packs = [merged.new.key(), merged.old[0].key()];
    case.files.retain(|(key, _)| key.to_string().starts_with("ops/folded-") || packs.contains(key));
    assert_eq!(case.files.len(), 3);
    case
}

/// The bytes of a file that are flipped: most of the merged index is a table of zeros, folded operations and merged packs
/// are long, and each check of a repository with many packs takes a while.
fn flipped(key: &Key, len: usize) -> impl Iterator<Item = usize> {
    // Coprime to the eight bytes that most fields take.
    let (every, edge) = match len {
        _ if is_exhaustive() => (1, 0),
        _ if key.to_string() == "cache/index" => (511, 600),
        0..=4096 => (1, 0),
        _ => (37, 200),
    };
    (0..len).filter(move |at| *at < edge || at.is_multiple_of(every) || len - at < edge)
}

fn flip_all(mut case: Case) {
    for file in 0..case.files.len() {
        let (key, bytes) = case.files[file].clone();
        for at in flipped(&key, bytes.len()) {
            let is_whole = is_exhaustive() && key.to_string() != "cache/index";
            let bits: Vec<usize> = if is_whole { (0..8).collect() } else { vec![at % 8] };
            for bit in bits {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                case.attack(file, &changed, &format!("byte {at}, bit {bit}"));
            }
        }
    }
    eprintln!("{}: {} flips, all found", case.name, case.tried);
    assert!(check(&case.storage, FULL).expect("checked").is_clean());
}

#[test]
fn every_flipped_byte_of_every_file_is_found() {
    flip_all(small());
}

#[test]
fn every_flipped_byte_of_deltas_and_what_they_are_coded_against_is_found() {
    flip_all(chained());
}

#[test]
fn every_flipped_byte_of_folded_operations_and_merged_packs_is_found() {
    flip_all(folded());
}

#[test]
fn every_shorter_file_and_every_longer_one_is_found() {
    for mut case in [small(), chained(), folded()] {
        for file in 0..case.files.len() {
            let (key, bytes) = case.files[file].clone();
            let step = match (is_exhaustive(), bytes.len()) {
                (true, _) => 1,
                (false, 0..8192) => 3,
                (false, _) if key.folder() == Folder::Cache => 4099,
                (false, _) => 61,
            };
            for len in (0..bytes.len()).step_by(step) {
                case.attack(file, &bytes[..len], &format!("{len} of {} bytes", bytes.len()));
            }
            for more in [1, 64, 5000] {
                let zeros = [bytes.clone(), vec![0; more]].concat();
                case.attack(file, &zeros, &format!("{more} zeros behind it"));
                let junk = [bytes.clone(), noise(more, 3)].concat();
                case.attack(file, &junk, &format!("{more} bytes of junk behind it"));
            }
            let twice = [bytes.clone(), bytes.clone()].concat();
            case.attack(file, &twice, "twice in a row");
        }
        eprintln!("{}: {} other lengths, all found", case.name, case.tried);
    }
}

#[test]
fn every_block_of_zeros_or_in_the_place_of_another_is_found() {
    for mut case in [small(), chained(), folded()] {
        for file in 0..case.files.len() {
            let (key, bytes) = case.files[file].clone();
            for len in [512, 4096] {
                // Of the table of zeros in the merged index most blocks are equal.
                let blocks: Vec<&[u8]> = bytes.chunks(len).collect();
                let is_few = blocks.len() <= 24;
                let tried = |at: &usize| is_few || *at < 4 || blocks.len() - at <= 4;
                for at in (0..blocks.len()).filter(tried) {
                    let mut changed = bytes.clone();
                    changed[at * len..][..blocks[at].len()].fill(0);
                    if changed != bytes {
                        case.attack(file, &changed, &format!("{len} zeros from byte {}", at * len));
                    }
                    for other in (at + 1..blocks.len()).filter(tried) {
                        let mut swapped = blocks.clone();
                        swapped.swap(at, other);
                        let changed = swapped.concat();
                        if changed != bytes {
                            case.attack(file, &changed, &format!("blocks {at} and {other} of {len} bytes swapped"));
                        }
                    }
                }
            }
            assert!(key.folder() == Folder::Leases || bytes.len() > 64, "{key} is too short for this test");
        }
        eprintln!("{}: {} blocks zeroed or swapped, all found", case.name, case.tried);
    }
}

#[test]
fn a_file_in_place_of_another_valid_one_is_found() {
    let mut case = small();
    for file in 0..case.files.len() {
        let folder = case.files[file].0.folder();
        for other in (0..case.files.len()).filter(|other| *other != file) {
            let (key, strange) = case.files[other].clone();
            // Also of another kind: a pack where an operation should be.
            if [Folder::Ops, Folder::Packs].contains(&folder) || key.folder() != folder {
                case.attack(file, &strange, &format!("{key} in its place"));
            }
        }
    }
    eprintln!("{} files in place of others, all found", case.tried);
}

#[test]
fn older_caches_in_place_of_newer_ones_change_nothing_that_is_read() {
    let (storage, repo) = new();
    let mut main = Line::new(&repo, "main");
    let first = main.commit(1, 1).commit;
    repo.odb().write_caches().expect("caches");
    let older: Vec<_> = all(&storage).into_iter().filter(|(key, _)| key.folder() == Folder::Cache).collect();
    assert_eq!(older.len(), 2);
    let ids = vec![first, main.commit(2, 2).commit, main.commit(3, 3).commit];
    repo.odb().write_caches().expect("caches");
    let mut tried = 0;
    for which in [&older[..1], &older[1..], &older[..]] {
        for (key, bytes) in which {
            assert_ne!(&storage.read(key, 1 << 30).expect("read"), bytes, "{key} did not change");
            put(&storage, key, bytes);
        }
        let case = Case::new("stale", Arc::clone(&storage), &repo, ids.clone());
        let opened = Repository::open(storage.clone() as Arc<dyn Storage>).expect("opens");
        for id in &ids {
            assert!(opened.commit_of(id).is_ok(), "a stale cache hides {id}");
        }
        case.assert_no_wrong_bytes("stale caches");
        opened.odb().write_caches().expect("caches");
        tried += 1;
    }
    assert_eq!(tried, 3);
}
