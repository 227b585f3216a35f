//! What is tried: each scenario prepares a disk, which is then all durable, and goes on from there on the record.

use std::path::Path;

use gradient_storage::sim::SimFs;
use gradient_storage::{LocalStorage, Storage};

use crate::model::Model;
use crate::process::{Action, DIR, Goto};
use crate::session::{Move, Session};

/// A scenario by its name.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    setup: Vec<Move>,
    /// What is recorded.
    pub moves: Vec<Move>,
    /// Whether packs are written past the page cache.
    pub is_direct: bool,
    leaves_half_a_pack: bool,
}

/// What is written past the page cache at once: little, so that packs of a few chunks are several pieces.
const DIRECT_BYTES: usize = 4 << 10;

/// Every sequence of one and of two of twelve things that a process can do, after two commits, a branch and a tag.
pub fn sequences() -> Vec<Scenario> {
    let resume = Action::Resume(main());
    let known = commit(&[2, 1]);
    let twelve = [
        commit(&[5, 1]),
        known,
        Action::Branch(name("new")),
        Action::Rename(name("exp"), name("trial")),
        Action::DeleteBranch(name("exp")),
        Action::Tag(name("v2")),
        Action::DeleteTag(name("v1")),
        Action::Undo,
        Action::Redo,
        Action::Checkout(Goto::Branch(name("exp"))),
        Action::Maintain,
        Action::Reopen,
    ];
    let setup = || one(vec![commit(&[1, 2]), commit(&[1, 3]), Action::Branch(name("exp")), Action::Tag(name("v1"))]);
    let sequence = |actions: &[&Action]| {
        let actions = [&resume].into_iter().chain(actions.iter().copied()).cloned().collect();
        new("a sequence", setup(), one(actions))
    };
    let mut all: Vec<Scenario> = twelve.iter().map(|action| sequence(&[action])).collect();
    all.extend(
        twelve.iter().flat_map(|first| twelve.iter().map(|second| sequence(&[first, second])).collect::<Vec<_>>()),
    );
    all
}

impl Scenario {
    /// Makes the disk that the scenario begins with, and the model of what is on it.
    ///
    /// # Errors
    /// A text for people.
    pub fn prepare(&self) -> Result<(SimFs, Model), String> {
        let disk = SimFs::new();
        self.set_up(&disk);
        if self.setup.is_empty() {
            return Ok((disk, Model::default()));
        }
        let mut session = Session::new(disk, Model::default(), 1);
        for play in &self.setup {
            session.play(play)?.map_err(|error| format!("{play:?}: {error}"))?;
        }
        session.stop();
        if self.leaves_half_a_pack {
            leave_half_a_pack(&session.disk)?;
        }
        session.disk.settle();
        Ok((session.disk, session.model))
    }

    /// Makes a disk what this one asks for; copies of a disk are as they come.
    pub(crate) fn set_up(&self, disk: &SimFs) {
        if self.is_direct {
            disk.allow_direct(DIRECT_BYTES);
        }
    }

    /// Says whether somewhere one process comes first while another one publishes.
    pub fn is_raced(&self) -> bool {
        self.moves.iter().any(|play| play.meanwhile.is_some())
    }

    /// Says whether it begins without a repository.
    pub fn begins_with_nothing(&self) -> bool {
        self.setup.is_empty()
    }

    /// Plays the scenario to its end and returns the record.
    ///
    /// # Errors
    /// A text for people: the repository and the model differ, or something failed.
    pub fn record(&self) -> Result<Session, String> {
        let (disk, model) = self.prepare()?;
        self.record_on(disk, model)
    }

    /// Plays the scenario on a disk that was prepared.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn record_on(&self, disk: SimFs, model: Model) -> Result<Session, String> {
        let mut session = Session::new(disk, model, 1000);
        for play in &self.moves {
            session.play(play)?.map_err(|error| format!("{play:?}: {error}"))?;
            session.compare_refs(play.who)?;
        }
        session.stop();
        Ok(session)
    }
}

