//! Commits whose chunks are differences to those of an earlier one: what is chosen, what comes back, and after what.

mod support;

use gradient_object::{CommitId, CommitKind, Flavor, Mapping, Tensor, Value};
use gradient_repo::{
    ByteSource, Coding, CommitOutcome, CommitRequest, Compression, Deltas, Progress, Repository, Storing,
};
use gradient_storage::{Folder, Storage};
use support::{FULL, check, new, reopen, weight};

/// Elements of the tensor: a little over two chunks.
const NUMEL: usize = 550_000;

/// What follows a state: numbers that a generator gives.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Values as weights have them.
    fn weights(&mut self, numel: usize) -> Vec<f32> {
        (0..numel).map(|_| f32::from((self.next() % 20_001) as u16) / 1e6 - 0.01).collect()
    }

    /// Moves each value a little, as a step does.
    fn step(&mut self, weights: &mut [f32]) {
        for weight in weights {
            *weight += f32::from((self.next() % 2001) as u16) / 1e8 - 1e-5;
        }
    }

    /// Moves one value in a thousand.
    fn small_step(&mut self, weights: &mut [f32]) {
        for at in 0..weights.len() / 1000 {
            weights[at * 1000 + self.next() as usize % 1000] *= 1.001;
        }
    }
}

fn bytes(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

/// A line of commits of one tensor.
struct Run<'a> {
    repo: &'a Repository,
    base: Option<CommitId>,
    step: u64,
    storing: Storing,
    dtype: &'static str,
    name: &'static str,
    made: Vec<(CommitId, Vec<u8>)>,
}

impl<'a> Run<'a> {
    fn new(repo: &'a Repository) -> Self {
        let storing = Storing::default();
        Self { repo, base: None, step: 0, storing, dtype: "float32", name: "weight", made: Vec::new() }
    }

    fn commit(&mut self, bytes: Vec<u8>) -> CommitOutcome {
        self.step += 1;
        let width = if self.dtype == "bfloat16" { 2 } else { 4 };
        let shape = vec![bytes.len() as u64 / width / 50, 50];
        let tensor = Tensor { flavor: Flavor::Torch, dtype: self.dtype.to_owned(), shape, order: None, data: 0 };
        let mut model: Mapping<usize> = Mapping::new();
        model.insert(self.name, Value::Tensor(tensor)).expect("a new name");
        let request = CommitRequest {
            branch: "main".to_owned(),
            base: self.base,
            first: self.step == 1,
            create: false,
            step: self.step,
            message: String::new(),
            metrics: Vec::new(),
            environment: Mapping::new(),
            sections: [("model".to_owned(), [("main".to_owned(), Value::Map(model))].into())].into(),
            sources: vec![&bytes as &dyn ByteSource],
            storing: self.storing,
        };
        let outcome = self.repo.commit(&request, &Progress::new()).expect("a commit");
        self.base = Some(outcome.commit);
        self.made.push((outcome.commit, bytes));
        outcome
    }

    /// Every commit comes back bit for bit, here and in another process.
    fn assert_all_come_back(&self, storage: &std::sync::Arc<gradient_storage::MemoryStorage>) {
        let other = reopen(storage);
        for (commit, bytes) in &self.made {
            assert!(weight(self.repo, commit) == *bytes);
            assert!(weight(&other, commit) == *bytes);
        }
        let report = check(storage, FULL).expect("a report");
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn dense_steps_become_deltas_of_one_anchor_and_come_back() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(1));
    let mut weights = chance.weights(NUMEL);
    assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Anchor);
    for _ in 0..4 {
        chance.step(&mut weights);
        let outcome = run.commit(bytes(&weights));
        assert_eq!(outcome.kind, CommitKind::Delta);
        assert!(outcome.added_len < outcome.raw_len * 3 / 4, "{} of {}", outcome.added_len, outcome.raw_len);
    }
    run.assert_all_come_back(&storage);
}

