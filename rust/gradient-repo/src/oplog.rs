//! The operation log: finds the head, reads operations, publishes the next one, folds old ones.
//!
//! `ops/<n>` is published by put-if-absent and never changes. `ops/folded-<m>` (magic `GROF`) holds operations 1 to
//! m (`folded.rs`). Folding deletes in rising order, so a writer that published n + 1 and still sees n knows that nothing
//! was folded past it.
//! Specified in `docs/format/operations.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gradient_object::OperationId;
use gradient_storage::{Durability, Folder, Key, Put, Storage, StorageError};

use crate::envelope;
use crate::error::{RepoError, Result};
use crate::folded::{self, FOLDED_BYTES_MAX, FoldedWriter};
use crate::operation::{OPERATION_MAGIC, Operation, RefTable, Refs, changed};

/// Operations that are never folded: the newest ones, which others may be reading.
pub(crate) const UNFOLDED_MIN: u64 = 64;
/// Files in `ops/` from which on old operations are folded.
pub(crate) const FOLD_AT: usize = 512;

/// `EACCES`, on every system.
const EACCES: i32 = 13;
// Listings tried before a file that another one refers to counts as missing.
const LOOKS_MAX: u32 = 8;
/// Reading for the newest operation that can be read ends here: files that were made to be large and unreadable.
const SEARCH_BYTES_MAX: u64 = 1 << 30;
const OPERATION_BYTES_MAX: u64 = (64 << 20) + envelope::ENVELOPE_BYTES as u64;

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
    /// Bytes of operations that were read, files and what frames held.
    read_len: AtomicU64,
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
        Self { storage, read_len: AtomicU64::new(0) }
    }

    pub(crate) fn names(&self) -> Result<Names> {
        let mut names = Names { numbers: Vec::new(), folded: Vec::new(), below: Vec::new() };
        let listing = match self.storage.list(Folder::Ops) {
            Err(StorageError::NotFound { .. }) => {
                return Err(RepoError::Damaged { file: "ops".into(), reason: "the folder is missing".into() });
            }
            listing => listing?,
        };
        for listed in listing {
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
    /// missing, is reported in [`HeadState::damaged`], and the newest one before it that can be read is returned. So is
    /// what came after a fold, if none of it is there: a fold leaves the newest operations in files.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] if no operation can be read, or none within 1 GiB of them; storage errors.
    pub fn head(&self) -> Result<Option<HeadState>> {
        let read_before = self.read_len.load(Ordering::Relaxed);
        // A fold that runs meanwhile may delete what was listed: look again, a few times. What is missing then is lost.
        let mut looks_left = LOOKS_MAX;
        'look: loop {
            looks_left -= 1;
            let names = self.names()?;
            let floor = names.folded.last().copied();
            if names.numbers.is_empty() && floor.is_some() && looks_left > 0 {
                continue 'look;
            }
            let mut damaged = None;
            for n in names.numbers.iter().rev().copied().chain(floor) {
                let (file, reason) = match self.state_above(floor, n) {
                    Ok(mut state) => {
                        state.damaged = match damaged {
                            None => self.beyond(&state, floor == Some(n))?,
                            damaged => damaged,
                        };
                        return Ok(Some(state));
                    }
                    Err(RepoError::Storage(StorageError::NotFound { .. })) if looks_left > 0 => continue 'look,
                    Err(RepoError::Storage(StorageError::NotFound { key })) => (key, "it is missing".to_owned()),
                    Err(RepoError::Damaged { file, reason }) => (file, reason),
                    Err(error) => return Err(error),
                };
                damaged = damaged.or(Some(UnreadableHead { number: n, file, reason }));
                if self.read_len.load(Ordering::Relaxed) - read_before > SEARCH_BYTES_MAX {
                    break;
                }
            }
            return match damaged {
                Some(UnreadableHead { file, reason, .. }) => Err(RepoError::Damaged { file, reason }),
                None => Ok(None),
            };
        }
    }

    /// What is wrong behind the newest operation: a listing shows regular files only, and the next one may be there as
    /// something else; a repair that took it away was cut off before it put another in its place; or the newest is a
    /// folded one, and a fold leaves those behind it.
    fn beyond(&self, newest: &HeadState, is_folded: bool) -> Result<Option<UnreadableHead>> {
        let Some(number) = newest.operation.n.checked_add(1) else { return Ok(None) };
        match self.read_file(number) {
            Err(RepoError::Damaged { file, reason }) => Ok(Some(UnreadableHead { number, file, reason })),
            Err(RepoError::Storage(StorageError::NotFound { .. })) if self.pending(newest)?.is_some() => {
                let reason = "a repair was cut off before it published this".to_owned();
                Ok(Some(UnreadableHead { number, file: Key::pending(number).to_string(), reason }))
            }
            Err(RepoError::Storage(StorageError::NotFound { .. })) if is_folded => {
                let reason = "it is missing, and so is all that came after it".to_owned();
                Ok(Some(UnreadableHead { number, file: file_name(number), reason }))
            }
            Ok(_) | Err(RepoError::Storage(StorageError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The operation that a repair was going to publish behind this one.
    ///
    /// # Errors
    /// Storage errors; one that can not be read counts as none.
    pub(crate) fn pending(&self, newest: &HeadState) -> Result<Option<Operation>> {
        let Some(n) = newest.operation.n.checked_add(1) else { return Ok(None) };
        let pending = match self.read_as(n, &Key::pending(n)) {
            // Only repair needs `lost+found`: where it may not be looked into, nothing is known to be pending.
            Err(RepoError::Storage(error)) if error.errno() == Some(EACCES) => None,
            read => unless_damaged(read)?,
        };
        Ok(pending.map(|(operation, _)| operation).filter(|operation| operation.previous == Some(newest.id)))
    }

    /// Reads on from `state` to the newest operation; says whether anything was new.
    ///
    /// # Errors
    /// As [`OperationLog::head`].
    pub fn advance(&self, state: &mut HeadState) -> Result<bool> {
        let mut moved = false;
        loop {
            let Some(n) = state.operation.n.checked_add(1) else { return Ok(false) };
            match self.read_file(n) {
                Ok((operation, id)) if operation.previous == Some(state.id) => {
                    // Gone: operations were folded past here, and what was read may be what a writer that slept left.
                    if !unless_damaged(self.stands(state))?.unwrap_or(false) {
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
                    if state.damaged.is_none() && unless_damaged(self.stands(state))?.unwrap_or(false) {
                        return Ok(moved);
                    }
                    return Ok(self.jump(state)? || moved);
                }
                Err(RepoError::Damaged { .. }) => return Ok(self.jump(state)? || moved),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says whether the operation of `state` still is the one of its number: nothing beyond it was folded, and no repair
    /// moved it aside and published another in its place. Of one that has become unreadable nobody knows: an error.
    fn stands(&self, state: &HeadState) -> Result<bool> {
        match self.read_file(state.operation.n) {
            Ok((_, id)) => Ok(id == state.id),
            // What came after a fold was lost, and the last one that was folded is what there is.
            Err(RepoError::Storage(StorageError::NotFound { .. })) => {
                Ok(self.names()?.folded.last() == Some(&state.operation.n))
            }
            Err(error) => Err(error),
        }
    }

    fn jump(&self, state: &mut HeadState) -> Result<bool> {
        let before = state.id;
        *state = self
            .head()?
            .ok_or_else(|| RepoError::Damaged { file: "ops".into(), reason: "its operations are gone".into() })?;
        Ok(state.id != before)
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
        self.state_above(self.names()?.folded.last().copied(), n)
    }

    fn state_above(&self, floor: Option<u64>, n: u64) -> Result<HeadState> {
        let (operation, id) = self.read_above(floor, n)?;
        let (table, whole) = match &operation.refs {
            Refs::Whole(table) => (table.clone(), (n, table.clone())),
            Refs::Changes { since, changes } => match self.read_above(floor, *since)?.0.refs {
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
        self.read_above(self.names()?.folded.last().copied(), n)
    }

    fn read_above(&self, floor: Option<u64>, n: u64) -> Result<(Operation, OperationId)> {
        // A file at or below the floor is no operation, whoever wrote it: the folded one counts.
        let Some(m) = floor.filter(|m| *m >= n) else {
            return self.read_file(n);
        };
        let mut found = None;
        self.for_each_folded(m, |number, payload| {
            if number == n {
                found = Some((Operation::decode(payload, n, &file_name(n))?, OperationId::of(payload)));
            }
            Ok(())
        })?;
        found.ok_or_else(|| StorageError::NotFound { key: file_name(n) }.into())
    }

    /// Calls `then` with the number and payload of each operation of a folded file, in order.
    ///
    /// # Errors
    /// As [`folded::for_each`].
    pub(crate) fn for_each_folded(&self, m: u64, mut then: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        folded::for_each(&*self.storage, m, |n, payload| {
            self.read_len.fetch_add(payload.len() as u64, Ordering::Relaxed);
            then(n, payload)
        })
    }

    pub(crate) fn read_file(&self, n: u64) -> Result<(Operation, OperationId)> {
        self.read_as(n, &Key::operation(n))
    }

    fn read_as(&self, n: u64, key: &Key) -> Result<(Operation, OperationId)> {
        let file = key.to_string();
        let bytes = envelope::read(&*self.storage, key, OPERATION_BYTES_MAX)?;
        self.read_len.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let payload = envelope::unwrap(OPERATION_MAGIC, &bytes, &file)?;
        Ok((Operation::decode(payload, n, &file)?, OperationId::of(payload)))
    }

    /// Finds a newest folded file that can not be read and is not needed: every operation that it stands for lies in a
    /// file of its own, or in the folded file before it, each following the one before.
    ///
    /// # Errors
    /// Storage errors.
    pub(crate) fn spare_folded(&self) -> Result<Option<u64>> {
        let names = self.names()?;
        let Some((m, older)) = names.folded.split_last() else { return Ok(None) };
        let base = older.last().copied().unwrap_or(0);
        let is_there = names.below.iter().filter(|n| **n > base).copied().eq(base + 1..=*m);
        if !is_there || unless_damaged(self.for_each_folded(*m, |_, _| Ok(())))?.is_some() {
            return Ok(None);
        }
        let mut before = None;
        if base > 0 {
            let read = self.for_each_folded(base, |_, payload| {
                before = Some(OperationId::of(payload));
                Ok(())
            });
            if unless_damaged(read)?.is_none() {
                return Ok(None);
            }
        }
        let next = names.numbers.first().copied().filter(|n| *n == m + 1);
        for n in (base + 1..=*m).chain(next) {
            match unless_damaged(self.read_file(n))? {
                Some((operation, id)) if operation.previous == before => before = Some(id),
                Some(_) | None => return Ok(None),
            }
        }
        Ok(Some(*m))
    }

    /// Publishes `operation` after `before`, durably, unless somebody was first.
    ///
    /// # Errors
    /// [`RepoError::Damaged`]: the operation before it became unreadable meanwhile, and a repair may put another in its
    /// place; storage errors. After either it is unknown whether the operation was published.
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

    /// Says, durably, what a repair will publish; [`OperationLog::forget_pending`] takes it back.
    ///
    /// # Errors
    /// Storage errors.
    pub(crate) fn announce(&self, operation: &Operation) -> Result<()> {
        let (bytes, _) = operation.encode()?;
        Ok(self.storage.replace(&Key::pending(operation.n), &bytes, Durability::Synced)?)
    }

    /// Forgets what was announced as operation `n`.
    ///
    /// # Errors
    /// Storage errors.
    pub(crate) fn forget_pending(&self, n: u64) -> Result<()> {
        self.delete_if_there(&Key::pending(n))
    }

    /// Puts `operation` in the place of a damaged one of its number, of which the bytes are copied to `lost+found/`: at no
    /// time is the number free. Says where the copy lies; none, and nothing was done, if the damaged one can not be read.
    ///
    /// # Errors
    /// Storage errors; after one it is unknown which of the two is there.
    pub(crate) fn supersede(&self, operation: &Operation) -> Result<Option<Key>> {
        let key = Key::operation(operation.n);
        let bytes = match self.storage.read(&key, OPERATION_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(StorageError::Poisoned { key }) => return Err(StorageError::Poisoned { key }.into()),
            Err(_) => return Ok(None),
        };
        for attempt in 0.. {
            let copy = Key::aside(&key, attempt)?;
            if matches!(self.storage.put_if_absent(&copy, &bytes)?, Put::Done) {
                self.storage.replace(&key, &operation.encode()?.0, Durability::Synced)?;
                return Ok(Some(copy));
            }
        }
        Ok(None)
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
        let mut content = if floor > 0 { folded::content_len(&*self.storage, floor)? } else { 0 };
        for n in floor + 1..=m {
            // A payload and its length, where a file has the payload and its frame. One that is cut off is damaged, and
            // is found to be when it is read.
            content += (self.storage.len(&Key::operation(n))? + 8).saturating_sub(envelope::ENVELOPE_BYTES as u64);
        }
        if content > FOLDED_BYTES_MAX {
            return Ok(0); // No reader would take it: these operations stay in files of their own.
        }
        let mut writer = FoldedWriter::new(m, content)?;
        let mut before = None;
        if floor > 0 {
            self.for_each_folded(floor, |n, payload| {
                before = (n == floor).then(|| OperationId::of(payload));
                writer.push(payload)
            })?;
        }
        for n in floor + 1..=m {
            let (operation, id) = self.read_file(n)?;
            if operation.previous != before {
                let reason = format!("it does not follow operation {}", n - 1);
                return Err(RepoError::Damaged { file: file_name(n), reason });
            }
            before = Some(id);
            writer.push(&operation.payload()?)?;
        }
        let (file, hash) = writer.finish()?;
        if file.len() as u64 > FOLDED_BYTES_MAX {
            return Ok(0);
        }
        let key = Key::folded(m);
        if matches!(self.storage.put_if_absent(&key, &file)?, Put::Taken) {
            return Ok(0);
        }
        let read_back = folded::content_hash(&*self.storage, m);
        if !read_back.as_ref().is_ok_and(|read| *read == hash) {
            // Every operation is still there in a file of its own: without the folded one nothing is lost, and with it
            // nobody could read them.
            self.delete_if_there(&key)?;
            let reason = "it reads back otherwise than it was written".to_owned();
            return Err(read_back.err().unwrap_or(RepoError::Damaged { file: folded::file_name(m), reason }));
        }
        for listed in self.storage.list(Folder::Ops)? {
            if number(&listed.name).is_some_and(|n| n <= m) {
                self.delete_if_there(&Key::new(Folder::Ops, &listed.name)?)?;
            }
        }
        let [older @ .., _] = names.folded.as_slice() else { return Ok(m - floor) };
        for old in older {
            self.delete_if_there(&Key::folded(*old))?;
        }
        Ok(m - floor)
    }

    fn delete_if_there(&self, key: &Key) -> Result<()> {
        match self.storage.delete(key) {
            Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// None for what is damaged or missing; other failures stay errors.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(RepoError::Damaged { .. }) => Ok(None),
        Err(RepoError::Storage(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

/// Says whether a file of `ops/` is called as operations are, folded ones too.
pub(crate) fn is_operations_file(name: &str) -> bool {
    number(name.strip_prefix("folded-").unwrap_or(name)).is_some()
}

pub(crate) fn file_name(n: u64) -> String {
    format!("ops/{n:020}")
}
