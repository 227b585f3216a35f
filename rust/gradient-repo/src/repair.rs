//! Repairs what can be repaired, and deletes nothing (rule F2): what is damaged moves to `lost+found/`.
//!
//! | damage                                        | repair                                                             |
//! |-----------------------------------------------|--------------------------------------------------------------------|
//! | newest operations that can not be read        | moved aside; one new operation holds the table that they led to    |
//! | a pack whose needed objects lie elsewhere too | condemned, then moved aside                                        |
//! | a cache, a lease                              | moved aside; made anew when it is needed                           |
//! | anything else                                 | left where it is, and named: it has to come from a copy            |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gradient_object::CommitId;
use gradient_odb::{CommitRows, ObjectName, PackId, Progress};
use gradient_storage::{Durability, Folder, Key, Storage};
use serde_json::json;

use crate::clock::now_ns;
use crate::error::{RepoError, Result};
use crate::fsck::{Examined, Finding, FsckLevel, FsckOptions, Severity, examine};
use crate::operation::{Head, Operation, OperationKind, RefTable, Refs, Subject, Target, changed};
use crate::oplog::{HeadState, OperationLog, Published};
use crate::repository::by;

/// A file that is moved aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The file, as a path below the repository's folder.
    pub file: String,
    /// Why.
    pub why: String,
    /// Where it lies now; none: nothing was done yet.
    pub to: Option<String>,
}

/// What a repair does, or would do.
#[derive(Clone, Debug, Default)]
pub struct Repair {
    /// Files to move aside, in this order.
    pub moves: Vec<Move>,
    /// Branches that go on to a commit which only a lost operation named: name, commit.
    pub rescued: Vec<(String, CommitId)>,
    /// Commits that no operation names: their writer stopped before it published, or the operation is lost.
    pub unnamed: Vec<CommitId>,
    /// Errors that are left.
    pub left: Vec<Finding>,
    /// Where the report of this repair lies, once it was carried out.
    pub log: Option<String>,
}

/// The new operation, if one is needed.
struct Revision {
    head: HeadState,
    table: RefTable,
    stands_on: Head,
    condemned: Vec<PackId>,
}

/// Plans a repair of the repository in `storage`, and carries it out if `apply`.
///
/// # Errors
/// - [`RepoError::Damaged`]: no operation can be read, or `format` is damaged; nothing was done.
/// - As [`fsck`](crate::fsck).
pub fn repair(storage: &Arc<dyn Storage>, apply: bool, progress: &Progress) -> Result<Repair> {
    crate::format_file::FormatFile::read(&**storage)?.check_writable()?;
    let examined = examine(storage, FsckOptions { level: FsckLevel::Full, sample_percent: 0.0 }, progress)?;
    let log = OperationLog::new(Arc::clone(storage));
    let Some(head) = log.head()? else {
        return Err(RepoError::Damaged { file: "ops".into(), reason: "there is no operation".into() });
    };
    let mut plan = Repair::default();
    let (mut table, mut stands_on) = (head.table.clone(), head.operation.head.clone());
    let mut keys = Vec::new();
    if let Some(damaged) = &head.damaged {
        let newer: Vec<u64> = log.names()?.numbers.into_iter().filter(|n| *n > head.operation.n).rev().collect();
        (table, stands_on) = newest_table(&log, &newer, &head)?;
        for n in &newer {
            let why = format!("{} is damaged: {}", damaged.file, damaged.reason);
            keys.push(Key::operation(*n));
            plan.moves.push(Move { file: Key::operation(*n).to_string(), why, to: None });
        }
    }
    let rows = examined.odb.commits()?;
    plan.unnamed = unnamed(&rows, &examined)?;
    if head.damaged.is_some() {
        plan.rescued = advance(&mut table, &rows, &plan.unnamed)?;
        plan.unnamed.retain(|id| !plan.rescued.iter().any(|(_, rescued)| rescued == id));
    }
    let num_operations = keys.len();
    // What rescued commits need is not counted yet: their packs are looked at by the next repair.
    let packs = if head.damaged.is_some() { Vec::new() } else { spare_packs(&examined) };
    for pack in &packs {
        keys.push(pack.key());
        let why = "it is damaged, and everything that is needed of it lies in other packs".to_owned();
        plan.moves.push(Move { file: pack.key().to_string(), why, to: None });
    }
    for finding in examined.report.findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        if let Some(key) = movable(&finding.file) {
            plan.moves.push(Move { file: key.to_string(), why: finding.what.clone(), to: None });
            keys.push(key);
        }
    }
    let moved: HashSet<&str> = plan.moves.iter().map(|step| step.file.as_str()).collect();
    let is_left = |finding: &&Finding| {
        finding.severity == Severity::Error
            && !moved.contains(finding.file.as_str())
            && head.damaged.as_ref().is_none_or(|damaged| damaged.file != finding.file)
    };
    plan.left = examined.report.findings.iter().filter(is_left).cloned().collect();
    if !apply || keys.is_empty() {
        return Ok(plan);
    }
    let is_new = table != head.table || stands_on != head.operation.head || !packs.is_empty();
    let revision = is_new.then_some(Revision { head, table, stands_on, condemned: packs });
    carry_out(&**storage, &log, &mut plan, &keys, num_operations, revision)?;
    Ok(plan)
}

