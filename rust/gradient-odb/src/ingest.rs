//! The hot path of a commit: from other people's memory into entries of a pack.
//!
//! Sources are cut into chunks and chunks gathered into batches of 16 MiB. Those of a batch are taken in parallel, and of
//! each, while it is in the processor's cache,
//!
//! 1. a copy is made and hashed (nothing reads the source again), and looked up; if it is known and verified, its memory
//!    serves the next chunk at once;
//! 2. else what is new is encoded, against what the line keeps for it if that pays, decoded again and compared (rule D5);
//!    what is there but was never verified by this process is read and compared (rule D4), and written again if it is
//!    bad. A base is relied on like any other object: it is verified, and in a pack that nobody has condemned.
//!
//! Of several chunks that are the same bytes the first that a thread meets is the one that is written: what it is coded
//! against, and so how long it is stored, may differ from run to run; no id does.
//!
//! New entries go, batch by batch and in order, to a thread that appends them to the pack, their payloads uncopied:
//! the disk writes one batch while the next ones are hashed. The channel is bounded, so a few batches are in flight.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use gradient_codec::{Base, DeltaGain, Encoded, Scratch, decodes_to, encode_best};
use gradient_object::{CHUNK_BYTES, ChunkId};
use rayon::prelude::*;

use crate::arena::StagedBytes;
use crate::index::Found;
use crate::line::{BaseChunk, Candidate, LINKS_MAX, Line, Room, Slot, Update};
use crate::odb::lock;
use crate::pack::writer::{NewEntry, PackBuilder, Payload};
use crate::pool;
use crate::transaction::{Coding, Compression, Deltas};
use crate::{ByteSource, ObjectName, Odb, OdbError, PackId, Progress, Source, Transaction};

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

thread_local! {
    /// Memory that a thread encodes and decodes in, again and again.
    static CODING: RefCell<Scratch> = RefCell::default();
}

/// A chunk of a source.
#[derive(Clone, Copy)]
struct Piece {
    source: usize,
    offset: usize,
    len: usize,
}

/// What a chunk is coded against, and what that is, down to the anchor, and the packs where it is relied on.
type Links = Vec<(ObjectName, PackId)>;

/// A chunk that is not known to be stored.
struct Work<'p> {
    piece: &'p Piece,
    id: ChunkId,
    staged: Arc<StagedBytes>,
    /// Where the index says it is.
    unverified: Option<Found>,
}

/// What becomes of a chunk.
enum Outcome {
    /// It is in this pack, where this process had verified it before; and what it is coded against.
    Known(PackId, Links),
    /// The same bytes came before.
    Again,
    /// It is stored, as was just verified: where, and all that it is coded against.
    Relied(Links),
    New(Box<New>),
}

/// A chunk that is to be written.
struct New {
    entry: NewEntry,
    place: Place,
    slot: Slot,
    /// What it is coded against, and all that that is.
    relied: Links,
}

/// Number of a source, and of a chunk of it.
type Place = (usize, usize);

/// What all chunks of a call share.
#[derive(Clone, Copy)]
struct Shared<'s> {
    odb: &'s Odb,
    sources: &'s [Source<'s>],
    line: Option<&'s Line>,
    room: &'s Room,
    coding: Coding,
    /// The chunks that the transaction has met.
    seen: &'s Mutex<HashSet<ChunkId>>,
}

impl Shared<'_> {
    /// Takes what the line keeps for a chunk.
    fn take_slot(&self, piece: &Piece) -> Option<Slot> {
        let key = self.sources[piece.source].key.as_deref()?;
        self.line?.take_slot(key, piece.number())
    }
}

impl Piece {
    /// Its number among the chunks of its source.
    fn number(&self) -> usize {
        self.offset / CHUNK_BYTES
    }
}

/// The thread that appends, and the way to it.
struct WriterLane<'scope> {
    sender: Sender<Vec<NewEntry>>,
    thread: ScopedJoinHandle<'scope, Result<(), OdbError>>,
}