/// What a killed process leaves in `tmp/`.
fn leave_half_a_pack(disk: &SimFs) -> Result<(), String> {
    let storage = LocalStorage::open_on(disk.clone(), Path::new(DIR)).map_err(|error| error.to_string())?;
    for id in 1..4 {
        let mut pack = storage.create_pack(&[id; 16], 10_000).map_err(|error| error.to_string())?;
        pack.append(&[&[id; 700]]).map_err(|error| error.to_string())?;
        // Dropped, it would be removed.
        std::mem::forget(pack);
    }
    Ok(())
}

fn by(who: usize, action: Action) -> Move {
    Move { who, action, meanwhile: None }
}

fn one(actions: Vec<Action>) -> Vec<Move> {
    actions.into_iter().map(|action| by(0, action)).collect()
}

fn raced(action: Action, meanwhile: Action) -> Move {
    Move { who: 0, action, meanwhile: Some((1, meanwhile)) }
}

fn commit(tensors: &[u64]) -> Action {
    Action::Commit(tensors.to_vec())
}

fn main() -> String {
    "main".to_owned()
}

fn name(text: &str) -> String {
    text.to_owned()
}

fn new(name: &'static str, setup: Vec<Move>, moves: Vec<Move>) -> Scenario {
    Scenario { name, setup, moves, is_direct: false, leaves_half_a_pack: false }
}

/// Two commits on main.
fn two() -> Vec<Action> {
    vec![commit(&[1, 2]), commit(&[1, 3])]
}

/// All scenarios. In every other one packs are written past the page cache.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = commits();
    all.extend(refs());
    all.extend(upkeep());
    all.extend(several());
    for scenario in all.iter_mut().step_by(2) {
        scenario.is_direct = true;
    }
    all
}

fn commits() -> Vec<Scenario> {
    let many: Vec<u64> = (1..24).collect();
    let resume = || Action::Resume(main());
    vec![
        new("init", vec![], one(vec![Action::Refresh])),
        new("first commit of a new repository", vec![], one(vec![commit(&[1, 2])])),
        new("first commit", one(vec![Action::Refresh]), one(vec![commit(&[1, 2])])),
        new("second commit", one(vec![commit(&[1, 2])]), one(vec![resume(), commit(&[3, 4])])),
        new("commit of chunks that are there", one(two()), one(vec![resume(), commit(&[1, 3]), commit(&[3, 2, 1])])),
        new("commit that relies on a chunk", one(two()), one(vec![resume(), commit(&[2, 9])])),
        new("commit of nothing new", one(two()), one(vec![resume(), Action::Again, Action::Again])),
        new("commit of many tensors", one(two()), one(vec![resume(), commit(&many)])),
        new("three commits and close", one(two()), {
            one(vec![resume(), commit(&[5]), commit(&[6]), commit(&[5, 6]), Action::Reopen])
        }),
        new("fresh line on a branch that has commits", one(two()), {
            one(vec![Action::Line(main()), commit(&[7]), commit(&[8])])
        }),
        new("open and go on", one(two()), {
            one(vec![resume(), Action::Reopen, commit(&[4]), Action::Reopen, resume(), commit(&[4, 5])])
        }),
    ]
}

fn refs() -> Vec<Scenario> {
    let branches = || {
        let mut actions = two();
        actions.extend([Action::Branch(name("exp")), Action::Tag(name("v1"))]);
        one(actions)
    };
    vec![
        new("create a branch", one(two()), one(vec![Action::Branch(name("exp")), Action::Branch(name("exp"))])),
        new("rename branches", branches(), {
            one(vec![Action::Rename(name("exp"), name("trial")), Action::Rename(main(), name("trunk"))])
        }),
        new("delete a branch", branches(), one(vec![Action::DeleteBranch(name("exp")), Action::DeleteBranch(main())])),
        new("make and delete tags", branches(), one(vec![Action::Tag(name("v2")), Action::DeleteTag(name("v1"))])),
        new("undo", branches(), one(vec![Action::Undo, Action::Undo, Action::Undo])),
        new("undo and redo", branches(), one(vec![Action::Undo, Action::Undo, Action::Redo, Action::Redo])),
        new("commit after an undo", one(two()), one(vec![Action::Undo, Action::Resume(main()), commit(&[3, 8])])),
        new("checkout", branches(), {
            one(vec![
                Action::Checkout(Goto::Branch(name("exp"))),
                Action::Checkout(Goto::New(name("other"))),
                Action::Checkout(Goto::Newest),
                Action::Checkout(Goto::Unborn(name("unborn"))),
            ])
        }),
        new("commit on a branch that is new", branches(), {
            one(vec![Action::Checkout(Goto::Unborn(name("own"))), Action::Line(name("own")), commit(&[2, 6])])
        }),
    ]
}

