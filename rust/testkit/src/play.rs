//! Plays a scenario in this process, and tells somebody else what came of each thing.
//!
//! The one who plays knows no model, and the one who is told sees no repository: what was told before the player died
//! is what must be there.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gradient_object::CommitId;
use gradient_odb::OdbError;
use gradient_repo::{ErrorClass, RepoError};
use gradient_storage::StorageError;

use crate::attempt::{Attempt, Came, NOBODY};
use crate::disk::Disk;
use crate::model::Refused;
use crate::process::Process;
use crate::racing::Racing;
use crate::replay::{Planned, plan};
use crate::scenarios::Scenario;

/// What a player tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The repository was made.
    Made,
    /// That came of the next thing to try.
    Came(Came),
    /// It failed.
    Failed(Failed),
}

/// How something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The class of the error, as Debug writes it.
    pub class: String,
    /// The number of the system's error, if the system refused.
    pub errno: Option<i32>,
    /// The file or folder, if a system call failed on one.
    pub file: Option<String>,
    /// The words of the error.
    pub text: String,
}

impl Failed {
    /// What an error comes to.
    pub fn of(error: &RepoError) -> Self {
        let storage = match error {
            RepoError::Storage(error) | RepoError::Odb(OdbError::Storage(error)) => Some(error),
            _ => None,
        };
        let file = match storage {
            Some(StorageError::Io { key, .. }) => Some(key.clone()),
            _ => None,
        };
        let errno = storage.and_then(StorageError::errno);
        Self { class: format!("{:?}", error.class()), errno, file, text: error.to_string() }
    }

    /// Says whether it is an error of storage that names the file and one of these numbers.
    pub fn names_a_file_and(&self, errnos: &[i32]) -> bool {
        let is_storage = self.class == format!("{:?}", ErrorClass::Storage);
        is_storage && self.file.is_some() && self.errno.is_some_and(|errno| errnos.contains(&errno))
    }
}

impl fmt::Display for Told {
    /// Writes one line that [`Told::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made => f.write_str("made"),
            Self::Came(Came::Done) => f.write_str("done"),
            Self::Came(Came::Commit { id, branch, existing: false }) => write!(f, "commit {id} {branch}"),
            Self::Came(Came::Commit { id, branch, existing: true }) => write!(f, "existing {id} {branch}"),
            Self::Came(Came::Refused(refused)) => write!(f, "refused {refused:?}"),
            Self::Failed(Failed { class, errno, file, text }) => {
                let file = file.as_deref().unwrap_or("-");
                write!(f, "failed {class} {} {file} {}", errno.unwrap_or(0), text.replace('\n', " "))
            }
        }
    }
}

impl Told {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let commit = |existing| {
            let (id, branch) = rest.split_once(' ')?;
            Some(Self::Came(Came::Commit { id: CommitId::from_hex(id)?, branch: branch.to_owned(), existing }))
        };
        match kind {
            "made" => Some(Self::Made),
            "done" => Some(Self::Came(Came::Done)),
            "commit" => commit(false),
            "existing" => commit(true),
            "refused" => {
                let all = [Refused::Exists, Refused::NotFound, Refused::DeletesHead, Refused::Nothing];
                all.into_iter().find(|refused| format!("{refused:?}") == rest).map(|it| Self::Came(Came::Refused(it)))
            }
            "failed" => {
                let mut words = rest.splitn(4, ' ');
                let class = words.next()?.to_owned();
                let errno = words.next()?.parse().ok().filter(|errno| *errno != 0);
                let file = words.next().filter(|file| *file != "-").map(str::to_owned);
                Some(Self::Failed(Failed { class, errno, file, text: words.next().unwrap_or("").to_owned() }))
            }
            _ => None,
        }
    }
}

/// Who is told.
pub type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// Plays a scenario.
pub struct Player {
    disk: Racing,
    newest: CommitId,
    /// What was done last was a commit.
    has_committed: bool,
    processes: Vec<Option<Process>>,
    tell: Tell,
}

