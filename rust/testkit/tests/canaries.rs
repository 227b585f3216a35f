//! Row 15 of `reliability.md`: with a rule broken on purpose, the row that guards it must turn red.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gradient_object::ChunkId;
use gradient_object::canary::accept_non_canonical;
use gradient_odb::{ObjectName, Odb, OdbError, PackId, canary};
use gradient_repo::{OperationKind, OperationLog, Published, Refs, Subject};
use gradient_storage::sim::{Call, CallKind, Canary, Failure, Fault, SimErrno, SimFs};
use gradient_storage::{Durability, Key, LocalStorage, MemoryStorage, Storage};
use gradient_testkit::readers::{Mutations, READERS};
use gradient_testkit::{
    Action, Broken, Crew, DIR, Faulty, Model, Move, Points, Process, Scenario, Session, Strategy, Tally, check,
    content, explore, judge, races, scenarios,
};
use serde_json::Value as Json;

const WITHIN: Duration = Duration::from_secs(30);

fn scenario(name: &str) -> Scenario {
    scenarios().into_iter().find(|scenario| scenario.name == name).expect("there is such a scenario")
}

/// Row 1 on one scenario.
fn crashes(canary: Option<Canary>) -> Result<(), String> {
    let scenario = scenario("second commit");
    let (disk, model) = scenario.prepare()?;
    disk.set_canary(canary);
    explore(&scenario.record_on(disk, model)?, 0, 9, &Tally::default())
}

#[test]
fn a_folder_that_is_not_synced_turns_row_1_red() {
    let start = Instant::now();
    assert_eq!(crashes(None), Ok(()));
    let error = crashes(Some(Canary::SkipFolderSync)).expect_err("an acknowledged commit is lost");
    assert!(error.contains("refs are"), "{error}");
    assert!(start.elapsed() < WITHIN);
}

#[test]
fn an_operation_before_its_pack_turns_row_1_red() {
    let start = Instant::now();
    let error = crashes(Some(Canary::PublishBeforeSync)).expect_err("packs are torn");
    assert!(error.contains("pack"), "{error}");
    assert!(start.elapsed() < WITHIN);
}

/// Row 6 on one scenario: the disk is full from some call on.
fn full_disk(canary: Option<Canary>) -> Result<(), String> {
    let mut ready = Faulty::new(&scenario("second commit"), true)?;
    ready.canary = canary;
    for at in 0..ready.calls.len() {
        ready.play(Fault { at, failure: Failure::Error(SimErrno::NOSPC), lasts: false })?;
    }
    Ok(())
}

#[test]
fn a_full_disk_that_is_ignored_turns_row_6_red() {
    let start = Instant::now();
    assert_eq!(full_disk(None), Ok(()));
    let error = full_disk(Some(Canary::IgnoreFullDisk)).expect_err("bytes are missing");
    assert!(error.contains("magic is wrong"), "{error}");
    assert!(start.elapsed() < WITHIN);
}

fn play(session: &mut Session, action: Action) -> Result<(), String> {
    session.play(&Move { who: 0, action, meanwhile: None })?.map_err(|error| error.to_string())
}

/// A collector: condemns the pack that holds a chunk, and deletes it.
fn collect(disk: &SimFs, chunk: ChunkId) -> Result<(), Box<dyn std::error::Error>> {
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open_on(disk.clone(), Path::new(DIR))?);
    let pack = Process::open(disk)?.repo.odb().find_pack(&ObjectName::from(chunk)).ok_or("no such chunk")?;
    let log = OperationLog::new(Arc::clone(&storage));
    let head = log.head()?.ok_or("no head")?;
    let mut operation = head.operation.clone();
    (operation.n, operation.previous) = (head.operation.n + 1, Some(head.id));
    (operation.kind, operation.subject) = (OperationKind::Condemn, Subject::None);
    operation.refs = Refs::Whole(head.table.clone());
    operation.condemned = vec![pack];
    assert!(matches!(log.publish(Some(&head), operation)?, Published::Done(_)));
    storage.move_to_trash(&Key::pack(pack.as_bytes()))?;
    Ok(storage.delete(&Key::trash_pack(pack.as_bytes()))?)
}

/// A commit relies on a chunk of a pack that nobody needs; before it publishes, a collector takes the pack away.
fn commit_beside_a_collector(skip_look_again: bool) -> Result<(), String> {
    const CHUNK: u64 = 77;
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    play(&mut session, Action::Commit(vec![1]))?;
    let (model, before) = (session.model.clone(), session.disk.num_changes());
    play(&mut session, Action::Commit(vec![CHUNK]))?;
    // A process that was killed between its pack and its operation left a pack that no ref needs.
    let publishes = |call: &Call| call.kind == CallKind::RenameNoReplace && call.path.starts_with("ops/0");
    let calls = session.disk.calls();
    let operation = calls.iter().find(|call| call.changes_before > before && publishes(call)).ok_or("no operation")?;
    let disk = session.disk.kill(operation.changes_before);
    gradient_testkit::bury(&disk);
    disk.settle();

    let mut session = Session::new(disk, model, 100);
    play(&mut session, Action::Resume("main".to_owned()))?;
    let (other, chunk) = (session.disk.clone(), ChunkId::of(&content(CHUNK)));
    session.disk.before(publishes, move || collect(&other, chunk).expect("the collector fails"));
    canary::skip_look_again(skip_look_again);
    let committed = play(&mut session, Action::Commit(vec![CHUNK, 5]));
    canary::skip_look_again(false);
    committed?;
    session.stop();
    check(&session.disk, &[session.model.clone().into()])
}

