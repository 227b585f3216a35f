//! What goes in comes out, once, whoever asks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use gradient_object::{CHUNK_BYTES, ChunkId, CommitId, TreeId};
use gradient_odb::{ByteSink, ByteSource, OdbError, Progress, Source, VerifyLevel};
use gradient_storage::{Folder, Storage};
use support::{Sink, assert_restores, commit, memory, names, noise, open, tensor};

#[test]
fn restores_states_of_every_length_around_a_chunk_in_this_process_and_the_next() {
    let storage = memory();
    let odb = open(&storage);
    let states: Vec<Vec<u8>> = [256, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 77]
        .iter()
        .zip(1..)
        .map(|(len, seed)| noise(seed, *len))
        .collect();
    let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    let made = commit(&odb, &states, &[], 1).unwrap();
    assert_eq!(made.tensors[4].num_chunks().unwrap(), 4);
    assert_restores(&odb, &made, &states);
    assert_restores(&open(&storage), &made, &states);
    let pack = made.sealed.pack.unwrap();
    assert_eq!(made.sealed.added_len, storage.len(&pack.key()).unwrap());
    assert_eq!(odb.disk_bytes(), made.sealed.added_len);
    let report = odb.verify_pack(&pack, VerifyLevel::Full, &Progress::new()).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!((report.num_chunks, report.num_trees, report.num_commits), (9, 3, 1));
    assert_eq!(odb.pack_objects(&pack).unwrap().len(), 13);
}

#[test]
fn what_compresses_is_stored_smaller_and_comes_back() {
    let storage = memory();
    let odb = open(&storage);
    let state: Vec<u8> = (0..2 * CHUNK_BYTES + 5).map(|i| (i / 1000) as u8).collect();
    let made = commit(&odb, &[&state], &[], 1).unwrap();
    assert!(made.sealed.added_len < 100_000, "{}", made.sealed.added_len);
    assert_restores(&open(&storage), &made, &[&state]);
    let pack = made.sealed.pack.unwrap();
    assert_eq!(odb.verify_pack(&pack, VerifyLevel::Full, &Progress::new()).unwrap().damage, []);
}

#[test]
fn a_chunk_is_stored_once_however_often_it_occurs() {
    let storage = memory();
    let odb = open(&storage);
    let one = noise(1, CHUNK_BYTES);
    let thrice = [&one[..], &one[..], &one[..]].concat();
    let made = commit(&odb, &[&thrice, &one], &[], 1).unwrap();
    let pack = made.sealed.pack.unwrap();
    assert_eq!(odb.verify_pack(&pack, VerifyLevel::Full, &Progress::new()).unwrap().num_chunks, 1);
    assert_restores(&odb, &made, &[&thrice, &one]);
}

#[test]
fn an_unchanged_state_adds_only_metadata_in_this_process_and_the_next() {
    let storage = memory();
    let odb = open(&storage);
    let state = noise(1, 3 * CHUNK_BYTES);
    let first = commit(&odb, &[&state], &[], 1).unwrap();
    for (odb, step) in [(&odb, 2), (&open(&storage), 3)] {
        let again = commit(odb, &[&state], &[first.commit], step).unwrap();
        assert!(again.sealed.added_len < 1000, "{}", again.sealed.added_len);
        assert_eq!((again.root, again.tree), (first.root, first.tree));
        assert_eq!(again.sealed.relied.len(), 3 + 3, "three chunks, three trees");
        assert!(odb.still_holds(&again.sealed).unwrap());
    }
    let same = commit(&odb, &[&state], &[first.commit], 2).unwrap();
    assert_eq!(same.sealed.pack, None, "even the commit was there");
    assert_eq!(same.sealed.added_len, 0);
}

#[test]
fn a_reader_that_misses_something_finds_what_another_process_has_written() {
    let storage = memory();
    let (ours, theirs) = (open(&storage), open(&storage));
    let state = noise(1, 300);
    let made = commit(&theirs, &[&state], &[], 1).unwrap();
    assert!(!ours.has_commit(&made.commit));
    assert_restores(&ours, &made, &[&state]);
    assert!(ours.has_commit(&made.commit));
}