#[test]
fn sparse_steps_become_a_chain_that_costs_little_and_ends() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(2));
    let mut weights = chance.weights(NUMEL);
    run.commit(bytes(&weights));
    let mut kinds = Vec::new();
    for _ in 0..70 {
        chance.small_step(&mut weights);
        let outcome = run.commit(bytes(&weights));
        assert!(outcome.added_len < outcome.raw_len / 100 || outcome.kind == CommitKind::Anchor);
        kinds.push(outcome.kind);
    }
    assert!(kinds.iter().filter(|kind| **kind == CommitKind::Delta).count() > 60);
    run.assert_all_come_back(&storage);
}

#[test]
fn a_run_that_is_resumed_takes_its_deltas_against_the_commit_it_came_from() {
    let (storage, repo) = new();
    let mut chance = Chance(3);
    let mut weights = chance.weights(NUMEL);
    let mut first = Run::new(&repo);
    first.commit(bytes(&weights));
    chance.small_step(&mut weights);
    first.commit(bytes(&weights));
    let other = reopen(&storage);
    let mut resumed = Run { repo: &other, step: first.step, base: first.base, ..Run::new(&other) };
    chance.small_step(&mut weights);
    let outcome = resumed.commit(bytes(&weights));
    assert_eq!(outcome.kind, CommitKind::Delta);
    assert!(outcome.added_len < outcome.raw_len / 100);
    first.assert_all_come_back(&storage);
    resumed.assert_all_come_back(&storage);
}

#[test]
fn tensors_that_grow_shrink_are_renamed_or_change_their_dtype_come_back() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(4));
    let mut weights = chance.weights(NUMEL);
    run.commit(bytes(&weights));
    chance.step(&mut weights);
    weights.extend(chance.weights(5_000));
    assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Delta, "what was there is near what is there now");
    chance.step(&mut weights);
    weights.truncate(NUMEL - 50_000);
    assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Delta);
    run.dtype = "int32";
    chance.step(&mut weights);
    assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Anchor, "bits of another kind are no base");
    run.dtype = "bfloat16";
    run.commit(bytes(&weights));
    run.name = "renamed";
    let outcome = run.commit(bytes(&weights));
    assert!(outcome.added_len < 4096, "content is addressed by what it is");
    run.assert_all_come_back(&storage);
}

#[test]
fn what_is_there_again_is_not_written_again() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(5));
    let mut weights = chance.weights(NUMEL);
    run.commit(bytes(&weights));
    let before = bytes(&weights);
    chance.step(&mut weights);
    run.commit(bytes(&weights));
    let outcome = run.commit(before);
    assert!(outcome.added_len < 4096);
    chance.step(&mut weights);
    assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Delta);
    run.assert_all_come_back(&storage);
}

#[test]
fn nothing_is_a_delta_where_none_is_wanted_or_nothing_may_be_kept() {
    let wanted = [
        Storing { coding: Coding { compression: Compression::Auto, deltas: Deltas::Off }, ..Storing::default() },
        Storing { coding: Coding { compression: Compression::Off, deltas: Deltas::Off }, ..Storing::default() },
        Storing { resident_max: 100_000, ..Storing::default() },
    ];
    for storing in wanted {
        let (storage, repo) = new();
        let (mut run, mut chance) = (Run { storing, ..Run::new(&repo) }, Chance(6));
        let mut weights = chance.weights(NUMEL);
        let first = run.commit(bytes(&weights));
        for _ in 0..2 {
            chance.step(&mut weights);
            assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Anchor);
        }
        let is_said = first.notices.iter().any(|notice| notice.contains("staging_bytes_max"));
        assert_eq!(is_said, storing.resident_max == 100_000, "{:?}", first.notices);
        run.assert_all_come_back(&storage);
    }
}

#[test]
fn an_interval_bounds_how_many_commits_follow_an_anchor() {
    let (storage, repo) = new();
    let storing = Storing { reanchor_interval: Some(2), ..Storing::default() };
    let (mut run, mut chance) = (Run { storing, ..Run::new(&repo) }, Chance(7));
    let mut weights = chance.weights(NUMEL);
    let kinds: Vec<CommitKind> = (0..7)
        .map(|_| {
            chance.step(&mut weights);
            run.commit(bytes(&weights)).kind
        })
        .collect();
    let is_anchor: Vec<bool> = kinds.iter().map(|kind| *kind == CommitKind::Anchor).collect();
    assert_eq!(is_anchor, [true, false, false, true, false, false, true]);
    run.assert_all_come_back(&storage);
}

