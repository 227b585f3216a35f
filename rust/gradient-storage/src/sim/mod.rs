//! A file system in memory that forgets, as a disk does when the power goes. For crash tests only.
//!
//! [`SimFs`] takes the place of the operating system under [`LocalStorage`](crate::LocalStorage), so what is tested is the
//! code that ships. It numbers the calls, and records what each of them changed and what was synced. Of a record it makes
//! the disk as it may be found after a crash at any call; while it records, any call can be made to fail.
//!
//! | file        | what it does                                                     |
//! |-------------|------------------------------------------------------------------|
//! | `disk.rs`   | files and folders, and what a change does to them                |
//! | `crash.rs`  | what is there after a crash: lost, kept, torn, reordered, ...     |
//! | `fault.rs`  | calls, and how they fail                                         |
//! | `calls.rs`  | the system calls                                                 |
//! | `gate.rs`   | what the calls of one process have to pass                       |
//! | `random.rs` | the same choices for the same seed                               |
//!
//! Clones are the same disk, as two processes see it. A handle stays good after its file has lost its name. Links,
//! pipes and permissions do not exist.

mod calls;
mod crash;
mod disk;
mod fault;
mod gate;
mod random;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use self::disk::{Change, Content, Disk, ROOT};

pub use self::crash::{Crash, CrashMode};
pub use self::fault::{Call, CallKind, Canary, Failure, Fault};
pub use self::gate::Gate;
pub use self::random::Random;
pub use rustix::io::Errno as SimErrno;

/// After so many calls faults end, so that a caller that tries for ever is told from one that hangs the tests.
const CALLS_MAX: usize = 2_000_000;

/// So many calls are kept in the record.
const CALLS_RECORDED_MAX: usize = 50_000;

/// A disk in memory. Clones are further ways to the same disk.
#[derive(Clone, Debug)]
pub struct SimFs {
    machine: Arc<Mutex<Machine>>,
    gate: Option<Arc<dyn Gate>>,
}

/// What is done before a certain call is made, once.
struct Interruption {
    is_here: Box<dyn Fn(&Call) -> bool + Send>,
    action: Box<dyn FnOnce() + Send>,
}

struct Machine {
    /// As the calls see it.
    live: Disk,
    /// As it was, all of it durable, when the record began.
    start: Disk,
    changes: Vec<Change>,
    calls: Vec<Call>,
    num_calls: usize,
    fault: Option<Fault>,
    num_failures: usize,
    canary: Option<Canary>,
    /// Renames that a canary holds back.
    held: Vec<Change>,
    has_rename_no_replace: bool,
    /// How many bytes go past the page cache at once, where they can.
    direct_bytes: Option<usize>,
    /// Files whose bytes do.
    direct: BTreeSet<u64>,
    interruption: Option<Interruption>,
    /// Whoever interrupts is spared by the fault.
    is_interrupted: bool,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({} calls, {} changes)", self.num_calls, self.changes.len())
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// Makes an empty disk.
    pub fn new() -> Self {
        Self::of(Disk::new(), Vec::new())
    }

    fn of(start: Disk, changes: Vec<Change>) -> Self {
        let mut live = start.clone();
        for change in &changes {
            live.apply(change);
        }
        let machine = Machine {
            live,
            start,
            changes,
            calls: Vec::new(),
            num_calls: 0,
            fault: None,
            num_failures: 0,
            canary: None,
            held: Vec::new(),
            has_rename_no_replace: true,
            direct_bytes: None,
            direct: BTreeSet::new(),
            interruption: None,
            is_interrupted: false,
        };
        Self { machine: Arc::new(Mutex::new(machine)), gate: None }
    }

    /// Returns another way to the same disk, whose calls have to pass a gate: that of one process.
    #[must_use]
    pub fn through(&self, gate: Arc<dyn Gate>) -> Self {
        Self { machine: Arc::clone(&self.machine), gate: Some(gate) }
    }

    /// Makes everything durable and begins a new record.
    pub fn settle(&self) {
        let mut machine = self.lock();
        machine.start = machine.live.clone();
        machine.changes.clear();
        machine.calls.clear();
        machine.num_calls = 0;
    }

