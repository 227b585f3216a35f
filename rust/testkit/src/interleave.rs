//! Simulated processes over one disk, of which one goes on at a time: a baton.
//!
//! Every call that a process makes of the disk is a point at which another one may go on instead. Which one does is said
//! by a [`Strategy`], so that the same strategy plays the same schedule again. A process is a thread that does all its
//! work itself; whoever has not the baton waits before its next call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use gradient_storage::sim::{Call, CallKind, Gate, SimErrno, SimFs};

use crate::leases::bury_one;
use crate::process::DIR;
use crate::strategy::{Choice, Strategy, View};

/// After so many points nobody is waited for any more.
const POINTS_MAX: usize = 200_000;

/// At which calls another process may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// At every one.
    All,
    /// Where files get, lose or have names that others look for. What a process writes before it has a name concerns
    /// nobody.
    Shared,
}

impl Points {
    fn has(self, call: &Call) -> bool {
        let shared = || {
            let looks = matches!(
                call.kind,
                CallKind::Stat
                    | CallKind::OpenFile
                    | CallKind::List
                    | CallKind::RenameNoReplace
                    | CallKind::Rename
                    | CallKind::Link
                    | CallKind::Unlink
            );
            looks && !call.path.starts_with("leases") && !call.path.starts_with("cache")
        };
        self == Self::All || shared()
    }
}

/// Who published an operation, and with which of its deeds.
pub type Publishers = BTreeMap<u64, (usize, usize)>;

/// The baton.
#[derive(Debug)]
pub struct Interleaver {
    disk: SimFs,
    points: Points,
    state: Mutex<State>,
    turns: Vec<Condvar>,
    all_ended: Condvar,
}

struct State {
    strategy: Strategy,
    /// Who goes on; none before the beginning and after the end.
    turn: Option<usize>,
    is_running: Vec<bool>,
    is_killed: Vec<bool>,
    /// Points that each process has come to.
    steps: Vec<usize>,
    /// Points in all.
    num_points: usize,
    num_switches: usize,
    leases: BTreeMap<usize, String>,
    buried: BTreeSet<usize>,
    publishers: Publishers,
    deeds: Vec<usize>,
    /// What was done in turn: who, and how many points in a row.
    turns: Vec<(usize, usize)>,
    is_open: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({:?}, turns {:?})", self.strategy, self.turns)
    }
}

impl Interleaver {
    /// Lets so many processes on a disk take turns.
    pub fn new(disk: &SimFs, num_processes: usize, points: Points, strategy: Strategy) -> Arc<Self> {
        let state = State {
            strategy,
            turn: None,
            is_running: vec![true; num_processes],
            is_killed: vec![false; num_processes],
            steps: vec![0; num_processes],
            num_points: 0,
            num_switches: 0,
            leases: BTreeMap::new(),
            buried: BTreeSet::new(),
            publishers: BTreeMap::new(),
            deeds: vec![0; num_processes],
            turns: Vec::new(),
            is_open: true,
        };
        Arc::new(Self {
            disk: disk.clone(),
            points,
            state: Mutex::new(state),
            turns: (0..num_processes).map(|_| Condvar::new()).collect(),
            all_ended: Condvar::new(),
        })
    }

    /// Returns the way of one process to the disk.
    pub fn way(self: &Arc<Self>, who: usize) -> SimFs {
        self.disk.through(Arc::new(Way { interleaver: Arc::clone(self), who }))
    }

    /// The disk, past everybody's turn.
    pub fn disk(&self) -> &SimFs {
        &self.disk
    }

