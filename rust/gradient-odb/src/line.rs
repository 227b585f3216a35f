//! A line of commits: what the next commit's chunks may be coded against.
//!
//! For each chunk of each tensor a line keeps the bytes of one base in memory, so that a commit reads none from the
//! disk. Which base that is, bounds what reading costs: where little changes the newest chunk, as long as all the
//! entries of its chain together are not longer than one and a quarter of the raw bytes; otherwise the anchor that the
//! newest was coded against. Whatever a base was chosen for, the bound is looked at again when the chunk is coded. Where
//! deltas do not pay nothing is kept, and it is tried again after 1, 2, 4 ... 64 commits.
//!
//! A commit takes each base out of the line when it comes to the chunk, so that the memory of one that has served goes to
//! the chunks that follow. If that commit fails, the line still knows what its bases are, and reads them when they are
//! needed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gradient_object::ChunkId;

use crate::ObjectName;
use crate::arena::StagedBytes;
use crate::odb::lock;

/// Most links of a chain that is made; readers take a few more.
pub(crate) const LINKS_MAX: usize = 60;
/// A delta that failed to pay is tried again after at most so many commits.
const WAIT_MAX: u8 = 64;

/// What the chunks of the next commit may be coded against.
#[derive(Debug, Default)]
pub struct Line {
    slots: HashMap<String, Vec<Mutex<Slot>>>,
    /// Bytes of the bases that may be kept.
    resident_max: u64,
    had_no_room: bool,
}

/// What is kept for one chunk of one tensor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) base: Candidate,
    misses: u8,
    wait: u8,
}

/// What a chunk may be coded against.
#[derive(Clone, Debug, Default)]
pub(crate) enum Candidate {
    #[default]
    None,
    /// It has to be read first.
    Stored(ChunkId),
    Resident(Arc<BaseChunk>),
}

/// A chunk whose bytes are in memory, and what it costs to read.
#[derive(Debug)]
pub(crate) struct BaseChunk {
    pub(crate) id: ChunkId,
    pub(crate) bytes: Arc<StagedBytes>,
    /// Bytes of its entry and of all that it is coded against.
    pub(crate) chain_len: usize,
    /// What it is coded against, and what that is, down to the anchor.
    pub(crate) links: Vec<ObjectName>,
}

impl BaseChunk {
    /// Says whether a chunk of that many encoded bytes more can be coded against it.
    pub(crate) fn can_carry(&self, encoded_len: usize) -> bool {
        let raw_len = self.bytes.bytes().len();
        self.links.is_empty() || (self.links.len() < LINKS_MAX && self.chain_len + encoded_len <= raw_len + raw_len / 4)
    }

    /// How long it is without a base, if it has none.
    pub(crate) fn anchor_len(&self) -> Option<usize> {
        self.links.is_empty().then_some(self.chain_len)
    }
}

/// What became of the chunks of one tensor.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) key: String,
    pub(crate) slots: Vec<Slot>,
}

impl Line {
    /// Makes one that knows nothing and keeps bases of at most so many bytes.
    pub fn new(resident_max: u64) -> Self {
        Self { resident_max, ..Self::default() }
    }

    /// Sets how many bytes of bases may be kept from the next commit on.
    pub fn set_resident_max(&mut self, resident_max: u64) {
        self.resident_max = resident_max;
    }

    /// Says whether a base was not kept for want of room since this was last asked.
    pub fn take_had_no_room(&mut self) -> bool {
        std::mem::take(&mut self.had_no_room)
    }

    /// Makes the chunks of a stored tensor what the next commit's may be coded against.
    pub fn seed(&mut self, key: String, chunks: &[ChunkId]) {
        let slot = |id: &ChunkId| Mutex::new(Slot { base: Candidate::Stored(*id), ..Slot::default() });
        self.slots.insert(key, chunks.iter().map(slot).collect());
    }

    /// Returns how many bytes of bases may be kept.
    pub(crate) fn resident_max(&self) -> u64 {
        self.resident_max
    }

    /// Takes what is kept for a chunk. Of a base only the id stays here.
    pub(crate) fn take_slot(&self, key: &str, number: usize) -> Option<Slot> {
        let mut slot = lock(self.slots.get(key)?.get(number)?);
        let stays = match &slot.base {
            Candidate::Resident(base) => Candidate::Stored(base.id),
            Candidate::Stored(id) => Candidate::Stored(*id),
            Candidate::None => Candidate::None,
        };
        let base = std::mem::replace(&mut slot.base, stays);
        Some(Slot { base, ..*slot })
    }

