//! The repository handle: init, open, the head it knows, and how one change is published.
//!
//! All state that moves lies behind one lock: operations are the only truth, so what is kept here is a copy of the
//! newest one seen. Reading what others published is explicit ([`Repository::refresh`]) or part of a transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gradient_odb::Odb;
use gradient_storage::{Folder, Storage, StorageError};

use crate::clock::now_ns;
use crate::commit::CommitOutcome;
use crate::error::{RepoError, Result};
use crate::format_file::{Config, FormatFile, contents};
use crate::lease::{LeaseKeeper, Running, host};
use crate::line::LineState;
use crate::operation::{By, Head, Operation, OperationKind, RefTable, Refs, Subject};
use crate::oplog::{HeadState, OperationLog, Published, UnreadableHead};
use crate::upkeep::{COMMITS_PER_UPKEEP, UpkeepLimits};

/// How often a change is tried again when others publish first.
pub(crate) const PUBLISH_ATTEMPTS_MAX: u32 = 1000;

/// One model's history.
#[derive(Debug)]
pub struct Repository {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) odb: Odb,
    pub(crate) log: OperationLog,
    pub(crate) format: FormatFile,
    pub(crate) limits: UpkeepLimits,
    pid: u32,
    config: Config,
    /// Why the settings are not those of the file.
    config_problem: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) head: HeadState,
    pub(crate) lease: LeaseKeeper,
    /// The newest operation that this handle published or synced: it and all before it are durable.
    pub(crate) durable: u64,
    /// Condemned packs that lie in the trash, with the transactions that ran when they were condemned.
    pub(crate) trash: Vec<(Vec<gradient_odb::PackId>, Running)>,
    /// Begins full: a run that never lives for long does its upkeep with its first commit.
    pub(crate) commits_since_upkeep: u32,
    /// The fixed folders are there.
    has_folders: bool,
    /// What this handle committed last.
    pub(crate) last: Option<CommitOutcome>,
    /// What the next commit may be coded against.
    pub(crate) line: LineState,
    closed: bool,
}

/// What one operation changes.
pub(crate) struct Change {
    pub(crate) kind: OperationKind,
    pub(crate) subject: Subject,
    pub(crate) why: String,
    pub(crate) table: RefTable,
    pub(crate) head: Head,
}

impl Repository {
    /// Makes a repository in `storage`, or opens the one that is there; says which.
    ///
    /// # Errors
    /// As [`Repository::open`]; storage errors.
    pub fn init(storage: Arc<dyn Storage>, name: &str, description: &str) -> Result<(Self, bool)> {
        // Where there is something, what is missing was lost: it is not made, and opening names it.
        if contents(&*storage)? == (0, 0) {
            storage.create_folders()?;
        }
        let now = now_ns();
        let (format, made) = FormatFile::create(&*storage, random_id()?, now)?;
        format.check_writable()?;
        let log = OperationLog::new(storage.clone());
        let first = log.head()?.is_none();
        if first {
            publish_first(&*storage, &log, now)?;
        }
        if made || (first && Config::read(&*storage)? == Config::default()) {
            let created_at = crate::clock::iso8601(now);
            let config = Config { name: name.into(), description: description.into(), created_at, retention: None };
            config.write(&*storage)?;
        }
        Ok((Self::open(storage)?, made || first))
    }

