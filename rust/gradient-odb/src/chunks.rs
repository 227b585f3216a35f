//! Reads chunks: exactly header and payload of an entry, checked, decoded along its delta chain, hashed.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use gradient_object::{CHUNK_BYTES, ChunkId};
use gradient_storage::StorageError;

use crate::index::Found;
use crate::line::BaseChunk;
use crate::odb::lock;
use crate::pack::entry::{EntryHeader, entry_crc};
use crate::{ObjectName, Odb, OdbError, PackId};

/// Most chunks of a delta chain, the anchor counted.
const CHAIN_LEN_MAX: u32 = 64;
/// Most entries that are read for one chunk, all bases of all links counted.
const CHAIN_ENTRIES_MAX: u32 = 1024;

/// Memory that a thread reads chunks into, again and again.
#[derive(Debug, Default)]
struct Buffers {
    entry: Vec<u8>,
    raw: Vec<u8>,
    place: Place,
}

/// Where the raw bytes of the chunk that was read last are.
#[derive(Clone, Debug)]
enum Place {
    Entry(Range<usize>),
    Raw(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Raw(0)
    }
}

impl Buffers {
    fn raw(&self) -> &[u8] {
        match &self.place {
            Place::Entry(range) => &self.entry[range.clone()],
            Place::Raw(len) => &self.raw[..*len],
        }
    }

    /// Moves the raw bytes to `to`, cut or continued by zeros to `len`.
    fn take_raw(&mut self, len: usize, to: &mut Vec<u8>) {
        let has = match &self.place {
            Place::Entry(range) => {
                make_long(to, range.len());
                to[..range.len()].copy_from_slice(&self.entry[range.clone()]);
                range.len()
            }
            Place::Raw(has) => {
                std::mem::swap(&mut self.raw, to);
                *has
            }
        };
        make_long(to, len);
        if has < len {
            to[has..len].fill(0);
        }
    }
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// What was read for one chunk so far.
#[derive(Default)]
struct Chain {
    depth: u32,
    num_entries: u32,
    /// What it is coded against, and what that is, in the order of reading, and where each lies.
    links: Vec<(ObjectName, PackId)>,
    /// Bytes of all entries' payloads.
    encoded_len: usize,
}

/// Buffers that a thread keeps for the links of chains.
const SPARE_MAX: usize = 2;

/// Memory for the entries of a chain: one for each link that is open.
#[derive(Default)]
struct Links {
    spare: Vec<Buffers>,
}

thread_local! {
    static LINKS: RefCell<Links> = RefCell::default();
}

impl Odb {
    /// Calls `then` with the hashed bytes of a chunk, in memory of this thread; returns the pack they came from.
    pub(crate) fn with_chunk(
        &self,
        name: &ObjectName,
        mut then: impl FnMut(&[u8]) -> Result<(), OdbError>,
    ) -> Result<PackId, OdbError> {
        let read = |found: &Found| self.with_chunk_at(name, found, &mut then);
        let ((), pack) = self.find_and(name, read)?;
        Ok(pack)
    }

    /// Calls `then` with the hashed bytes of the chunk at a place.
    pub(crate) fn with_chunk_at<T>(
        &self,
        name: &ObjectName,
        found: &Found,
        then: impl FnOnce(&[u8]) -> Result<T, OdbError>,
    ) -> Result<T, OdbError> {
        self.with_chain_at(name, found, |raw, _| then(raw))
    }

    /// Says whether the chunk at a place is these bytes; if so, where all lies that it was coded against.
    pub(crate) fn links_if_equal(
        &self,
        name: &ObjectName,
        found: &Found,
        bytes: &[u8],
    ) -> Option<Vec<(ObjectName, PackId)>> {
        let links = |raw: &[u8], chain: &Chain| Ok((raw == bytes).then(|| chain.links.clone()));
        self.with_chain_at(name, found, links).ok().flatten()
    }

