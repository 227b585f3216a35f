//! Races: what several processes do at once, played to one schedule.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use gradient_object::CommitId;
use gradient_odb::canary;
use gradient_repo::{FsckLevel, FsckOptions, LogQuery, Progress, RepoError, Severity, fsck, repair};
use gradient_storage::Storage;
use gradient_storage::sim::{Canary, SimFs};

use crate::attempt::Line;
use crate::collector::{Collected, Greed, collect};
use crate::interleave::{Interleaver, Points, newest_operation};
use crate::model::{Model, World};
use crate::process::{Action, DIR, Performed, Process, content};
use crate::strategy::Strategy;

/// One thing that a process of a race does.
#[derive(Clone, Debug)]
pub enum Deed {
    /// What processes of sessions do.
    Act(Action),
    /// Opens another handle, on the same line; reads the log, and every commit in it.
    Open,
    /// Reads what others published since; then the same.
    Read,
    /// The same, as the handle knows it.
    Look,
    /// Checks the repository.
    Fsck(FsckLevel),
    /// Collects garbage.
    Collect(Greed),
    /// Repairs the repository.
    Repair,
    /// Cuts the newest operation in two, behind everybody's back.
    Tear,
}

/// What one process does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Before the race.
    pub prelude: Vec<Action>,
    /// In the race.
    pub deeds: Vec<Deed>,
}

/// A race by its name.
#[derive(Clone, Debug)]
pub struct Race {
    /// Its name.
    pub name: &'static str,
    /// The disk before, all of it durable.
    pub disk: SimFs,
    /// The model of what is on it.
    pub model: Model,
    /// Who does what.
    pub scripts: Vec<Script>,
    /// A rule that is broken.
    pub broken: Option<Broken>,
}

/// A rule that processes of a race break, to see whether anybody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody looks again after a condemnation.
    LookAgain,
    /// The operation that names a commit gets its name before the pack that holds it.
    Order,
}

/// What a deed came to.
#[derive(Debug)]
pub enum Fate {
    /// The repository did it, or refused.
    Performed(Result<Performed, RepoError>),
    /// What a reader saw.
    Saw(World),
    /// What a collector did.
    Collected(Collected),
    /// Nothing more is to be said.
    Done,
    /// What must not be.
    Wrong(String),
}

/// A deed that was done.
#[derive(Debug)]
pub struct Done {
    /// What.
    pub deed: Deed,
    /// Where the line stood before.
    pub line: Line,
    /// The step that a commit of it has.
    pub step: u64,
    /// The newest operation when it began.
    pub head_before: u64,
    /// The newest operation when it ended.
    pub head_after: u64,
    /// What it came to.
    pub fate: Fate,
}

/// A race that was played.
#[derive(Debug)]
pub struct Played {
    /// The disk.
    pub disk: SimFs,
    /// Who did what.
    pub done: Vec<Vec<Done>>,
    /// Who was killed.
    pub killed: Vec<bool>,
    /// The newest operation before the race.
    pub base: u64,
    /// The baton.
    pub interleaver: Arc<Interleaver>,
}

/// Threads that play processes, one race after the other.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Member {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Crew {
    /// Starts so many.
    pub fn new(num: usize) -> Self {
        let start = |_| {
            let (jobs, received): (Sender<Job>, Receiver<Job>) = channel();
            let thread = std::thread::spawn(move || {
                gradient_odb::work_alone();
                for job in received {
                    job();
                }
            });
            Member { jobs: Some(jobs), thread: Some(thread) }
        };
        Self { members: (0..num).map(start).collect() }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.jobs = None;
            if let Some(thread) = member.thread.take() {
                thread.join().ok();
            }
        }
    }
}

impl Race {
    /// Plays the race.
    ///
    /// # Errors
    /// A text for people: it can not begin, or a process panicked.
    pub fn play(&self, crew: &Crew, points: Points, strategy: Strategy) -> Result<Played, String> {
        let disk = self.disk.kill(0);
        let skips_look_again = self.broken == Some(Broken::LookAgain);
        disk.set_canary((self.broken == Some(Broken::Order)).then_some(Canary::OperationBeforePack));
        let base = newest_operation(&disk);
        let interleaver = Interleaver::new(&disk, self.scripts.len(), points, strategy);
        let results: Arc<Mutex<Vec<Option<Vec<Done>>>>> = Arc::default();
        results.lock().unwrap_or_else(PoisonError::into_inner).resize_with(self.scripts.len(), || None);
        let newest = self.model.newest.unwrap_or(NOBODY);
        for (who, script) in self.scripts.iter().enumerate() {
            let process = begin(&interleaver.way(who), script, newest)
                .map_err(|error| format!("process {who} does not begin: {error}"))?;
            let (interleaver, results, deeds) = (Arc::clone(&interleaver), Arc::clone(&results), script.deeds.clone());
            let job = move || {
                canary::skip_look_again(skips_look_again);
                let ended = Ended(Arc::clone(&interleaver), who);
                interleaver.begin(who);
                let done = play_all(&interleaver, who, process, &deeds, newest);
                results.lock().unwrap_or_else(PoisonError::into_inner)[who] = Some(done);
                drop(ended);
            };
            let sender = crew.members[who].jobs.as_ref().ok_or("the crew is gone")?;
            // A panic ends one race, not the crew.
            let job = move || drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
            sender.send(Box::new(job)).map_err(|_| "the crew is gone".to_owned())?;
        }
        interleaver.run();
        let done = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
        let done: Option<Vec<Vec<Done>>> = done.into_iter().collect();
        let killed = (0..self.scripts.len()).map(|who| interleaver.is_killed(who)).collect();
        let done = done.ok_or_else(|| format!("a process panicked: {}", interleaver.schedule()))?;
        Ok(Played { disk, done, killed, base, interleaver })
    }
}