impl<'a> Transaction<'a> {
    /// Copies, hashes and stores what is new of the sources; returns the chunk ids of each, in order. What is new may be
    /// coded against what `line` keeps; what becomes of the line is kept for [`take_updates`](Self::take_updates).
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
        sources: &[Source<'_>],
        line: Option<&Line>,
        progress: &Progress,
    ) -> Result<Vec<Vec<ChunkId>>, OdbError> {
        if self.has_failed {
            return Err(OdbError::TransactionFailed);
        }
        self.has_failed = true;
        let room = Room::new(line.map_or(0, Line::resident_max));
        let seen = Mutex::new(std::mem::take(&mut self.seen));
        let shared = Shared { odb: self.odb, sources, line, room: &room, coding: self.coding, seen: &seen };
        let pieces = cut(sources);
        let total: u64 = pieces.iter().map(|piece| piece.len as u64).sum();
        progress.add_total(total);

        let mut ids: Vec<Vec<ChunkId>> = sources.iter().map(|_| Vec::new()).collect();
        let mut slots: HashMap<Place, Slot> = HashMap::new();
        std::thread::scope(|scope| {
            let mut pack = Some(std::mem::take(&mut self.pack));
            let (sender_of_pack, pack_back) = bounded(1);
            let mut writer: Option<WriterLane<'_>> = None;
            let outcome = self.run_batches(&pieces, shared, progress, &mut ids, &mut slots, |odb, entries, reserve| {
                let writer = writer.get_or_insert_with(|| {
                    let pack = pack.take().flatten();
                    start_writer(scope, odb, pack, reserve, sender_of_pack.clone())
                });
                // A writer that is gone has failed; its error is returned when it is joined.
                writer.sender.send(entries).is_ok()
            });
            drop(sender_of_pack);
            let written = writer.map_or(Ok(()), |writer| {
                drop(writer.sender);
                writer.thread.join().unwrap_or(Err(OdbError::TransactionFailed))
            });
            self.pack = match pack {
                Some(untouched) => untouched,
                None => pack_back.recv().ok(),
            };
            written.and(outcome)
        })?;
        self.has_failed = false;
        self.updates.slots.extend(updates(shared, &ids, &slots));
        self.seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.updates.had_no_room |= room.was_short();
        Ok(ids)
    }