/// Memory that the training loop goes on with: every byte may be read once.
struct Moving {
    len: usize,
    reads: AtomicUsize,
}

impl ByteSource for Moving {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        // Other bytes at every read, as if an optimizer were at work.
        let read = self.reads.fetch_add(out.len(), Ordering::SeqCst) as u64;
        out.copy_from_slice(&noise(read + offset as u64 + 1, out.len()));
    }
}

#[test]
fn each_byte_of_a_source_is_read_once_and_what_was_read_is_what_is_stored() {
    let storage = memory();
    let odb = open(&storage);
    let source = Moving { len: 20 * CHUNK_BYTES + 3, reads: AtomicUsize::new(0) };
    let mut transaction = odb.begin();
    let ids = transaction.add_sources(&[Source::plain(&source)], None, &Progress::new()).unwrap().remove(0);
    let read = source.reads.load(Ordering::SeqCst);
    assert_eq!(read, source.len);
    transaction.seal(&Progress::new()).unwrap();
    assert_eq!(source.reads.load(Ordering::SeqCst), read);
    // Reading hashes: ids and bytes belong together.
    for (i, id) in ids.iter().enumerate() {
        odb.read_chunk(id, CHUNK_BYTES.min(source.len - i * CHUNK_BYTES)).unwrap();
    }
}

#[test]
fn a_source_that_changes_after_add_sources_changes_nothing() {
    let storage = memory();
    let odb = open(&storage);
    let mut state = noise(1, 2 * CHUNK_BYTES);
    let before = state.clone();
    let mut transaction = odb.begin();
    let ids = transaction.add_sources(&[Source::plain(&&state[..])], None, &Progress::new()).unwrap().remove(0);
    state.fill(0);
    transaction.seal(&Progress::new()).unwrap();
    assert!(odb.read_tensor_bytes(&tensor(state.len(), ids)).unwrap() == before);
}

/// Asks to stop while it is read.
struct Stopping(Progress, usize);

impl ByteSource for Stopping {
    fn len(&self) -> usize {
        self.1
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        if offset > self.1 / 2 {
            self.0.cancel();
        }
        out.copy_from_slice(&noise(offset as u64 + 1, out.len()));
    }
}

#[test]
fn a_cancelled_transaction_leaves_nothing_and_can_not_be_sealed() {
    let storage = memory();
    let odb = open(&storage);
    let progress = Progress::new();
    let source = Stopping(progress.clone(), 50 * CHUNK_BYTES);
    let mut transaction = odb.begin();
    assert!(matches!(transaction.add_sources(&[Source::plain(&source)], None, &progress), Err(OdbError::Cancelled)));
    assert!(progress.done() < progress.total());
    assert!(matches!(transaction.add_sources(&[], None, &Progress::new()), Err(OdbError::TransactionFailed)));
    assert!(matches!(transaction.seal(&Progress::new()), Err(OdbError::TransactionFailed)));
    assert_eq!(names(&storage, Folder::Packs), [""; 0]);
    assert_eq!(odb.disk_bytes(), 0);
}

#[test]
fn a_dropped_transaction_leaves_nothing_in_the_index() {
    let storage = memory();
    let odb = open(&storage);
    let state = noise(1, CHUNK_BYTES);
    let mut transaction = odb.begin();
    let ids = transaction.add_sources(&[Source::plain(&&state[..])], None, &Progress::new()).unwrap().remove(0);
    drop(transaction);
    assert!(!odb.has_chunk(&ids[0]));
    assert_eq!(names(&storage, Folder::Packs), [""; 0]);
    let made = commit(&odb, &[&state], &[], 1).unwrap();
    assert_restores(&odb, &made, &[&state]);
}