    /// Opens the repository in `storage`.
    ///
    /// # Errors
    /// - [`RepoError::NotARepository`], [`RepoError::Unsupported`], [`RepoError::Damaged`].
    /// - Storage errors. A `config.json` that can not be read is told by [`notices`](Self::notices).
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let format = FormatFile::read(&*storage)?;
        let (config, config_problem) = match Config::read(&*storage) {
            Ok(config) => (config, None),
            // A name and a description: no reason to keep anybody from their commits.
            Err(RepoError::Invalid { message, .. }) => (Config::default(), Some(message)),
            Err(error) => return Err(error),
        };
        let log = OperationLog::new(storage.clone());
        let head = if let Some(head) = log.head()? {
            head
        } else {
            // An init that was interrupted between `format` and the first operation.
            publish_first(&*storage, &log, format.created_ns)?;
            log.head()?.ok_or_else(|| RepoError::Damaged { file: "ops".into(), reason: "it is empty".into() })?
        };
        if !head.table.is_empty() && storage.missing_folders()?.contains(&Folder::Packs) {
            return Err(RepoError::Damaged { file: "packs".into(), reason: "the folder is missing".into() });
        }
        let odb = Odb::open(storage.clone())?;
        odb.exclude(&head.operation.condemned);
        let lease = LeaseKeeper::new(storage.clone(), random_id()?);
        let state = State {
            head,
            lease,
            durable: 0,
            trash: Vec::new(),
            commits_since_upkeep: COMMITS_PER_UPKEEP,
            has_folders: false,
            last: None,
            line: LineState::default(),
            closed: false,
        };
        let limits = UpkeepLimits::default();
        let pid = std::process::id();
        Ok(Self { storage, odb, log, format, limits, pid, config, config_problem, state: Mutex::new(state) })
    }

    /// Says when upkeep merges and folds, through this handle.
    pub fn set_upkeep_limits(&mut self, limits: UpkeepLimits) {
        self.limits = limits;
    }

    /// The repository's random id, in hexadecimal.
    pub fn id_hex(&self) -> String {
        gradient_odb::PackId::from_bytes(self.format.repo).to_string()
    }

    /// The settings that people edit.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The object database.
    pub fn odb(&self) -> &Odb {
        &self.odb
    }

    /// Reads what others published since.
    ///
    /// # Errors
    /// Damaged operations; storage errors.
    pub fn refresh(&self) -> Result<()> {
        let mut state = self.lock()?;
        self.advance(&mut state)
    }

    /// The newest operation as this handle knows it; a notice if a newer one is damaged.
    ///
    /// # Errors
    /// [`RepoError::Closed`].
    pub fn head_state(&self) -> Result<HeadState> {
        Ok(self.lock()?.head.clone())
    }

    /// What is wrong with the repository that a reader should hear: a newest operation or settings that can not be read.
    ///
    /// # Errors
    /// [`RepoError::Closed`].
    pub fn notices(&self) -> Result<Vec<String>> {
        let state = self.lock()?;
        let told = state.head.damaged.iter().map(|UnreadableHead { number, file, reason }| {
            let readable = state.head.operation.n;
            format!(
                "operation {number} can not be read ({file} is damaged: {reason}): what is shown is as of operation \
                 {readable}"
            )
        });
        Ok(told.chain(self.config_problem.clone()).collect())
    }

    /// Bytes of all files below the repository's folder.
    ///
    /// # Errors
    /// Storage errors.
    pub fn disk_bytes(&self) -> Result<u64> {
        let folders = [Folder::Root].into_iter().chain(Folder::FIXED);
        let len = |folder| match self.storage.list(folder) {
            Err(StorageError::NotFound { .. }) => Ok(0),
            listed => Ok(listed?.iter().map(|file| file.len).sum::<u64>()),
        };
        folders.map(len).sum()
    }

    /// Ends the lease and writes the caches; every later call is refused.
    ///
    /// # Errors
    /// Storage errors of the caches, if this handle has written before: nothing is lost by them.
    pub fn close(&self) -> Result<()> {
        let mut state = match self.lock() {
            Ok(state) => state,
            Err(RepoError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        state.closed = true;
        if !state.lease.is_written() {
            // Who only read may not be allowed to write, and the next reader rebuilds what it needs.
            self.odb.write_caches_if_stale().ok();
            return Ok(());
        }
        // Under the lease: what is written lies in tmp/ first.
        state.lease.begin();
        let written = self.odb.write_caches();
        state.lease.release();
        Ok(written?)
    }

    /// Refuses to work in a child that was forked after the repository was opened: its locks may be held by threads
    /// that the child does not have (rule G12).
    ///
    /// # Errors
    /// [`RepoError::Forked`].
    pub fn check_process(&self) -> Result<()> {
        if self.pid == std::process::id() { Ok(()) } else { Err(RepoError::Forked) }
    }

    /// What this handle committed last: how a caller who was interrupted learns that its commit is durable.
    ///
    /// # Errors
    /// [`RepoError::Closed`].
    pub fn last_commit(&self) -> Result<Option<CommitOutcome>> {
        Ok(self.lock()?.last.clone())
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, State>> {
        // A panic while the lock was held is our bug; what it guards is a copy of what is on disk.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(RepoError::Closed) } else { Ok(state) }
    }

    // For writers: refused on a damaged head and on features that only readers know.
    pub(crate) fn lock_for_writing(&self) -> Result<MutexGuard<'_, State>> {
        self.format.check_writable()?;
        let mut state = self.lock()?;
        self.advance(&mut state)?;
        refuse_dead_end(&state.head)?;
        if !state.has_folders {
            // Empty folders do not survive every way of copying a repository. Before the first commit they are synced
            // again too: whoever made them may have died before that, and nobody has since relied on them.
            if state.head.table.is_empty() || !self.storage.missing_folders()?.is_empty() {
                self.storage.create_folders()?;
            }
            state.has_folders = true;
        }
        Ok(state)
    }

    pub(crate) fn advance(&self, state: &mut State) -> Result<()> {
        if self.log.advance(&mut state.head)? {
            self.odb.refresh()?;
            self.odb.exclude(&state.head.operation.condemned);
        }
        Ok(())
    }

    /// Publishes the change that `decide` makes of the newest table, trying again when others were first.
    ///
    /// `decide` runs again on the newer table each time; what it refuses is refused.
    pub(crate) fn change<T>(&self, mut decide: impl FnMut(&HeadState) -> Result<(Change, T)>) -> Result<T> {
        let mut state = self.lock_for_writing()?;
        state.lease.begin();
        let mut attempt = || {
            for _ in 0..PUBLISH_ATTEMPTS_MAX {
                let (change, value) = decide(&state.head)?;
                if self.publish(&mut state, change)? {
                    return Ok(value);
                }
                self.advance(&mut state)?;
            }
            Err(RepoError::Busy { attempts: PUBLISH_ATTEMPTS_MAX })
        };
        let outcome = attempt();
        state.lease.end();
        outcome
    }

    /// Publishes one operation; false if somebody was first. After a failed sync the storage takes no more (rule D3).
    ///
    /// Condemned packs that no longer lie in `packs/` need no naming any more: whoever reads this operation lists the
    /// folder again.
    pub(crate) fn publish(&self, state: &mut State, change: Change) -> Result<bool> {
        let mut condemned = state.head.operation.condemned.clone();
        if !condemned.is_empty() {
            // One that can not be read now may be read again later, and must not be relied on then.
            let present: Vec<_> =
                self.odb.packs().into_iter().chain(self.odb.damaged().into_iter().map(|damage| damage.pack)).collect();
            condemned.retain(|pack| present.contains(pack));
        }
        self.publish_condemning(state, change, condemned)
    }

    pub(crate) fn publish_condemning(
        &self,
        state: &mut State,
        change: Change,
        condemned: Vec<gradient_odb::PackId>,
    ) -> Result<bool> {
        // Whoever was not first and read on may have come to a damaged head.
        refuse_dead_end(&state.head)?;
        let n = state.head.operation.n + 1;
        let operation = Operation {
            n,
            previous: Some(state.head.id),
            kind: change.kind,
            why: one_line(&change.why),
            subject: change.subject,
            time_ns: now_ns(),
            by: by(),
            head: change.head,
            refs: Refs::choose(&change.table, n, state.head.whole.0, &state.head.whole.1),
            condemned,
        };
        match self.log.publish(Some(&state.head), operation)? {
            Published::Done(head) => {
                state.head = *head;
                state.durable = n;
                Ok(true)
            }
            Published::Lost => Ok(false),
        }
    }
}

/// Nothing can be published behind an operation that can not be read, or that has the last number there is.
fn refuse_dead_end(head: &HeadState) -> Result<()> {
    if let Some(UnreadableHead { number, file, reason }) = head.damaged.clone() {
        return Err(RepoError::DamagedHead { number, readable: head.operation.n, file, reason });
    }
    if head.operation.n == u64::MAX {
        return Err(RepoError::Damaged { file: "ops".into(), reason: "there is no number after its newest".into() });
    }
    Ok(())
}

impl Drop for Repository {
    fn drop(&mut self) {
        // Not by the lock: in a forked child a thread that is not there may hold it.
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).lease.release();
    }
}

