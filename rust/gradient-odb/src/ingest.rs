//! The hot path of a commit: from other people's memory into entries of a pack.
//!
//! Sources are cut into chunks and chunks gathered into batches of 16 MiB. Of each batch, in parallel:
//!
//! 1. copy every chunk and hash the copy while it is in the processor's cache (nothing reads the source again); look it
//!    up; if it is known and verified, its memory serves the next chunk at once;
//! 2. of the others, encode what is new, decode it again and compare (rule D5); read what is there but was never
//!    verified by this process and compare (rule D4), and write it again if it is bad.
//!
//! New entries go, batch by batch and in order, to a thread that appends them to the pack, their payloads uncopied:
//! the disk writes one batch while the next ones are hashed. The channel is bounded, so a few batches are in flight.

use std::cell::RefCell;
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use gradient_codec::Scratch;
use gradient_object::{CHUNK_BYTES, ChunkId};
use rayon::prelude::*;

use crate::arena::StagedBytes;
use crate::index::Found;
use crate::pack::writer::{NewEntry, PackBuilder, Payload};
use crate::pool;
use crate::{ByteSource, ObjectName, Odb, OdbError, PackId, Progress, Transaction};

/// Raw bytes of a batch: long enough for many threads, short enough to start the disk early.
const BATCH_BYTES: usize = 16 << 20;
/// The same while nothing is new.
const KNOWN_BATCH_BYTES: usize = 64 << 20;
/// Copied, then hashed, at a time; set by `examples/hot_path.rs`, anything from 64 KiB to a whole chunk is close.
const FUSE_BYTES: usize = 256 << 10;
/// Batches that may wait for the disk.
const BATCHES_WAITING_MAX: usize = 4;
/// Reserved beside the raw bytes of a pack, for headers and index.
const RESERVE_BYTES: u64 = 1 << 20;

/// Memory that a thread encodes and decodes in, again and again.
#[derive(Default)]
struct Coding {
    scratch: Scratch,
    decoded: Vec<u8>,
}

thread_local! {
    static CODING: RefCell<Coding> = RefCell::default();
}

/// A chunk of a source.
#[derive(Clone, Copy)]
struct Piece {
    source: usize,
    offset: usize,
    len: usize,
}

/// What the index says of a staged chunk.
enum Known {
    /// It is in this pack, and this process has verified it there.
    Verified(PackId),
    /// It was not verified by this process. None: it is new.
    No(StagedBytes, Option<Found>),
}

/// A chunk of a batch that is not known to be stored.
struct Work {
    id: ChunkId,
    staged: StagedBytes,
    /// Where the index says it is.
    unverified: Option<Found>,
}

/// What became of it.
enum Outcome {
    Relied(ObjectName, PackId),
    New(NewEntry),
}

/// The thread that appends, and the way to it.
struct WriterLane<'scope> {
    sender: Sender<Vec<NewEntry>>,
    thread: ScopedJoinHandle<'scope, Result<(), OdbError>>,
}

impl<'a> Transaction<'a> {
    /// Copies, hashes and stores what is new of the sources; returns the chunk ids of each, in order.
    ///
    /// When this returns, every source has been read once, and what its memory holds from now on does not matter.
    /// An empty source has no chunks. After an error the transaction can only be dropped.
    ///
    /// # Errors
    /// - [`OdbError::Cancelled`]: within a batch.
    /// - [`OdbError::CodingNotReversible`]: the machine is faulty.
    /// - [`OdbError::TransactionFailed`], [`OdbError::Storage`], [`OdbError::Random`].
    pub fn add_sources(
        &mut self,
        sources: &[&dyn ByteSource],
        progress: &Progress,
    ) -> Result<Vec<Vec<ChunkId>>, OdbError> {
        if self.has_failed {
            return Err(OdbError::TransactionFailed);
        }
        self.has_failed = true;
        let pieces = cut(sources);
        let total: u64 = pieces.iter().map(|piece| piece.len as u64).sum();
        progress.add_total(total);

        let mut ids: Vec<Vec<ChunkId>> = sources.iter().map(|_| Vec::new()).collect();
        std::thread::scope(|scope| {
            let mut pack = Some(std::mem::take(&mut self.pack));
            let (sender_of_pack, pack_back) = bounded(1);
            let mut lane: Option<WriterLane<'_>> = None;
            let outcome = self.run_batches(&pieces, sources, progress, &mut ids, |odb, entries, reserve| {
                let lane = lane.get_or_insert_with(|| {
                    let pack = pack.take().flatten();
                    start_writer(scope, odb, pack, reserve, sender_of_pack.clone())
                });
                // A writer that is gone has failed; its error is returned when it is joined.
                lane.sender.send(entries).is_ok()
            });
            drop(sender_of_pack);
            let written = lane.map_or(Ok(()), |lane| {
                drop(lane.sender);
                lane.thread.join().unwrap_or(Err(OdbError::TransactionFailed))
            });
            self.pack = match pack {
                Some(untouched) => untouched,
                None => pack_back.recv().ok(),
            };
            written.and(outcome)
        })?;
        self.has_failed = false;
        Ok(ids)
    }

