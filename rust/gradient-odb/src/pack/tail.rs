//! The tail of a pack: everything but its entries, in one or two reads, checked whole.

use gradient_object::METADATA_BYTES_MAX;
use gradient_storage::{Key, Storage, StorageError};

use super::damaged;
use super::frame::{FOOTER_LEN, Footer, HEADER_LEN};
use super::index::{BlockRow, Counts, ObjectRow, PackIndex, read_objects};
use crate::{Kind, OdbError, PackId};

/// Read at once from the end; the tail of most packs fits.
const GUESS_LEN: u64 = 64 << 10;
/// Longer tails are read and checked in pieces: a length of a stranger's allocates nothing that is not there.
const PIECE_LEN: u64 = 1 << 20;
/// Blocks that are longer together are read again when one is wanted.
const BLOCKS_KEPT_LEN_MAX: u64 = 1 << 20;

/// Blocks, index and footer of a pack, all checked against the footer's hashes.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) pack: PackId,
    /// Where it lies.
    key: Key,
    pub(crate) footer: Footer,
    pub(crate) index: PackIndex,
    /// From the first block on; none where they are too long to be kept.
    blocks: Option<Vec<u8>>,
}

impl Tail {
    /// Reads the tail of a pack that is `file_len` bytes long.
    ///
    /// # Errors
    /// - [`OdbError::PackDamaged`], [`OdbError::Unsupported`]: the pack is not as it was written.
    /// - [`OdbError::Storage`].
    pub(crate) fn read(storage: &dyn Storage, pack: PackId, file_len: u64) -> Result<Self, OdbError> {
        Self::read_from(storage, &pack.key(), pack, file_len)
    }

