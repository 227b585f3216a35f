//! Checks one pack byte by byte, trusting nothing that is cached.
//!
//! | bytes            | held to                                                                       |
//! |------------------|-------------------------------------------------------------------------------|
//! | header, footer   | the footer's second hash; the file's name and length                          |
//! | blocks, index    | the footer's first hash; limits, order; every tree and commit to its id       |
//! | entries          | their rows in every field, their CRC; the decoded bytes to the chunk id       |
//! | padding          | zero; nothing lies between entries, or between objects in a block             |

use gradient_object::ChunkId;
use gradient_storage::Storage;
use rayon::prelude::*;

use crate::index::Found;
use crate::odb::damage_of;
use crate::pack::ALIGN;
use crate::pack::entry::{EntryHeader, entry_crc};
use crate::pack::frame::HEADER_LEN;
use crate::pack::index::ObjectRow;
use crate::pack::tail::{Tail, read_range};
use crate::{Kind, ObjectName, Odb, OdbError, PackId, Progress};

/// How much of a pack is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerifyLevel {
    /// Header, footer, index.
    Structure,
    /// Also every tree and commit against its id.
    Metadata,
    /// Also every entry: header, CRC, decoded bytes against the id, padding.
    Full,
}

/// One thing that is wrong in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The pack.
    pub pack: PackId,
    /// The object, when the damage is one object's.
    pub object: Option<ObjectName>,
    /// Where in the pack.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What a check of one pack found.
#[derive(Clone, Debug, Default)]
pub struct PackReport {
    /// Chunks that the index names.
    pub num_chunks: u64,
    /// Trees that the index names.
    pub num_trees: u64,
    /// Commits that the index names.
    pub num_commits: u64,
    /// Raw bytes of the chunks.
    pub raw_len: u64,
    /// Objects that the index names, with their raw lengths; good unless `damage` names them or the whole pack.
    pub objects: Vec<(ObjectName, u64)>,
    /// What chunks that are deltas are coded against.
    pub bases: Vec<(ObjectName, Vec<ObjectName>)>,
    /// What is wrong; empty for a healthy pack.
    pub damage: Vec<Damage>,
    /// Header, index or footer are damaged: `objects` are those that a walk found, each read and found good.
    pub is_walked: bool,
}

impl PackReport {
    fn count(&mut self, name: ObjectName, raw_len: u64) {
        self.objects.push((name, raw_len));
        match name.kind {
            Kind::Chunk => {
                self.num_chunks += 1;
                self.raw_len += raw_len;
            }
            Kind::Tree => self.num_trees += 1,
            Kind::Commit => self.num_commits += 1,
        }
    }
}

impl Odb {
    /// Checks a pack to a level. What is wrong with it is in the report.
    ///
    /// # Errors
    /// [`OdbError::Cancelled`]; [`OdbError::Storage`] for what is no damage, such as a pack that is gone.
    pub fn verify_pack(&self, pack: &PackId, level: VerifyLevel, progress: &Progress) -> Result<PackReport, OdbError> {
        let len = self.storage.len(&pack.key())?;
        let mut report = PackReport::default();
        let tail = match Tail::read(&*self.storage, *pack, len) {
            Ok(tail) => tail,
            Err(error) => {
                report.damage.push(damage_of(*pack, error)?);
                self.verify_walked(pack, progress, &mut report)?;
                return Ok(report);
            }
        };
        for row in &tail.index.objects {
            report.count(row.name, u64::from(row.raw_len));
        }
        let deltas = tail.index.chunks().filter(|(_, bases)| !bases.is_empty());
        let named = |bases: &[ChunkId]| bases.iter().map(|base| ObjectName::from(*base)).collect();
        report.bases = deltas.map(|(row, bases)| (row.name, named(bases))).collect();
        if level >= VerifyLevel::Metadata {
            check_metadata(&*self.storage, &tail, progress, &mut report.damage)?;
        }
        if level >= VerifyLevel::Full {
            self.check_entries(&tail, progress, &mut report.damage)?;
        }
        Ok(report)
    }

    /// Reads everything that a walk found in a damaged pack.
    fn verify_walked(&self, pack: &PackId, progress: &Progress, report: &mut PackReport) -> Result<(), OdbError> {
        // The index may not know yet.
        self.check_pack(pack)?;
        report.is_walked = true;
        let objects = self.index().walked_objects(pack);
        let read = |(name, found): (ObjectName, Found)| {
            progress.check()?;
            progress.advance(u64::from(found.row.raw_len));
            match self.read_found(&name, &found) {
                Ok(raw) => Ok(Ok((name, raw.len() as u64, self.bases_at(&name, &found)?))),
                Err(error) if error.is_missing_file() => Err(error),
                Err(error) => damage_of(*pack, error).map(|damage| Err(Damage { object: Some(name), ..damage })),
            }
        };
        let read: Vec<_> = crate::pool::install(|| objects.into_par_iter().map(read).collect::<Result<_, OdbError>>())?;
        for outcome in read {
            match outcome {
                Ok((name, raw_len, bases)) => {
                    report.count(name, raw_len);
                    if !bases.is_empty() {
                        report.bases.push((name, bases));
                    }
                }
                Err(damage) => report.damage.push(damage),
            }
        }
        Ok(())
    }