    /// Takes the pieces through the batches; `write` gets new entries and says whether to go on.
    fn run_batches(
        &mut self,
        pieces: &[Piece],
        shared: Shared<'_>,
        progress: &Progress,
        ids: &mut [Vec<ChunkId>],
        slots: &mut HashMap<Place, Slot>,
        mut write: impl FnMut(&'a Odb, Vec<NewEntry>, u64) -> bool,
    ) -> Result<(), OdbError> {
        let mut rest: u64 = pieces.iter().map(|piece| piece.len as u64).sum();
        let mut pieces = pieces;
        let mut batch_max = BATCH_BYTES;
        while !pieces.is_empty() {
            progress.check()?;
            let (batch, after) = pieces.split_at(batch_end(pieces, batch_max));
            pieces = after;
            let outcomes: Vec<(ChunkId, Outcome)> = pool::install(|| {
                let take_in = |piece| take_in(piece, shared, progress);
                batch.par_iter().with_max_len(1).map(take_in).collect()
            })?;
            for (piece, (id, _)) in batch.iter().zip(&outcomes) {
                ids[piece.source].push(*id);
            }
            let entries = self.settle(outcomes, slots);
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

    /// Notes what became of the chunks of a batch; returns the entries of those that are new.
    fn settle(&mut self, outcomes: Vec<(ChunkId, Outcome)>, slots: &mut HashMap<Place, Slot>) -> Vec<NewEntry> {
        let mut entries = Vec::new();
        let mut verified = Vec::new();
        for (id, outcome) in outcomes {
            match outcome {
                Outcome::Known(pack, links) => {
                    self.relied.insert(id.into(), pack);
                    self.relied.extend(links);
                }
                Outcome::Again => {}
                Outcome::Relied(links) => verified.extend(links),
                Outcome::New(new) => {
                    let New { entry, place, slot, relied: of_base } = *new;
                    self.num_deltas += usize::from(!of_base.is_empty());
                    verified.extend(of_base);
                    entries.push(entry);
                    slots.insert(place, slot);
                }
            }
        }
        if !verified.is_empty() {
            self.relied.extend(verified.iter().copied());
            self.odb.mark_verified(verified);
        }
        entries
    }
}

/// What becomes of the line: the slots of what was written, for each place that it is in, and what it kept for all else.
fn updates(shared: Shared<'_>, ids: &[Vec<ChunkId>], slots: &HashMap<Place, Slot>) -> Vec<Update> {
    let of_id: HashMap<ChunkId, &Slot> =
        slots.iter().map(|((source, number), slot)| (ids[*source][*number], slot)).collect();
    let of_source = |(source, ids): (usize, &Vec<ChunkId>)| {
        let key = shared.sources[source].key.clone()?;
        let slots = ids.iter().enumerate().map(|(number, id)| match of_id.get(id) {
            Some(slot) => (*slot).clone(),
            None => shared.line.and_then(|line| line.take_slot(&key, number)).unwrap_or_default(),
        });
        let slots = slots.collect();
        Some(Update { key, slots })
    };
    ids.iter().enumerate().filter_map(of_source).collect()
}

/// Cuts sources into chunks.
fn cut(sources: &[Source<'_>]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (source, Source { bytes, .. }) in sources.iter().enumerate() {
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

/// Copies a chunk, hashes the copy, and finds out what becomes of it.
fn take_in(piece: &Piece, shared: Shared<'_>, progress: &Progress) -> Result<(ChunkId, Outcome), OdbError> {
    let Shared { odb, sources, .. } = shared;
    progress.check()?;
    let mut staged = odb.arena.take(piece.len);
    let id = copy_and_hash(sources[piece.source].bytes, piece.offset, staged.bytes_mut());
    let name = ObjectName::from(id);
    let found = odb.find_to_rely_on(&name)?;
    // An entry of another raw length is none of it.
    let found = found.filter(|found| found.row.raw_len as usize == piece.len);
    let verified = found.filter(|found| odb.is_verified(&name, found));
    let outcome = match verified.and_then(|found| Some((found.pack, odb.verified_links(&name, &found)?))) {
        Some((pack, links)) => {
            staged.keep_for_this_thread();
            Outcome::Known(pack, links)
        }
        None if !lock(shared.seen).insert(id) => {
            staged.keep_for_this_thread();
            Outcome::Again
        }
        None => settle_one(shared, Work { piece, id, staged: Arc::new(staged), unverified: found })?,
    };
    progress.advance(piece.len as u64);
    Ok((id, outcome))
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
fn settle_one(shared: Shared<'_>, work: Work<'_>) -> Result<Outcome, OdbError> {
    let name = ObjectName::from(work.id);
    if let Some(found) = work.unverified
        && let Some(relied) = good_copy(shared.odb, &name, &found, work.staged.bytes())
    {
        return Ok(Outcome::Relied(relied));
    }
    let mut scratch = CODING.take();
    let outcome = encode(shared, work, &mut scratch);
    CODING.set(scratch);
    outcome
}

/// Returns where a copy lies that is these bytes, and all that it is coded against: where the index says, or elsewhere.
fn good_copy(odb: &Odb, name: &ObjectName, found: &Found, bytes: &[u8]) -> Option<Links> {
    let links_of = |found: &Found| {
        let links = odb.links_if_equal(name, found, bytes)?;
        // What is condemned can still be read.
        let is_fit = links.iter().all(|(_, pack)| odb.is_fit(pack));
        is_fit.then(|| [&[(*name, found.pack)], &links[..]].concat())
    };
    links_of(found).or_else(|| {
        let mut links = None;
        odb.find_good_copy(name, found, |other| {
            links = links_of(other);
            links.is_some()
        })?;
        links
    })
}

/// What a chunk may be coded against, and the packs that are relied on for all that it takes to read that.
struct Ground {
    base: Arc<BaseChunk>,
    relied: Links,
}

/// Returns what a chunk may be coded against; none if that is gone, damaged, or nothing of it may be relied on. A base
/// that can not be read is no reason to keep anybody from their commit.
fn ground_for(shared: Shared<'_>, slot: &mut Option<Slot>, raw_len: usize) -> Option<Ground> {
    let slot = slot.as_mut().filter(|_| shared.coding.deltas != Deltas::Off)?;
    let odb = shared.odb;
    let base = match std::mem::take(&mut slot.base) {
        Candidate::None => return None,
        Candidate::Resident(base) => base,
        Candidate::Stored(id) => {
            let base = shared.room.take(raw_len).then(|| odb.read_base(&id).ok()).flatten()?;
            // The end of a chain that can not go on: what it begins with may serve.
            let first = base.links.last().filter(|_| !base.can_carry(0)).copied();
            Arc::new(match first {
                Some(first) => odb.read_base(&ChunkId::from_bytes(first.id)).ok()?,
                None => base,
            })
        }
    };
    let name = ObjectName::from(base.id);
    // Another process may have coded the same chunk against something else, and that copy be the one that is read.
    let with_links = |found: Found| {
        let links = odb.verified_links(&name, &found)?;
        Some([&[(name, found.pack)], &links[..]].concat())
    };
    let relied = match odb.find_verified(&name).and_then(with_links) {
        Some(relied) => relied,
        None => good_copy(odb, &name, &odb.find_to_rely_on(&name).ok()??, base.bytes.bytes())?,
    };
    (relied.len() <= LINKS_MAX).then_some(Ground { base, relied })
}

/// Makes the entry of a chunk: coded if that pays, and then decoded again and compared.
fn encode(shared: Shared<'_>, work: Work<'_>, scratch: &mut Scratch) -> Result<Outcome, OdbError> {
    let Work { piece, id, staged, unverified } = work;
    let raw = staged.bytes();
    let mut slot = shared.take_slot(piece);
    // A chunk whose copies are all damaged may be what its base is coded against: it has to stand by itself.
    let is_known = unverified.is_some() || shared.odb.has_chunk(&id);
    let mut ground = if is_known { None } else { ground_for(shared, &mut slot, raw.len()) };
    let was_tried = ground.is_some();
    let layout = shared.sources[piece.source].layout.at(piece.offset);
    let mut payload = shared.odb.arena.take(raw.len());
    let encoded = if shared.coding.compression == Compression::Off {
        ground = None;
        Encoded { pipeline: Vec::new(), len: None, is_delta: false }
    } else {
        let mut encode = |ground: Option<&Ground>| {
            let against =
                ground.map(|Ground { base, .. }| Base { bytes: base.bytes.bytes(), anchor_len: base.anchor_len() });
            let gain = if shared.coding.deltas == Deltas::All { DeltaGain::Any } else { DeltaGain::Tenth };
            encode_best(raw, &layout, against.as_ref(), gain, scratch, payload.bytes_mut())
        };
        let encoded = encode(ground.as_ref())?;
        let is_bounded = |ground: &Ground| ground.base.can_carry(encoded.len.unwrap_or(raw.len()));
        if encoded.is_delta && !ground.as_ref().is_some_and(is_bounded) {
            ground = None;
            encode(None)?
        } else {
            encoded
        }
    };
    let ground = ground.filter(|_| encoded.is_delta);
    let base = ground.as_ref().map(|ground| &ground.base);
    let chunk = |encoded_len, base: Option<&Arc<BaseChunk>>| BaseChunk {
        id,
        bytes: Arc::clone(&staged),
        chain_len: encoded_len + base.map_or(0, |base| base.chain_len),
        links: ground.iter().flat_map(|ground| &ground.relied).map(|(link, _)| *link).collect(),
    };
    let place = (piece.source, piece.number());
    let Some(len) = encoded.len else {
        let slot = shared.room.keep(Slot::after_anchor(slot.as_ref(), chunk(raw.len(), None), was_tried), &id);
        let entry = NewEntry::new(id, raw.len(), Vec::new(), &[], Payload::Raw(Arc::clone(&staged)))?;
        return Ok(Outcome::New(Box::new(New { entry, place, slot, relied: Vec::new() })));
    };
    let bases: Vec<&[u8]> = base.iter().map(|base| base.bytes.bytes()).collect();
    match decodes_to(&encoded.pipeline, &payload.bytes()[..len], raw, &bases, scratch) {
        Ok(true) => {}
        Err(error) if error.is_shortage() => return Err(error.into()),
        Ok(false) | Err(_) => return Err(OdbError::CodingNotReversible { object: id.into() }),
    }
    let of_base = base.map(|base| base.id).into_iter().collect();
    let entry = NewEntry::new(id, raw.len(), of_base, &encoded.pipeline, Payload::Coded(payload, len))?;
    let slot = match base {
        Some(base) => Slot::after_delta(Arc::clone(base), chunk(len, Some(base))),
        None => Slot::after_anchor(slot.as_ref(), chunk(len, None), was_tried),
    };
    let slot = shared.room.keep(slot, &id);
    let relied = ground.map_or_else(Vec::new, |ground| ground.relied);
    Ok(Outcome::New(Box::new(New { entry, place, slot, relied })))
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