    /// Reads the tail of a pack that lies under a key, in the trash for one.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_from(storage: &dyn Storage, key: &Key, pack: PackId, file_len: u64) -> Result<Self, OdbError> {
        if file_len < (HEADER_LEN + FOOTER_LEN) as u64 {
            return Err(damaged(pack, 0, "the file is shorter than header and footer"));
        }
        let guess_at = file_len.saturating_sub(GUESS_LEN);
        let mut bytes = read_range(storage, key, pack, guess_at, file_len)?;
        let mut head = [0; HEADER_LEN];
        if guess_at == 0 {
            head.copy_from_slice(&bytes[..HEADER_LEN]);
        } else {
            read_into(storage, key, pack, 0, &mut head)?;
        }
        let foot = bytes.last_chunk::<FOOTER_LEN>().expect("the guess holds at least a footer");
        let footer = Footer::decode(pack, file_len, &head, foot)?;
        if footer.first_block < guess_at {
            return Self::read_in_pieces(storage, key, footer, pack);
        }
        bytes.drain(..(footer.first_block - guess_at) as usize);
        bytes.truncate(bytes.len() - FOOTER_LEN);
        if *blake3::hash(&bytes).as_bytes() != footer.tail_hash {
            return Err(wrong_hash(pack, &footer));
        }
        let tables = bytes.split_off((footer.index_offset - footer.first_block) as usize);
        let index = decode_tables(pack, &footer, &tables)?;
        Ok(Self { pack, key: key.clone(), footer, index, blocks: Some(bytes) })
    }

    /// Reads a tail that may be long.
    fn read_in_pieces(storage: &dyn Storage, key: &Key, footer: Footer, pack: PackId) -> Result<Self, OdbError> {
        let mut hasher = blake3::Hasher::new();
        let mut pieces = |start: u64, end: u64, then: &mut dyn FnMut(&[u8]) -> Result<(), OdbError>| {
            let mut piece = vec![0; PIECE_LEN.min(end - start) as usize];
            let mut at = start;
            while at < end {
                let len = (end - at).min(PIECE_LEN) as usize;
                read_into(storage, key, pack, at, &mut piece[..len])?;
                hasher.update(&piece[..len]);
                then(&piece[..len])?;
                at += len as u64;
            }
            Ok::<_, OdbError>(())
        };
        let keeps = footer.index_offset - footer.first_block <= BLOCKS_KEPT_LEN_MAX;
        let mut blocks = keeps.then(Vec::new);
        pieces(footer.first_block, footer.index_offset, &mut |piece| {
            if let Some(blocks) = &mut blocks {
                blocks.extend_from_slice(piece);
            }
            Ok(())
        })?;
        let mut tables = Vec::new();
        let objects_end = footer.index_offset + footer.counts.objects_len();
        let mut promised = Promised::default();
        pieces(footer.index_offset, objects_end, &mut |piece| {
            promised.take(piece).map_err(|what| damaged(pack, footer.index_offset + tables.len() as u64, what))?;
            tables.extend_from_slice(piece);
            Ok(())
        })?;
        // Only rows that were seen may ask for more.
        if !promised.is_of(footer.counts) {
            return Err(damaged(pack, objects_end, "the numbers of base and commit rows are not those of the objects"));
        }
        let index_end = footer.index_offset + footer.counts.index_len();
        pieces(objects_end, index_end, &mut |piece| {
            tables.extend_from_slice(piece);
            Ok(())
        })?;
        if *hasher.finalize().as_bytes() != footer.tail_hash {
            return Err(wrong_hash(pack, &footer));
        }
        let index = decode_tables(pack, &footer, &tables)?;
        Ok(Self { pack, key: key.clone(), footer, index, blocks })
    }

    /// Lets go of the blocks; they are read again when one is wanted.
    pub(crate) fn forget_blocks(&mut self) {
        self.blocks = None;
    }

    /// Returns the decoded bytes of block number `number`.
    ///
    /// # Errors
    /// [`OdbError::PackDamaged`]: there is no such block, or it does not decode to its raw length.
    pub(crate) fn block(&self, storage: &dyn Storage, number: u32) -> Result<Vec<u8>, OdbError> {
        let Some(row) = self.index.blocks.get(number as usize) else {
            return Err(damaged(self.pack, self.footer.index_offset, "there is no such block"));
        };
        let Some(blocks) = &self.blocks else {
            return decode_block(self.pack, row, &read_block(storage, &self.key, self.pack, row)?);
        };
        let start = (row.offset - self.footer.first_block) as usize;
        decode_block(self.pack, row, &blocks[start..start + row.encoded_len as usize])
    }

    /// Calls `then` with the row and bytes of every tree and commit of the kinds wanted, block by block.
    ///
    /// # Errors
    /// As [`block`](Self::block); and what `then` returns.
    pub(crate) fn for_each_metadata(
        &self,
        storage: &dyn Storage,
        wanted: impl Fn(Kind) -> bool,
        mut then: impl FnMut(&ObjectRow, &[u8]) -> Result<(), OdbError>,
    ) -> Result<(), OdbError> {
        let is_wanted = |row: &&ObjectRow| row.name.kind != Kind::Chunk && wanted(row.name.kind);
        let mut rows: Vec<&ObjectRow> = self.index.objects.iter().filter(is_wanted).collect();
        rows.sort_by_key(|row| (row.block, row.offset));
        for of_block in rows.chunk_by(|a, b| a.block == b.block) {
            let raw = self.block(storage, of_block[0].block)?;
            for row in of_block {
                let start = row.offset as usize;
                then(row, &raw[start..start + row.raw_len as usize])?;
            }
        }
        Ok(())
    }
}

/// What object rows promise of the tables behind them.
#[derive(Default)]
struct Promised {
    num_bases: u64,
    num_commits: u64,
}

impl Promised {
    /// Looks at whole rows; what no row can be is refused at once.
    fn take(&mut self, rows: &[u8]) -> Result<(), &'static str> {
        for row in read_objects(rows).map_err(|(_, what)| what)? {
            self.num_bases += u64::from(row.num_bases);
            self.num_commits += u64::from(row.name.kind == Kind::Commit);
        }
        Ok(())
    }

    fn is_of(&self, counts: Counts) -> bool {
        (self.num_bases, self.num_commits) == (u64::from(counts.bases), u64::from(counts.commits))
    }
}

fn wrong_hash(pack: PackId, footer: &Footer) -> OdbError {
    damaged(pack, footer.first_block, "blocks and index do not hash to what the footer says")
}