/// A process that came first, once it did, with what it told.
type Beside = Arc<Mutex<Option<(Process, usize, Told)>>>;

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Player({:?})", self.processes)
    }
}

impl Player {
    /// Begins on a disk, whose newest commit is needed for new branches and tags.
    pub fn new(disk: &dyn Disk, newest: Option<CommitId>, tell: Tell) -> Self {
        let newest = newest.unwrap_or(NOBODY);
        Self { disk: Racing::new(disk), newest, has_committed: false, processes: Vec::new(), tell }
    }

    /// Returns the process that was started first.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.processes.first_mut()?.as_mut()
    }

    /// Plays it until something fails; says whether nothing did.
    ///
    /// # Errors
    /// A text for people: another process was to come first, and nothing was published.
    pub fn play(&mut self, scenario: &Scenario) -> Result<bool, String> {
        let mut all = plan(scenario).into_iter();
        while let Some(planned) = all.next() {
            let next = if planned.is_meanwhile { all.next() } else { None };
            let starts = next.iter().chain([&planned]).map(|planned| planned.who).collect::<Vec<_>>();
            for who in starts {
                if let Err(error) = self.start(who, scenario.begins_with_nothing()) {
                    (self.tell)(Told::Failed(Failed::of(&error)));
                    return Ok(false);
                }
            }
            if let Some(next) = next {
                let beside = self.set_meanwhile(planned)?;
                let goes_on = self.act(&next);
                self.end_meanwhile(&beside, goes_on)?;
                if !goes_on {
                    return Ok(false);
                }
            } else if !self.act(&planned) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn start(&mut self, who: usize, is_new: bool) -> Result<(), RepoError> {
        while self.processes.len() <= who {
            self.processes.push(None);
        }
        if self.processes[who].is_some() {
            return Ok(());
        }
        let is_first = is_new && self.processes.iter().all(Option::is_none);
        self.processes[who] = Some(if is_first { Process::init(&self.disk)? } else { Process::open(&self.disk)? });
        if is_first {
            (self.tell)(Told::Made);
        }
        Ok(())
    }

    /// Does it and tells; says whether it did not fail.
    fn act(&mut self, planned: &Planned) -> bool {
        let Some(process) = self.processes.get_mut(planned.who).and_then(Option::as_mut) else { return false };
        let told = attempt(process, planned, self.newest);
        self.has_committed = matches!(told, Told::Came(Came::Commit { .. }));
        if let Told::Came(Came::Commit { id, .. }) = &told {
            self.newest = *id;
        }
        let has_failed = matches!(told, Told::Failed(_));
        (self.tell)(told);
        !has_failed
    }

    /// Lets another process do something while the next one publishes, and tell.
    fn set_meanwhile(&mut self, planned: Planned) -> Result<Beside, String> {
        let mut process = self.processes[planned.who].take().ok_or("no such process")?;
        let (newest, tell) = (self.newest, Arc::clone(&self.tell));
        let beside = Beside::default();
        let back = Arc::clone(&beside);
        self.disk.set_meanwhile(Some(Box::new(move || {
            let told = attempt(&mut process, &planned, newest);
            tell(told.clone());
            *back.lock().unwrap_or_else(PoisonError::into_inner) = Some((process, planned.who, told));
        })));
        Ok(beside)
    }

    /// Takes that process back.
    fn end_meanwhile(&mut self, beside: &Beside, has_published: bool) -> Result<(), String> {
        self.disk.set_meanwhile(None);
        let Some((process, who, told)) = beside.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return if has_published { Err("nobody came first".to_owned()) } else { Ok(()) };
        };
        self.processes[who] = Some(process);
        if let (Told::Came(Came::Commit { id, .. }), false) = (told, self.has_committed) {
            self.newest = id;
        }
        Ok(())
    }
}

fn attempt(process: &mut Process, planned: &Planned, newest: CommitId) -> Told {
    let attempt = Attempt { action: planned.action.clone(), line: process.line(), newest, step: planned.step };
    match process.attempt(&attempt) {
        Ok(came) => Told::Came(came),
        Err(error) => Told::Failed(Failed::of(&error)),
    }
}
