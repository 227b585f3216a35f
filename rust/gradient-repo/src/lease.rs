//! Leases: hints that a writer is alive, so that packs in flight and packs just condemned are spared.
//!
//! A writer changes its lease with every transaction and, in between, with every beat of a thread of its own. Who
//! watches a lease judges it by what he sees: a process of this machine that is gone is dead, one that is there is
//! alive, and any other counts as dead once its lease has not changed for [`SILENCE_MAX`] of the watcher's own clock.
//! Times of two machines are never compared (rule G8).
//!
//! No safety rests on leases: one that can not be written or read costs nothing but patience.
//! Specified in `docs/format/repository.md`.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gradient_object::cbor;
use gradient_storage::{Folder, Key, Storage, StorageError};

use crate::envelope;
use crate::error::Result;
use crate::record::{Fields, bytes, int, mapping, text};

/// Magic of a lease.
pub(crate) const LEASE_MAGIC: [u8; 4] = *b"GRLS";
const LEASE_BYTES_MAX: u64 = 64 << 10;
/// How often the lease of a live writer changes at least.
const BEAT_EVERY: Duration = Duration::from_secs(60);
/// After so long without a change a lease counts as that of a dead writer: three beats, which is more than network file
/// systems hide a change for.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(180);

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

    fn fate(&self, here: &Self) -> Fate {
        if self.host != here.host {
            return Fate::Unknown;
        }
        if self.boot != here.boot || is_gone(self.pid) {
            return Fate::Dead;
        }
        match process_start(self.pid) {
            Some(started) if started == self.started => Fate::Alive,
            Some(_) => Fate::Dead,
            None => Fate::Unknown,
        }
    }
}

/// What this machine knows of the process that wrote a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was of this machine, and is gone or from before the last boot.
    Dead,
    /// It runs here.
    Alive,
    /// It is elsewhere.
    Unknown,
}

/// The lease of this process on one repository.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    heart: Arc<Heart>,
    nonce: [u8; 16],
    pid: u32,
    beats: bool,
    /// Leases of others that only their silence can tell from those of the dead.
    watched: BTreeMap<[u8; 16], Watched>,
    /// Added to the clock.
    #[cfg(test)]
    pub(crate) later: Duration,
}

/// Transactions that were running at one moment: nonces and the number each was in; none where the lease could not be
/// read.
pub(crate) type Running = BTreeMap<[u8; 16], Option<u64>>;

/// A lease as it was seen last.
#[derive(Debug)]
struct Watched {
    /// Hash of its bytes, of which the beat is a part: also of bytes that are no lease.
    mark: blake3::Hash,
    /// When it was first seen so.
    since: Instant,
}

impl LeaseKeeper {
    /// A lease that is written with the first transaction.
    pub(crate) fn new(storage: Arc<dyn Storage>, nonce: [u8; 16]) -> Self {
        let pid = std::process::id();
        let lease = Lease {
            host: format!("{} {} {}", host(), read_line("/etc/machine-id"), process_namespace()),
            boot: read_line("/proc/sys/kernel/random/boot_id"),
            pid: pid.into(),
            started: process_start(pid.into()).unwrap_or(0),
            nonce,
            beat: 0,
            transaction: 0,
            active: false,
        };
        let pulse = Mutex::new(Pulse { lease, written: false, ended: false });
        Self {
            heart: Arc::new(Heart { storage, pulse, end: Condvar::new() }),
            nonce,
            pid,
            beats: false,
            watched: BTreeMap::new(),
            #[cfg(test)]
            later: Duration::ZERO,
        }
    }

    /// Says that a transaction begins.
    pub(crate) fn begin(&mut self) {
        self.heart.change(|lease| {
            lease.transaction += 1;
            lease.active = true;
        });
        self.beat_every(BEAT_EVERY);
    }

    /// Says that it ended.
    pub(crate) fn end(&mut self) {
        self.heart.change(|lease| lease.active = false);
    }

    // The thread ends with the lease. Without one, only transactions change it: patience is what that costs.
    fn beat_every(&mut self, every: Duration) {
        if !self.beats {
            let heart = self.heart.clone();
            let thread = std::thread::Builder::new().name("gradient-lease".to_owned());
            self.beats = thread.spawn(move || heart.beat_until_the_end(every)).is_ok();
        }
    }

    /// Says whether there is a lease of this process: it has written to the repository.
    pub(crate) fn is_written(&self) -> bool {
        self.pid == std::process::id() && self.heart.pulse().written
    }