    /// Returns the number of changes in the record.
    pub fn num_changes(&self) -> usize {
        self.lock().changes.len()
    }

    /// Returns the calls of the record, the first 50,000.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Returns the disk as it may be found when the power goes, everything on it durable.
    #[must_use]
    pub fn crash(&self, crash: &Crash) -> Self {
        let machine = self.lock();
        Self::of(crash::crashed(&machine.start, &machine.changes, crash), Vec::new())
    }

    /// Returns the disk as other processes find it when this one is killed after so many changes: nothing is lost, and
    /// what was not synced can be lost later still.
    #[must_use]
    pub fn kill(&self, after: usize) -> Self {
        let machine = self.lock();
        Self::of(machine.start.clone(), machine.changes[..after].to_vec())
    }

    /// Lets a call fail; none ends that. Calls count from the beginning of the record.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut machine = self.lock();
        machine.fault = fault;
        machine.num_failures = 0;
    }

    /// Returns how many calls the fault has made fail.
    pub fn num_failures(&self) -> usize {
        self.lock().num_failures
    }

    /// Says whether somebody made more calls than anybody has a reason to.
    pub fn is_runaway(&self) -> bool {
        self.lock().num_calls > CALLS_MAX
    }

    /// Breaks a rule.
    pub fn set_canary(&self, canary: Option<Canary>) {
        self.lock().canary = canary;
    }

    /// From now on there is no rename that never replaces, as on network file systems.
    pub fn forbid_rename_no_replace(&self) {
        self.lock().has_rename_no_replace = false;
    }

    /// From now on packs can be written past the page cache, so many bytes at once.
    pub fn allow_direct(&self, direct_bytes: usize) {
        self.lock().direct_bytes = Some(direct_bytes);
    }

    /// Does something else before the next call that `is_here` names, as another process might. No fault hits it.
    pub fn before(&self, is_here: impl Fn(&Call) -> bool + Send + 'static, action: impl FnOnce() + Send + 'static) {
        let interruption = Interruption { is_here: Box::new(is_here), action: Box::new(action) };
        self.lock().interruption = Some(interruption);
    }

    /// Forgets what was to be done before a call that did not come.
    pub fn undisturbed(&self) {
        let interruption = self.lock().interruption.take();
        drop(interruption);
    }

    /// Returns the names and bytes of the files in a folder; none if there is no such folder.
    pub fn files(&self, folder: &Path) -> Vec<(String, Vec<u8>)> {
        let machine = self.lock();
        let Ok(folder) = machine.resolve(folder) else { return Vec::new() };
        let entries = machine.live.entries(folder).cloned().unwrap_or_default();
        let bytes = |inode| machine.live.content(inode).ok().map(Content::to_vec);
        entries.into_iter().filter_map(|(name, inode)| Some((name, bytes(inode)?))).collect()
    }

    /// Returns the names in a folder; none if there is no such folder.
    pub fn names(&self, folder: &Path) -> Vec<String> {
        let machine = self.lock();
        let entries = machine.resolve(folder).and_then(|folder| machine.live.entries(folder));
        entries.map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// Changes the bytes of a file, or removes it with none: durably, unseen and outside the record.
    pub fn tamper(&self, folder: &Path, name: &str, bytes: Option<&[u8]>) {
        let mut machine = self.lock();
        let Ok(folder) = machine.resolve(folder) else { return };
        let Ok(inode) = machine.live.find(folder, name) else { return };
        let Machine { live, start, .. } = &mut *machine;
        for disk in [live, start] {
            match bytes {
                Some(bytes) => disk.edit(inode, |file| {
                    file.resize(0);
                    file.write(0, bytes);
                }),
                None => disk.set_entry(folder, name, None),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    fn resolve(&self, path: &Path) -> Result<u64, Errno> {
        let mut at = ROOT;
        for part in path.components() {
            match part {
                std::path::Component::RootDir | std::path::Component::CurDir => {}
                std::path::Component::Normal(name) => at = self.live.find(at, name.to_str().ok_or(Errno::INVAL)?)?,
                std::path::Component::ParentDir | std::path::Component::Prefix(_) => return Err(Errno::INVAL),
            }
        }
        Ok(at)
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.changes.push(change);
    }
}