// Where there are packs there have been operations: a log that is gone is damage, and is not begun again.
fn publish_first(storage: &dyn Storage, log: &OperationLog, time_ns: i64) -> Result<()> {
    let has_packs = match storage.list(Folder::Packs) {
        Err(StorageError::NotFound { .. }) => false,
        listed => !listed?.is_empty(),
    };
    if has_packs && log.head()?.is_none() {
        return Err(RepoError::Damaged { file: "ops".into(), reason: "it is empty, and there are packs".into() });
    }
    // Whoever wrote `format` may have died before it was durable, and after this operation nobody looks at it again.
    storage.create_folders()?;
    // Lost to another init: the same operation, so nothing to do.
    log.publish(None, first_operation(time_ns))?;
    Ok(())
}

fn first_operation(time_ns: i64) -> Operation {
    Operation {
        n: 1,
        previous: None,
        kind: OperationKind::Init,
        why: "made".to_owned(),
        subject: Subject::None,
        time_ns,
        by: by(),
        head: Head::Branch("main".to_owned()),
        refs: Refs::Whole(RefTable::new()),
        condemned: Vec::new(),
    }
}

pub(crate) fn by() -> By {
    By {
        host: host(),
        pid: u64::from(std::process::id()),
        user: std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn one_line(text: &str) -> String {
    let mut line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
    line.truncate(line.trim_end().len());
    line
}

pub(crate) fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|source| RepoError::invalid(format!("the system gives no random numbers: {source}"), ""))?;
    Ok(id)
}
