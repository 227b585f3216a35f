//! Reads chunks: exactly header and payload of an entry, checked, decoded along its delta chain, hashed.

use std::cell::RefCell;

use gradient_object::{CHUNK_BYTES, ChunkId};
use gradient_storage::StorageError;

use crate::index::Found;
use crate::pack::entry::{EntryHeader, entry_crc};
use crate::{ObjectName, Odb, OdbError, PackId};

/// Most links of a delta chain.
const CHAIN_LEN_MAX: u32 = 64;
/// Most entries that are read for one chunk, all bases of all links counted.
const CHAIN_ENTRIES_MAX: u32 = 1024;

/// Memory that a thread reads chunks into, again and again.
#[derive(Debug, Default)]
struct Buffers {
    entry: Vec<u8>,
    raw: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// How much more may be read for one chunk.
struct Chain {
    depth: u32,
    num_entries: u32,
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
        // Taken, not borrowed: nothing that `then` calls can find them in use.
        let mut buffers = BUFFERS.take();
        let mut chain = Chain { depth: 0, num_entries: 0 };
        let result = self.read_entry(name, found, &mut buffers, &mut chain).and_then(then);
        BUFFERS.set(buffers);
        result
    }

    /// Reads the entry of a chunk and decodes it, following its delta chain; returns its raw bytes, hashed.
    ///
    /// Costs one positioned read for each link.
    fn read_entry<'b>(
        &self,
        name: &ObjectName,
        found: &Found,
        buffers: &'b mut Buffers,
        chain: &mut Chain,
    ) -> Result<&'b [u8], OdbError> {
        let bad =
            |what: String| OdbError::ObjectDamaged { object: *name, pack: found.pack, offset: found.row.offset, what };
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
        let entry = &buffers.entry[..len];
        let header = EntryHeader::decode(entry).map_err(|what| bad(what.to_owned()))?;
        if ObjectName::from(header.id) != *name
            || header.header_len != usize::from(row.header_len)
            || header.raw_len != row.raw_len as usize
            || header.bases.len() != usize::from(row.num_bases)
        {
            return Err(bad("its header says something else than its row".to_owned()));
        }
        let (head, payload) = entry.split_at(header.header_len);
        let raw = if header.pipeline.is_empty() {
            // The hash below covers every byte of a raw payload, and the header was compared: no CRC needed.
            payload
        } else {
            if entry_crc(head, payload) != header.crc {
                return Err(bad("its CRC is wrong".to_owned()));
            }
            let bases = self.read_bases(name, &header.bases, chain)?;
            let bases: Vec<&[u8]> = bases.iter().map(Vec::as_slice).collect();
            if buffers.raw.len() < header.raw_len {
                buffers.raw.resize(header.raw_len, 0);
            }
            let out = &mut buffers.raw[..header.raw_len];
            gradient_codec::decode(&header.pipeline, payload, header.raw_len, &bases, out)
                .map_err(|error| if error.is_shortage() { error.into() } else { bad(error.to_string()) })?;
            &buffers.raw[..header.raw_len]
        };
        if !name.is_of(raw) {
            return Err(bad("its bytes do not hash to its id".to_owned()));
        }
        Ok(raw)
    }

    /// Reads the bases of an entry.
    fn read_bases(&self, name: &ObjectName, bases: &[ChunkId], chain: &mut Chain) -> Result<Vec<Vec<u8>>, OdbError> {
        if bases.is_empty() {
            return Ok(Vec::new());
        }
        let too_long = OdbError::ChainTooLong { object: *name, max: CHAIN_LEN_MAX };
        chain.num_entries += bases.len() as u32;
        if chain.depth >= CHAIN_LEN_MAX || chain.num_entries > CHAIN_ENTRIES_MAX {
            return Err(too_long);
        }
        chain.depth += 1;
        let raws = bases.iter().map(|base| {
            let base = ObjectName::from(*base);
            let (found, _) = self.locate(&base)?;
            let mut buffers = Buffers::default();
            let raw = self.read_entry(&base, &found, &mut buffers, chain)?;
            Ok(raw.to_vec())
        });
        let raws = raws.collect();
        chain.depth -= 1;
        raws
    }
}
