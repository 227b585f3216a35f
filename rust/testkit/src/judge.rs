//! Holds a race that was played to the model: every deed has its place in the order of operations.

use std::collections::{BTreeMap, BTreeSet};

use gradient_object::CommitId;
use gradient_repo::{Operation, OperationKind, OperationLog, RefTable, Subject, Target};
use gradient_storage::sim::SimFs;

use crate::attempt::Line;
use crate::check::check;
use crate::model::{Made, Model, Refused, World};
use crate::process::{Action, Performed, open_storage};
use crate::race::{Deed, Done, Fate, Played, Race};

/// Checks a race: each operation is that of one deed, between its beginning and its end, and does what the model does;
/// each refusal was right at some moment of its deed; each reader saw a state that there was. Then the disk.
///
/// # Errors
/// A text for people, with the schedule.
pub fn judge(race: &Race, played: &Played) -> Result<(), String> {
    let failed = |error: String| format!("{error}\n  schedule: {}", played.interleaver.schedule());
    let last = replay(race, played).map_err(failed)?;
    check(&played.disk, &[last.into()]).map_err(failed)
}

/// The model after each operation from the base on.
type Models = BTreeMap<u64, Model>;

fn replay(race: &Race, played: &Played) -> Result<Model, String> {
    let operations = operations(&played.disk).map_err(|error| format!("the log: {error}"))?;
    let publishers = played.interleaver.publishers();
    let mut models = Models::from([(played.base, race.model.clone())]);
    let mut model = race.model.clone();
    let mut published = BTreeSet::new();
    let newest = race.model.newest.unwrap_or(NOBODY);
    for (operation, table) in operations.iter().filter(|(operation, _)| operation.n > played.base) {
        let n = operation.n;
        let (who, at) = *publishers.get(&n).ok_or_else(|| format!("nobody published operation {n}"))?;
        let done =
            played.done[who].get(at).ok_or_else(|| format!("process {who} published operation {n} by no deed"))?;
        let name = format!("operation {n}, {:?} of process {who}", done.deed);
        if n <= done.head_before || n > done.head_after {
            return Err(format!("{name}, is not between its beginning and its end"));
        }
        if !matches!(operation.kind, OperationKind::Condemn | OperationKind::Repair) {
            if !published.insert((who, at)) {
                return Err(format!("{name}, is the second of its deed"));
            }
            let is_told = !played.killed[who] || at + 1 < played.done[who].len();
            follow(&mut model, (operation, table), (done, is_told), newest)
                .map_err(|error| format!("{name}: {error}"))?;
        }
        let found = World { table: table.clone(), head: operation.head.clone() };
        if found != model.world {
            return Err(format!("after {name}, refs are {found:?} and should be {:?}", model.world));
        }
        models.insert(n, model.clone());
    }
    for (who, all) in played.done.iter().enumerate() {
        for (at, done) in all.iter().enumerate() {
            let is_last = at + 1 == all.len();
            if played.killed[who] && is_last {
                continue;
            }
            let is_published = published.contains(&(who, at));
            settle(done, is_published, &models, newest)
                .map_err(|error| format!("{:?} of process {who}: {error}", done.deed))?;
        }
    }
    Ok(model)
}

const NOBODY: CommitId = CommitId::from_bytes([0; 32]);

fn operations(disk: &SimFs) -> gradient_repo::Result<Vec<(Operation, RefTable)>> {
    let log = OperationLog::new(open_storage(disk)?);
    let newest = log.head()?.map_or(0, |head| head.operation.n);
    let mut all = Vec::new();
    log.replay(newest, |step| {
        all.push((step.operation, step.table.clone()));
        Ok(())
    })?;
    Ok(all)
}

/// Lets the model do what an operation did; if its process lived on, it is told what the model says.
fn follow(
    model: &mut Model,
    (operation, table): (&Operation, &RefTable),
    (done, is_told): (&Done, bool),
    newest: CommitId,
) -> Result<(), String> {
    let Deed::Act(action) = &done.deed else { return Err("it moves refs".to_owned()) };
    let tensors = match action {
        Action::Commit(tensors) => tensors.clone(),
        Action::Again => done.line.last.1.clone(),
        _ => return model.apply(action, newest).map_err(|refused| format!("it had to be refused: {refused:?}")),
    };
    let Subject::Name(landed) = &operation.subject else { return Err("it names no branch".to_owned()) };
    let Some(Target::Branch(id)) = table.get(landed) else { return Err(format!("{landed} is not there")) };
    let Line { branch, base: parent, first: is_first, .. } = &done.line;
    let tip = model.world.table.get(branch).map(|target| target.commit());
    let made = Made { parent: *parent, step: done.step, tensors };
    let expected = model.commit((branch, *is_first), *id, made).map_err(|refused| format!("{refused:?}"))?;
    if expected != *landed {
        return Err(format!("it landed on {landed} and not on {expected}"));
    }
    let (Fate::Performed(Ok(Performed::Commit(outcome))), true) = (&done.fate, is_told) else { return Ok(()) };
    if (outcome.commit, &outcome.branch) != (*id, landed) || outcome.existing {
        return Err(format!("it is told as {outcome:?}"));
    }
    // Who loses a branch is told what it lost to.
    let conflict = if landed == branch { None } else { tip };
    if outcome.conflict != conflict {
        return Err(format!("it is told of a conflict with {:?} and not with {conflict:?}", outcome.conflict));
    }
    if !outcome.notices.is_empty() {
        return Err(format!("it is told: {:?}", outcome.notices));
    }
    Ok(())
}

/// Whether a deed came to what it could come to.
fn settle(done: &Done, is_published: bool, models: &Models, newest: CommitId) -> Result<(), String> {
    // Who does not look for what is new sees what was there when the race began, or later.
    let since = if matches!(done.deed, Deed::Look) { 0 } else { done.head_before };
    let mut during = models.range(since..=done.head_after).map(|(_, model)| model);
    match (&done.fate, &done.deed) {
        (Fate::Wrong(what), _) => Err(what.clone()),
        (Fate::Saw(world), _) if during.any(|model| model.world == *world) => Ok(()),
        (Fate::Saw(world), _) => Err(format!("it saw {world:?}, which never was then")),
        (Fate::Done | Fate::Collected(_), _) => Ok(()),
        (Fate::Performed(Ok(_)), Deed::Act(action)) if is_published || moves_nothing(action) => Ok(()),
        (Fate::Performed(Ok(performed)), _) => Err(format!("it was acknowledged and is no operation: {performed:?}")),
        (Fate::Performed(Err(error)), Deed::Act(action)) => {
            let refused = Refused::of(error).ok_or_else(|| error.to_string())?;
            let is_right = |model: &Model| refusal(model, action, done, newest) == Some(refused);
            if during.any(is_right) { Ok(()) } else { Err(format!("it was refused, and never had to be: {error}")) }
        }
        (Fate::Performed(Err(error)), _) => Err(error.to_string()),
    }
}

fn refusal(model: &Model, action: &Action, done: &Done, newest: CommitId) -> Option<Refused> {
    let mut model = model.clone();
    match action {
        Action::Commit(tensors) => {
            let Line { branch, base: parent, first: is_first, .. } = &done.line;
            let made = Made { parent: *parent, step: done.step, tensors: tensors.clone() };
            model.commit((branch, *is_first), NOBODY, made).err()
        }
        _ => model.apply(action, newest).err(),
    }
}

fn moves_nothing(action: &Action) -> bool {
    matches!(
        action,
        Action::Again | Action::Line(_) | Action::Resume(_) | Action::Maintain | Action::Refresh | Action::Reopen
    )
}
