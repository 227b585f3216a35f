//! Operations that were made to do harm, or that a storage returns otherwise than it took them: refused or worked
//! around, in little memory.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gradient_object::{CommitId, OperationId};
use gradient_repo::{
    By, FsckOptions, FsckReport, Head, Operation, OperationKind, OperationLog, Progress, Refs, RepoError, Repository,
    Subject, Target, fsck, repair,
};
use gradient_storage::{Durability, Folder, Key, Listed, MemoryStorage, PackWriter, Put, Storage, StorageError};
use support::{Line, new, reopen};

const MEMORY_MAX: u64 = 256 << 20;
const TIME_MAX: Duration = Duration::from_secs(10);

fn operation(n: u64, previous: Option<OperationId>, refs: Refs, why: &str) -> Operation {
    let by = By { host: "node".into(), pid: 1, user: "user".into(), version: "1".into() };
    Operation {
        n,
        previous,
        kind: if n == 1 { OperationKind::Init } else { OperationKind::Commit },
        why: why.to_owned(),
        subject: Subject::None,
        time_ns: 0,
        by,
        head: Head::Branch("main".into()),
        refs,
        condemned: Vec::new(),
    }
}

/// Operations, each following the one before.
#[derive(Default)]
struct Chain {
    payloads: Vec<Vec<u8>>,
    last: Option<OperationId>,
}

impl Chain {
    fn push(&mut self, refs: Refs, why: &str) {
        let n = self.payloads.len() as u64 + 1;
        let (file, id) = operation(n, self.last, refs, why).encode().expect("an operation");
        self.payloads.push(file[16..file.len() - 32].to_vec());
        self.last = Some(id);
    }

    fn folded(&self) -> Vec<u8> {
        let content: Vec<u8> =
            self.payloads.iter().flat_map(|one| [&(one.len() as u64).to_le_bytes()[..], one].concat()).collect();
        envelope(*b"GROF", &zstd::bulk::compress(&content, 3).expect("a frame"))
    }
}

fn envelope(magic: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut file = [&magic[..], &1_u32.to_le_bytes(), &(payload.len() as u64).to_le_bytes(), payload].concat();
    let hash = blake3::hash(&file);
    file.extend_from_slice(hash.as_bytes());
    file
}

/// A repository whose operations 1 to m are this file.
fn with_folded(m: u64, file: &[u8]) -> Arc<MemoryStorage> {
    let (storage, repo) = new();
    drop(repo);
    storage.delete(&Key::operation(1)).expect("there is one");
    storage.replace(&Key::folded(m), file, Durability::Unsynced).expect("a file");
    storage
}

fn check(storage: &Arc<MemoryStorage>) -> Result<FsckReport, RepoError> {
    fsck(&(Arc::clone(storage) as Arc<dyn Storage>), FsckOptions::default(), &Progress::new())
}

/// The most memory that this process has had since it was last asked.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("its own status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    std::fs::write("/proc/self/clear_refs", "5").expect("its own peak can be set back");
    kib << 10
}

/// Does something that must cost little time and memory beside what there is.
fn cheaply<T>(what: &str, work: impl FnOnce() -> T) -> T {
    peak();
    let before = peak();
    let began = Instant::now();
    let done = work();
    let (took, memory) = (began.elapsed(), peak().saturating_sub(before));
    // AddressSanitizer takes time and memory of its own.
    let is_measured = std::env::var_os("ASAN_OPTIONS").is_none();
    assert!(took < TIME_MAX || !is_measured, "{what} took {took:?}");
    assert!(memory < MEMORY_MAX || !is_measured, "{what} took {} MiB", memory >> 20);
    done
}

fn is_damaged<T>(outcome: &Result<T, RepoError>) -> bool {
    matches!(outcome, Err(RepoError::Damaged { .. }))
}