    /// Returns where all lies that a verified chunk at a place is coded against, if that is verified and may be relied
    /// on as well.
    ///
    /// Costs a read of a header for each link that was not asked for before.
    pub(crate) fn verified_links(&self, name: &ObjectName, found: &Found) -> Option<Vec<(ObjectName, PackId)>> {
        let mut links = Vec::new();
        let mut next = (*name, *found);
        while next.1.row.num_bases > 0 {
            let base = self.base_of_verified(&next.0, &next.1)?;
            let found = self.find_verified(&base).filter(|_| links.len() < CHAIN_LEN_MAX as usize)?;
            links.push((base, found.pack));
            next = (base, found);
        }
        Some(links)
    }

    /// Returns what a verified chunk at a place is coded against, and remembers it as the verification is remembered.
    fn base_of_verified(&self, name: &ObjectName, found: &Found) -> Option<ObjectName> {
        let place = (found.pack, found.row.offset);
        if let Some(base) = lock(&self.bases).get(&place) {
            return Some(*base);
        }
        let [base] = self.bases_at(name, found).ok()?[..] else { return None };
        lock(&self.bases).insert(place, base);
        Some(base)
    }

    /// Says how many links a chunk has that is coded against these; the most there may be if nobody can tell.
    pub(crate) fn num_links(&self, bases: &[ChunkId]) -> u32 {
        let mut next = bases.to_vec();
        for num in 0..CHAIN_LEN_MAX {
            let [base] = next[..] else { return if next.is_empty() { num } else { CHAIN_LEN_MAX } };
            let base = ObjectName::from(base);
            let Some(found) = self.index().find(&base) else { return CHAIN_LEN_MAX };
            let Ok(bases) = self.bases_at(&base, &found) else { return CHAIN_LEN_MAX };
            next = bases.into_iter().map(|base| ChunkId::from_bytes(base.id)).collect();
        }
        CHAIN_LEN_MAX
    }

    /// Finds an object that a new commit may rely on without reading it.
    pub(crate) fn find_verified(&self, name: &ObjectName) -> Option<Found> {
        self.find_to_rely_on(name).ok().flatten().filter(|found| self.is_verified(name, found))
    }

    /// As [`with_chunk_at`](Self::with_chunk_at), and `then` is told what was read.
    fn with_chain_at<T>(
        &self,
        name: &ObjectName,
        found: &Found,
        then: impl FnOnce(&[u8], &Chain) -> Result<T, OdbError>,
    ) -> Result<T, OdbError> {
        // Taken, not borrowed: nothing that `then` calls can find them in use.
        let mut buffers = BUFFERS.take();
        let mut chain = Chain::default();
        let read = self.read_hashed(name, found, &mut buffers, &mut chain);
        if read.is_ok() && !chain.links.is_empty() {
            // Of a wrong base no right chunk is made.
            self.mark_verified(chain.links.iter().copied());
        }
        let result = read.and_then(|raw| then(raw, &chain));
        BUFFERS.set(buffers);
        result
    }

    /// Returns what a chunk at a place is coded against.
    ///
    /// # Errors
    /// [`OdbError::ObjectDamaged`], [`OdbError::Storage`].
    pub(crate) fn bases_at(&self, name: &ObjectName, found: &Found) -> Result<Vec<ObjectName>, OdbError> {
        if found.row.num_bases == 0 {
            return Ok(Vec::new());
        }
        let mut header = vec![0; usize::from(found.row.header_len)];
        self.storage.read_at(&found.pack.key(), found.row.offset, &mut header)?;
        let header = EntryHeader::decode_head(&header).map_err(|what| damaged(name, found, what.to_owned()))?;
        Ok(header.bases.into_iter().map(ObjectName::from).collect())
    }