/// The table that the newest of the operations that go leads to, as far as it can be told: changes since a table that is
/// lost are applied to the one before it.
fn newest_table(log: &OperationLog, newest_first: &[u64], head: &HeadState) -> Result<(RefTable, Head)> {
    for n in newest_first {
        match log.read_file(*n) {
            Ok((operation, _)) => {
                let table = match operation.refs {
                    Refs::Whole(table) => table,
                    Refs::Changes { changes, .. } => changed(&head.table, &changes),
                };
                return Ok((table, operation.head));
            }
            Err(RepoError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((head.table.clone(), head.operation.head.clone()))
}

/// Commits that are stored, and neither named by an operation nor needed by one that is.
fn unnamed(rows: &CommitRows, examined: &Examined) -> Result<Vec<CommitId>> {
    let mut unnamed: Vec<(u64, CommitId)> = Vec::new();
    for id in rows.ids().filter(|id| !examined.needed.contains(&ObjectName::from(*id))) {
        if let Some(commit) = rows.get(&id)?.filter(|_| !examined.roots.named.contains_key(&id)) {
            unnamed.push((commit.step, id));
        }
    }
    unnamed.sort_unstable();
    Ok(unnamed.into_iter().map(|(_, id)| id).collect())
}

/// Moves each branch on along the one commit that was made on it next, as long as there is exactly one.
fn advance(table: &mut RefTable, rows: &CommitRows, unnamed: &[CommitId]) -> Result<Vec<(String, CommitId)>> {
    let mut children: HashMap<(String, CommitId), Vec<CommitId>> = HashMap::new();
    for id in unnamed {
        if let Some(commit) = rows.get(id)?
            && let Some(parent) = commit.parents.first()
        {
            children.entry((commit.branch.clone(), *parent)).or_default().push(*id);
        }
    }
    let mut rescued = Vec::new();
    for (name, target) in table.iter_mut() {
        while let Target::Branch(tip) = *target
            && let Some([next]) = children.get(&(name.clone(), tip)).map(Vec::as_slice)
        {
            *target = Target::Branch(*next);
            rescued.push((name.clone(), *next));
        }
    }
    Ok(rescued)
}

/// Damaged packs that can go: of each needed object in them there is a good copy in a pack that stays.
fn spare_packs(examined: &Examined) -> Vec<PackId> {
    let is_all_there = examined.needed.iter().all(|name| examined.stored.good.contains_key(name));
    let mut going: Vec<PackId> = Vec::new();
    for (pack, objects) in &examined.stored.damaged {
        let stays = |copy: &PackId| copy != pack && !going.contains(copy);
        let is_elsewhere =
            |name: &ObjectName| examined.stored.good.get(name).is_some_and(|copies| copies.iter().any(stays));
        let mut needed = objects.iter().filter(|name| examined.needed.contains(*name));
        // Without a readable index it may hold whatever is missing.
        let can_go = if objects.is_empty() { is_all_there } else { needed.all(is_elsewhere) };
        if can_go {
            going.push(*pack);
        }
    }
    going
}

/// The key of a cache or lease that was found damaged.
fn movable(file: &str) -> Option<Key> {
    let (folder, name) = file.split_once('/')?;
    let folder = match folder {
        "cache" => Folder::Cache,
        "leases" => Folder::Leases,
        _ => return None,
    };
    Key::new(folder, name).ok()
}

fn carry_out(
    storage: &dyn Storage,
    log: &OperationLog,
    plan: &mut Repair,
    keys: &[Key],
    num_operations: usize,
    revision: Option<Revision>,
) -> Result<()> {
    let time = now_ns();
    let report = Key::new(Folder::LostFound, &format!("repair-{time}.json"))?;
    write_report(storage, &report, plan)?;
    plan.log = Some(report.to_string());
    let (operations, others) = keys.split_at(num_operations);
    let mut places = Vec::new();
    for key in operations {
        places.push(storage.move_aside(key)?.to_string());
    }
    if let Some(revision) = revision {
        publish(log, revision, operations.len())?;
    }
    for key in others {
        places.push(storage.move_aside(key)?.to_string());
    }
    for (step, place) in plan.moves.iter_mut().zip(places) {
        step.to = Some(place);
    }
    write_report(storage, &report, plan)
}

fn publish(log: &OperationLog, revision: Revision, num_lost: usize) -> Result<()> {
    let Revision { mut head, table, stands_on, condemned } = revision;
    let mut all: Vec<PackId> = head.operation.condemned.iter().chain(&condemned).copied().collect();
    all.sort_unstable();
    all.dedup();
    head.damaged = None;
    let operation = Operation {
        n: head.operation.n + 1,
        previous: Some(head.id),
        kind: OperationKind::Repair,
        why: format!("{num_lost} unreadable operations and {} packs moved aside", condemned.len()),
        subject: Subject::None,
        time_ns: now_ns(),
        by: by(),
        head: stands_on,
        refs: Refs::Whole(table),
        condemned: all,
    };
    match log.publish(Some(&head), operation)? {
        Published::Done(_) => Ok(()),
        Published::Lost => Err(RepoError::invalid(
            "another process wrote to the repository while it was repaired",
            "stop what writes to it, then repeat gradient repair --apply",
        )),
    }
}

fn write_report(storage: &dyn Storage, key: &Key, plan: &Repair) -> Result<()> {
    let moves: Vec<_> =
        plan.moves.iter().map(|step| json!({"file": step.file, "why": step.why, "to": step.to})).collect();
    let rescued: Vec<_> =
        plan.rescued.iter().map(|(name, id)| json!({"branch": name, "commit": id.to_hex()})).collect();
    let text = json!({"schema": "gradient.repair-log/1", "moves": moves, "rescued": rescued}).to_string() + "\n";
    Ok(storage.replace(key, text.as_bytes(), Durability::Synced)?)
}
