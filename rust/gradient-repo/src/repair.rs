//! Repairs what can be repaired, and deletes nothing (rule F2): what is damaged moves to `lost+found/`.
//!
//! | damage                                        | repair                                                             |
//! |-----------------------------------------------|--------------------------------------------------------------------|
//! | newest operations that can not be read        | moved aside; one new operation holds the table that they led to    |
//! | a pack whose needed objects lie elsewhere too | condemned, then moved aside                                        |
//! | a folded file whose operations all lie there  | moved aside; the files of their own count again                    |
//! | a cache                                       | moved aside; made anew when it is needed                           |
//! | anything else                                 | left where it is, and named: it has to come from a copy            |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gradient_object::CommitId;
use gradient_odb::{CommitRows, Kind, ObjectName, PackId, Progress};
use gradient_storage::{Durability, Folder, Key, Storage};
use serde_json::json;

use crate::clock::now_ns;
use crate::error::{RepoError, Result};
use crate::fsck::{Examined, Finding, FsckLevel, FsckOptions, Severity, examine};
use crate::lease::{LeaseKeeper, alive_here};
use crate::operation::{Head, Operation, OperationKind, RefTable, Refs, Subject, Target, changed};
use crate::oplog::{HeadState, OperationLog, Published, UNFOLDED_MIN, number};
use crate::repository::{by, random_id};

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
    /// A new operation says where refs point, or which packs are condemned.
    pub publishes: bool,
    /// Commits that no readable operation names: their writer stopped before it published, or the operation is lost.
    pub unnamed: Vec<CommitId>,
    /// Errors that are left.
    pub left: Vec<Finding>,
    /// Where the report of this repair lies, once it was carried out.
    pub log: Option<String>,
}

