//! What a disk holds after the power went.
//!
//! A file's bytes and length are durable as they were at its last sync, a folder's entries as they were at its own. Of
//! what came later the disk holds what a [`CrashMode`] says: a rename counts as two entries in two folders, because no
//! system promises that they arrive together. Everything follows from the record of the calls and a seed, so a state can
//! be made again from three numbers.

use std::collections::BTreeMap;
use std::fmt;

use super::disk::{Change, Content, Disk, Inode};
use super::random::Random;

/// What became of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashMode {
    /// All of it is lost.
    Lost,
    /// All of it is there.
    Kept,
    /// Each write and each change of a folder is there or not.
    Subset,
    /// Each write is there or not, in any order; of a rename one half may be there without the other.
    Reordered,
    /// Each 512 bytes of each write are there or not.
    Torn512,
    /// Each 4,096 bytes of each write are there or not.
    Torn4096,
    /// Names and lengths are there, and zeros for bytes.
    Zeroed,
    /// Names are there, and files end early.
    Short,
    /// Changes of folders are there up to some moment, as a journal keeps them; each write is there or not.
    Journal,
}

impl CrashMode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Kept,
        Self::Subset,
        Self::Reordered,
        Self::Torn512,
        Self::Torn4096,
        Self::Zeroed,
        Self::Short,
        Self::Journal,
    ];

    /// Says whether the seed makes a difference.
    pub fn is_random(self) -> bool {
        match self {
            Self::Lost | Self::Kept | Self::Zeroed => false,
            Self::Subset | Self::Reordered | Self::Torn512 | Self::Torn4096 | Self::Short | Self::Journal => true,
        }
    }
}

/// One state of a disk after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crash {
    /// How many changes the calls had made.
    pub after: usize,
    /// What became of what was not synced.
    pub mode: CrashMode,
    /// Decides what is there or not.
    pub seed: u64,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash after change {}, {:?}, seed {}", self.after, self.mode, self.seed)
    }
}

/// A name given or taken away: folder, name, what has it now.
#[derive(Clone, Debug)]
struct EntryChange {
    at: usize,
    folder: u64,
    name: String,
    inode: Option<u64>,
}

/// What is durable, and what was done since.
struct Unsynced {
    durable: Disk,
    writes: BTreeMap<u64, Vec<Change>>,
    names: Vec<EntryChange>,
}

/// Returns the disk after a crash.
pub(super) fn crashed(start: &Disk, changes: &[Change], crash: &Crash) -> Disk {
    let mut random = Random::new(crash.seed ^ ((crash.after as u64) << 32));
    let mut state = Unsynced { durable: start.clone(), writes: BTreeMap::new(), names: Vec::new() };
    for (at, change) in changes.iter().enumerate().take(crash.after) {
        state.add(at, change);
    }
    let Unsynced { durable: mut disk, writes, names } = state;
    for name in kept_names(names, changes, crash, &mut random) {
        disk.set_entry(name.folder, &name.name, name.inode);
    }
    for (inode, pending) in writes {
        disk.edit(inode, |file| settle(file, &pending, crash.mode, &mut random));
    }
    disk.forget_nameless();
    disk
}

impl Unsynced {
    fn add(&mut self, at: usize, change: &Change) {
        let mut name = |folder: u64, name: &str, inode| {
            self.names.push(EntryChange { at, folder, name: name.to_owned(), inode });
        };
        match change {
            Change::CreateFile { folder, name: new, inode } => {
                name(*folder, new, Some(*inode));
                self.durable.add(*inode, Inode::empty_file());
            }
            Change::CreateFolder { folder, name: new, inode } => {
                name(*folder, new, Some(*inode));
                self.durable.add(*inode, Inode::Folder { parent: *folder, entries: BTreeMap::new() });
            }
            Change::Rename { from, old, to, new, inode } => {
                name(*to, new, Some(*inode));
                name(*from, old, None);
            }
            Change::Link { folder, name: new, inode } => name(*folder, new, Some(*inode)),
            Change::Unlink { folder, name: old } => name(*folder, old, None),
            Change::Write { inode, .. } | Change::Resize { inode, .. } => {
                self.writes.entry(*inode).or_default().push(change.clone());
            }
            Change::Sync { inode, is_kept } => self.sync(*inode, *is_kept),
        }
    }

