//! Files and folders in memory, and the changes that calls make to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::io::Errno;

use crate::local::system::{Kind, Stat};

/// Number of the folder that every path starts at.
pub(super) const ROOT: u64 = 1;

/// The bytes of a file, and zeros behind them up to its length: most of what is reserved is never written.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    len: u64,
}

impl Content {
    /// Returns the length.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Returns all bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        self.read(0, &mut bytes);
        bytes
    }

    /// Fills `out` from `offset` on; says how much of it.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let len = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let out = &mut out[..len];
        let there = usize::try_from(offset).ok().and_then(|start| self.bytes.get(start..)).unwrap_or_default();
        let (front, back) = out.split_at_mut(there.len().min(len));
        front.copy_from_slice(&there[..front.len()]);
        back.fill(0);
        len
    }

    /// Writes bytes over what is there; a gap is filled with zeros.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    /// Cuts a file, or fills it up with zeros.
    pub(super) fn resize(&mut self, len: u64) {
        self.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        self.len = len;
    }
}

/// A file or folder, whatever names it has.
#[derive(Clone, Debug)]
pub(super) enum Inode {
    /// What it holds, and how many names it has.
    File { content: Arc<Content>, num_names: u32 },
    /// Numbers by name, and the folder above.
    Folder { parent: u64, entries: BTreeMap<String, u64> },
}

/// What one call changed.
#[derive(Clone, Debug)]
pub(super) enum Change {
    CreateFile {
        folder: u64,
        name: String,
        inode: u64,
    },
    CreateFolder {
        folder: u64,
        name: String,
        inode: u64,
    },
    Write {
        inode: u64,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Resize {
        inode: u64,
        len: u64,
    },
    /// `is_kept`: what was written before is durable. Otherwise the sync failed, and it never will be.
    Sync {
        inode: u64,
        is_kept: bool,
    },
    Rename {
        from: u64,
        old: String,
        to: u64,
        new: String,
        inode: u64,
    },
    Link {
        folder: u64,
        name: String,
        inode: u64,
    },
    Unlink {
        folder: u64,
        name: String,
    },
}

/// A tree of files and folders. Contents are shared between copies until one is changed.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next: u64,
}

impl Inode {
    /// An empty file without a name.
    pub(super) fn empty_file() -> Self {
        Self::File { content: Arc::default(), num_names: 0 }
    }
}

impl Disk {
    /// An empty folder.
    pub(super) fn new() -> Self {
        let root = Inode::Folder { parent: ROOT, entries: BTreeMap::new() };
        Self { inodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 }
    }

    /// Makes the change.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::CreateFile { folder, name, inode } => {
                self.add(*inode, Inode::empty_file());
                self.set_entry(*folder, name, Some(*inode));
            }
            Change::CreateFolder { folder, name, inode } => {
                self.add(*inode, Inode::Folder { parent: *folder, entries: BTreeMap::new() });
                self.set_entry(*folder, name, Some(*inode));
            }
            Change::Write { inode, offset, bytes } => self.edit(*inode, |file| file.write(*offset, bytes)),
            Change::Resize { inode, len } => self.edit(*inode, |file| file.resize(*len)),
            Change::Sync { .. } => {}
            Change::Rename { from, old, to, new, inode } => {
                self.set_entry(*from, old, None);
                self.set_entry(*to, new, Some(*inode));
            }
            Change::Link { folder, name, inode } => self.set_entry(*folder, name, Some(*inode)),
            Change::Unlink { folder, name } => self.set_entry(*folder, name, None),
        }
    }

    /// Adds a file or folder that has no name yet.
    pub(super) fn add(&mut self, number: u64, inode: Inode) {
        self.inodes.insert(number, inode);
        self.next = self.next.max(number + 1);
    }

    /// Gives a name to a file or folder, or takes it away.
    pub(super) fn set_entry(&mut self, folder: u64, name: &str, inode: Option<u64>) {
        let Some(Inode::Folder { entries, .. }) = self.inodes.get_mut(&folder) else { return };
        let before = match inode {
            Some(inode) => entries.insert(name.to_owned(), inode),
            None => entries.remove(name),
        };
        if let Some(Inode::File { num_names, .. }) = before.and_then(|before| self.inodes.get_mut(&before)) {
            *num_names -= 1;
        }
        if let Some(Inode::File { num_names, .. }) = inode.and_then(|inode| self.inodes.get_mut(&inode)) {
            *num_names += 1;
        }
    }

    /// Returns what a folder holds.
    pub(super) fn entries(&self, folder: u64) -> Result<&BTreeMap<String, u64>, Errno> {
        match self.inodes.get(&folder) {
            Some(Inode::Folder { entries, .. }) => Ok(entries),
            Some(Inode::File { .. }) => Err(Errno::NOTDIR),
            None => Err(Errno::STALE),
        }
    }

    /// Returns what has a name.
    pub(super) fn find(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        self.entries(folder)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Returns what a file holds.
    pub(super) fn content(&self, inode: u64) -> Result<&Content, Errno> {
        match self.inodes.get(&inode) {
            Some(Inode::File { content, .. }) => Ok(content),
            Some(Inode::Folder { .. }) => Err(Errno::ISDIR),
            None => Err(Errno::STALE),
        }
    }

    /// Changes what a file holds.
    pub(super) fn edit(&mut self, inode: u64, change: impl FnOnce(&mut Content)) {
        if let Some(Inode::File { content, .. }) = self.inodes.get_mut(&inode) {
            change(Arc::make_mut(content));
        }
    }

    /// Looks at a file or folder.
    pub(super) fn stat(&self, inode: u64) -> Result<Stat, Errno> {
        let (kind, len, has_one_name) = match self.inodes.get(&inode) {
            Some(Inode::File { content, num_names }) => (Kind::File, content.len(), *num_names == 1),
            Some(Inode::Folder { .. }) => (Kind::Folder, 0, true),
            None => return Err(Errno::STALE),
        };
        Ok(Stat { kind, len, has_one_name, identity: (0, inode.into()) })
    }

    /// Forgets what has no name any more, as nobody has it open after a crash.
    pub(super) fn forget_nameless(&mut self) {
        let mut kept = BTreeMap::new();
        let mut left = vec![(ROOT, ROOT)];
        while let Some((number, above)) = left.pop() {
            let Some(mut inode) = self.inodes.remove(&number) else { continue };
            if let Inode::Folder { parent, entries } = &mut inode {
                *parent = above;
                left.extend(entries.values().map(|inside| (*inside, number)));
            }
            kept.insert(number, inode);
        }
        self.inodes = kept;
    }
}