/// Plans a repair of the repository in `storage`, and carries it out if `apply`.
///
/// A repair that was cut off is finished by the next one: what it was going to publish lies in `lost+found/` before
/// anything is moved, and nobody publishes anything else before that has been done.
///
/// # Errors
/// - [`RepoError::Damaged`]: no operation can be read, or `format` is damaged; nothing was done.
/// - [`RepoError::Invalid`]: another process of this machine writes to the repository; nothing was done.
/// - [`RepoError::Busy`]: somebody published meanwhile. What was moved lies in `lost+found/`.
/// - As [`fsck`](crate::fsck).
pub fn repair(storage: &Arc<dyn Storage>, apply: bool, progress: &Progress) -> Result<Repair> {
    crate::format_file::FormatFile::read(&**storage)?.check_writable()?;
    if apply {
        refuse_lost_folders(storage)?;
        storage.create_folders()?;
    }
    if apply && let Some(pid) = alive_here(storage)? {
        let message = format!("process {pid} has the repository open for writing");
        return Err(RepoError::invalid(message, "end it, then repeat gradient repair --apply"));
    }
    let log = OperationLog::new(Arc::clone(storage));
    let head = readable_head(&log)?;
    if head.operation.n == u64::MAX {
        return Err(RepoError::Damaged { file: "ops".into(), reason: "there is no number after its newest".into() });
    }
    let examined = examine(storage, FsckOptions { level: FsckLevel::Full, sample_percent: 0.0 }, progress)?;
    let rows = all_commits(&examined)?;
    let mut plan = Repair { unnamed: unnamed(&rows, &examined)?, ..Repair::default() };
    let (mut table, mut stands_on) = (head.table.clone(), head.operation.head.clone());
    let mut keys = Vec::new();
    let cut_off = log.pending(&head)?;
    let is_cut_off = cut_off.is_some();
    if let Some(damaged) = &head.damaged {
        let irregular = storage.strangers(Folder::Ops)?;
        let irregular = irregular.iter().filter_map(|name| number(name));
        let mut newer: Vec<u64> = log.names()?.numbers.into_iter().chain(irregular).collect();
        newer.retain(|n| *n > head.operation.n);
        newer.sort_unstable_by(|a, b| b.cmp(a));
        let newest = newest_table(&log, &newer, &head)?;
        (table, stands_on) = (newest.table, newest.head);
        // All that came after a fold are gone: it had left at least so many.
        let is_given_up = newer.is_empty() && !is_cut_off;
        let num_lost = if is_given_up { usize::try_from(UNFOLDED_MIN).unwrap_or(usize::MAX) } else { newest.num_lost };
        plan.rescued = advance(&mut table, &rows, &plan.unnamed, num_lost)?;
        for n in &newer {
            let why = format!("{} is damaged: {}", damaged.file, damaged.reason);
            keys.push(Key::operation(*n));
            plan.moves.push(Move { file: Key::operation(*n).to_string(), why, to: None });
        }
    }
    if let Some(Operation { refs: Refs::Whole(pending), head: pending_head, .. }) = cut_off {
        (table, stands_on) = (pending, pending_head);
    }
    plan.unnamed.retain(|id| !plan.rescued.iter().any(|(_, rescued)| rescued == id));
    let num_operations = keys.len();
    // What rescued commits need is not counted yet: their packs are looked at by the next repair.
    let packs = if table == head.table { spare_packs(&examined, &head) } else { Vec::new() };
    for pack in &packs {
        keys.push(pack.key());
        let why = "it is damaged, and everything that is needed of it lies in other packs".to_owned();
        plan.moves.push(Move { file: pack.key().to_string(), why, to: None });
    }
    if let Some(m) = log.spare_folded()? {
        let key = Key::folded(m);
        let why = "it is damaged, and each of its operations lies in a file of its own".to_owned();
        plan.moves.push(Move { file: key.to_string(), why, to: None });
        keys.push(key);
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
    // In the place of what goes there is something else at once: whoever looks then finds no shorter log. Of operations
    // that are gone there is nothing to move: the one that is published says that they are given up.
    let takes_over = head.damaged.is_some() || is_cut_off;
    plan.publishes = takes_over || !packs.is_empty();
    if !apply || (keys.is_empty() && !plan.publishes) {
        return Ok(plan);
    }
    let again = readable_head(&log)?;
    if again.id != head.id || again.damaged != head.damaged {
        return Err(RepoError::Busy { attempts: 1 });
    }
    let operation = plan.publishes.then(|| revision(&head, table, stands_on, &packs, num_operations));
    if let Some(operation) = operation.as_ref().filter(|_| takes_over) {
        log.announce(operation)?;
    }
    let mut lease = LeaseKeeper::new(Arc::clone(storage), random_id()?);
    lease.begin();
    let outcome = carry_out(&**storage, &log, &mut plan, &keys, num_operations, head, operation);
    lease.release();
    outcome.map(|()| plan)
}

/// An empty folder in place of one that is lost would hide that it is.
fn refuse_lost_folders(storage: &Arc<dyn Storage>) -> Result<()> {
    let missing = storage.missing_folders()?;
    let lost = if missing.contains(&Folder::Ops) {
        Folder::Ops
    } else if missing.contains(&Folder::Packs)
        && !readable_head(&OperationLog::new(Arc::clone(storage)))?.table.is_empty()
    {
        Folder::Packs
    } else {
        return Ok(());
    };
    Err(RepoError::Damaged { file: lost.name().into(), reason: "the folder is missing".into() })
}

fn readable_head(log: &OperationLog) -> Result<HeadState> {
    let none = || RepoError::Damaged { file: "ops".into(), reason: "there is no operation".into() };
    log.head()?.ok_or_else(none)
}

/// The refs that operations which go lead to.
struct Newest {
    table: RefTable,
    head: Head,
    /// Operations of which nothing is known.
    num_lost: usize,
}

/// The table that the newest of the operations that go leads to, as far as it can be told: changes since a table that is
/// lost are applied to the one before it.
fn newest_table(log: &OperationLog, newest_first: &[u64], head: &HeadState) -> Result<Newest> {
    let newest_number = newest_first.first().copied().unwrap_or(head.operation.n);
    let num_all = usize::try_from(newest_number - head.operation.n).unwrap_or(usize::MAX);
    let mut newest = Newest { table: head.table.clone(), head: head.operation.head.clone(), num_lost: num_all };
    for n in newest_first.iter().rev() {
        match log.read_file(*n) {
            Ok((operation, _)) => {
                newest.table = match operation.refs {
                    Refs::Whole(table) => table,
                    Refs::Changes { changes, .. } => changed(&head.table, &changes),
                };
                newest.head = operation.head;
                newest.num_lost -= 1;
            }
            Err(RepoError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

/// Every commit that the check found well. A read that failed once leaves out what a pack holds, and then a branch would
/// be left behind without a word.
fn all_commits(examined: &Examined) -> Result<Arc<CommitRows>> {
    let mut rows = examined.odb.commits()?;
    let is_left_out = |rows: &CommitRows, name: &ObjectName| {
        name.kind == Kind::Commit && !rows.contains(&CommitId::from_bytes(name.id))
    };
    let good = &examined.stored.good;
    if good.keys().any(|name| is_left_out(&rows, name)) {
        rows = examined.odb.commits()?;
    }
    match good.iter().find(|(name, _)| is_left_out(&rows, name)) {
        None => Ok(rows),
        Some((_, packs)) => Err(RepoError::Damaged {
            file: packs.first().map_or_else(|| "packs".to_owned(), |pack| pack.key().to_string()),
            reason: "its commits can be read at one time and not at another".to_owned(),
        }),
    }
}

/// Commits that are stored, and neither named by an operation nor needed by one that is.
fn unnamed(rows: &CommitRows, examined: &Examined) -> Result<Vec<CommitId>> {
    let mut unnamed: Vec<(u64, CommitId)> = Vec::new();
    // What a walk finds in a damaged block may never have been a commit: only who knows its id may use it.
    let is_unneeded = |id: &CommitId| !examined.needed.contains(&ObjectName::from(*id));
    for id in rows.ids().filter(|id| is_unneeded(id) && examined.odb.is_in_intact_pack(&ObjectName::from(*id))) {
        if let Some(commit) = rows.get(&id)?.filter(|_| !examined.roots.named.contains_key(&id)) {
            unnamed.push((commit.step, id));
        }
    }
    unnamed.sort_unstable();
    Ok(unnamed.into_iter().map(|(_, id)| id).collect())
}

/// Moves each branch on along the one commit that was made on it next, as long as there is exactly one and an operation
/// was lost that may have named it.
fn advance(
    table: &mut RefTable,
    rows: &CommitRows,
    unnamed: &[CommitId],
    num_lost: usize,
) -> Result<Vec<(String, CommitId)>> {
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
        while rescued.len() < num_lost
            && let Target::Branch(tip) = *target
            && let Some([next]) = children.get(&(name.clone(), tip)).map(Vec::as_slice)
        {
            *target = Target::Branch(*next);
            rescued.push((name.clone(), *next));
        }
    }
    Ok(rescued)
}

/// Damaged packs that can go: of each needed object in them there is a good copy in a pack that stays. Condemned packs do
/// not stay.
fn spare_packs(examined: &Examined, head: &HeadState) -> Vec<PackId> {
    let is_all_there = examined.needed.iter().all(|name| examined.stored.good.contains_key(name));
    let mut going: Vec<PackId> = Vec::new();
    for (pack, objects) in &examined.stored.damaged {
        let stays = |copy: &PackId| copy != pack && !going.contains(copy) && !head.operation.condemned.contains(copy);
        let is_elsewhere =
            |name: &ObjectName| examined.stored.good.get(name).is_some_and(|copies| copies.iter().any(stays));
        let mut needed = objects.iter().filter(|name| examined.needed.contains(*name));
        // Without a readable index it may hold whatever is missing.
        let can_go = needed.all(is_elsewhere) && (is_all_there || !examined.stored.walked.contains(pack));
        if can_go {
            going.push(*pack);
        }
    }
    going
}

/// The key of a cache that was found damaged. Leases go by themselves.
fn movable(file: &str) -> Option<Key> {
    file.strip_prefix("cache/").and_then(|name| Key::cache(name).ok())
}

/// The operation that takes the place of those that went.
fn revision(head: &HeadState, table: RefTable, stands_on: Head, packs: &[PackId], num_operations: usize) -> Operation {
    let mut condemned: Vec<PackId> = head.operation.condemned.iter().chain(packs).copied().collect();
    condemned.sort_unstable();
    condemned.dedup();
    Operation {
        n: head.operation.n + 1,
        previous: Some(head.id),
        kind: OperationKind::Repair,
        why: format!("moved aside: {num_operations} operations, {} packs", packs.len()),
        subject: Subject::None,
        time_ns: now_ns(),
        by: by(),
        head: stands_on,
        refs: Refs::Whole(table),
        condemned,
    }
}

fn carry_out(
    storage: &dyn Storage,
    log: &OperationLog,
    plan: &mut Repair,
    keys: &[Key],
    num_operations: usize,
    mut head: HeadState,
    operation: Option<Operation>,
) -> Result<()> {
    let report = Key::new(Folder::LostFound, &format!("{REPORT}{}.json", now_ns()))?;
    write_report(storage, &report, plan)?;
    plan.log = Some(report.to_string());
    let (operations, others) = keys.split_at(num_operations);
    let mut places = Vec::new();
    // What comes first in the log goes last: until then the log ends in something damaged, and nobody writes.
    let (first, later) = operations.split_last().map_or((None, operations), |(first, later)| (Some(first), later));
    for key in later {
        places.push(Some(storage.move_aside(key)?.to_string()));
    }
    let mut is_published = false;
    if let Some(first) = first {
        let successor = operation.as_ref().filter(|operation| *first == Key::operation(operation.n));
        places.push(Some(match successor.map(|operation| log.supersede(operation)).transpose()?.flatten() {
            Some(copy) => {
                is_published = true;
                copy.to_string()
            }
            None => storage.move_aside(first)?.to_string(),
        }));
        for n in stale(log, &head, operation.as_ref().filter(|_| is_published))? {
            let key = Key::operation(n);
            let Some(place) = move_aside_if_there(storage, &key)? else { continue };
            let why = "it was published behind a damaged one while that was moved aside".to_owned();
            plan.moves.insert(places.len(), Move { file: key.to_string(), why, to: None });
            places.push(Some(place));
        }
    }
    // Writing the report again syncs the folder: what was moved is there before the log goes on without it.
    write_report(storage, &report, plan)?;
    if let Some(operation) = operation {
        let n = operation.n;
        head.damaged = None;
        if !is_published && matches!(log.publish(Some(&head), operation)?, Published::Lost) {
            return Err(RepoError::Busy { attempts: 1 });
        }
        log.forget_pending(n)?;
    }
    for key in others {
        places.push(move_aside_if_there(storage, key)?);
    }
    for (step, place) in plan.moves.iter_mut().zip(places) {
        step.to = place;
    }
    write_report(storage, &report, plan)
}

/// Operations behind `head` that do not follow it. A writer elsewhere published them behind those that were just moved
/// aside; it looks at the one before its own again, and was told that this is damaged or finds it gone and takes its own
/// back: nothing of it was acknowledged. Those that follow were published since.
fn stale(log: &OperationLog, head: &HeadState, successor: Option<&Operation>) -> Result<Vec<u64>> {
    let (mut last, mut id) = match successor {
        Some(operation) => (operation.n, operation.encode()?.1),
        None => (head.operation.n, head.id),
    };
    let known = last;
    let mut stale = Vec::new();
    for n in log.names()?.numbers.into_iter().filter(|n| *n > known) {
        match log.read_file(n) {
            Ok((operation, next)) if n - last == 1 && operation.previous == Some(id) => (last, id) = (n, next),
            Ok(_) | Err(RepoError::Damaged { .. }) => stale.push(n),
            Err(RepoError::Storage(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(stale)
}

fn move_aside_if_there(storage: &dyn Storage, key: &Key) -> Result<Option<String>> {
    match storage.move_aside(key) {
        Ok(place) => Ok(Some(place.to_string())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Begins the names of the reports in `lost+found/`.
const REPORT: &str = "repair-";

/// Writes what is done, durably.
fn write_report(storage: &dyn Storage, key: &Key, plan: &Repair) -> Result<()> {
    let moves: Vec<_> =
        plan.moves.iter().map(|step| json!({"file": step.file, "why": step.why, "to": step.to})).collect();
    let rescued: Vec<_> =
        plan.rescued.iter().map(|(name, id)| json!({"branch": name, "commit": id.to_hex()})).collect();
    let report = json!({"schema": "gradient.repair-log/1", "moves": moves, "rescued": rescued});
    Ok(storage.replace(key, (report.to_string() + "\n").as_bytes(), Durability::Synced)?)
}
