//! Rows 3 and 16 of `reliability.md`: every short sequence of calls with a crash after each change, and long random ones
//! against the model.

use std::time::Instant;

use gradient_storage::sim::{Crash, CrashMode, Random, SimFs};
use gradient_testkit::{
    Action, Goto, Model, Move, Session, Tally, check, explore, in_parallel, is_wanted, num_states, sequences,
};

#[test]
fn every_sequence_of_two_calls_survives_a_crash_after_each_change() {
    if !is_wanted("sequences") {
        return;
    }
    let (tally, start) = (Tally::default(), Instant::now());
    let all = sequences();
    assert_eq!(all.len(), 12 + 144);
    let outcome = in_parallel(&all, |sequence| {
        let named = |error| format!("{:?}: {error}", sequence.moves);
        let session = sequence.record().map_err(named)?;
        // Crashes during the first of two were tried where it was alone.
        let from = if sequence.moves.len() > 2 { first_end(&session) } else { 0 };
        explore(&session, from, num_states(8).div_ceil(8), &tally).map_err(named)
    });
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("row 3: {} sequences, {} states, {seconds:.1} s", all.len(), tally.num_states());
    assert_eq!(outcome, Ok(()));
}

/// How many changes there were when the first call was acknowledged.
fn first_end(session: &Session) -> usize {
    let acknowledged = session.moments.iter().map(|moment| moment.acknowledged);
    acknowledged.filter(|at| *at > 0 && *at < session.disk.num_changes()).min().unwrap_or(0)
}

/// An action that need not succeed: the model knows whether it must.
fn some_action(random: &mut Random) -> Action {
    const NAMES: [&str; 6] = ["main", "exp", "trial", "v1", "v2", "own"];
    let mut name = || NAMES[random.index(NAMES.len())].to_owned();
    let (one, other) = (name(), name());
    match random.below(20) {
        0..=5 => Action::Commit((0..=random.below(3)).map(|_| random.below(12)).collect()),
        6 => Action::Line(one),
        7 => Action::Resume(one),
        8 => Action::Branch(one),
        9 => Action::Rename(one, other),
        10 => Action::DeleteBranch(one),
        11 => Action::Tag(one),
        12 => Action::DeleteTag(one),
        13 | 14 => Action::Undo,
        15 => Action::Redo,
        16 => Action::Checkout(match random.below(4) {
            0 => Goto::Branch(one),
            1 => Goto::New(one),
            2 => Goto::Unborn(one),
            _ => Goto::Newest,
        }),
        17 => Action::Maintain,
        18 => Action::Reopen,
        _ => Action::Refresh,
    }
}

/// Plays so many random actions of two processes; the power goes now and then.
fn play_at_random(seed: u64, num_actions: usize) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut session = Session::new(SimFs::new(), Model::default(), 1);
    for at in 0..num_actions {
        let play = Move { who: random.index(2), action: some_action(&mut random), meanwhile: None };
        let named = |error: String| format!("seed {seed}, action {at}, {play:?}: {error}");
        session.play(&play).map_err(named)?.map_err(|error| named(error.to_string()))?;
        session.compare_refs(play.who).map_err(named)?;
        if random.below(25) == 0 || at + 1 == num_actions {
            session.stop();
            let mode = CrashMode::ALL[random.index(CrashMode::ALL.len())];
            let crash = Crash { after: session.disk.num_changes(), mode, seed };
            let state = session.disk.crash(&crash);
            let model = session.model.clone();
            check(&state.kill(0), &[model.clone().into()]).map_err(|error| named(format!("{crash}: {error}")))?;
            gradient_testkit::bury(&state);
            session = Session::new(state, model, session.step());
        }
    }
    Ok(())
}

#[test]
fn a_repository_is_what_the_model_says_whatever_is_called() {
    let start = Instant::now();
    let (num_runs, num_actions) = if num_states(8) > 8 { (1000, 500) } else { (200, 75) };
    let seeds: Vec<u64> = (0..num_runs).collect();
    let outcome = in_parallel(&seeds, |seed| play_at_random(*seed, num_actions));
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("row 16: {num_runs} runs of {num_actions} calls, {seconds:.1} s");
    assert_eq!(outcome, Ok(()));
}