    /// Removes the lease; says whether there was one, and so a transaction.
    pub(crate) fn release(&mut self) -> bool {
        // A forked child has a copy of everything but the thread, which may have held the lock; the lease is not its.
        self.pid == std::process::id() && self.heart.stop()
    }

    /// Which other transactions run now; leases of the dead are removed on the way.
    ///
    /// A lease that can not be read counts as running, until it has not changed for [`SILENCE_MAX`]: then it is removed
    /// like any other that nobody keeps.
    ///
    /// # Errors
    /// Storage errors of the listing.
    pub(crate) fn others(&mut self) -> Result<Running> {
        let now = self.now();
        let here = self.heart.pulse().lease.clone();
        let storage = &self.heart.storage;
        let mut watched = BTreeMap::new();
        let mut running = Running::new();
        for listed in storage.list(Folder::Leases)? {
            // Files by other names are not ours to judge.
            let Some(nonce) = nonce_of(&listed.name).filter(|nonce| *nonce != self.nonce) else { continue };
            let key = Key::lease(&nonce);
            let file = match storage.read(&key, LEASE_BYTES_MAX) {
                Ok(file) => file,
                Err(StorageError::NotFound { .. }) => continue,
                Err(_) => Vec::new(),
            };
            let lease = Lease::decode(&file).ok().filter(|lease| lease.nonce == nonce);
            let fate = lease.as_ref().map_or(Fate::Unknown, |lease| lease.fate(&here));
            let mark = blake3::hash(&file);
            let before = self.watched.remove(&nonce).filter(|before| before.mark == mark);
            let seen = before.unwrap_or(Watched { mark, since: now });
            if fate == Fate::Dead || (fate == Fate::Unknown && seen.is_silent(now)) {
                // Its writer, if it was only stopped, looks again at what it relied on (rule G3), and writes it anew.
                let _ = storage.delete(&key);
                continue;
            }
            if fate == Fate::Unknown {
                watched.insert(nonce, seen);
            }
            if lease.as_ref().is_none_or(|lease| lease.active) {
                running.insert(nonce, lease.map(|lease| lease.transaction));
            }
        }
        self.watched = watched;
        Ok(running)
    }

    /// Whether a lease has been watched for so long that another look decides about it.
    pub(crate) fn can_decide(&self) -> bool {
        let now = self.now();
        self.watched.values().any(|seen| seen.is_silent(now))
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests move the clock"))]
    fn now(&self) -> Instant {
        #[cfg(test)]
        return Instant::now() + self.later;
        #[cfg(not(test))]
        Instant::now()
    }
}

impl Watched {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SILENCE_MAX
    }
}

/// Whether every transaction of `then` has ended by `now`. One whose lease can not be read has not.
pub(crate) fn all_ended(then: &Running, now: &Running) -> bool {
    then.iter().all(|(nonce, before)| match (before, now.get(nonce)) {
        (_, None) => true,
        (Some(before), Some(Some(after))) => before != after,
        (None, Some(_)) | (Some(_), Some(None)) => false,
    })
}

/// What the transactions and the thread of one lease share.
#[derive(Debug)]
struct Heart {
    storage: Arc<dyn Storage>,
    pulse: Mutex<Pulse>,
    end: Condvar,
}

#[derive(Debug)]
struct Pulse {
    lease: Lease,
    written: bool,
    ended: bool,
}

impl Heart {
    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Lease)) {
        let mut pulse = self.pulse();
        change(&mut pulse.lease);
        self.write(&mut pulse);
    }

    // A hint: when it can not be written, packs of this writer are spared by the operation protocol alone.
    fn write(&self, pulse: &mut Pulse) {
        pulse.lease.beat += 1;
        let Ok(file) = pulse.lease.encode() else { return };
        pulse.written |= self.storage.overwrite(&Key::lease(&pulse.lease.nonce), &file).is_ok();
    }

    fn beat_until_the_end(&self, every: Duration) {
        let mut pulse = self.pulse();
        loop {
            let waited = self.end.wait_timeout_while(pulse, every, |pulse| !pulse.ended);
            pulse = waited.unwrap_or_else(PoisonError::into_inner).0;
            if pulse.ended {
                return;
            }
            self.write(&mut pulse);
        }
    }

    // Under the lock, so that no beat comes after the removal.
    fn stop(&self) -> bool {
        let mut pulse = self.pulse();
        pulse.ended = true;
        self.end.notify_all();
        let written = std::mem::take(&mut pulse.written);
        if written {
            // Left behind, it would be found dead by the next writer.
            let _ = self.storage.delete(&Key::lease(&pulse.lease.nonce));
        }
        written
    }
}