#[test]
fn several_calls_go_into_one_pack() {
    let storage = memory();
    let odb = open(&storage);
    let states: Vec<Vec<u8>> = (1..4).map(|seed| noise(seed, 17 * CHUNK_BYTES)).collect();
    let mut transaction = odb.begin();
    let mut tensors = Vec::new();
    for state in &states {
        let ids = transaction.add_sources(&[Source::plain(&&state[..])], None, &Progress::new()).unwrap().remove(0);
        tensors.push(tensor(state.len(), ids));
    }
    let sealed = transaction.seal(&Progress::new()).unwrap();
    assert_eq!(names(&storage, Folder::Packs).len(), 1);
    for (tensor, state) in tensors.iter().zip(&states) {
        assert!(odb.read_tensor_bytes(tensor).unwrap() == *state);
    }
    let report = odb.verify_pack(&sealed.pack.unwrap(), VerifyLevel::Full, &Progress::new()).unwrap();
    assert_eq!(report.damage, []);
}

#[test]
fn an_empty_source_has_no_chunks_and_an_empty_transaction_no_pack() {
    let storage = memory();
    let odb = open(&storage);
    let mut transaction = odb.begin();
    let empty: &[u8] = &[];
    assert_eq!(transaction.add_sources(&[Source::plain(&empty)], None, &Progress::new()).unwrap(), [[]]);
    let sealed = transaction.seal(&Progress::new()).unwrap();
    assert_eq!((sealed.pack, sealed.added_len), (None, 0));
}

#[test]
fn memory_of_another_length_is_refused_before_a_byte_is_written() {
    let storage = memory();
    let odb = open(&storage);
    let states = [noise(1, 5000), noise(2, 5000)];
    let made = commit(&odb, &[&states[0], &states[1]], &[], 1).unwrap();
    let (good, short) = (Sink::new(5000), Sink::new(4999));
    let jobs: [(_, &dyn ByteSink); 2] = [(&made.tensors[0], &good), (&made.tensors[1], &short)];
    let error = odb.read_tensors(&jobs, &Progress::new()).unwrap_err();
    assert!(matches!(error, OdbError::WrongLength { expected: 5000, actual: 4999, .. }), "{error}");
    assert!(good.bytes() == [0xee; 5000]);
}

#[test]
fn a_tensor_whose_chunk_has_another_length_is_refused() {
    let storage = memory();
    let odb = open(&storage);
    let made = commit(&odb, &[&noise(1, 5000)], &[], 1).unwrap();
    let mut lying = made.tensors[0].clone();
    lying.shape = vec![4999];
    assert!(matches!(odb.read_tensor_bytes(&lying), Err(OdbError::WrongLength { .. })));
    lying.shape = vec![2 * CHUNK_BYTES as u64];
    assert!(matches!(odb.read_tensor_bytes(&lying), Err(OdbError::WrongLength { .. })));
}

#[test]
fn objects_of_one_kind_are_not_found_under_another() {
    let storage = memory();
    let odb = open(&storage);
    let made = commit(&odb, &[&noise(1, 500)], &[], 1).unwrap();
    assert!(!odb.has_tree(&TreeId::from_bytes(*made.commit.as_bytes())));
    assert!(!odb.has_chunk(&ChunkId::from_bytes(*made.tree.as_bytes())));
    let error = odb.read_commit(&CommitId::from_bytes(*made.tree.as_bytes())).unwrap_err();
    assert!(matches!(error, OdbError::NotFound { .. }), "{error}");
}

#[test]
fn finds_commits_by_every_prefix_of_their_id_and_none_by_others() {
    let storage = memory();
    let odb = open(&storage);
    let made: Vec<CommitId> = (0..40).map(|step| commit(&odb, &[], &[], step).unwrap().commit).collect();
    odb.write_caches().unwrap();
    let late: Vec<CommitId> = (40..60).map(|step| commit(&odb, &[], &[], step).unwrap().commit).collect();
    let mut all = [made, late].concat();
    all.sort_unstable();
    for odb in [&odb, &open(&storage)] {
        assert_eq!(odb.commit_prefix(""), all);
        for id in &all {
            let hex = id.to_hex();
            for digits in 1..=64 {
                let prefix = &hex[..digits];
                let expected: Vec<_> = all.iter().copied().filter(|id| id.to_hex().starts_with(prefix)).collect();
                assert_eq!(odb.commit_prefix(prefix), expected, "{prefix}");
            }
        }
        assert_eq!(odb.commit_prefix("xyz"), []);
        assert_eq!(odb.commit_prefix(&"0".repeat(65)), []);
    }
}