    /// Takes the pieces through the batches; `write` gets new entries and says whether to go on.
    fn run_batches(
        &mut self,
        pieces: &[Piece],
        sources: &[&dyn ByteSource],
        progress: &Progress,
        ids: &mut [Vec<ChunkId>],
        mut write: impl FnMut(&'a Odb, Vec<NewEntry>, u64) -> bool,
    ) -> Result<(), OdbError> {
        let mut rest: u64 = pieces.iter().map(|piece| piece.len as u64).sum();
        let mut pieces = pieces;
        let mut batch_max = BATCH_BYTES;
        while !pieces.is_empty() {
            progress.check()?;
            let (batch, after) = pieces.split_at(batch_end(pieces, batch_max));
            pieces = after;
            let staged = stage(self.odb, batch, sources, progress)?;
            for (piece, (id, _)) in batch.iter().zip(&staged) {
                ids[piece.source].push(*id);
            }
            let entries = self.settle(staged, progress)?;
            let batch_len: u64 = batch.iter().map(|piece| piece.len as u64).sum();
            if entries.is_empty() {
                // Nothing waits for the disk, and nothing is kept: threads need not meet so often.
                batch_max = (2 * batch_max).min(KNOWN_BATCH_BYTES);
            } else {
                batch_max = BATCH_BYTES;
                let new_len: u64 = entries.iter().map(|entry| entry.row.entry_len()).sum();
                // What is mostly new so far will mostly be new.
                let expected = if 2 * new_len >= batch_len { rest } else { new_len };
                if !write(self.odb, entries, expected + RESERVE_BYTES) {
                    return Ok(());
                }
            }
            rest -= batch_len;
        }
        Ok(())
    }

    /// Finds out which chunks of a staged batch are new, and makes their entries.
    fn settle(&mut self, batch: Vec<(ChunkId, Known)>, progress: &Progress) -> Result<Vec<NewEntry>, OdbError> {
        let mut work = Vec::new();
        for (id, known) in batch {
            if !self.seen.insert(id) {
                continue;
            }
            match known {
                Known::Verified(pack) => drop(self.relied.insert(id.into(), pack)),
                Known::No(staged, unverified) => work.push(Work { id, staged, unverified }),
            }
        }
        if work.is_empty() {
            return Ok(Vec::new());
        }
        let odb = self.odb;
        let settle = |work| {
            progress.check()?;
            settle_one(odb, work)
        };
        let outcomes: Vec<Outcome> = pool::install(|| work.into_par_iter().with_max_len(1).map(settle).collect())?;
        let mut entries = Vec::new();
        let mut relied = Vec::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Relied(name, pack) => relied.push((name, pack)),
                Outcome::New(entry) => entries.push(entry),
            }
        }
        if !relied.is_empty() {
            self.relied.extend(relied.iter().copied());
            self.odb.mark_verified(relied);
        }
        Ok(entries)
    }
}

/// Cuts sources into chunks.
fn cut(sources: &[&dyn ByteSource]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (source, bytes) in sources.iter().enumerate() {
        let len = bytes.len();
        pieces.extend((0..len).step_by(CHUNK_BYTES).map(|offset| Piece {
            source,
            offset,
            len: CHUNK_BYTES.min(len - offset),
        }));
    }
    pieces
}

/// Says how many of the first pieces make a batch: at least one, and as many as `max` bytes hold.
fn batch_end(pieces: &[Piece], max: usize) -> usize {
    let mut len = 0;
    let fits = |piece: &&Piece| {
        len += piece.len;
        len <= max
    };
    pieces.iter().take_while(fits).count().max(1)
}