// The nonce in the name of a lease: 32 lower-case hexadecimal digits.
fn nonce_of(name: &str) -> Option<[u8; 16]> {
    let is_lease = name.len() == 32 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_lease.then(|| u128::from_str_radix(name, 16).ok()).flatten().map(u128::to_be_bytes)
}

/// Says which other process of this machine keeps a lease, if one does: it may write at any moment.
///
/// # Errors
/// Storage errors.
pub(crate) fn alive_here(storage: &Arc<dyn Storage>) -> Result<Option<u64>> {
    let keeper = LeaseKeeper::new(storage.clone(), crate::repository::random_id()?);
    let here = keeper.heart.pulse().lease.clone();
    for listed in storage.list(Folder::Leases)? {
        let Some(nonce) = nonce_of(&listed.name) else { continue };
        let file = match storage.read(&Key::lease(&nonce), LEASE_BYTES_MAX) {
            Ok(file) => file,
            Err(StorageError::NotFound { .. }) => continue,
            Err(_) => Vec::new(),
        };
        if let Some(lease) = Lease::decode(&file).ok().filter(|lease| lease.nonce == nonce)
            && lease.fate(&here) == Fate::Alive
            && lease.pid != here.pid
        {
            return Ok(Some(lease.pid));
        }
    }
    Ok(None)
}