#[test]
fn no_id_depends_on_how_anything_is_stored() {
    let roots: Vec<_> = [Deltas::Off, Deltas::Auto, Deltas::All]
        .into_iter()
        .map(|deltas| {
            let (_, repo) = new();
            let storing = Storing { coding: Coding { compression: Compression::Auto, deltas }, ..Storing::default() };
            let (mut run, mut chance) = (Run { storing, ..Run::new(&repo) }, Chance(8));
            let mut weights = chance.weights(NUMEL);
            run.commit(bytes(&weights));
            chance.step(&mut weights);
            run.commit(bytes(&weights)).root
        })
        .collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_base_that_is_damaged_on_the_disk_is_none() {
    let (storage, repo) = new();
    let mut chance = Chance(9);
    let mut weights = chance.weights(NUMEL);
    let mut run = Run::new(&repo);
    run.commit(bytes(&weights));
    let anchors = support::all(&storage);
    let (key, pack) = anchors.iter().find(|(key, _)| key.folder() == Folder::Packs).expect("a pack");
    let mut spoiled = pack.clone();
    for at in (100..spoiled.len() / 2).step_by(50_000) {
        spoiled[at] ^= 1;
    }
    support::put(&storage, key, &spoiled);
    let other = reopen(&storage);
    let mut resumed = Run { repo: &other, step: run.step, base: run.base, ..Run::new(&other) };
    chance.step(&mut weights);
    resumed.commit(bytes(&weights));
    let (commit, bytes) = resumed.made.last().expect("it was just made");
    assert!(weight(&reopen(&storage), commit) == *bytes, "what is new needs nothing that is damaged");
}

#[test]
fn what_is_coded_against_a_pack_that_is_gone_is_lost_and_said_to_be_without_reading_it() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(10));
    let mut weights = chance.weights(NUMEL);
    run.commit(bytes(&weights));
    let (anchor, _) =
        support::all(&storage).into_iter().find(|(key, _)| key.folder() == Folder::Packs).expect("a pack");
    chance.step(&mut weights);
    run.commit(bytes(&weights));
    let fresh: Vec<f32> = chance.weights(NUMEL);
    assert_eq!(run.commit(bytes(&fresh)).kind, CommitKind::Anchor);
    storage.delete(&anchor).expect("was there");
    let options = gradient_repo::FsckOptions { level: gradient_repo::FsckLevel::Metadata, sample_percent: 0.0 };
    let report = check(&storage, options).expect("a report");
    // The first commit itself, and the environment of all three, lay in that pack too.
    let lacks_chunks = |commit| report.lost.get(commit).is_some_and(|why| why.starts_with("chunk"));
    let lost: Vec<bool> = run.made.iter().map(|(commit, _)| lacks_chunks(commit)).collect();
    assert_eq!(lost, [false, true, false], "{:?}", report.lost);
}

#[test]
fn a_chunk_whose_copy_is_damaged_is_written_again_and_stands_by_itself() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(11));
    let mut weights = chance.weights(NUMEL);
    run.commit(bytes(&weights));
    let first = bytes(&weights);
    let (key, mut pack) =
        support::all(&storage).into_iter().find(|(key, _)| key.folder() == Folder::Packs).expect("a pack");
    chance.small_step(&mut weights);
    run.commit(bytes(&weights));
    pack[500] ^= 1;
    support::put(&storage, &key, &pack);
    let other = reopen(&storage);
    let mut resumed = Run { repo: &other, step: run.step, base: run.base, ..Run::new(&other) };
    resumed.commit(first.clone());
    let (commit, _) = resumed.made.last().expect("it was just made");
    assert!(weight(&reopen(&storage), commit) == first);
}