    /// Goes on to a commit that was published: tensors that it does not have are forgotten.
    pub fn advance(&mut self, updates: Updates) {
        self.slots.clear();
        let mut resident = 0;
        let mut counted = HashSet::new();
        for Update { key, mut slots } in updates.slots {
            for slot in &mut slots {
                if let Candidate::Resident(base) = &slot.base {
                    let is_counted = counted.contains(&Arc::as_ptr(base));
                    let len = if is_counted { 0 } else { base.bytes.bytes().len() as u64 };
                    if resident + len > self.resident_max {
                        slot.base = Candidate::None;
                        self.had_no_room = true;
                    } else {
                        counted.insert(Arc::as_ptr(base));
                        resident += len;
                    }
                }
            }
            self.slots.insert(key, slots.into_iter().map(Mutex::new).collect());
        }
        self.had_no_room |= updates.had_no_room;
    }
}

/// What a transaction makes of a line, once it is published.
#[derive(Debug, Default)]
pub struct Updates {
    pub(crate) slots: Vec<Update>,
    pub(crate) had_no_room: bool,
}

/// How many bytes of bases a transaction may still keep.
#[derive(Debug)]
pub(crate) struct Room {
    left: AtomicU64,
    was_short: AtomicBool,
}

impl Room {
    pub(crate) fn new(len: u64) -> Self {
        Self { left: AtomicU64::new(len), was_short: AtomicBool::new(false) }
    }

    pub(crate) fn was_short(&self) -> bool {
        self.was_short.load(Ordering::Relaxed)
    }

    /// Takes room for a base that is to be read; says whether there was any.
    pub(crate) fn take(&self, len: usize) -> bool {
        let take = |left: u64| left.checked_sub(len as u64);
        let has_room = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if !has_room {
            self.was_short.store(true, Ordering::Relaxed);
        }
        has_room
    }

    /// Keeps what a slot newly has as its base, the chunk `id` itself, if there is room.
    pub(crate) fn keep(&self, slot: Slot, id: &ChunkId) -> Slot {
        let Candidate::Resident(base) = &slot.base else { return slot };
        if base.id != *id {
            return slot;
        }
        let len = base.bytes.bytes().len();
        let base = self.take(len).then(|| match base.bytes.shortened() {
            Some(bytes) => {
                let bytes = Arc::new(bytes);
                Arc::new(BaseChunk { id: base.id, bytes, chain_len: base.chain_len, links: base.links.clone() })
            }
            None => Arc::clone(base),
        });
        Slot { base: base.map_or(Candidate::None, Candidate::Resident), ..slot }
    }
}

impl Slot {
    /// The slot after an anchor of `chunk`, which is its own base; `was_tried`: a delta did not pay.
    pub(crate) fn after_anchor(before: Option<&Self>, chunk: BaseChunk, was_tried: bool) -> Self {
        let (mut misses, mut wait) = before.map_or((0, 0), |slot| (slot.misses, slot.wait));
        if was_tried {
            wait = 1_u8.checked_shl(u32::from(misses)).unwrap_or(WAIT_MAX).min(WAIT_MAX) - 1;
            misses = misses.saturating_add(1);
        }
        if wait > 0 {
            return Self { base: Candidate::None, misses, wait: wait - 1 };
        }
        Self { base: Candidate::Resident(Arc::new(chunk)), misses, wait }
    }