fn decode_tables(pack: PackId, footer: &Footer, tables: &[u8]) -> Result<PackIndex, OdbError> {
    PackIndex::decode(tables, footer.counts, footer.first_block, footer.index_offset)
        .map_err(|(at, what)| damaged(pack, footer.index_offset + at as u64, what))
}

/// Reads a metadata block as it is stored.
///
/// # Errors
/// [`OdbError::PackDamaged`]: it is longer than any that holds what a block may hold.
pub(crate) fn read_block(storage: &dyn Storage, key: &Key, pack: PackId, row: &BlockRow) -> Result<Vec<u8>, OdbError> {
    // zstd makes of what it can not compress a few bytes more.
    if row.encoded_len as usize > METADATA_BYTES_MAX + (METADATA_BYTES_MAX >> 7) {
        return Err(damaged(pack, row.offset, "a metadata block is too large"));
    }
    read_range(storage, key, pack, row.offset, row.offset + u64::from(row.encoded_len))
}

/// Decodes a metadata block.
///
/// # Errors
/// [`OdbError::PackDamaged`]: it does not decode to its raw length. [`OdbError::Codec`]: memory is short.
pub(crate) fn decode_block(pack: PackId, row: &BlockRow, encoded: &[u8]) -> Result<Vec<u8>, OdbError> {
    let raw_len = row.raw_len as usize;
    let raw = gradient_codec::decode_metadata(encoded, raw_len, METADATA_BYTES_MAX).map_err(|error| {
        if error.is_shortage() { error.into() } else { damaged(pack, row.offset, format!("a metadata block: {error}")) }
    })?;
    if raw.len() != raw_len {
        return Err(damaged(pack, row.offset, "a metadata block decodes to another length"));
    }
    Ok(raw)
}

/// Reads the bytes from `start` to `end`, which lie within the file as it was listed.
pub(crate) fn read_range(
    storage: &dyn Storage,
    key: &Key,
    pack: PackId,
    start: u64,
    end: u64,
) -> Result<Vec<u8>, OdbError> {
    let mut bytes = vec![0; (end - start) as usize];
    read_into(storage, key, pack, start, &mut bytes)?;
    Ok(bytes)
}

/// Fills `out`; a file that ends too early is a damaged pack.
pub(crate) fn read_into(
    storage: &dyn Storage,
    key: &Key,
    pack: PackId,
    offset: u64,
    out: &mut [u8],
) -> Result<(), OdbError> {
    match storage.read_at(key, offset, out) {
        Ok(()) => Ok(()),
        Err(StorageError::Truncated { .. }) => Err(damaged(pack, offset, "the file ends too early")),
        Err(error) => Err(error.into()),
    }
}

/// A pack that was listed, with its length and what its tail is.
pub(crate) type ReadTail = (PackId, u64, Result<Tail, OdbError>);

/// Reads many tails on a few threads of its own (never rayon's: a caller may hold a lock); in the order given. Blocks
/// are kept where they are wanted.
pub(crate) fn read_all(storage: &dyn Storage, packs: &[(PackId, u64)], with_blocks: bool) -> Vec<ReadTail> {
    /// Fewer are not worth a thread.
    const PACKS_PER_THREAD: usize = 16;
    let read = |packs: &[(PackId, u64)]| -> Vec<ReadTail> {
        let tails = packs.iter();
        let read = |&(pack, len): &(PackId, u64)| {
            let mut tail = Tail::read(storage, pack, len);
            if let Ok(tail) = &mut tail
                && !with_blocks
            {
                tail.forget_blocks();
            }
            (pack, len, tail)
        };
        tails.map(read).collect()
    };
    let num_threads = std::thread::available_parallelism().map_or(1, usize::from).min(packs.len() / PACKS_PER_THREAD);
    if num_threads < 2 {
        return read(packs);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = packs
            .chunks(packs.len().div_ceil(num_threads))
            .map(|some| (some, scope.spawn(move || read(some))))
            .collect();
        let joined = workers.into_iter();
        joined.flat_map(|(some, worker)| worker.join().unwrap_or_else(|_| read(some))).collect()
    })
}