#[test]
fn no_second_look_after_a_condemnation_turns_the_race_with_a_collector_red() {
    let start = Instant::now();
    assert_eq!(commit_beside_a_collector(false), Ok(()));
    let error = commit_beside_a_collector(true).expect_err("a chunk is gone");
    assert!(error.contains("is not in this repository"), "{error}");
    assert!(start.elapsed() < WITHIN);
}

/// Row 14 on one race: a process is stopped at each of its calls.
fn stopped_everywhere(name: &str, who: usize, broken: Option<Broken>) -> Result<(), String> {
    let mut race = races()?.into_iter().find(|race| race.name == name).ok_or("no such race")?;
    race.broken = broken;
    let crew = Crew::new(race.scripts.len());
    for at in 1.. {
        let played = race.play(&crew, Points::All, Strategy::stop(who, at, 1))?;
        judge(&race, &played)?;
        if played.interleaver.is_left_over() {
            break;
        }
    }
    Ok(())
}

#[test]
fn no_second_look_after_a_condemnation_turns_row_14_red() {
    let start = Instant::now();
    let name = "commit x collector";
    assert_eq!(stopped_everywhere(name, 0, None), Ok(()));
    let error = stopped_everywhere(name, 0, Some(Broken::LookAgain)).expect_err("a chunk is gone");
    assert!(error.contains("is not in this repository"), "{error}");
    assert!(start.elapsed() < WITHIN);
}

#[test]
fn an_operation_before_its_pack_turns_row_14_red() {
    let start = Instant::now();
    let name = "reader x commit x fold";
    let error = stopped_everywhere(name, 1, Some(Broken::Order)).expect_err("a reader finds no pack");
    assert!(error.contains("a reader"), "{error}");
    assert!(start.elapsed() < WITHIN);
}

/// Row 22 and 23 on one reader: every seed, and some changes of them.
fn read_trees() -> Result<(), String> {
    let reader = READERS.iter().find(|reader| reader.name == "tree").ok_or("no such reader")?;
    let seeds = (reader.seeds)();
    for bytes in seeds.iter().cloned().chain(Mutations::new(seeds.clone(), 1).take(20_000)) {
        std::panic::catch_unwind(|| (reader.check)(&bytes)).map_err(|_| format!("accepted: {bytes:02x?}"))?;
    }
    Ok(())
}

/// Row 22 on delta chains: the longest chunks of the vector must not be read.
fn read_long_chains() -> Result<(), String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/pack.json");
    let page: Json = serde_json::from_slice(&std::fs::read(page).expect("the vectors")).expect("is JSON");
    let packs = page["delta_packs"].as_array().expect("packs");
    let vector = packs.iter().find(|vector| vector["chunks"].as_array().is_some_and(|chunks| chunks.len() > 64));
    let vector = vector.expect("a long chain");
    let hex = |json: &Json| -> Vec<u8> {
        let hex = json.as_str().expect("hex").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
        hex.chunks_exact(2).map(byte).collect()
    };
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders");
    let pack = PackId::from_bytes(hex(&vector["pack"]).try_into().expect("16 bytes"));
    storage.replace(&pack.key(), &hex(&vector["hex"]), Durability::Unsynced).expect("room");
    let odb = Odb::open(Arc::new(storage)).expect("opens");
    for chunk in vector["chunks"].as_array().expect("chunks") {
        let id = ChunkId::from_bytes(hex(&chunk[0]).try_into().expect("32 bytes"));
        // Of another length than 0 it is, once it was read.
        if chunk[1].is_null() && matches!(odb.read_chunk(&id, 0), Err(OdbError::WrongLength { .. })) {
            return Err(format!("a chain of more than 64 chunks was followed to {id}"));
        }
    }
    Ok(())
}

#[test]
fn a_chain_that_nobody_bounds_turns_row_22_red() {
    let start = Instant::now();
    assert_eq!(read_long_chains(), Ok(()));
    canary::follow_any_chain(true);
    let outcome = read_long_chains();
    canary::follow_any_chain(false);
    outcome.expect_err("a long chain is read");
    assert!(start.elapsed() < WITHIN);
}

#[test]
fn a_tree_that_is_not_canonical_and_accepted_turns_row_23_red() {
    let start = Instant::now();
    assert_eq!(read_trees(), Ok(()));
    accept_non_canonical(true);
    let outcome = read_trees();
    accept_non_canonical(false);
    outcome.expect_err("a tree has two encodings");
    assert!(start.elapsed() < WITHIN);
}
