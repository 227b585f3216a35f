//! The races that are tried.

use std::path::Path;

use gradient_repo::FsckLevel;
use gradient_storage::sim::{Call, CallKind, SimFs};

use crate::collector::Greed;
use crate::leases::bury;
use crate::model::Model;
use crate::process::{Action, DIR, Goto};
use crate::race::{Deed, Race, Script};
use crate::session::{Move, Session};

/// What a chunk of a pack holds that nobody needs: its writer was killed before it published.
pub const ORPHAN: u64 = 77;

/// Every race by its name.
///
/// # Errors
/// A text for people: a disk can not be prepared.
pub fn races() -> Result<Vec<Race>, String> {
    let few = few()?;
    let many = many_packs(&[])?;
    let long = long_log()?;
    let orphan = orphan()?;
    let mixed = many_packs(&[ORPHAN])?;
    let damaged = damaged()?;
    let undone = then(&few, &[Action::Undo])?;
    let again = || Deed::Act(Action::Again);
    let main = |deeds: &[Deed]| on("main", deeds);
    let full = || fresh(&[Deed::Fsck(FsckLevel::Full)]);
    let quick = || fresh(&[Deed::Fsck(FsckLevel::Quick)]);
    let collect = || fresh(&[Deed::Collect(Greed::Unneeded)]);
    let hoard = || fresh(&[Deed::Collect(Greed::Redundant)]);
    let keep = || fresh(&[act(Action::Maintain)]);
    let read = || fresh(&[Deed::Read, Deed::Read]);
    let undo = || fresh(&[act(Action::Undo)]);
    let delete = || act(Action::DeleteBranch(name("exp")));
    let rename = || act(Action::Rename(name("exp"), name("trial")));
    let tag = |tag: &str| fresh(&[act(Action::Tag(name(tag)))]);
    Ok(vec![
        race("commit x commit", &few, vec![main(&[commit(&[5, 1])]), main(&[commit(&[6, 1])])]),
        race("commits x commits", &few, vec![main(&[commit(&[5]), commit(&[6])]), main(&[commit(&[5]), commit(&[7])])]),
        race("commit x commit on two branches", &few, vec![main(&[commit(&[5, 1])]), on("exp", &[commit(&[5, 2])])]),
        race("three commits", &few, vec![main(&[commit(&[5])]), main(&[commit(&[5])]), on("exp", &[commit(&[5])])]),
        race("commit x a fresh line", &few, vec![main(&[commit(&[5])]), line("main", &[commit(&[6])])]),
        race("two fresh lines", &few, vec![line("new", &[commit(&[5])]), line("new", &[commit(&[6])])]),
        race("nothing new x commit", &few, vec![main(&[again(), commit(&[5])]), main(&[commit(&[6])])]),
        race("commit x fold", &long, vec![main(&[commit(&[5, 1])]), keep()]),
        race("fold x fold x commit", &long, vec![keep(), keep(), main(&[commit(&[5])])]),
        race("commit x merge", &many, vec![main(&[commit(&[5, 30, 31])]), keep()]),
        race("merge x merge", &many, vec![keep(), keep()]),
        race("commits that merge", &many, vec![main(&[commit(&[5, 30])]), main(&[commit(&[5, 31])])]),
        race("commit x undo", &few, vec![main(&[commit(&[5])]), undo()]),
        race("undo x undo", &few, vec![undo(), undo()]),
        race("undo x redo", &undone, vec![undo(), fresh(&[act(Action::Redo)])]),
        race("undo x fold", &long, vec![undo(), keep()]),
        race("commit x delete", &few, vec![on("exp", &[commit(&[5])]), fresh(&[delete()])]),
        race("delete x delete", &few, vec![fresh(&[delete()]), fresh(&[delete()])]),
        race("commit x rename", &few, vec![on("exp", &[commit(&[5]), commit(&[6])]), fresh(&[rename()])]),
        race("delete x undo x rename", &few, vec![fresh(&[delete()]), undo(), fresh(&[rename()])]),
        race("tag x tag", &few, vec![tag("v2"), tag("v2")]),
        race("tag x branch", &few, vec![tag("v2"), fresh(&[act(Action::Branch(name("v2")))])]),
        race("tag x delete tag", &few, vec![tag("v2"), fresh(&[act(Action::DeleteTag(name("v1")))])]),
        race(
            "checkout x delete",
            &few,
            vec![fresh(&[act(Action::Checkout(Goto::Branch(name("exp"))))]), fresh(&[delete()])],
        ),
        race("reader x commit x merge", &many, vec![read(), main(&[commit(&[5, 30])]), keep()]),
        race("reader x commit x fold", &long, vec![read(), main(&[commit(&[5])]), keep()]),
        race("opening x commit x merge", &many, vec![fresh(&[Deed::Open]), main(&[commit(&[5, 30])]), keep()]),
        race("opening x commit x fold", &long, vec![fresh(&[Deed::Open]), main(&[commit(&[5])]), keep()]),
        race(
            "looking x commit x merge",
            &many,
            vec![fresh(&[Deed::Look, Deed::Look]), main(&[commit(&[5, 30])]), keep()],
        ),
        race("quick fsck x commit x merge", &many, vec![quick(), main(&[commit(&[5, 30])]), keep()]),
        race("full fsck x commit x merge", &many, vec![full(), main(&[commit(&[5, 30])]), keep()]),
        race("full fsck x commit x fold", &long, vec![full(), main(&[commit(&[5])]), keep()]),
        race("commit x collector", &orphan, vec![main(&[commit(&[ORPHAN, 5])]), collect()]),
        race(
            "commits x collector",
            &orphan,
            vec![main(&[commit(&[ORPHAN, 5])]), main(&[commit(&[ORPHAN, 6])]), collect()],
        ),
        race("commit x two collectors", &orphan, vec![main(&[commit(&[ORPHAN, 5])]), collect(), collect()]),
        race("merge x collector x commit", &mixed, vec![keep(), collect(), main(&[commit(&[ORPHAN, 5])])]),
        race("merge x greedy collector", &mixed, vec![keep(), hoard()]),
        race("merge x greedy collector x commit", &mixed, vec![keep(), hoard(), main(&[commit(&[ORPHAN, 30])])]),
        race("two greedy collectors x commit", &mixed, vec![hoard(), hoard(), main(&[commit(&[ORPHAN, 30])])]),
        race("reader x merge x greedy collector", &mixed, vec![read(), keep(), hoard()]),
        race("full fsck x merge x greedy collector", &mixed, vec![full(), keep(), hoard()]),
        race("undo x collector", &orphan, vec![undo(), collect(), main(&[commit(&[ORPHAN])])]),
        race(
            "a busy writer x collector",
            &orphan,
            vec![
                main(&[commit(&[5]), commit(&[6]), commit(&[7]), commit(&[8]), commit(&[9]), commit(&[10])]),
                collect(),
            ],
        ),
        race("repair x commit", &few, vec![fresh(&[Deed::Repair]), main(&[commit(&[5, 1])])]),
        // The second time nobody publishes any more.
        race(
            "repair of a pack x commit",
            &damaged,
            vec![fresh(&[Deed::Repair, Deed::Repair]), main(&[commit(&[ORPHAN, 5])])],
        ),
    ])
}