    /// Returns the names of all objects of one pack, rising by kind and id.
    ///
    /// # Errors
    /// [`OdbError::PackDamaged`], [`OdbError::Unsupported`], [`OdbError::Storage`].
    pub fn pack_objects(&self, pack: &PackId) -> Result<Vec<ObjectName>, OdbError> {
        let len = self.storage.len(&pack.key())?;
        let tail = Tail::read(&*self.storage, *pack, len)?;
        Ok(tail.index.objects.iter().map(|row| row.name).collect())
    }

    fn check_entries(&self, tail: &Tail, progress: &Progress, damage: &mut Vec<Damage>) -> Result<(), OdbError> {
        let mut rows: Vec<_> = tail.index.chunks().collect();
        rows.sort_unstable_by_key(|(row, _)| row.offset);
        let mut position = HEADER_LEN as u64;
        for (row, _) in &rows {
            if row.offset != position {
                damage.push(of_pack(tail, position, "entries do not lie one after the other"));
            }
            position = (row.offset + row.entry_len()).next_multiple_of(ALIGN);
        }
        if position != tail.footer.first_block {
            damage.push(of_pack(tail, position, "the entries do not end where the blocks begin"));
        }
        let found: Vec<Option<Damage>> = crate::pool::install(|| {
            let checked = rows.into_par_iter().map(|(row, bases)| {
                progress.check()?;
                let what = self.check_entry(tail, row, bases);
                progress.advance(u64::from(row.raw_len));
                match what {
                    Ok(None) => Ok(None),
                    Ok(Some(what)) => Ok(Some(of_object(tail, row, what))),
                    Err(error) => damage_of(tail.pack, error).map(|damage| Some(of_entry(tail, row, damage))),
                }
            });
            checked.collect()
        })?;
        damage.extend(found.into_iter().flatten());
        Ok(())
    }

    /// Says what is wrong with an entry, if anything.
    fn check_entry(&self, tail: &Tail, row: &ObjectRow, bases: &[ChunkId]) -> Result<Option<&'static str>, OdbError> {
        let len = row.entry_len();
        let end = (row.offset + len).next_multiple_of(ALIGN).min(tail.footer.first_block);
        let bytes = read_range(&*self.storage, &tail.pack.key(), tail.pack, row.offset, end)?;
        let (entry, padding) = bytes.split_at(len as usize);
        let header = match EntryHeader::decode(entry) {
            Ok(header) => header,
            Err(what) => return Ok(Some(what)),
        };
        let codec = header.pipeline.last().map_or(0, |stage| stage.codec);
        let (head, payload) = entry.split_at(header.header_len);
        let found = Found::in_tail(tail, row);
        Ok(
            if ObjectName::from(header.id) != row.name
                || (header.crc, header.header_len) != (row.crc, usize::from(row.header_len))
                || (header.raw_len, header.encoded_len) != (row.raw_len as usize, row.encoded_len as usize)
                || (codec, &header.bases[..]) != (row.codec, bases)
            {
                Some("its header says something else than its row")
            } else if entry_crc(head, payload) != header.crc {
                Some("its CRC is wrong")
            } else if padding.iter().any(|byte| *byte != 0) {
                Some("the padding behind it is not zero")
            } else if header.pipeline.is_empty() {
                (!row.name.is_of(payload)).then_some("its bytes do not hash to its id")
            } else {
                self.with_chunk_at(&row.name, &found, |_| Ok(None))?
            },
        )
    }
}

/// Checks every tree and commit against its id, and that nothing else is in the blocks.
fn check_metadata(
    storage: &dyn Storage,
    tail: &Tail,
    progress: &Progress,
    damage: &mut Vec<Damage>,
) -> Result<(), OdbError> {
    let is_metadata = |row: &&ObjectRow| row.name.kind != Kind::Chunk;
    let mut rows: Vec<&ObjectRow> = tail.index.objects.iter().filter(is_metadata).collect();
    rows.sort_unstable_by_key(|row| (row.block, row.offset));
    let mut rows = rows.into_iter().peekable();
    for (number, block) in (0..).zip(&tail.index.blocks) {
        progress.check()?;
        let raw = match tail.block(storage, number) {
            Ok(raw) => raw,
            Err(error) => {
                damage.push(damage_of(tail.pack, error)?);
                while rows.next_if(|row| row.block == number).is_some() {}
                continue;
            }
        };
        let mut position = 0;
        while let Some(row) = rows.next_if(|row| row.block == number) {
            let start = row.offset as usize;
            if start != position {
                damage.push(of_object(tail, row, "it does not lie behind the object before it"));
            }
            position = start + row.raw_len as usize;
            if !row.name.is_of(&raw[start..position]) {
                damage.push(of_object(tail, row, "its bytes do not hash to its id"));
            }
        }
        if position != raw.len() {
            damage.push(of_pack(tail, block.offset, "a metadata block holds bytes of no object"));
        }
    }
    Ok(())
}

/// What keeps an entry from being read, be it damage of another object that is its base.
fn of_entry(tail: &Tail, row: &ObjectRow, damage: Damage) -> Damage {
    let what = match damage.object {
        Some(base) if base != row.name => format!("its base, {base}, can not be read: {}", damage.what),
        Some(_) | None => damage.what,
    };
    Damage { pack: tail.pack, object: Some(row.name), offset: row.offset, what }
}

fn of_pack(tail: &Tail, offset: u64, what: &str) -> Damage {
    Damage { pack: tail.pack, object: None, offset, what: what.to_owned() }
}

fn of_object(tail: &Tail, row: &ObjectRow, what: &str) -> Damage {
    Damage { pack: tail.pack, object: Some(row.name), offset: row.offset, what: what.to_owned() }
}