/// Says what is wrong with a lease, if anything. One that is gone has ended.
pub(crate) fn check(storage: &dyn Storage, key: &Key) -> Result<(), String> {
    match storage.read(key, LEASE_BYTES_MAX) {
        Ok(file) => Lease::decode(&file).map(drop).map_err(|error| error.to_string()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
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
impl LeaseKeeper {
    /// The lease of a writer on another machine, which changes by transactions alone.
    pub(crate) fn elsewhere(storage: &Arc<dyn Storage>, nonce: [u8; 16]) -> Self {
        let mut keeper = Self::new(storage.clone(), nonce);
        keeper.heart.pulse().lease.host = "elsewhere".to_owned();
        keeper.beats = true;
        keeper
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use gradient_storage::MemoryStorage;

    use super::*;

    fn empty() -> Arc<dyn Storage> {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        storage.create_folders().expect("folders");
        storage
    }

    fn elsewhere(storage: &Arc<dyn Storage>, nonce: u8) -> LeaseKeeper {
        LeaseKeeper::elsewhere(storage, [nonce; 16])
    }

    fn nonces(keeper: &mut LeaseKeeper) -> Vec<u8> {
        keeper.others().expect("listed").keys().map(|nonce| nonce[0]).collect()
    }

    const ALMOST: Duration = SILENCE_MAX.checked_sub(Duration::from_secs(1)).expect("it is longer");

    #[test]
    fn a_running_transaction_is_seen_by_others_until_it_ends() {
        let storage = empty();
        let mut a = LeaseKeeper::new(storage.clone(), [1; 16]);
        let mut b = LeaseKeeper::new(storage, [2; 16]);
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
        let storage = empty();
        for (pid, started) in [(u64::from(u32::MAX), 0), (u64::from(std::process::id()), 1)] {
            let mut dead = LeaseKeeper::new(storage.clone(), [1; 16]);
            dead.heart.pulse().lease.pid = pid;
            dead.heart.pulse().lease.started = started;
            dead.begin();
            assert!(LeaseKeeper::new(storage.clone(), [2; 16]).others().expect("listed").is_empty());
            assert!(storage.list(Folder::Leases).expect("listed").is_empty());
        }
    }

    #[test]
    fn a_writer_elsewhere_counts_as_dead_once_its_lease_was_seen_unchanged_for_three_beats() {
        let storage = empty();
        let (mut dead, mut alive) = (elsewhere(&storage, 1), elsewhere(&storage, 3));
        let mut here = LeaseKeeper::new(storage.clone(), [2; 16]);
        dead.begin();
        alive.begin();
        let then = here.others().expect("listed");
        here.later = ALMOST;
        assert_eq!(nonces(&mut here), [1, 3]);
        assert!(!here.can_decide(), "not yet");
        alive.heart.change(|_| {});
        assert_eq!(nonces(&mut here), [1, 3]);
        here.later = SILENCE_MAX;
        assert!(here.can_decide());
        assert_eq!(nonces(&mut here), [3], "its beat has changed since");
        assert!(!all_ended(&then, &here.others().expect("listed")), "one goes on");
        assert!(!storage.exists(&Key::lease(&[1; 16])).expect("looked"), "nobody has to wait for it again");
        here.later = ALMOST + SILENCE_MAX;
        assert!(nonces(&mut here).is_empty());
        assert!(all_ended(&then, &here.others().expect("listed")));
        assert!(!here.can_decide());
        dead.end();
        dead.begin();
        assert_eq!(nonces(&mut here), [1], "it was only stopped");
    }

    #[test]
    fn what_one_process_saw_is_no_evidence_for_the_next() {
        let storage = empty();
        elsewhere(&storage, 1).begin();
        for _ in 0..3 {
            let mut here = LeaseKeeper::new(storage.clone(), [2; 16]);
            here.later = SILENCE_MAX * 10;
            assert_eq!(nonces(&mut here), [1], "seen for the first time, however old it is");
        }
    }

    #[test]
    fn a_process_that_runs_here_is_never_judged_by_its_silence() {
        let storage = empty();
        let mut silent = LeaseKeeper::new(storage.clone(), [1; 16]);
        silent.beats = true;
        silent.begin();
        let mut here = LeaseKeeper::new(storage.clone(), [2; 16]);
        for looks in 0..3 {
            here.later = SILENCE_MAX * looks;
            assert_eq!(nonces(&mut here), [1]);
        }
    }

    #[test]
    fn a_damaged_lease_counts_as_running_until_it_was_silent_for_long_enough() {
        let storage = empty();
        let mut writer = elsewhere(&storage, 1);
        writer.begin();
        let key = Key::lease(&[1; 16]);
        let whole = storage.read(&key, LEASE_BYTES_MAX).expect("read");
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        let too_long = vec![0; usize::try_from(LEASE_BYTES_MAX).expect("fits") + 1];
        let another =
            Lease { nonce: [9; 16], transaction: 99, ..writer.heart.pulse().lease.clone() }.encode().expect("a lease");
        for damaged in [&[][..], &whole[..whole.len() / 2], &flipped, &too_long, &another] {
            let mut here = LeaseKeeper::new(storage.clone(), [2; 16]);
            let running = here.others().expect("listed");
            storage.overwrite(&key, damaged).expect("damaged");
            let unreadable = here.others().expect("no failure");
            assert!(!all_ended(&running, &unreadable), "the transaction may go on");
            here.later = ALMOST;
            assert!(!all_ended(&unreadable, &here.others().expect("no failure")));
            writer.heart.change(|_| {});
            assert!(!all_ended(&unreadable, &here.others().expect("listed")), "it did go on");
            storage.overwrite(&key, damaged).expect("damaged");
            assert_eq!(nonces(&mut here), [1]);
            here.later = ALMOST + SILENCE_MAX;
            assert!(nonces(&mut here).is_empty(), "nobody mends it");
            assert!(!storage.exists(&key).expect("looked"));
            writer.heart.change(|_| {});
        }
    }

    #[test]
    fn what_lies_among_leases_by_another_name_is_neither_counted_nor_removed() {
        let storage = empty();
        let stray = Key::new(Folder::Leases, "0123456789abcdef0123456789abcdef.old").expect("a key");
        storage.overwrite(&stray, b"a note").expect("written");
        let mut here = LeaseKeeper::new(storage.clone(), [2; 16]);
        for looks in 0..3 {
            here.later = SILENCE_MAX * looks;
            assert!(here.others().expect("listed").is_empty());
        }
        assert!(storage.exists(&stray).expect("looked"));
    }

    #[test]
    fn a_lease_beats_between_transactions_and_never_after_its_release() {
        let storage = empty();
        let mut keeper = LeaseKeeper::new(storage.clone(), [1; 16]);
        keeper.beat_every(Duration::from_millis(1));
        keeper.begin();
        keeper.end();
        let key = Key::lease(&[1; 16]);
        let read = || storage.read(&key, LEASE_BYTES_MAX).expect("read");
        let first = read();
        let start = Instant::now();
        while read() == first {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not beat");
            std::thread::yield_now();
        }
        assert!(keeper.release());
        while Arc::strong_count(&keeper.heart) > 1 {
            assert!(start.elapsed() < Duration::from_secs(60), "its thread does not end");
            std::thread::yield_now();
        }
        assert!(!storage.exists(&key).expect("looked"));
    }
}
