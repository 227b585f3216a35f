//! Leases: hints that a writer is alive, so that packs in flight and packs just condemned are spared.
//!
//! No safety rests on them: a lease that can not be written or read costs nothing but patience.
//! Specified in `docs/format/repository.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gradient_object::cbor;
use gradient_storage::{Folder, Key, Storage};

use crate::envelope;
use crate::error::Result;
use crate::record::{Fields, bytes, int, mapping, text};

/// Magic of a lease.
pub(crate) const LEASE_MAGIC: [u8; 4] = *b"GRLS";
const LEASE_BYTES_MAX: u64 = 64 << 10;

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    host: String,
    boot: String,
    pid: u64,
    started: u64,
    nonce: [u8; 16],
    beat: u64,
    transaction: u64,
    active: bool,
}

impl Lease {
    fn encode(&self) -> Result<Vec<u8>> {
        let record = mapping([
            ("host", text(&self.host)),
            ("boot", text(&self.boot)),
            ("pid", int(self.pid)),
            ("started", int(self.started)),
            ("nonce", bytes(&self.nonce)),
            ("beat", int(self.beat)),
            ("transaction", int(self.transaction)),
            ("active", gradient_object::Value::Bool(self.active)),
        ])?;
        Ok(envelope::wrap(LEASE_MAGIC, &cbor::encode(&record)?))
    }

    fn decode(file: &[u8]) -> Result<Self> {
        let mut fields = Fields::parse(envelope::unwrap(LEASE_MAGIC, file, "lease")?, "lease")?;
        let lease = Self {
            host: fields.text("host")?,
            boot: fields.text("boot")?,
            pid: fields.uint("pid")?,
            started: fields.uint("started")?,
            nonce: fields.array("nonce")?,
            beat: fields.uint("beat")?,
            transaction: fields.uint("transaction")?,
            active: fields.bool("active")?,
        };
        fields.end()?;
        Ok(lease)
    }

    // Known dead: written on this machine, since its last boot, by a process that is gone.
    fn is_dead(&self, here: &Self) -> bool {
        self.host == here.host
            && (self.boot != here.boot
                || is_gone(self.pid)
                || process_start(self.pid).is_some_and(|started| started != self.started))
    }
}

/// The lease of this process on one repository.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    storage: Arc<dyn Storage>,
    lease: Lease,
    written: bool,
}

/// Transactions that were running at one moment: nonces and the number each was in.
pub(crate) type Running = BTreeMap<[u8; 16], u64>;

impl LeaseKeeper {
    /// A lease that is written with the first transaction.
    pub(crate) fn new(storage: Arc<dyn Storage>, nonce: [u8; 16]) -> Self {
        let pid = u64::from(std::process::id());
        let lease = Lease {
            host: format!("{} {}", host(), process_namespace()),
            boot: read_line("/proc/sys/kernel/random/boot_id"),
            pid,
            started: process_start(pid).unwrap_or(0),
            nonce,
            beat: 0,
            transaction: 0,
            active: false,
        };
        Self { storage, lease, written: false }
    }

    /// Says that a transaction begins.
    pub(crate) fn begin(&mut self) {
        self.lease.transaction += 1;
        self.lease.active = true;
        self.write();
    }

    /// Says that it ended.
    pub(crate) fn end(&mut self) {
        self.lease.active = false;
        self.write();
    }

    // A hint: when it can not be written, packs of this writer are spared by the operation protocol alone.
    fn write(&mut self) {
        self.lease.beat += 1;
        let Ok(file) = self.lease.encode() else { return };
        let key = Key::lease(&self.lease.nonce);
        self.written |= self.storage.overwrite(&key, &file).is_ok();
    }

    /// Removes the lease; says whether there was one, and so a transaction.
    pub(crate) fn release(&mut self) -> bool {
        let written = std::mem::take(&mut self.written);
        if written {
            // Left behind, it would be found dead by the next writer.
            let _ = self.storage.delete(&Key::lease(&self.lease.nonce));
        }
        written
    }

    /// Which other transactions run now; leases of dead processes are removed on the way.
    ///
    /// # Errors
    /// Storage errors of the listing. A lease that can not be read counts as running.
    pub(crate) fn others(&self) -> Result<Running> {
        let mut running = Running::new();
        for listed in self.storage.list(Folder::Leases)? {
            let key = Key::new(Folder::Leases, &listed.name)?;
            let Ok(file) = self.storage.read(&key, LEASE_BYTES_MAX) else { continue };
            match Lease::decode(&file) {
                Ok(lease) if lease.nonce == self.lease.nonce => {}
                Ok(lease) if lease.is_dead(&self.lease) => {
                    let _ = self.storage.delete(&key);
                }
                Ok(lease) if lease.active => {
                    running.insert(lease.nonce, lease.transaction);
                }
                Ok(_) => {}
                Err(_) => {
                    running
                        .insert(*blake3::hash(listed.name.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 16]), 0);
                }
            }
        }
        Ok(running)
    }
}

/// Whether every transaction of `then` has ended by `now`.
pub(crate) fn all_ended(then: &Running, now: &Running) -> bool {
    then.iter().all(|(nonce, transaction)| now.get(nonce) != Some(transaction))
}

/// Name of this machine.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

// Two containers may share a host name and a kernel; process ids mean something only within one of these.
fn process_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

// Only a process that the system says is not there is gone; one that may not be signalled is alive.
fn is_gone(pid: u64) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

// Start time of a process in clock ticks since boot: field 22 of /proc/<pid>/stat, counted behind the name, which may
// hold blanks and parentheses. None: no such process (or no /proc).
fn process_start(pid: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use gradient_storage::MemoryStorage;

    use super::*;

    #[test]
    fn a_running_transaction_is_seen_by_others_until_it_ends() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        storage.create_folders().expect("folders");
        let mut a = LeaseKeeper::new(storage.clone(), [1; 16]);
        let b = LeaseKeeper::new(storage.clone(), [2; 16]);
        a.begin();
        let then = b.others().expect("listed");
        assert_eq!(then.len(), 1);
        assert!(!all_ended(&then, &b.others().expect("listed")));
        a.end();
        a.begin();
        assert!(all_ended(&then, &b.others().expect("listed")), "a later transaction is another one");
        a.release();
        assert!(b.others().expect("listed").is_empty());
    }

    #[test]
    fn the_lease_of_a_dead_process_is_removed() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        storage.create_folders().expect("folders");
        let mut dead = LeaseKeeper::new(storage.clone(), [1; 16]);
        dead.lease.pid = u64::from(u32::MAX);
        dead.begin();
        assert!(LeaseKeeper::new(storage.clone(), [2; 16]).others().expect("listed").is_empty());
        assert!(storage.list(Folder::Leases).expect("listed").is_empty());
    }
}
