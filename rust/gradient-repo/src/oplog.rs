//! The operation log: finds the head, reads operations, publishes the next one, folds old ones.
//!
//! `ops/<n>` is published by put-if-absent and never changes. `ops/folded-<m>` (magic `GROF`) holds operations 1 to
//! m: one zstd frame of payloads, each with its length (8 bytes) before it. Folding deletes in rising order, so a
//! writer that published n + 1 and still sees n knows that nothing was folded past it.
//! Specified in `docs/format/operations.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gradient_object::OperationId;
use gradient_storage::{Folder, Key, Put, Storage, StorageError};

use crate::envelope;
use crate::error::{RepoError, Result};
use crate::operation::{OPERATION_MAGIC, Operation, RefTable, Refs, changed};

/// Magic of `ops/folded-<m>`.
pub(crate) const FOLDED_MAGIC: [u8; 4] = *b"GROF";
/// Operations that are never folded: the newest ones, which others may be reading.
pub(crate) const UNFOLDED_MIN: u64 = 64;
/// Files in `ops/` from which on old operations are folded.
pub(crate) const FOLD_AT: usize = 512;

// Listings tried before a file that another one refers to counts as missing.
const LOOKS_MAX: u32 = 8;
const OPERATION_BYTES_MAX: u64 = (64 << 20) + envelope::ENVELOPE_BYTES as u64;
const FOLDED_BYTES_MAX: u64 = 1 << 30;
/// The keys of an operation alone are longer.
const PAYLOAD_BYTES_MIN: usize = 64;

/// The newest operation with the table of refs it stands for.
#[derive(Clone, Debug)]
pub struct HeadState {
    /// The operation.
    pub operation: Operation,
    /// Its id.
    pub id: OperationId,
    /// All refs after it.
    pub table: RefTable,
    /// The newest operation at or before it that carries a whole table, and that table.
    pub whole: (u64, RefTable),
    /// A newer operation that can not be read: writing is refused.
    pub damaged: Option<UnreadableHead>,
}

/// The newest operation, where it can not be read and an older one can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableHead {
    /// Its number.
    pub number: u64,
    /// The damaged file: its own, or that of the operation whose table its changes refer to.
    pub file: String,
    /// What is wrong with that file.
    pub reason: String,
}

/// What publishing did.
#[derive(Debug)]
pub enum Published {
    /// The operation is the head now.
    Done(Box<HeadState>),
    /// Somebody else published first.
    Lost,
}

/// The operations of one repository.
#[derive(Debug)]
pub struct OperationLog {
    storage: Arc<dyn Storage>,
}

/// What lies in `ops/`, all rising.
pub(crate) struct Names {
    /// Operations above the floor.
    pub(crate) numbers: Vec<u64>,
    /// Folded files; the last one is the floor.
    pub(crate) folded: Vec<u64>,
    /// Operations at or below the floor, which stand for nothing.
    pub(crate) below: Vec<u64>,
}