fn upkeep() -> Vec<Scenario> {
    let mut operations = two();
    operations.extend((0..64).map(|n| Action::Tag(format!("t{n}"))));
    let mut twice = operations.clone();
    twice.push(Action::Maintain);
    twice.extend((0..8).map(|n| Action::Tag(format!("u{n}"))));
    let many: Vec<Action> = (0..24).map(|n| commit(&[n, n + 1])).collect();
    let mut merged = many.clone();
    merged.push(Action::Maintain);
    vec![
        new("fold", one(operations), one(vec![Action::Tag(name("a")), Action::Tag(name("b")), Action::Maintain])),
        new("fold what is folded", one(twice), one(vec![Action::Maintain, Action::Undo, Action::Maintain])),
        new("merge", one(many.clone()), one(vec![Action::Maintain])),
        new("merge after a commit", one(many.clone()), one(vec![Action::Resume(main()), commit(&[40, 3])])),
        new("commits after a merge", one(merged), {
            one(vec![Action::Resume(main()), commit(&[41, 2]), Action::Maintain, Action::Reopen])
        }),
        new("merge beside a process that reads", one(many), {
            let commit = by(1, commit(&[50]));
            vec![by(1, Action::Resume(main())), by(0, Action::Maintain), commit, by(0, Action::Maintain)]
        }),
        Scenario {
            is_direct: false,
            leaves_half_a_pack: true,
            ..new("sweep", one(two()), one(vec![Action::Line(main()), commit(&[2])]))
        },
    ]
}

fn several() -> Vec<Scenario> {
    let both = || vec![by(0, Action::Resume(main())), by(1, Action::Resume(main()))];
    let many: Vec<Action> = (0..24).map(|n| commit(&[n, n + 1])).collect();
    let with = |moves: Vec<Move>| both().into_iter().chain(moves).collect::<Vec<_>>();
    vec![
        new("two processes in turn", one(two()), {
            with(vec![by(0, commit(&[5])), by(1, commit(&[6])), by(0, commit(&[5, 6])), by(1, commit(&[7]))])
        }),
        new("publish lost to a commit", one(two()), with(vec![raced(commit(&[5, 1]), commit(&[6, 1]))])),
        new("publish lost to a tag", one(two()), with(vec![raced(commit(&[5, 1]), Action::Tag(name("v1")))])),
        new("tag lost to a commit", one(two()), with(vec![raced(Action::Tag(name("v1")), commit(&[6, 1]))])),
        new("commit beside a merge", one(many), with(vec![raced(commit(&[0, 5, 60]), Action::Maintain)])),
    ]
}

#[cfg(test)]
mod tests {
    use gradient_storage::sim::CallKind;

    use super::*;

    #[test]
    fn packs_of_every_other_scenario_that_writes_any_go_past_the_page_cache() {
        let num_calls = |scenario: &Scenario, kind| {
            let session = scenario.record().expect("it plays");
            session.disk.calls().iter().filter(|call| call.kind == kind).count()
        };
        let num_direct = scenarios().iter().filter(|scenario| num_calls(scenario, CallKind::SetDirect) >= 2).count();
        assert!((8..=scenarios().len() / 2).contains(&num_direct), "{num_direct} scenarios");
    }
}
