//! The system calls of the simulated file system.

use std::io::IoSlice;
use std::path::Path;
use std::sync::MutexGuard;

use rustix::io::Errno;

use super::disk::{Change, Inode};
use super::fault::{Call, CallKind, Canary, Failure, Fault};
use super::{CALLS_MAX, CALLS_RECORDED_MAX, Machine, SimFs};
use crate::local::system::{Access, Stat, System};

/// So many reads and writes are done in part only.
const PARTS_MAX: usize = 5_000;

/// An open file or folder, and how it was reached.
#[derive(Debug)]
pub struct SimHandle {
    inode: u64,
    path: String,
}

impl SimHandle {
    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

/// What writes past the page cache must be multiples of.
const BLOCK_BYTES: usize = 4096;

/// How a call goes on once its fault was looked at.
enum Way<'a> {
    /// As asked, but moving at most so many bytes.
    On(MutexGuard<'a, Machine>, usize),
    /// As asked, and then this error.
    OnTo(MutexGuard<'a, Machine>, Errno),
    /// The sync is no sync.
    Lost(MutexGuard<'a, Machine>),
}

impl<'a> Way<'a> {
    /// Goes on with a call that moves no bytes; the error is what it gives in the end.
    fn parts(self) -> (MutexGuard<'a, Machine>, Result<(), Errno>) {
        match self {
            Self::On(machine, _) => (machine, Ok(())),
            Self::OnTo(machine, errno) => (machine, Err(errno)),
            Self::Lost(machine) => (machine, Err(Errno::IO)),
        }
    }
}

impl SimFs {
    /// Records a call, lets others interrupt it, and makes it fail if it must.
    fn call(&self, kind: CallKind, path: String, len: usize) -> Result<Way<'_>, Errno> {
        let mut call = Call { kind, path, changes_before: self.num_changes() };
        if let Some(gate) = &self.gate {
            gate.pass(&call)?;
        }
        let mut machine = self.lock();
        call.changes_before = machine.changes.len();
        if kind == CallKind::SyncFolder && call.path == "ops" {
            machine.let_go();
        }
        if machine.interruption.as_ref().is_some_and(|interruption| (interruption.is_here)(&call)) {
            let interruption = machine.interruption.take();
            machine.is_interrupted = true;
            drop(machine);
            if let Some(interruption) = interruption {
                (interruption.action)();
            }
            machine = self.lock();
            machine.is_interrupted = false;
        }
        let number = machine.num_calls;
        machine.num_calls += 1;
        if number < CALLS_RECORDED_MAX {
            machine.calls.push(call);
        }
        // A large file would take for ever byte by byte, and shows nothing that its beginning has not shown.
        let is_bored =
            |failure| matches!(failure, Failure::OneByte | Failure::Half) && machine.num_failures >= PARTS_MAX;
        let is_spared = machine.is_interrupted || number >= CALLS_MAX;
        let Some(Fault { failure, .. }) = machine.fault.filter(|fault| {
            let is_now = number >= fault.at && (fault.lasts || machine.num_failures == 0);
            is_now && !is_spared && !is_bored(fault.failure) && fault.failure.fits(kind)
        }) else {
            return Ok(Way::On(machine, len));
        };
        machine.num_failures += 1;
        match failure {
            Failure::Error(errno) => Err(errno),
            Failure::OneByte => Ok(Way::On(machine, len.min(1))),
            Failure::Half => Ok(Way::On(machine, len.div_ceil(2))),
            Failure::LostSync => Ok(Way::Lost(machine)),
            Failure::DoneAndError(errno) => Ok(Way::OnTo(machine, errno)),
        }
    }

    fn plain(&self, kind: CallKind, path: String) -> Result<(MutexGuard<'_, Machine>, Result<(), Errno>), Errno> {
        Ok(self.call(kind, path, 0)?.parts())
    }

    fn open(&self, kind: CallKind, folder: &SimHandle, name: &str) -> Result<SimHandle, Errno> {
        let (machine, _) = self.plain(kind, folder.below(name))?;
        let inode = machine.live.find(folder.inode, name)?;
        match (machine.live.inodes.get(&inode), kind) {
            (Some(Inode::File { .. }), CallKind::OpenFolder) => return Err(Errno::NOTDIR),
            (Some(Inode::Folder { .. }), CallKind::OpenToWrite) => return Err(Errno::ISDIR),
            _ => {}
        }
        Ok(SimHandle { inode, path: folder.below(name) })
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl System for SimFs {
    type Handle = SimHandle;

    fn open_root(&self, path: &Path) -> Result<SimHandle, Errno> {
        let (machine, _) = self.plain(CallKind::OpenRoot, text(path))?;
        let inode = machine.resolve(path)?;
        machine.live.entries(inode)?;
        Ok(SimHandle { inode, path: String::new() })
    }

    fn open_path(&self, path: &Path) -> Result<SimHandle, Errno> {
        let (machine, _) = self.plain(CallKind::OpenPath, text(path))?;
        let inode = machine.resolve(path)?;
        machine.live.entries(inode)?;
        Ok(SimHandle { inode, path: text(path) })
    }

    fn make_path(&self, path: &Path) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::MakePath, text(path))?;
        let parent = machine.resolve(path.parent().ok_or(Errno::EXIST)?)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(Errno::INVAL)?;
        if machine.live.find(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let inode = machine.live.next;
        machine.change(Change::CreateFolder { folder: parent, name: name.to_owned(), inode });
        end
    }

    fn stat_path(&self, path: &Path) -> Result<Stat, Errno> {
        let (machine, _) = self.plain(CallKind::StatPath, text(path))?;
        machine.live.stat(machine.resolve(path)?)
    }

    fn open_near(&self, folder: &SimHandle, name: &str) -> Result<SimHandle, Errno> {
        let (machine, _) = self.plain(CallKind::OpenNear, folder.below(name))?;
        let inode = match machine.live.inodes.get(&folder.inode) {
            Some(Inode::Folder { parent, .. }) if name == ".." => *parent,
            Some(Inode::Folder { .. }) => folder.inode,
            Some(Inode::File { .. }) | None => return Err(Errno::NOTDIR),
        };
        Ok(SimHandle { inode, path: folder.below(name) })
    }

    fn open_folder(&self, folder: &SimHandle, name: &str) -> Result<SimHandle, Errno> {
        self.open(CallKind::OpenFolder, folder, name)
    }

    fn open_file(&self, folder: &SimHandle, name: &str, access: Access) -> Result<SimHandle, Errno> {
        let kind = match access {
            Access::Read => CallKind::OpenFile,
            Access::Write => CallKind::OpenToWrite,
        };
        self.open(kind, folder, name)
    }

    fn create_file(&self, folder: &SimHandle, name: &str) -> Result<SimHandle, Errno> {
        let (mut machine, end) = self.plain(CallKind::CreateFile, folder.below(name))?;
        if machine.live.find(folder.inode, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let inode = machine.live.next;
        machine.change(Change::CreateFile { folder: folder.inode, name: name.to_owned(), inode });
        end.map(|()| SimHandle { inode, path: folder.below(name) })
    }

    fn make_folder(&self, folder: &SimHandle, name: &str) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::MakeFolder, folder.below(name))?;
        if machine.live.find(folder.inode, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let inode = machine.live.next;
        machine.change(Change::CreateFolder { folder: folder.inode, name: name.to_owned(), inode });
        end
    }

    fn stat(&self, folder: &SimHandle, name: &str) -> Result<Stat, Errno> {
        let (machine, _) = self.plain(CallKind::Stat, folder.below(name))?;
        machine.live.stat(machine.live.find(folder.inode, name)?)
    }

    fn stat_open(&self, file: &SimHandle) -> Result<Stat, Errno> {
        let (machine, _) = self.plain(CallKind::StatOpen, file.path.clone())?;
        machine.live.stat(file.inode)
    }

    fn read_at(&self, file: &SimHandle, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let Way::On(machine, len) = self.call(CallKind::Read, file.path.clone(), buf.len())? else {
            return Err(Errno::IO);
        };
        Ok(machine.live.content(file.inode)?.read(offset, &mut buf[..len]))
    }

    fn read_into(&self, file: &SimHandle, bytes: &mut Vec<u8>, offset: u64) -> Result<usize, Errno> {
        let room = bytes.capacity() - bytes.len();
        let Way::On(machine, len) = self.call(CallKind::Read, file.path.clone(), room)? else {
            return Err(Errno::IO);
        };
        let start = bytes.len();
        bytes.resize(start + len, 0);
        let read = machine.live.content(file.inode)?.read(offset, &mut bytes[start..]);
        bytes.truncate(start + read);
        Ok(read)
    }

    fn write_at(&self, file: &SimHandle, pieces: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let Way::On(mut machine, len) = self.call(CallKind::Write, file.path.clone(), all.len())? else {
            return Err(Errno::IO);
        };
        machine.live.content(file.inode)?;
        let is_whole = |number: usize| number.is_multiple_of(BLOCK_BYTES);
        let are_aligned = pieces.iter().all(|piece| is_whole(piece.as_ptr().addr()) && is_whole(piece.len()));
        if machine.direct.contains(&file.inode) && !(are_aligned && offset.is_multiple_of(BLOCK_BYTES as u64)) {
            return Err(Errno::INVAL);
        }
        machine.change(Change::Write { inode: file.inode, offset, bytes: all[..len].into() });
        Ok(len)
    }

    fn truncate(&self, file: &SimHandle, len: u64) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::Truncate, file.path.clone())?;
        machine.live.content(file.inode)?;
        machine.change(Change::Resize { inode: file.inode, len });
        end
    }

    fn reserve(&self, file: &SimHandle, len: u64) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::Reserve, file.path.clone())?;
        let len = len.max(machine.live.content(file.inode)?.len());
        machine.change(Change::Resize { inode: file.inode, len });
        end
    }

    fn set_direct(&self, file: &SimHandle, is_direct: bool) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::SetDirect, file.path.clone())?;
        if machine.direct_bytes.is_none() {
            return Err(Errno::INVAL);
        }
        if is_direct {
            machine.direct.insert(file.inode);
        } else {
            machine.direct.remove(&file.inode);
        }
        end
    }

    fn direct_bytes(&self) -> usize {
        self.lock().direct_bytes.unwrap_or(1)
    }

    fn start_write_back(&self, _file: &SimHandle, _offset: u64, _len: u64) {}

    fn sync(&self, handle: &SimHandle) -> Result<(), Errno> {
        let is_folder = self.lock().live.entries(handle.inode).is_ok();
        let kind = if is_folder { CallKind::SyncFolder } else { CallKind::Sync };
        let (mut machine, end) = self.plain(kind, handle.path.clone())?;
        machine.change(Change::Sync { inode: handle.inode, is_kept: end.is_ok() });
        end
    }

    fn rename_no_replace(&self, from: &SimHandle, old: &str, to: &SimHandle, new: &str) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::RenameNoReplace, to.below(new))?;
        if !machine.has_rename_no_replace {
            return Err(Errno::INVAL);
        }
        let inode = machine.live.find(from.inode, old)?;
        if machine.live.find(to.inode, new).is_ok() {
            return Err(Errno::EXIST);
        }
        if machine.canary == Some(Canary::OperationBeforePack) && to.path == "packs" {
            machine.held.push(renamed(from, old, to, new, inode));
        } else {
            machine.change(renamed(from, old, to, new, inode));
        }
        end
    }

    fn rename(&self, from: &SimHandle, old: &str, to: &SimHandle, new: &str) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::Rename, to.below(new))?;
        let inode = machine.live.find(from.inode, old)?;
        // Two names of one file stay as they are.
        if machine.live.find(to.inode, new) != Ok(inode) {
            machine.change(renamed(from, old, to, new, inode));
        }
        end
    }

    fn link(&self, from: &SimHandle, old: &str, to: &SimHandle, new: &str) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::Link, to.below(new))?;
        let inode = machine.live.find(from.inode, old)?;
        if machine.live.find(to.inode, new).is_ok() {
            return Err(Errno::EXIST);
        }
        machine.change(Change::Link { folder: to.inode, name: new.to_owned(), inode });
        end
    }

    fn unlink(&self, folder: &SimHandle, name: &str) -> Result<(), Errno> {
        let (mut machine, end) = self.plain(CallKind::Unlink, folder.below(name))?;
        machine.live.find(folder.inode, name)?;
        machine.change(Change::Unlink { folder: folder.inode, name: name.to_owned() });
        end
    }

    fn list(&self, folder: &SimHandle) -> Result<Vec<String>, Errno> {
        let (machine, _) = self.plain(CallKind::List, folder.path.clone())?;
        Ok(machine.live.entries(folder.inode)?.keys().cloned().collect())
    }

    fn has_canary(&self, canary: Canary) -> bool {
        self.lock().canary == Some(canary)
    }
}

impl Machine {
    /// Makes the renames that a canary has held back.
    fn let_go(&mut self) {
        for change in std::mem::take(&mut self.held) {
            self.change(change);
        }
    }
}

fn renamed(from: &SimHandle, old: &str, to: &SimHandle, new: &str, inode: u64) -> Change {
    Change::Rename { from: from.inode, old: old.to_owned(), to: to.inode, new: new.to_owned(), inode }
}