    /// The slot after a delta of `chunk` against `base`.
    pub(crate) fn after_delta(base: Arc<BaseChunk>, chunk: BaseChunk) -> Self {
        let last_len = chunk.chain_len - base.chain_len;
        // What comes next will be about as long.
        let next = if chunk.can_carry(last_len) { Arc::new(chunk) } else { base };
        Self { base: Candidate::Resident(next), misses: 0, wait: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    fn chunk(number: u8, chain_len: usize, num_links: usize) -> BaseChunk {
        let mut bytes = Arc::new(Arena::default()).take(1000);
        bytes.bytes_mut().fill(number);
        let id = ChunkId::of(bytes.bytes());
        BaseChunk { id, bytes: Arc::new(bytes), chain_len, links: vec![id.into(); num_links] }
    }

    fn base_of(slot: &Slot) -> Option<ChunkId> {
        match &slot.base {
            Candidate::Resident(base) => Some(base.id),
            Candidate::Stored(_) | Candidate::None => None,
        }
    }

    #[test]
    fn a_dense_delta_leaves_its_anchor_as_the_base_and_a_sparse_one_becomes_it() {
        let anchor = Arc::new(chunk(1, 800, 0));
        assert_eq!(base_of(&Slot::after_delta(Arc::clone(&anchor), chunk(2, 1400, 1))), Some(anchor.id));
        let sparse = chunk(3, 810, 1);
        let id = sparse.id;
        assert_eq!(base_of(&Slot::after_delta(anchor, sparse)), Some(id));
    }

    #[test]
    fn a_chain_ends_when_its_entries_are_longer_than_a_quarter_more_than_the_raw_bytes_or_too_many() {
        let before = Arc::new(chunk(1, 1230, 20));
        assert_eq!(base_of(&Slot::after_delta(Arc::clone(&before), chunk(2, 1245, 21))), Some(before.id));
        let before = Arc::new(chunk(1, 820, LINKS_MAX - 1));
        assert_eq!(base_of(&Slot::after_delta(Arc::clone(&before), chunk(2, 821, LINKS_MAX))), Some(before.id));
    }

    #[test]
    fn what_does_not_pay_is_tried_again_after_longer_and_longer_times() {
        let mut slot = Slot::after_anchor(None, chunk(0, 900, 0), false);
        let mut tried_at = Vec::new();
        for commit in 1..40_u8 {
            let was_tried = base_of(&slot).is_some();
            if was_tried {
                tried_at.push(commit);
            }
            slot = Slot::after_anchor(Some(&slot), chunk(commit, 900, 0), was_tried);
        }
        assert_eq!(tried_at, [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn bases_that_do_not_fit_are_not_kept_and_that_is_said() {
        let mut line = Line::new(1500);
        let slot = |number| Slot::after_anchor(None, chunk(number, 900, 0), false);
        let slots = vec![Update { key: "w".to_owned(), slots: vec![slot(1), slot(2)] }];
        line.advance(Updates { slots, had_no_room: false });
        assert!(base_of(&line.take_slot("w", 0).expect("is there")).is_some());
        assert!(base_of(&line.take_slot("w", 1).expect("is there")).is_none());
        assert!(line.take_had_no_room());
        assert!(!line.take_had_no_room());
    }

    #[test]
    fn a_base_that_was_taken_is_held_by_who_took_it_alone_and_is_still_known() {
        let mut line = Line::new(u64::MAX);
        let slot = Slot::after_anchor(None, chunk(1, 900, 0), false);
        let id = base_of(&slot).expect("it is its own base");
        line.advance(Updates { slots: vec![Update { key: "w".to_owned(), slots: vec![slot] }], had_no_room: false });
        let Some(Slot { base: Candidate::Resident(taken), .. }) = line.take_slot("w", 0) else { panic!("it was kept") };
        assert_eq!(Arc::strong_count(&taken), 1);
        let again = line.take_slot("w", 0).expect("is there");
        assert!(matches!(again.base, Candidate::Stored(known) if known == id));
    }

    #[test]
    fn a_base_that_several_chunks_share_takes_room_once() {
        let mut line = Line::new(1500);
        let slot = Slot::after_anchor(None, chunk(1, 900, 0), false);
        let update = |key: &str| Update { key: key.to_owned(), slots: vec![slot.clone()] };
        line.advance(Updates { slots: vec![update("a"), update("b")], had_no_room: false });
        assert!(!line.take_had_no_room());
        let mut short = Line::new(500);
        short.advance(Updates { slots: vec![update("a"), update("b")], had_no_room: false });
        assert!(short.take_had_no_room());
        assert!(["a", "b"].iter().all(|key| short.take_slot(key, 0).is_some_and(|slot| base_of(&slot).is_none())));
        assert!(["a", "b"].iter().all(|key| line.take_slot(key, 0).is_some_and(|slot| base_of(&slot).is_some())));
    }

    #[test]
    fn a_base_takes_no_more_memory_than_it_has_bytes() {
        let len = gradient_object::CHUNK_BYTES / 2;
        let bytes = Arc::new(Arc::new(Arena::default()).take(len));
        assert!(bytes.shortened().is_some(), "its memory is a whole chunk's");
        let id = ChunkId::of(bytes.bytes());
        let slot = Slot::after_anchor(None, BaseChunk { id, bytes, chain_len: len, links: Vec::new() }, false);
        let Slot { base: Candidate::Resident(kept), .. } = Room::new(u64::MAX).keep(slot, &id) else {
            panic!("there is room")
        };
        assert!(kept.bytes.shortened().is_none());
        assert_eq!(ChunkId::of(kept.bytes.bytes()), id);
    }
}