    fn sync(&mut self, inode: u64, is_kept: bool) {
        let pending = self.writes.remove(&inode).unwrap_or_default();
        let (names, others) = std::mem::take(&mut self.names).into_iter().partition(|name| name.folder == inode);
        self.names = others;
        let names: Vec<EntryChange> = names;
        if is_kept {
            for change in &pending {
                self.durable.apply(change);
            }
            for name in names {
                self.durable.set_entry(name.folder, &name.name, name.inode);
            }
        }
    }
}

/// Chooses which changes of folders are there.
fn kept_names(names: Vec<EntryChange>, changes: &[Change], crash: &Crash, random: &mut Random) -> Vec<EntryChange> {
    match crash.mode {
        CrashMode::Lost => Vec::new(),
        CrashMode::Kept | CrashMode::Zeroed | CrashMode::Short => names,
        CrashMode::Reordered => names.into_iter().filter(|_| random.coin()).collect(),
        CrashMode::Subset | CrashMode::Torn512 | CrashMode::Torn4096 => {
            // Both halves of a rename, or neither.
            let mut coins = BTreeMap::new();
            let mut is_kept = |name: &EntryChange| *coins.entry(name.at).or_insert_with(|| random.coin());
            names.into_iter().filter(|name| is_kept(name)).collect()
        }
        CrashMode::Journal => {
            let is_sync = |change: &Change| matches!(change, Change::Sync { is_kept: true, .. });
            let synced = changes.iter().take(crash.after).rposition(is_sync).map_or(0, |at| at + 1);
            let end = synced + random.index(crash.after - synced + 1);
            names.into_iter().filter(|name| name.at < end).collect()
        }
    }
}

/// Makes of a file's durable bytes what is there of it after the crash.
fn settle(file: &mut Content, pending: &[Change], mode: CrashMode, random: &mut Random) {
    match mode {
        CrashMode::Lost => {}
        CrashMode::Kept => pending.iter().for_each(|change| make(file, change)),
        CrashMode::Subset | CrashMode::Journal => {
            pending.iter().filter(|_| random.coin()).for_each(|change| make(file, change));
        }
        CrashMode::Reordered => {
            let mut kept: Vec<&Change> = pending.iter().filter(|_| random.coin()).collect();
            for end in (1..kept.len()).rev() {
                kept.swap(end, random.index(end + 1));
            }
            for change in kept {
                make(file, change);
            }
        }
        CrashMode::Torn512 => tear(file, pending, 512, random),
        CrashMode::Torn4096 => tear(file, pending, 4096, random),
        CrashMode::Zeroed => {
            let len = len_after(file, pending);
            file.resize(len);
        }
        CrashMode::Short => {
            let durable_len = file.len();
            for change in pending {
                make(file, change);
            }
            let len = file.len();
            let least = durable_len.min(len);
            let cut = if random.coin() { least } else { least + random.below(len - least + 1) };
            file.resize(cut);
        }
    }
}

fn make(file: &mut Content, change: &Change) {
    match change {
        Change::Write { offset, bytes, .. } => file.write(*offset, bytes),
        Change::Resize { len, .. } => file.resize(*len),
        Change::CreateFile { .. }
        | Change::CreateFolder { .. }
        | Change::Sync { .. }
        | Change::Rename { .. }
        | Change::Link { .. }
        | Change::Unlink { .. } => {}
    }
}

/// Keeps some sectors of each write; the length is that which all of them would have made.
fn tear(file: &mut Content, pending: &[Change], sector: u64, random: &mut Random) {
    let len = len_after(file, pending);
    for change in pending {
        let Change::Write { offset, bytes, .. } = change else {
            make(file, change);
            continue;
        };
        let mut at = *offset;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let part_len = ((sector - at % sector) as usize).min(rest.len());
            let (part, after) = rest.split_at(part_len);
            if random.coin() {
                file.write(at, part);
            }
            at += part_len as u64;
            rest = after;
        }
    }
    file.resize(len);
}

fn len_after(file: &Content, pending: &[Change]) -> u64 {
    let mut len = file.len();
    for change in pending {
        match change {
            Change::Write { offset, bytes, .. } => len = len.max(offset + bytes.len() as u64),
            Change::Resize { len: new, .. } => len = *new,
            Change::CreateFile { .. }
            | Change::CreateFolder { .. }
            | Change::Sync { .. }
            | Change::Rename { .. }
            | Change::Link { .. }
            | Change::Unlink { .. } => {}
        }
    }
    len
}