/// One test, because memory is the process's.
#[test]
fn operations_of_a_stranger_cost_little_time_and_memory_whatever_they_say() {
    // Small changes against a large table, many times over.
    let target = Target::Branch(CommitId::from_bytes([7; 32]));
    let mut chain = Chain::default();
    for _ in 0..4 {
        let since = chain.payloads.len() as u64 + 1;
        chain.push(Refs::Whole((0..60_000).map(|i| (format!("b{i:06}"), target)).collect()), "");
        for i in 0..64 {
            let changes = BTreeMap::from([(format!("b{i:06}"), None)]);
            chain.push(Refs::Changes { since, changes }, "");
        }
    }
    let m = chain.payloads.len() as u64;
    let storage = with_folded(m, &chain.folded());
    drop(chain);
    cheaply("a large table with many changes", || {
        let repo = Repository::open(storage.clone()).expect("an intact log");
        let rows = repo.operations(Some(3)).expect("the newest");
        assert_eq!(rows[0].changes.len(), 2, "one ref comes back, another goes");
        assert!(repo.resolve("b000001@7", None).is_err());
        let report = check(&storage).expect("checked");
        assert_eq!(report.lost.len(), 1, "60,000 branches, one commit, which is not there: {:?}", report.findings);
    });

    // A frame of a few kilobytes that holds 200 MiB, all of it right.
    let mut chain = Chain::default();
    for n in 0..50 {
        let refs =
            if n == 0 { Refs::Whole(BTreeMap::new()) } else { Refs::Changes { since: 1, changes: BTreeMap::new() } };
        chain.push(refs, &"a".repeat(4 << 20));
    }
    let file = chain.folded();
    assert!(file.len() < 1 << 20);
    let storage = with_folded(50, &file);
    drop(chain);
    cheaply("operations with long reasons", || {
        let repo = Repository::open(storage.clone()).expect("an intact log");
        assert_eq!(repo.operations(Some(2)).expect("the newest").len(), 2);
        let error = repo.operations(None).expect_err("all of them");
        assert!(matches!(&error, RepoError::Invalid { hint: Some(hint), .. } if hint.contains("--limit")), "{error:?}");
        // A fold leaves the newest operations in files, and this one is alone.
        let findings = check(&storage).expect("checked").findings;
        assert_eq!(findings.iter().map(|found| found.file.as_str()).collect::<Vec<_>>(), [format!("ops/{:020}", 51)]);
    });

    // A frame that says that it holds 1,000 bytes and holds 1 GiB.
    let head = [&0xFD2F_B528_u32.to_le_bytes()[..], &[0b1010_0000], &1000_u32.to_le_bytes()].concat();
    let block = |is_last: u32| ((131_072_u32 << 3) | (1 << 1) | is_last).to_le_bytes()[..3].to_vec();
    let mut frame = head;
    for i in 0..8192 {
        frame.extend_from_slice(&block(u32::from(i == 8191)));
        frame.push(0);
    }
    let storage = with_folded(3, &envelope(*b"GROF", &frame));
    cheaply("a frame that lies", || assert!(is_damaged(&Repository::open(storage.clone()))));

    // A frame that asks for a window of 1 GiB.
    let mut frame =
        [&0xFD2F_B528_u32.to_le_bytes()[..], &[0b1000_0000, 20 << 3], &(200_u32 << 20).to_le_bytes()].concat();
    for i in 0..1600 {
        frame.extend_from_slice(&block(u32::from(i == 1599)));
        frame.push(0);
    }
    let storage = with_folded(3, &envelope(*b"GROF", &frame));
    cheaply("a frame with a large window", || assert!(is_damaged(&Repository::open(storage.clone()))));

    // A name that claims all operations there can be.
    let (storage, repo) = new();
    drop(repo);
    let last = operation(u64::MAX, Some(OperationId::of(b"")), Refs::Whole(BTreeMap::new()), "").encode();
    storage.replace(&Key::operation(u64::MAX), &last.expect("encoded").0, Durability::Unsynced).expect("a file");
    cheaply("the last number of all", || {
        let repo = Repository::open(storage.clone()).expect("its newest operation can be read");
        assert!(is_damaged(&repo.create_branch("b", CommitId::of(b""), "")));
        assert!(!check(&storage).expect("checked").is_clean());
    });
}

