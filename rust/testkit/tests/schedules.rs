//! Row 14 of `reliability.md`: several processes at once, one schedule after the other, each held to the model.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use gradient_repo::{ErrorClass, Progress, Target, repair};
use gradient_testkit::{
    Crew, Done, Fate, Interleaver, Performed, Played, Points, Race, Strategy, Tally, bury, in_parallel, is_wanted,
    judge, open_storage, refs_of,
};

/// How many schedules are tried of each race: `GRADIENT_SCHEDULES`, or `usual`.
fn num_schedules(usual: usize) -> usize {
    std::env::var("GRADIENT_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

type Judge = fn(&Race, &Played) -> Result<(), String>;

fn play(
    race: &Race,
    crew: &Crew,
    points: Points,
    strategy: &Strategy,
    tally: &Tally,
) -> Result<Arc<Interleaver>, String> {
    play_and(judge, race, crew, (points, strategy), tally)
}

fn play_and(
    judge: Judge,
    race: &Race,
    crew: &Crew,
    (points, strategy): (Points, &Strategy),
    tally: &Tally,
) -> Result<Arc<Interleaver>, String> {
    tally.count();
    let failed = |error: String| format!("{}, {points:?}, {strategy:?}: {error}", race.name);
    let played = race.play(crew, points, strategy.clone()).map_err(failed)?;
    judge(race, &played).map_err(failed)?;
    Ok(played.interleaver)
}

fn one_by_one(first: usize) -> Strategy {
    Strategy::Preempt { first, at: Vec::new(), num_done: 0 }
}

/// Plays a row for each race that is wanted, on two at a time, and tells how many schedules that were.
fn row(name: &str, races: &[&str], try_one: impl Fn(&Race, &Crew, &Tally) -> Result<(), String> + Sync) {
    let (tally, start) = (Tally::default(), Instant::now());
    let all = gradient_testkit::races().expect("the disks can be prepared");
    let is_meant = |race: &Race| races.is_empty() || races.contains(&race.name);
    let wanted: Vec<Race> = all.into_iter().filter(|race| is_meant(race) && is_wanted(race.name)).collect();
    let failures = Mutex::new(Vec::new());
    let outcome = in_parallel(&wanted, |race| {
        let outcome = try_one(race, &Crew::new(race.scripts.len()), &tally);
        failures.lock().expect("nobody panics").extend(outcome.err());
        Ok(())
    });
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("row 14, {name}: {} races, {} schedules, {seconds:.1} s", wanted.len(), tally.num_states());
    assert_eq!(outcome, Ok(()));
    let failures = failures.into_inner().expect("nobody panics");
    assert!(failures.is_empty(), "{} races fail:\n{}", failures.len(), failures.join("\n"));
}

/// Random walks over all calls, random walks over those that others can see, and PCT of depth 3, in turn.
#[test]
fn every_deed_has_its_place_among_the_operations_whatever_the_schedule() {
    row("drawn by lot", &[], |race, crew, tally| {
        let num_points = play(race, crew, Points::Shared, &one_by_one(0), tally)?.num_points().0;
        for seed in 1..num_schedules(50) as u64 {
            let (points, strategy) = match seed % 3 {
                0 => (Points::All, Strategy::walk(seed)),
                1 => (Points::Shared, Strategy::walk(seed)),
                _ => (Points::Shared, Strategy::priorities(seed, 3, race.scripts.len(), num_points)),
            };
            play(race, crew, points, &strategy, tally)?;
        }
        Ok(())
    });
}

/// Every schedule in which one process is interrupted by the next at most so often.
fn preempt_everywhere(race: &Race, crew: &Crew, num: usize, tally: &Tally) -> Result<(), String> {
    (0..race.scripts.len()).try_for_each(|first| preempt(judge, race, crew, (first, num, 1), tally))
}

/// The same, of those that one process begins; from one place of the last interruption to the next is a `stride`.
fn preempt(
    judge: Judge,
    race: &Race,
    crew: &Crew,
    (first, num, stride): (usize, usize, usize),
    tally: &Tally,
) -> Result<(), String> {
    let mut at: Vec<usize> = Vec::new();
    loop {
        let strategy = Strategy::Preempt { first, at: at.clone(), num_done: 0 };
        let played = play_and(judge, race, crew, (Points::Shared, &strategy), tally)?;
        let is_left_over = played.is_left_over();
        // One more interruption behind the last one; the last one later; the one before it later.
        if !is_left_over && at.len() < num {
            at.push(at.last().map_or(1, |last| last + 1));
            continue;
        }
        if is_left_over {
            at.pop();
        }
        let stride = if at.len() == num { stride } else { 1 };
        match at.last_mut() {
            Some(last) => *last += stride,
            None => return Ok(()),
        }
    }
}

#[test]
fn every_schedule_with_two_interruptions_of_two_tags_is_one_after_the_other() {
    let races = ["tag x tag", "tag x branch", "delete x delete"];
    row("all with two interruptions", &races, |race, crew, tally| preempt_everywhere(race, crew, 2, tally));
}

#[test]
fn every_schedule_with_one_interruption_is_one_after_the_other() {
    let races = ["commit x commit", "commit x undo", "undo x undo", "commit x delete", "commit x collector"];
    row("all with one interruption", &races, |race, crew, tally| preempt_everywhere(race, crew, 1, tally));
}

/// What was acknowledged is there after the repairs, or one more of them; what was not is refused for the damage.
fn survives_a_torn_head(race: &Race, played: &Played) -> Result<(), String> {
    let failed = |error: String| format!("{error}\n  schedule: {}", played.interleaver.schedule());
    let mut acknowledged = Vec::new();
    for done in played.done.iter().flatten() {
        match &done.fate {
            Fate::Wrong(what) => return Err(failed(what.clone())),
            Fate::Performed(Ok(Performed::Commit(outcome))) => acknowledged.push(outcome.clone()),
            Fate::Performed(Err(error)) if !matches!(error.class(), ErrorClass::Corruption | ErrorClass::Conflict) => {
                return Err(failed(format!("it is refused: {error}")));
            }
            _ => {}
        }
    }
    let mend = || {
        bury(&played.disk);
        let storage = open_storage(&played.disk).map_err(|error| error.to_string())?;
        repair(&storage, true, &Progress::new()).map_err(|error| format!("a further repair: {error}"))
    };
    // What tore last may have been torn after the repairs.
    mend().map_err(failed)?;
    let left = mend().map_err(failed)?.left;
    let found = refs_of(&played.disk).map_err(failed)?;
    for outcome in &acknowledged {
        if found.get(&outcome.branch) != Some(&Target::Branch(outcome.commit)) {
            return Err(failed(format!("{outcome:?} was acknowledged, and refs are {found:?}")));
        }
    }
    let lost: Vec<_> = race.model.world.table.iter().filter(|(name, _)| !found.contains_key(*name)).collect();
    // The operation that is torn made a tag; it may go with it.
    if lost.iter().any(|(name, _)| *name != "v1") {
        return Err(failed(format!("lost: {lost:?}")));
    }
    // An operation behind which another one was published is damaged for ever; that another does not follow is nothing
    // that a tear does.
    if left.iter().any(|finding| !finding.file.starts_with("ops/") || !finding.what.contains("checksum")) {
        return Err(failed(format!("left: {left:?}")));
    }
    Ok(())
}

#[test]
fn a_commit_beside_the_repair_of_a_torn_head_is_there_or_was_never_acknowledged() {
    let (tally, start) = (Tally::default(), Instant::now());
    let race = gradient_testkit::torn_head().expect("the disk can be prepared");
    let crew = Crew::new(race.scripts.len());
    let wanted = if num_schedules(0) == 0 { [(0, 1, 1), (1, 2, 53)] } else { [(0, 2, 1), (1, 2, 1)] };
    let outcome = wanted.iter().try_for_each(|which| preempt(survives_a_torn_head, &race, &crew, *which, &tally));
    eprintln!("row 14, torn head: {} schedules, {:.1} s", tally.num_states(), start.elapsed().as_secs_f64());
    assert_eq!(outcome, Ok(()));
}

#[test]
fn a_process_that_is_stopped_anywhere_for_longer_than_its_lease_goes_on_rightly() {
    let races = [
        "commit x commit",
        "commit x fold",
        "commit x merge",
        "commits that merge",
        "merge x merge",
        "fold x fold x commit",
        "commit x undo",
        "undo x undo",
        "commit x collector",
        "commit x two collectors",
        "undo x collector",
        "merge x collector x commit",
        "merge x greedy collector",
        "merge x greedy collector x commit",
        "two greedy collectors x commit",
        "repair x commit",
        "repair of a pack x commit",
        "reader x merge x greedy collector",
        "full fsck x commit x merge",
        "quick fsck x commit x merge",
        "full fsck x commit x fold",
        "looking x commit x merge",
        "reader x commit x merge",
        "reader x commit x fold",
        "opening x commit x merge",
        "opening x commit x fold",
    ];
    row("stopped", &races, |race, crew, tally| anyone_anywhere(race, crew, tally, Strategy::stop));
}

#[test]
fn a_process_that_is_killed_anywhere_leaves_the_others_alone() {
    let races = [
        "commit x commit",
        "commit x fold",
        "commits that merge",
        "merge x merge",
        "fold x fold x commit",
        "undo x undo",
        "two greedy collectors x commit",
        "merge x greedy collector x commit",
        "commit x collector",
        "undo x collector",
        "repair x commit",
    ];
    row("killed", &races, |race, crew, tally| anyone_anywhere(race, crew, tally, Strategy::kill));
}

/// Something happens to one process at one of its points: to each process in turn. Of all but the first not each point is
/// tried at PR size.
fn anyone_anywhere(
    race: &Race,
    crew: &Crew,
    tally: &Tally,
    strategy: fn(usize, usize, u64) -> Strategy,
) -> Result<(), String> {
    for who in 0..race.scripts.len() {
        let stride = if who > 0 && num_schedules(0) == 0 { 5 * step(race) } else { step(race) };
        for at in (1 + who..).step_by(stride) {
            let played = play(race, crew, Points::All, &strategy(who, at, at as u64), tally)?;
            if played.is_left_over() {
                break;
            }
        }
    }
    Ok(())
}

/// Where there are many calls that read one pack after the other, not each of them is tried at PR size.
fn step(race: &Race) -> usize {
    let reads_all = race.name.contains("fold") || race.name.contains("merge") || race.name.contains("greedy");
    if reads_all && num_schedules(0) == 0 { 3 } else { 1 }
}

/// A collector comes to its end beside a writer that never rests, and marks only what came since its last attempt.
#[test]
fn a_collector_is_not_starved_by_a_writer_that_never_rests() {
    let all = gradient_testkit::races().expect("the disks can be prepared");
    let race = all.iter().find(|race| race.name == "a busy writer x collector").expect("there is one");
    let (crew, tally) = (Crew::new(2), Tally::default());
    let mut num_lost = 0;
    for seed in 1..num_schedules(20) as u64 {
        let played = race.play(&crew, Points::Shared, Strategy::walk(seed)).expect("it is played");
        judge(race, &played).expect("as the model");
        tally.count();
        let [Done { fate: Fate::Collected(collected), head_before, head_after, .. }] = &played.done[1][..] else {
            panic!("the collector fails: {:?}", played.done[1]);
        };
        let published = head_after - head_before;
        assert!(collected.num_attempts as u64 <= published, "{collected:?}, {published} operations meanwhile");
        let (first, later) = collected.marked.split_first().expect("it marks");
        assert!(*first >= 2 && later.iter().sum::<usize>() as u64 <= published, "{collected:?}");
        num_lost += later.len();
    }
    assert!(num_lost > 0, "it was never interrupted");
}

#[test]
fn the_same_strategy_plays_the_same_schedule() {
    let all = gradient_testkit::races().expect("the disks can be prepared");
    let crew = Crew::new(3);
    for race in all.iter().filter(|race| race.name.starts_with("commit")) {
        for strategy in [Strategy::walk(7), Strategy::priorities(7, 3, race.scripts.len(), 100)] {
            let play = || race.play(&crew, Points::All, strategy.clone()).expect("it is played").interleaver.schedule();
            assert_eq!(play(), play(), "{}", race.name);
        }
    }
}