/// Copies a batch, hashes the copies and looks them up.
fn stage(
    odb: &Odb,
    batch: &[Piece],
    sources: &[&dyn ByteSource],
    progress: &Progress,
) -> Result<Vec<(ChunkId, Known)>, OdbError> {
    let stage_one = |piece: &Piece| {
        progress.check()?;
        let mut staged = odb.arena.take(piece.len);
        let id = copy_and_hash(sources[piece.source], piece.offset, staged.bytes_mut());
        let known = look_up(odb, id, staged)?;
        progress.advance(piece.len as u64);
        Ok((id, known))
    };
    pool::install(|| batch.par_iter().with_max_len(1).map(stage_one).collect())
}

/// Looks up a staged chunk. An entry of another raw length is none of it.
fn look_up(odb: &Odb, id: ChunkId, staged: StagedBytes) -> Result<Known, OdbError> {
    let name = ObjectName::from(id);
    let found = odb.find_to_rely_on(&name)?;
    let found = found.filter(|found| found.row.raw_len as usize == staged.bytes().len());
    Ok(match found {
        Some(found) if odb.is_verified(&name, &found) => {
            staged.keep_for_this_thread();
            Known::Verified(found.pack)
        }
        unverified => Known::No(staged, unverified),
    })
}

/// Fills `out` from a source and hashes it on the way.
fn copy_and_hash(source: &dyn ByteSource, offset: usize, out: &mut [u8]) -> ChunkId {
    let mut hasher = blake3::Hasher::new();
    let mut at = offset;
    for part in out.chunks_mut(FUSE_BYTES) {
        source.copy_to(at, part);
        hasher.update(part);
        at += part.len();
    }
    ChunkId::from_bytes(*hasher.finalize().as_bytes())
}

/// Checks a chunk that is said to be there, or makes the entry of a new one.
fn settle_one(odb: &Odb, work: Work) -> Result<Outcome, OdbError> {
    let name = ObjectName::from(work.id);
    if let Some(found) = work.unverified {
        let is_equal = |found: &Found| odb.with_chunk_at(&name, found, |raw| Ok(raw == work.staged.bytes()));
        let is_good = |found: &Found| is_equal(found).unwrap_or(false);
        if is_good(&found) {
            return Ok(Outcome::Relied(name, found.pack));
        }
        if let Some(other) = odb.find_good_copy(&name, &found, is_good) {
            return Ok(Outcome::Relied(name, other.pack));
        }
    }
    let mut coding = CODING.take();
    let entry = encode(work.id, work.staged, &mut coding);
    CODING.set(coding);
    entry.map(Outcome::New)
}

/// Makes the entry of a chunk: coded if that pays, and then decoded again and compared.
fn encode(id: ChunkId, staged: StagedBytes, coding: &mut Coding) -> Result<NewEntry, OdbError> {
    let raw = staged.bytes();
    let encoded = gradient_codec::encode_best(raw, &mut coding.scratch)?;
    let Some(bytes) = encoded.bytes else {
        return NewEntry::anchor(id, raw.len(), &[], Payload::Raw(staged));
    };
    if coding.decoded.len() < raw.len() {
        coding.decoded.resize(raw.len(), 0);
    }
    let decoded = &mut coding.decoded[..raw.len()];
    let reversed = gradient_codec::decode(&encoded.pipeline, &bytes, raw.len(), &[], decoded);
    match reversed {
        Ok(()) if decoded == raw => {}
        Err(error) if error.is_shortage() => return Err(error.into()),
        Ok(()) | Err(_) => return Err(OdbError::CodingNotReversible { object: id.into() }),
    }
    NewEntry::anchor(id, raw.len(), &encoded.pipeline, Payload::Coded(bytes))
}

/// Starts the thread that appends batches to the pack, creating it if there is none; it gives the pack back at the end.
fn start_writer<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    odb: &'a Odb,
    pack: Option<PackBuilder<'a>>,
    reserve: u64,
    give_back: Sender<PackBuilder<'a>>,
) -> WriterLane<'scope> {
    let (sender, batches): (_, Receiver<Vec<NewEntry>>) = bounded(BATCHES_WAITING_MAX);
    let thread = scope.spawn(move || {
        let mut pack = match pack {
            Some(pack) => pack,
            None => PackBuilder::create(&*odb.storage, reserve)?,
        };
        for mut entries in batches {
            pack.append(&mut entries)?;
        }
        // Nobody to take it back means that the transaction has failed; the pack is dropped.
        give_back.send(pack).ok();
        Ok(())
    });
    WriterLane { sender, thread }
}