#[test]
fn changes_against_another_table_than_the_newest_are_named() {
    let mut chain = Chain::default();
    chain.push(Refs::Whole(BTreeMap::new()), "");
    chain.push(Refs::Whole(BTreeMap::new()), "");
    chain.push(Refs::Changes { since: 1, changes: BTreeMap::new() }, "");
    let storage = with_folded(3, &chain.folded());
    let repo = Repository::open(storage.clone()).expect("its head can be read");
    assert!(is_damaged(&repo.operations(None)));
    let report = check(&storage).expect("checked");
    assert!(report.findings.iter().any(|finding| finding.file.ends_with("03")), "{:?}", report.findings);
}

/// Returns folded files otherwise than it took them, when told.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<MemoryStorage>,
    is_lying: AtomicBool,
    /// Times that a frame was read from its beginning, and the first of them that lies.
    num_passes: AtomicUsize,
    first_lie: usize,
    /// Which byte of the frame is another one.
    at: usize,
}

impl Forgetful {
    fn new(inner: &Arc<MemoryStorage>, first_lie: usize, at: usize) -> Self {
        let (is_lying, num_passes) = (AtomicBool::new(true), AtomicUsize::new(0));
        Self { inner: Arc::clone(inner), is_lying, num_passes, first_lie, at }
    }
}