    /// Reads a chunk that others may be coded against.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub(crate) fn read_base(&self, id: &ChunkId) -> Result<BaseChunk, OdbError> {
        let name = ObjectName::from(*id);
        let read = |found: &Found| {
            self.with_chain_at(&name, found, |raw, chain| {
                let mut bytes = self.arena.take(raw.len());
                bytes.bytes_mut().copy_from_slice(raw);
                let bytes = bytes.shortened().unwrap_or(bytes);
                let (chain_len, links) = (chain.encoded_len, chain.links.iter().map(|(link, _)| *link).collect());
                Ok(BaseChunk { id: *id, bytes: Arc::new(bytes), chain_len, links })
            })
        };
        let (base, pack) = self.find_and(&name, read)?;
        self.mark_verified([(name, pack)]);
        Ok(base)
    }

    /// Reads a chunk and holds it to its id.
    ///
    /// What it is coded against is hashed only where that does not come out right, to find the link that is at fault: of
    /// a wrong base no right chunk is made.
    fn read_hashed<'b>(
        &self,
        name: &ObjectName,
        found: &Found,
        buffers: &'b mut Buffers,
        chain: &mut Chain,
    ) -> Result<&'b [u8], OdbError> {
        let wrong = || damaged(name, found, "its bytes do not hash to its id".to_owned());
        match self.read_entry(name, found, buffers, chain, false) {
            Ok(()) if name.is_of(buffers.raw()) => return Ok(buffers.raw()),
            Ok(()) if found.row.num_bases == 0 => return Err(wrong()),
            Err(error) if found.row.num_bases == 0 || !is_of_the_chain(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        *chain = Chain::default();
        self.read_entry(name, found, buffers, chain, true)?;
        if name.is_of(buffers.raw()) { Ok(buffers.raw()) } else { Err(wrong()) }
    }

    /// Reads the entry of a chunk and decodes it, following its delta chain; its raw bytes, not hashed, are in `buffers`.
    /// With `hash_bases` what it is coded against is.
    ///
    /// Costs one positioned read for each link.
    fn read_entry(
        &self,
        name: &ObjectName,
        found: &Found,
        buffers: &mut Buffers,
        chain: &mut Chain,
        hash_bases: bool,
    ) -> Result<(), OdbError> {
        let bad = |what: String| damaged(name, found, what);
        let row = &found.row;
        let len = usize::from(row.header_len) + row.extent as usize;
        let end = row.offset.checked_add(len as u64);
        if row.extent as usize > CHUNK_BYTES
            || row.raw_len as usize > CHUNK_BYTES
            || end.is_none_or(|end| end > found.pack_len)
        {
            return Err(bad("its row points outside the pack".to_owned()));
        }
        if buffers.entry.len() < len {
            buffers.entry.resize(len, 0);
        }
        let entry = &mut buffers.entry[..len];
        match self.storage.read_at(&found.pack.key(), row.offset, entry) {
            Ok(()) => {}
            Err(StorageError::Truncated { .. }) => {
                return Err(bad("the pack ends before it".to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        let header = EntryHeader::decode(entry).map_err(|what| bad(what.to_owned()))?;
        if ObjectName::from(header.id) != *name
            || header.header_len != usize::from(row.header_len)
            || header.raw_len != row.raw_len as usize
            || header.bases.len() != usize::from(row.num_bases)
        {
            return Err(bad("its header says something else than its row".to_owned()));
        }
        chain.encoded_len += header.encoded_len;
        if header.pipeline.is_empty() {
            // The chunk's id covers every byte of a raw payload, and the header was compared: no CRC needed.
            buffers.place = Place::Entry(header.header_len..len);
            return Ok(());
        }
        let (head, payload) = buffers.entry[..len].split_at(header.header_len);
        if entry_crc(head, payload) != header.crc {
            return Err(bad("its CRC is wrong".to_owned()));
        }
        let raw_len = header.raw_len;
        buffers.place = Place::Raw(raw_len);
        let of_codec =
            |error: gradient_codec::CodecError| if error.is_shortage() { error.into() } else { bad(error.to_string()) };
        let base = match header.bases[..] {
            [] => {
                make_long(&mut buffers.raw, raw_len);
                let out = &mut buffers.raw[..raw_len];
                return gradient_codec::decode(&header.pipeline, payload, raw_len, &[], out).map_err(of_codec);
            }
            [base] => base,
            [_, ..] => {
                for stage in &header.pipeline {
                    gradient_codec::find_codec(stage.codec).map_err(of_codec)?;
                }
                // Nothing takes several: they are not even read.
                return Err(bad("it names several bases".to_owned()));
            }
        };
        let mut of_base = LINKS.with_borrow_mut(|links| links.spare.pop()).unwrap_or_default();
        let outcome = self.read_base_of(name, base, &mut of_base, chain, hash_bases).and_then(|()| {
            if gradient_codec::is_patch(&header.pipeline) {
                // Little differs: the base becomes the chunk where it lies.
                of_base.take_raw(raw_len, &mut buffers.raw);
                return gradient_codec::patch(&header.pipeline, payload, &mut buffers.raw[..raw_len]).map_err(of_codec);
            }
            make_long(&mut buffers.raw, raw_len);
            let out = &mut buffers.raw[..raw_len];
            gradient_codec::decode(&header.pipeline, payload, raw_len, &[of_base.raw()], out).map_err(of_codec)
        });
        LINKS.with_borrow_mut(|links| {
            if links.spare.len() < SPARE_MAX {
                links.spare.push(of_base);
            }
        });
        outcome
    }

    /// Reads what an entry is coded against, one link further.
    fn read_base_of(
        &self,
        name: &ObjectName,
        base: ChunkId,
        buffers: &mut Buffers,
        chain: &mut Chain,
        hash_bases: bool,
    ) -> Result<(), OdbError> {
        chain.num_entries += 1;
        let is_long = chain.depth + 1 >= CHAIN_LEN_MAX || chain.num_entries > CHAIN_ENTRIES_MAX;
        #[cfg(feature = "simulated")]
        let is_long = is_long && !crate::canary::follows_any_chain();
        if is_long {
            return Err(OdbError::ChainTooLong { object: *name, max: CHAIN_LEN_MAX });
        }
        let depth = chain.depth;
        chain.depth += 1;
        let outcome = self.read_link(&ObjectName::from(base), buffers, chain, hash_bases);
        chain.depth = depth;
        outcome
    }

    /// Reads one link: where the index says, where it is by now if its pack is gone; and with `hash_bases` elsewhere, if
    /// what lies there is not it.
    fn read_link(
        &self,
        base: &ObjectName,
        buffers: &mut Buffers,
        chain: &mut Chain,
        hash_bases: bool,
    ) -> Result<(), OdbError> {
        let num_links = chain.links.len();
        let mut read_at = |found: &Found, buffers: &mut Buffers| {
            chain.links.truncate(num_links);
            chain.links.push((*base, found.pack));
            self.read_entry(base, found, buffers, chain, hash_bases)
        };
        let (mut found, generation) = self.locate(base)?;
        let mut read = read_at(&found, buffers);
        if read.as_ref().is_err_and(OdbError::is_missing_file) {
            self.refresh_since(generation)?;
            (found, _) = self.locate(base)?;
            read = read_at(&found, buffers);
        }
        let wrong = || damaged(base, &found, "its bytes do not hash to its id".to_owned());
        let error = match read {
            Ok(()) if !hash_bases || base.is_of(buffers.raw()) => return Ok(()),
            Ok(()) => wrong(),
            Err(error) if hash_bases && is_of_the_chain(&error) => error,
            Err(error) => return Err(error),
        };
        for other in self.find_elsewhere(base, &found) {
            if read_at(&other, buffers).is_ok() && base.is_of(buffers.raw()) {
                self.prefer(base, &other);
                return Ok(());
            }
        }
        Err(error)
    }
}

/// Says whether an error may be one of a single copy of something in a chain.
fn is_of_the_chain(error: &OdbError) -> bool {
    error.is_damage() || matches!(error, OdbError::ChainTooLong { .. } | OdbError::NotFound { .. })
}

fn damaged(name: &ObjectName, found: &Found, what: String) -> OdbError {
    OdbError::ObjectDamaged { object: *name, pack: found.pack, offset: found.row.offset, what }
}

fn make_long(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
}