    /// Lets the first process go on, and waits until all have ended.
    pub fn run(&self) {
        let mut state = self.lock();
        state.is_open = false;
        let first = state.choose(None).0;
        self.hand_over(&mut state, first);
        while state.turn.is_some() {
            state = self.all_ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_open = true;
    }

    /// Waits for the first turn of a process.
    pub fn begin(&self, who: usize) {
        drop(self.wait(self.lock(), who));
    }

    /// Says that a process begins its next deed; returns the number of the newest operation.
    pub fn begin_deed(&self, who: usize, deed: usize) -> u64 {
        self.lock().deeds[who] = deed;
        self.newest()
    }

    /// Returns the number of the newest operation.
    pub fn newest(&self) -> u64 {
        newest_operation(&self.disk)
    }

    /// Says that a process has ended.
    pub fn end(&self, who: usize) {
        let mut state = self.lock();
        state.is_running[who] = false;
        let next = if state.is_running.contains(&true) { state.choose(None).0 } else { None };
        self.hand_over(&mut state, next);
        self.all_ended.notify_all();
    }

    /// Says whether a process was killed.
    pub fn is_killed(&self, who: usize) -> bool {
        self.lock().is_killed[who]
    }

    /// Returns who published which operation.
    pub fn publishers(&self) -> Publishers {
        self.lock().publishers.clone()
    }

    /// Returns how many points there were, in all and of each process.
    pub fn num_points(&self) -> (usize, Vec<usize>) {
        let state = self.lock();
        (state.num_points, state.steps.clone())
    }

    /// Returns how often a process had to wait for another one though it could have gone on.
    pub fn num_switches(&self) -> usize {
        self.lock().num_switches
    }

    /// Says whether the strategy still had something to do when all had ended.
    pub fn is_left_over(&self) -> bool {
        self.lock().strategy.is_left_over()
    }

    /// The turns in words: `0x12 1x3` is twelve points of the first process, then three of the second.
    pub fn schedule(&self) -> String {
        let turns: Vec<String> = self.lock().turns.iter().map(|(who, points)| format!("{who}x{points}")).collect();
        turns.join(" ")
    }

    fn pass(&self, who: usize, call: &Call) -> Result<(), SimErrno> {
        let mut state = self.lock();
        if state.is_killed[who] {
            return Err(SimErrno::IO);
        }
        if let Some(lease) = call.path.strip_prefix("leases/").filter(|_| call.kind == CallKind::Rename) {
            state.leases.insert(who, lease.to_owned());
        }
        if state.is_open {
            return Ok(());
        }
        if self.points.has(call) {
            state = self.point(state, who)?;
        }
        if call.kind == CallKind::RenameNoReplace
            && let Some(n) = call.path.strip_prefix("ops/").and_then(|name| name.parse().ok())
            && n == newest_operation(&self.disk) + 1
        {
            let deed = state.deeds[who];
            state.publishers.insert(n, (who, deed));
        }
        Ok(())
    }

    fn point<'a>(&'a self, mut state: MutexGuard<'a, State>, who: usize) -> Result<MutexGuard<'a, State>, SimErrno> {
        state.steps[who] += 1;
        state.num_points += 1;
        if state.num_points > POINTS_MAX {
            // Nobody gets this far; those who do are made to stop.
            return Err(SimErrno::IO);
        }
        let (next, kills) = state.choose(Some(who));
        if kills {
            state.is_killed[who] = true;
            self.bury(&mut state, who);
            return Err(SimErrno::IO);
        }
        if next == Some(who) {
            match state.turns.last_mut() {
                Some((_, points)) => *points += 1,
                None => state.turns.push((who, 1)),
            }
            return Ok(state);
        }
        state.num_switches += 1;
        if state.strategy.stopped() == Some(who) {
            self.bury(&mut state, who);
        }
        self.hand_over(&mut state, next);
        let state = self.wait(state, who);
        if state.is_killed[who] { Err(SimErrno::IO) } else { Ok(state) }
    }

    /// Others see the lease of this process as that of a dead one.
    fn bury(&self, state: &mut State, who: usize) {
        if state.buried.insert(who)
            && let Some(lease) = state.leases.get(&who)
        {
            bury_one(&self.disk, lease);
        }
    }

    fn hand_over(&self, state: &mut State, next: Option<usize>) {
        state.turn = next;
        if let Some(next) = next {
            state.turns.push((next, 1));
            self.turns[next].notify_all();
        }
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, who: usize) -> MutexGuard<'a, State> {
        while state.turn != Some(who) {
            state = self.turns[who].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who goes on, and whether the one that asks is killed instead.
    fn choose(&mut self, who: Option<usize>) -> (Option<usize>, bool) {
        let can_run: Vec<usize> = (0..self.is_running.len()).filter(|at| self.is_running[*at]).collect();
        let view = View { who, can_run: &can_run, steps: &self.steps, point: self.num_points };
        match self.strategy.choose(&view) {
            // One that has ended can not go on, whatever is asked for.
            Choice::Go(next) if !can_run.contains(&next) => (can_run.first().copied(), false),
            Choice::Go(next) => (Some(next), false),
            Choice::Kill => (who, true),
        }
    }
}

/// The gate of one process.
#[derive(Debug)]
struct Way {
    interleaver: Arc<Interleaver>,
    who: usize,
}

impl Gate for Way {
    fn pass(&self, call: &Call) -> Result<(), SimErrno> {
        self.interleaver.pass(self.who, call)
    }
}

/// The number of the newest operation on a disk.
pub fn newest_operation(disk: &SimFs) -> u64 {
    let names = disk.names(&Path::new(DIR).join("ops"));
    let numbers = names.iter().map(|name| name.strip_prefix("folded-").unwrap_or(name));
    numbers.filter_map(|name| name.parse().ok()).max().unwrap_or(0)
}