/// A commit beside the repair of an operation that is torn meanwhile; the model knows nothing of damage.
///
/// # Errors
/// A text for people: the disk can not be prepared.
pub fn torn_head() -> Result<Race, String> {
    let torn = fresh(&[Deed::Tear, Deed::Repair, Deed::Repair]);
    Ok(race("repair of a torn head x commit", &few()?, vec![torn, on("main", &[commit(&[5, 1])])]))
}

/// What a disk is and should be.
type Ready = (SimFs, Model);

fn race(name: &'static str, (disk, model): &Ready, scripts: Vec<Script>) -> Race {
    Race { name, disk: disk.clone(), model: model.clone(), scripts, broken: None }
}

fn name(name: &str) -> String {
    name.to_owned()
}

fn act(action: Action) -> Deed {
    Deed::Act(action)
}

fn commit(tensors: &[u64]) -> Deed {
    act(Action::Commit(tensors.to_vec()))
}

/// A process that goes on with a branch.
fn on(branch: &str, deeds: &[Deed]) -> Script {
    // Its second commit, and those after it, have lost the branch if somebody else moved it.
    Script { prelude: vec![Action::Resume(name(branch))], deeds: deeds.to_vec() }
}

/// A process that begins a line on a branch.
fn line(branch: &str, deeds: &[Deed]) -> Script {
    Script { prelude: vec![Action::Line(name(branch))], deeds: deeds.to_vec() }
}