const NOBODY: CommitId = CommitId::from_bytes([0; 32]);

/// Tells the baton that a process has ended, also by a panic.
struct Ended(Arc<Interleaver>, usize);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

fn begin(disk: &SimFs, script: &Script, newest: CommitId) -> Result<Process, RepoError> {
    let mut process = Process::open(disk)?;
    for action in &script.prelude {
        process.perform(action, newest, 0)?;
    }
    Ok(process)
}

fn play_all(
    interleaver: &Interleaver,
    who: usize,
    mut process: Process,
    deeds: &[Deed],
    newest: CommitId,
) -> Vec<Done> {
    let mut done = Vec::new();
    for (at, deed) in deeds.iter().enumerate() {
        let head_before = interleaver.begin_deed(who, at);
        let line = process.line();
        let step = 10_000 * (who as u64 + 1) + at as u64;
        let fate = play_one((interleaver.disk(), &mut process), deed, newest, step);
        let head_after = interleaver.newest();
        done.push(Done { deed: deed.clone(), line, step, head_before, head_after, fate });
        if interleaver.is_killed(who) {
            // Nothing of it goes on, and nothing is cleaned up.
            break;
        }
    }
    interleaver.begin_deed(who, deeds.len());
    done
}

fn play_one((disk, process): (&SimFs, &mut Process), deed: &Deed, newest: CommitId, step: u64) -> Fate {
    match deed {
        Deed::Act(action) => Fate::Performed(process.perform(action, newest, step)),
        Deed::Open => match process.reopen() {
            Ok(()) => look(process).map_or_else(Fate::Wrong, Fate::Saw),
            Err(error) => Fate::Wrong(format!("it does not open: {error}")),
        },
        Deed::Read => match process.repo.refresh() {
            Ok(()) => look(process).map_or_else(Fate::Wrong, Fate::Saw),
            Err(error) => Fate::Wrong(format!("a reader refreshes: {error}")),
        },
        Deed::Look => look(process).map_or_else(Fate::Wrong, Fate::Saw),
        Deed::Fsck(level) => check(process, *level).map_or_else(Fate::Wrong, |()| Fate::Done),
        Deed::Collect(greed) => match storage(process) {
            Ok(storage) => match collect(&storage, *greed) {
                Ok(collected) => Fate::Collected(collected),
                Err(error) => Fate::Wrong(format!("the collector: {error}")),
            },
            Err(error) => Fate::Wrong(error),
        },
        Deed::Repair => match storage(process).map(|storage| repair(&storage, true, &Progress::new())) {
            // Somebody published meanwhile, and nothing was done.
            Ok(Ok(_) | Err(RepoError::Busy { .. })) => Fate::Done,
            Ok(Err(error)) => Fate::Wrong(format!("repair: {error}")),
            Err(error) => Fate::Wrong(error),
        },
        Deed::Tear => {
            tear_newest_operations(disk, 1);
            Fate::Done
        }
    }
}

/// Leaves of the newest operations the first half of their bytes.
pub fn tear_newest_operations(disk: &SimFs, num: usize) {
    let ops = Path::new(DIR).join("ops");
    for (name, bytes) in disk.files(&ops).iter().rev().take(num) {
        disk.tamper(&ops, name, Some(&bytes[..bytes.len() / 2]));
    }
}

/// A handle of one's own on the folder, as another command has.
fn storage(process: &Process) -> Result<Arc<dyn Storage>, String> {
    process.disk().open().map_err(|error| error.to_string())
}

fn look(process: &Process) -> Result<World, String> {
    let failed = |what: &'static str| move |error: RepoError| format!("{what}: {error}");
    let (table, head) = process.repo.refs().map_err(failed("a reader looks at refs"))?;
    let notices = process.repo.notices().map_err(failed("a reader"))?;
    if !notices.is_empty() {
        return Err(format!("a reader is told: {notices:?}"));
    }
    let query = LogQuery { start: table.values().map(|target| target.commit()).collect(), ..LogQuery::default() };
    for row in process.repo.history(&query).map_err(failed("a reader's log"))? {
        let found = process.restore(&row.id).map_err(failed("a reader restores"))?;
        let numbers = process.numbers(&row.id).map_err(failed("a reader restores"))?;
        let expected: Vec<Vec<u8>> = numbers.into_iter().map(content).collect();
        if found != expected {
            return Err(format!("a reader gets other bytes of commit {}", row.id.short()));
        }
    }
    Ok(World { table, head })
}

fn check(process: &Process, level: FsckLevel) -> Result<(), String> {
    let options = FsckOptions { level, ..FsckOptions::default() };
    let report = fsck(&storage(process)?, options, &Progress::new()).map_err(|error| format!("fsck: {error}"))?;
    let is_alarm = |file: &str| !file.starts_with("leases/");
    let alarm = report.findings.iter().find(|finding| {
        finding.severity == Severity::Error || (finding.severity == Severity::Warning && is_alarm(&finding.file))
    });
    match alarm {
        Some(finding) => Err(format!("a false alarm of fsck: {finding:?}")),
        None if report.lost.is_empty() => Ok(()),
        None => Err(format!("a false alarm of fsck: {:?}", report.lost)),
    }
}
