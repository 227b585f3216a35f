//! Checks a repository and changes nothing (rules F1, F3, F4).
//!
//! | file           | what it checks                                                                       |
//! |----------------|--------------------------------------------------------------------------------------|
//! | `settings.rs`  | `format`, `config.json`                                                              |
//! | `log.rs`       | operations: each against its hash, its number and the one before it                  |
//! | `packs.rs`     | packs, to the level that was asked for                                               |
//! | `reach.rs`     | that everything which a ref needs, or needed once, is there; what is needed by none  |
//! | `hints.rs`     | caches and leases, which can be lost; files left behind                              |
//! | `strangers.rs` | what is nothing of ours                                                              |
//!
//! Operations are read before packs are listed: what a published operation needs was durable earlier (rule G6). A pack
//! that goes while it is checked was merged or collected, and is no finding.

mod folders;
mod hints;
mod log;
mod packs;
mod reach;
mod settings;
mod strangers;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gradient_object::CommitId;
use gradient_odb::{Damage, ObjectName, Odb, Progress};
use gradient_storage::{Storage, StorageError};

use self::log::Roots;
use self::packs::Stored;
use crate::error::{RepoError, Result};

/// How much is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FsckLevel {
    /// Operations and the structure of each pack: header, footer, index.
    Quick,
    /// Also every tree and commit against its id, and all that refs need.
    #[default]
    Metadata,
    /// Also every byte of every pack.
    Full,
}

/// What a check does.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsckOptions {
    /// How much is read.
    pub level: FsckLevel,
    /// Of every hundred packs so many, drawn by chance, are read in full, whatever the level.
    pub sample_percent: f64,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Bytes of the repository are not what they were.
    Error,
    /// Something that is rebuilt or outlived by itself: a cache, a lease.
    Warning,
    /// No fault: what a crash or another process left, what no ref needs.
    Note,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// The file, as a path below the repository's folder; empty for what is missing from all of them.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: Option<u64>,
    /// The object that is damaged or missing: kind and id.
    pub object: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// What a check looked at and found.
#[derive(Clone, Debug, Default)]
pub struct FsckReport {
    /// Findings, in the order of the checks.
    pub findings: Vec<Finding>,
    /// Commits that can not be restored, by id, with the first reason.
    pub lost: BTreeMap<CommitId, String>,
    /// Operations that were read.
    pub num_operations: u64,
    /// Packs, intact or not.
    pub num_packs: u64,
    /// Packs that were read in full.
    pub num_packs_full: u64,
    /// Different chunks of which a good copy was found.
    pub num_chunks: u64,
    /// Different trees.
    pub num_trees: u64,
    /// Different commits.
    pub num_commits: u64,
    /// Raw bytes of the chunks.
    pub raw_len: u64,
    /// Objects that no ref needs or needed.
    pub num_orphans: u64,
}

impl FsckReport {
    /// Says whether no finding is an error.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }

    fn add(&mut self, severity: Severity, file: impl Into<String>, what: impl Into<String>) {
        let (file, what) = (file.into(), what.into());
        self.findings.push(Finding { severity, file, offset: None, object: None, what });
    }

    fn add_damage(&mut self, damage: &Damage) {
        self.findings.push(Finding {
            severity: Severity::Error,
            file: format!("packs/{}.pack", damage.pack),
            offset: Some(damage.offset),
            object: damage.object.map(|object| object.to_string()),
            what: damage.what.clone(),
        });
    }

    /// Takes damage as a finding; what is no damage stays an error.
    fn take<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(RepoError::Damaged { file, reason }) => {
                self.add(Severity::Error, file, reason);
                Ok(None)
            }
            Err(RepoError::Storage(
                error
                @ (StorageError::NotAFile { .. } | StorageError::TooLarge { .. } | StorageError::Truncated { .. }),
            )) => {
                self.add(Severity::Error, error.key(), error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Checks the repository in `storage`. Damage is in the report.
///
/// # Errors
/// - [`RepoError::NotARepository`], [`RepoError::Unsupported`]: nothing was checked.
/// - Cancellation; storage errors that are no damage.
pub fn fsck(storage: &Arc<dyn Storage>, options: FsckOptions, progress: &Progress) -> Result<FsckReport> {
    Ok(examine(storage, options, progress)?.report)
}

/// A check with what it learned on the way.
pub(crate) struct Examined {
    pub(crate) report: FsckReport,
    pub(crate) odb: Odb,
    pub(crate) roots: Roots,
    pub(crate) stored: Stored,
    pub(crate) needed: HashSet<ObjectName>,
}

pub(crate) fn examine(storage: &Arc<dyn Storage>, options: FsckOptions, progress: &Progress) -> Result<Examined> {
    let mut report = FsckReport::default();
    settings::check(&**storage, &mut report)?;
    let roots = log::check(storage, &mut report)?;
    let odb = Odb::open(Arc::clone(storage))?;
    let stored = packs::check(&odb, options, progress, &mut report)?;
    let needed = reach::check(&odb, &roots, &stored, options.level, progress, &mut report)?;
    folders::check(&**storage, &roots, &mut report)?;
    hints::check(&**storage, &mut report)?;
    strangers::check(&**storage, &mut report)?;
    Ok(Examined { report, odb, roots, stored, needed })
}