#[test]
fn a_job_that_is_resumed_for_each_commit_stays_readable() {
    for is_sparse in [true, false] {
        let (storage, repo) = new();
        let mut chance = Chance(12);
        let mut weights = chance.weights(20_000);
        let mut run = Run::new(&repo);
        run.commit(bytes(&weights));
        let (mut base, mut step, mut made, mut num_deltas) = (run.base, run.step, run.made, 0);
        for _ in 0..70 {
            let other = reopen(&storage);
            let mut resumed = Run { repo: &other, step, base, ..Run::new(&other) };
            if is_sparse {
                chance.small_step(&mut weights);
            } else {
                chance.step(&mut weights);
            }
            num_deltas += u32::from(resumed.commit(bytes(&weights)).kind == CommitKind::Delta);
            (base, step) = (resumed.base, resumed.step);
            made.extend(resumed.made);
        }
        assert!(num_deltas > 50, "{num_deltas}");
        let last = reopen(&storage);
        for (commit, bytes) in &made {
            assert!(weight(&last, commit) == *bytes);
        }
        assert!(check(&storage, FULL).expect("a report").is_clean());
    }
}

#[test]
fn commits_that_go_on_from_two_places_in_turn_stay_readable() {
    let (storage, repo) = new();
    let mut run = Run::new(&repo);
    let mut chance = Chance(13);
    let mut weights = [chance.weights(20_000), chance.weights(20_000)];
    let mut bases = [None, None];
    for turn in 0..140 {
        let which = turn % 2;
        chance.small_step(&mut weights[which]);
        run.base = bases[which];
        run.commit(bytes(&weights[which]));
        bases[which] = run.base;
    }
    run.assert_all_come_back(&storage);
}

#[test]
fn a_delta_is_read_as_long_as_any_copy_of_its_base_is_good() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(14));
    let mut weights = chance.weights(20_000);
    run.commit(bytes(&weights));
    let first = bytes(&weights);
    let (key, mut pack) =
        support::all(&storage).into_iter().find(|(key, _)| key.folder() == Folder::Packs).expect("a pack");
    for _ in 0..3 {
        chance.small_step(&mut weights);
        run.commit(bytes(&weights));
    }
    pack[500] ^= 1;
    support::put(&storage, &key, &pack);
    let other = reopen(&storage);
    let mut resumed = Run { repo: &other, step: run.step, base: run.base, ..Run::new(&other) };
    resumed.commit(first);
    for _ in 0..8 {
        // Which copy of the anchor the index names is drawn anew each time.
        let reader = reopen(&storage);
        for (commit, bytes) in run.made.iter().skip(1).chain(&resumed.made) {
            assert!(weight(&reader, commit) == *bytes);
        }
    }
}

#[test]
fn a_state_that_was_committed_already_leaves_its_bases_in_memory() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(15));
    let mut weights = chance.weights(20_000);
    run.commit(bytes(&weights));
    let (anchor, whole) =
        support::all(&storage).into_iter().find(|(key, _)| key.folder() == Folder::Packs).expect("a pack");
    chance.small_step(&mut weights);
    run.commit(bytes(&weights));
    run.step -= 1;
    assert!(run.commit(bytes(&weights)).existing);
    // Nothing is read from the disk for the next one.
    let mut spoiled = whole.clone();
    spoiled[500] ^= 1;
    support::put(&storage, &anchor, &spoiled);
    chance.small_step(&mut weights);
    assert_eq!(run.commit(bytes(&weights)).kind, CommitKind::Delta);
    support::put(&storage, &anchor, &whole);
    run.assert_all_come_back(&storage);
}

#[test]
fn the_first_commit_after_a_resume_reads_no_base_that_may_not_be_kept() {
    let (storage, repo) = new();
    let (mut run, mut chance) = (Run::new(&repo), Chance(16));
    let mut weights = chance.weights(20_000);
    run.commit(bytes(&weights));
    chance.small_step(&mut weights);
    for (resident_max, expected) in [(79_999, CommitKind::Anchor), (80_000, CommitKind::Delta)] {
        let other = reopen(&storage);
        let storing = Storing { resident_max, ..Storing::default() };
        let mut resumed = Run { repo: &other, step: run.step, base: run.base, storing, ..Run::new(&other) };
        let outcome = resumed.commit(bytes(&weights));
        assert_eq!(outcome.kind, expected);
        assert!(outcome.notices.iter().any(|notice| notice.contains("staging_bytes_max")));
        chance.small_step(&mut weights);
    }
}