fn fresh(deeds: &[Deed]) -> Script {
    Script { prelude: Vec::new(), deeds: deeds.to_vec() }
}

fn play(session: &mut Session, actions: impl IntoIterator<Item = Action>) -> Result<(), String> {
    for action in actions {
        let play = Move { who: 0, action, meanwhile: None };
        session.play(&play)?.map_err(|error| format!("{:?}: {error}", play.action))?;
    }
    Ok(())
}

fn ready(mut session: Session) -> Ready {
    session.stop();
    session.disk.settle();
    (session.disk, session.model)
}

/// Two commits, a branch, a tag.
fn few() -> Result<Ready, String> {
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    let commits = [Action::Commit(vec![1, 2]), Action::Commit(vec![1, 3])];
    play(&mut session, commits.into_iter().chain([Action::Branch(name("exp")), Action::Tag(name("v1"))]))?;
    Ok(ready(session))
}

/// Further actions on a disk that is ready.
fn then((disk, model): &Ready, actions: &[Action]) -> Result<Ready, String> {
    let mut session = Session::new(disk.kill(0), model.clone(), 100);
    play(&mut session, actions.iter().cloned())?;
    Ok(ready(session))
}

/// Two commits, and as many operations as are folded.
fn long_log() -> Result<Ready, String> {
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    play(&mut session, [Action::Commit(vec![1, 2]), Action::Commit(vec![1, 3])])?;
    for _ in 0..36 {
        play(&mut session, [Action::Tag(name("v1")), Action::DeleteTag(name("v1"))])?;
    }
    Ok(ready(session))
}

/// As many small packs as are merged; among the oldest some with these chunks that nobody needs.
fn many_packs(orphans: &[u64]) -> Result<Ready, String> {
    let (mut disk, mut model) = few()?;
    for orphan in orphans {
        (disk, model) = kill_before_publishing((disk, model), *orphan)?;
    }
    let mut session = Session::new(disk, model, 200);
    play(&mut session, [Action::Resume(name("main"))])?;
    play(&mut session, (30..48).map(|number| Action::Commit(vec![number, 1])))?;
    Ok(ready(session))
}

/// Two commits, and a pack that no ref needs.
fn orphan() -> Result<Ready, String> {
    kill_before_publishing(few()?, ORPHAN)
}

/// The same, and a byte of that pack is not what it was.
fn damaged() -> Result<Ready, String> {
    let packs = Path::new(DIR).join("packs");
    let before = few()?;
    let known = before.0.names(&packs);
    let (disk, model) = kill_before_publishing(before, ORPHAN)?;
    let (name, mut bytes) =
        disk.files(&packs).into_iter().find(|(name, _)| !known.contains(name)).ok_or("there is no such pack")?;
    bytes[500] ^= 1;
    disk.tamper(&packs, &name, Some(&bytes));
    Ok((disk, model))
}

/// A process commits a chunk, and is killed between its pack and its operation.
fn kill_before_publishing((disk, model): Ready, chunk: u64) -> Result<Ready, String> {
    let mut session = Session::new(disk.kill(0), model.clone(), 100);
    play(&mut session, [Action::Resume(name("main"))])?;
    let before = session.disk.num_changes();
    play(&mut session, [Action::Commit(vec![chunk])])?;
    let publishes = |call: &&Call| {
        call.changes_before >= before && call.kind == CallKind::RenameNoReplace && call.path.starts_with("ops/0")
    };
    let calls = session.disk.calls();
    let operation = calls.iter().find(publishes).ok_or("nothing was published")?;
    let disk = session.disk.kill(operation.changes_before);
    bury(&disk);
    disk.settle();
    Ok((disk, model))
}