impl OperationLog {
    /// The log in `storage`.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    pub(crate) fn names(&self) -> Result<Names> {
        let mut names = Names { numbers: Vec::new(), folded: Vec::new(), below: Vec::new() };
        for listed in self.storage.list(Folder::Ops)? {
            if let Some(n) = listed.name.strip_prefix("folded-").and_then(number) {
                names.folded.push(n);
            } else if let Some(n) = number(&listed.name) {
                names.numbers.push(n);
            }
        }
        let floor = names.folded.iter().copied().max().unwrap_or(0);
        names.numbers.sort_unstable();
        let above = names.numbers.partition_point(|n| *n <= floor);
        names.below = names.numbers.drain(..above).collect();
        names.folded.sort_unstable();
        Ok(names)
    }

    /// Finds the newest operation, or none in a repository that was never finished.
    ///
    /// A newest operation that can not be read, because its own file or that with the table it refers to is damaged or
    /// missing, is reported in [`HeadState::damaged`], and the newest one before it that can be read is returned.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] if no operation can be read; storage errors.
    pub fn head(&self) -> Result<Option<HeadState>> {
        // A fold that runs meanwhile may delete what was listed: look again, a few times. What is missing then is lost.
        let mut looks_left = LOOKS_MAX;
        'look: loop {
            looks_left -= 1;
            let names = self.names()?;
            let floor = names.folded.last().copied();
            let mut damaged = None;
            for n in names.numbers.iter().rev().copied().chain(floor) {
                let (file, reason) = match self.state(n) {
                    Ok(mut state) => {
                        state.damaged = damaged;
                        return Ok(Some(state));
                    }
                    Err(RepoError::Storage(StorageError::NotFound { .. })) if looks_left > 0 => continue 'look,
                    Err(RepoError::Storage(StorageError::NotFound { key })) => (key, "it is missing".to_owned()),
                    Err(RepoError::Damaged { file, reason }) => (file, reason),
                    Err(error) => return Err(error),
                };
                damaged = damaged.or(Some(UnreadableHead { number: n, file, reason }));
            }
            return match damaged {
                Some(UnreadableHead { file, reason, .. }) => Err(RepoError::Damaged { file, reason }),
                None => Ok(None),
            };
        }
    }

    /// Reads on from `state` to the newest operation; says whether anything was new.
    ///
    /// # Errors
    /// As [`OperationLog::head`].
    pub fn advance(&self, state: &mut HeadState) -> Result<bool> {
        let mut moved = false;
        loop {
            let n = state.operation.n + 1;
            match self.read_file(n) {
                Ok((operation, id)) if operation.previous == Some(state.id) => {
                    // Gone: operations were folded past here, and what was read may be what a writer that slept left.
                    if !self.stands(state)? {
                        return Ok(self.jump(state)? || moved);
                    }
                    *state = self.after(state, operation, id)?;
                    moved = true;
                }
                Ok(_) => {
                    let reason = format!("it does not follow operation {}", n - 1);
                    return Err(RepoError::Damaged { file: file_name(n), reason });
                }
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {
                    // Behind a gap there may be operations that could not be read.
                    if state.damaged.is_none() && self.stands(state)? {
                        return Ok(moved);
                    }
                    return Ok(self.jump(state)? || moved);
                }
                Err(RepoError::Damaged { .. }) => return Ok(self.jump(state)? || moved),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says whether the operation of `state` still is the one of its number: not folded away, not moved aside by a
    /// repair that published another in its place. One that has become unreadable is left to those who read it.
    fn stands(&self, state: &HeadState) -> Result<bool> {
        match self.read_file(state.operation.n) {
            Ok((_, id)) => Ok(id == state.id),
            Err(RepoError::Storage(StorageError::NotFound { .. })) => Ok(false),
            Err(RepoError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn jump(&self, state: &mut HeadState) -> Result<bool> {
        let before = state.operation.n;
        *state = self
            .head()?
            .ok_or_else(|| RepoError::Damaged { file: "ops".into(), reason: "its operations are gone".into() })?;
        Ok(state.operation.n != before)
    }

    fn after(&self, state: &HeadState, operation: Operation, id: OperationId) -> Result<HeadState> {
        let (table, whole) = match &operation.refs {
            Refs::Whole(table) => (table.clone(), (operation.n, table.clone())),
            Refs::Changes { since, changes } if *since == state.whole.0 => {
                (changed(&state.whole.1, changes), state.whole.clone())
            }
            Refs::Changes { .. } => return self.state(operation.n),
        };
        Ok(HeadState { operation, id, table, whole, damaged: None })
    }

    fn state(&self, n: u64) -> Result<HeadState> {
        let (operation, id) = self.read(n)?;
        let (table, whole) = match &operation.refs {
            Refs::Whole(table) => (table.clone(), (n, table.clone())),
            Refs::Changes { since, changes } => match self.read(*since)?.0.refs {
                Refs::Whole(base) => (changed(&base, changes), (*since, base)),
                Refs::Changes { .. } => {
                    return Err(RepoError::Damaged {
                        file: file_name(n),
                        reason: format!("operation {since} carries no whole table"),
                    });
                }
            },
        };
        Ok(HeadState { operation, id, table, whole, damaged: None })
    }

    /// Reads operation `n`, folded or not.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] inside [`RepoError::Storage`]; [`RepoError::Damaged`].
    pub fn read(&self, n: u64) -> Result<(Operation, OperationId)> {
        // A file at or below the floor is no operation, whoever wrote it: the folded one counts.
        let Some(m) = self.names()?.folded.last().copied().filter(|m| *m >= n) else {
            return self.read_file(n);
        };
        let payloads = self.read_folded(m)?;
        let at = usize::try_from(n.saturating_sub(1)).ok().and_then(|at| payloads.get(at));
        let payload = at.ok_or_else(|| StorageError::NotFound { key: file_name(n) })?;
        Ok((Operation::decode(payload, n, &file_name(n))?, OperationId::of(payload)))
    }

    pub(crate) fn read_file(&self, n: u64) -> Result<(Operation, OperationId)> {
        let file = file_name(n);
        let bytes = envelope::read(&*self.storage, &Key::operation(n), OPERATION_BYTES_MAX)?;
        let payload = envelope::unwrap(OPERATION_MAGIC, &bytes, &file)?;
        Ok((Operation::decode(payload, n, &file)?, OperationId::of(payload)))
    }

    pub(crate) fn read_folded(&self, m: u64) -> Result<Vec<Vec<u8>>> {
        let key = Key::folded(m);
        let file = format!("ops/folded-{m:020}");
        let damaged = |reason: &str| RepoError::Damaged { file: file.clone(), reason: reason.to_owned() };
        let bytes = envelope::read(&*self.storage, &key, FOLDED_BYTES_MAX)?;
        let frame = envelope::unwrap(FOLDED_MAGIC, &bytes, &file)?;
        let limit = usize::try_from(FOLDED_BYTES_MAX).unwrap_or(usize::MAX);
        let raw = zstd::bulk::decompress(frame, folded_len(frame, limit).ok_or_else(|| damaged("its frame lies"))?)
            .map_err(|_| damaged("its frame can not be decoded"))?;
        let mut payloads = Vec::new();
        let mut rest = raw.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged("a length is too large"))?;
            // Shorter than any operation, or more than the name says: nothing to keep in memory.
            if length < PAYLOAD_BYTES_MIN || payloads.len() as u64 >= m {
                return Err(damaged("it does not hold the operations its name says"));
            }
            let (payload, tail) =
                tail.split_at_checked(length).ok_or_else(|| damaged("it ends inside an operation"))?;
            payloads.push(payload.to_vec());
            rest = tail;
        }
        if !rest.is_empty() || payloads.len() as u64 != m {
            return Err(damaged("it does not hold the operations its name says"));
        }
        Ok(payloads)
    }

    /// All operations with the table of refs after each, oldest first.
    ///
    /// # Errors
    /// As [`OperationLog::read`].
    pub fn replay(&self, newest: u64) -> Result<Vec<(Operation, OperationId, RefTable)>> {
        let mut folded: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        if let Some(m) = self.names()?.folded.last() {
            folded = (1..).zip(self.read_folded(*m)?).collect();
        }
        let mut wholes: BTreeMap<u64, RefTable> = BTreeMap::new();
        let mut all = Vec::new();
        for n in 1..=newest {
            let (operation, id) = match folded.get(&n) {
                Some(payload) => (Operation::decode(payload, n, &file_name(n))?, OperationId::of(payload)),
                None => match self.read_file(n) {
                    // Folded since the folder was listed.
                    Err(RepoError::Storage(StorageError::NotFound { .. })) => self.read(n)?,
                    read => read?,
                },
            };
            let table = match &operation.refs {
                Refs::Whole(table) => {
                    wholes.insert(n, table.clone());
                    table.clone()
                }
                Refs::Changes { since, changes } => {
                    let Some(base) = wholes.get(since) else {
                        let reason = format!("operation {since} carries no whole table");
                        return Err(RepoError::Damaged { file: file_name(n), reason });
                    };
                    changed(base, changes)
                }
            };
            all.push((operation, id, table));
        }
        Ok(all)
    }

    /// Publishes `operation` after `before`, durably, unless somebody was first.
    ///
    /// # Errors
    /// Storage errors; after one it is unknown whether the operation was published.
    pub fn publish(&self, before: Option<&HeadState>, operation: Operation) -> Result<Published> {
        let (bytes, id) = operation.encode()?;
        let key = Key::operation(operation.n);
        match self.storage.put_if_absent(&key, &bytes)? {
            Put::Taken => return Ok(Published::Lost),
            Put::Done => {}
        }
        let Some(before) = before else {
            let Refs::Whole(table) = operation.refs.clone() else { return Ok(Published::Lost) };
            let whole = (operation.n, table.clone());
            return Ok(Published::Done(Box::new(HeadState { operation, id, table, whole, damaged: None })));
        };
        if !self.stands(before)? {
            // Operations were folded past us while we slept: what we wrote is below the floor and stands for nothing.
            match self.storage.delete(&key) {
                Ok(()) | Err(StorageError::NotFound { .. }) => return Ok(Published::Lost),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Published::Done(Box::new(self.after(before, operation, id)?)))
    }

    /// Folds old operations into one file once there are 512; says how many went.
    ///
    /// # Errors
    /// As [`OperationLog::read`]; nothing is deleted before the folded file is durable.
    pub fn fold(&self, head: u64) -> Result<u64> {
        self.fold_from(head, FOLD_AT)
    }

    pub(crate) fn fold_from(&self, head: u64, fold_at: usize) -> Result<u64> {
        let names = self.names()?;
        let floor = names.folded.last().copied().unwrap_or(0);
        if names.numbers.len() < fold_at || head <= floor + UNFOLDED_MIN {
            return Ok(0);
        }
        match self.fold_up_to(head - UNFOLDED_MIN, &names) {
            // What we were about to read went because somebody else folded it.
            Err(RepoError::Storage(StorageError::NotFound { .. }))
                if self.names()?.folded.last().is_some_and(|newest| *newest > floor) =>
            {
                Ok(0)
            }
            outcome => outcome,
        }
    }

    fn fold_up_to(&self, m: u64, names: &Names) -> Result<u64> {
        let floor = names.folded.last().copied().unwrap_or(0);
        let mut payloads = if floor > 0 { self.read_folded(floor)? } else { Vec::new() };
        for n in floor + 1..=m {
            payloads.push(self.read_file(n)?.0.payload()?);
        }
        let mut raw = Vec::new();
        for payload in &payloads {
            raw.extend_from_slice(&(payload.len() as u64).to_le_bytes());
            raw.extend_from_slice(payload);
        }
        if raw.len() as u64 > FOLDED_BYTES_MAX {
            return Ok(0); // No reader would take it: these operations stay in files of their own.
        }
        let frame = zstd::bulk::compress(&raw, 3).map_err(|source| RepoError::Damaged {
            file: format!("ops/folded-{m:020}"),
            reason: format!("it can not be coded: {source}"),
        })?;
        let put = self.storage.put_if_absent(&Key::folded(m), &envelope::wrap(FOLDED_MAGIC, &frame))?;
        if matches!(put, Put::Taken) {
            return Ok(0);
        }
        if self.read_folded(m)? != payloads {
            let reason = "it reads back otherwise than it was written".to_owned();
            return Err(RepoError::Damaged { file: format!("ops/folded-{m:020}"), reason });
        }
        for listed in self.storage.list(Folder::Ops)? {
            if number(&listed.name).is_some_and(|n| n <= m) {
                self.delete_if_there(&listed.name)?;
            }
        }
        let [older @ .., _] = names.folded.as_slice() else { return Ok(m - floor) };
        for old in older {
            self.delete_if_there(&format!("folded-{old:020}"))?;
        }
        Ok(m - floor)
    }

    fn delete_if_there(&self, name: &str) -> Result<()> {
        match self.storage.delete(&Key::new(Folder::Ops, name)?) {
            Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

// What a frame says that it holds; none unless it is one frame, and nothing else.
fn folded_len(frame: &[u8], limit: usize) -> Option<usize> {
    if zstd::zstd_safe::find_frame_compressed_size(frame).ok()? != frame.len() {
        return None;
    }
    let length = zstd::zstd_safe::get_frame_content_size(frame).ok()??;
    usize::try_from(length).ok().filter(|length| *length <= limit)
}

fn number(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

/// Says whether a file of `ops/` is called as operations are, folded ones too.
pub(crate) fn is_operations_file(name: &str) -> bool {
    number(name.strip_prefix("folded-").unwrap_or(name)).is_some()
}

pub(crate) fn file_name(n: u64) -> String {
    format!("ops/{n:020}")
}