impl Storage for Forgetful {
    fn create_folders(&self) -> Result<(), StorageError> {
        self.inner.create_folders()
    }
    fn put_if_absent(&self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError> {
        self.inner.put_if_absent(key, bytes)
    }
    fn replace(&self, key: &Key, bytes: &[u8], durability: Durability) -> Result<(), StorageError> {
        self.inner.replace(key, bytes, durability)
    }
    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner.overwrite(key, bytes)
    }
    fn sync(&self, folder: Folder) -> Result<(), StorageError> {
        self.inner.sync(folder)
    }
    fn read(&self, key: &Key, max_len: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.read(key, max_len)
    }
    fn read_at(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.inner.read_at(key, offset, buf)?;
        if key.name().starts_with("folded-") && offset == 16 && buf.len() > 14 {
            let pass = self.num_passes.fetch_add(1, Ordering::Relaxed) + 1;
            if self.is_lying.load(Ordering::Relaxed) && pass >= self.first_lie {
                buf[self.at] ^= 1;
            }
        }
        Ok(())
    }
    fn len(&self, key: &Key) -> Result<u64, StorageError> {
        self.inner.len(key)
    }
    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        self.inner.exists(key)
    }
    fn list(&self, folder: Folder) -> Result<Vec<Listed>, StorageError> {
        self.inner.list(folder)
    }
    fn strangers(&self, folder: Folder) -> Result<Vec<String>, StorageError> {
        self.inner.strangers(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.delete(key)
    }
    fn move_to_trash(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.move_to_trash(key)
    }
    fn move_aside(&self, key: &Key) -> Result<Key, StorageError> {
        self.inner.move_aside(key)
    }
    fn create_pack(&self, id: &[u8; 16], expected_len: u64) -> Result<Box<dyn PackWriter + '_>, StorageError> {
        self.inner.create_pack(id, expected_len)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

/// A log of 520 operations: long enough to be folded.
fn long_log() -> Arc<MemoryStorage> {
    let (storage, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    for i in 0..518 {
        repo.create_branch(&format!("b{i}"), one, "").expect("a branch");
    }
    storage
}

#[test]
fn a_fold_that_reads_back_wrong_leaves_every_operation_as_it_was() {
    let inner = long_log();
    let before = reopen(&inner).operations(None).expect("all").len();
    let storage = Arc::new(Forgetful::new(&inner, 1, 90));
    let log = OperationLog::new(storage.clone());
    assert!(is_damaged(&log.fold(520)));
    assert!(inner.list(Folder::Ops).expect("listed").iter().all(|file| !file.name.starts_with("folded")));
    assert_eq!(reopen(&inner).operations(None).expect("all").len(), before);
    storage.is_lying.store(false, Ordering::Relaxed);
    assert_eq!(log.fold(520).expect("folded"), 456);
    assert_eq!(reopen(&inner).operations(None).expect("all").len(), before);
}

#[test]
fn a_folded_file_that_is_another_when_it_is_read_again_is_damaged() {
    let inner = long_log();
    assert_eq!(OperationLog::new(inner.clone()).fold(520).expect("folded"), 456);
    let frame_len = inner.len(&Key::folded(456)).expect("a file") - 48;
    for at in (0..usize::try_from(frame_len).expect("small")).step_by(7) {
        let log = OperationLog::new(Arc::new(Forgetful::new(&inner, 2, at)));
        let read = log.read(100);
        assert!(is_damaged(&read), "byte {at}: {read:?}");
    }
}

#[test]
fn a_log_whose_operations_do_not_follow_is_not_folded() {
    let inner = long_log();
    let other = long_log();
    let key = Key::operation(100);
    let file = other.read(&key, u64::MAX).expect("an operation");
    inner.replace(&key, &file, Durability::Unsynced).expect("put");
    assert!(is_damaged(&OperationLog::new(inner.clone()).fold(520)));
    assert!(inner.exists(&Key::operation(1)).expect("looked") && inner.exists(&key).expect("looked"));
}

#[test]
fn a_log_with_an_operation_that_is_empty_is_not_folded() {
    let inner = long_log();
    inner.replace(&Key::operation(100), b"", Durability::Unsynced).expect("put");
    assert!(is_damaged(&OperationLog::new(inner.clone()).fold(520)));
    assert!(inner.exists(&Key::operation(1)).expect("looked"));
}

#[test]
fn a_damaged_folded_file_is_moved_aside_if_its_operations_are_still_there() {
    let storage = long_log();
    let files: Vec<(Key, Vec<u8>)> = (1..=456)
        .map(|n| (Key::operation(n), storage.read(&Key::operation(n), u64::MAX).expect("an operation")))
        .collect();
    assert_eq!(OperationLog::new(storage.clone()).fold(520).expect("folded"), 456);
    let mut folded = storage.read(&Key::folded(456), u64::MAX).expect("a file");
    folded[90] ^= 1;
    storage.replace(&Key::folded(456), &folded, Durability::Unsynced).expect("damaged");
    let shared: Arc<dyn Storage> = storage.clone();
    let hopeless = repair(&shared, true, &Progress::new()).expect("a plan");
    assert!(hopeless.moves.is_empty() && !hopeless.left.is_empty(), "{hopeless:?}");
    for (key, file) in &files[1..] {
        storage.replace(key, file, Durability::Unsynced).expect("put back");
    }
    assert!(repair(&shared, true, &Progress::new()).expect("a plan").moves.is_empty(), "one is missing");
    storage.replace(&files[0].0, &files[0].1, Durability::Unsynced).expect("put back");
    let mended = repair(&shared, true, &Progress::new()).expect("a plan");
    assert_eq!(mended.moves.iter().map(|step| step.file.as_str()).collect::<Vec<_>>(), [Key::folded(456).to_string()]);
    assert!(mended.left.is_empty(), "{mended:?}");
    assert!(storage.exists(&mended.moves[0].to.as_deref().and_then(lost).expect("moved")).expect("looked"));
    assert_eq!(reopen(&storage).operations(None).expect("all").len(), 520);
    assert!(check(&storage).expect("checked").is_clean());
}

fn lost(place: &str) -> Option<Key> {
    Key::new(Folder::LostFound, place.strip_prefix("lost+found/")?).ok()
}
