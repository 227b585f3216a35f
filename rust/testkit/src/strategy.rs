//! Who goes on at each point of a schedule.

use std::collections::BTreeSet;

use gradient_storage::sim::Random;

/// What is known at a point.
#[derive(Debug)]
pub struct View<'a> {
    /// Who has come to a point; none where one ended or none has begun.
    pub who: Option<usize>,
    /// Processes that have not ended, rising.
    pub can_run: &'a [usize],
    /// Points that each process has come to, this one counted.
    pub steps: &'a [usize],
    /// Points in all.
    pub point: usize,
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This process goes on.
    Go(usize),
    /// The one that has come to the point dies before its call.
    Kill,
}

/// A way to choose; the same one chooses the same.
#[derive(Clone, Debug)]
pub enum Strategy {
    /// At one point in so many somebody else goes on, drawn by lot.
    Walk {
        /// What is drawn from.
        random: Random,
        /// Once in so many points.
        one_in: usize,
    },
    /// PCT: whoever has the highest priority goes on; at a few points drawn beforehand the one that runs falls behind
    /// all others. Finds a bug of depth d with a probability of at least 1 / (n k^(d-1)).
    Priorities {
        /// By process; the highest goes on.
        priorities: Vec<i64>,
        /// Points at which the one that runs falls behind.
        falls: BTreeSet<usize>,
    },
    /// One after the other in rising order, but for these points, at which the next one goes on.
    Preempt {
        /// Who begins.
        first: usize,
        /// Points in all, rising.
        at: Vec<usize>,
        /// How many of them have come.
        num_done: usize,
    },
    /// One process is stopped at a point of its own until all others have ended, for longer than its lease lives.
    Stop {
        /// Which one.
        who: usize,
        /// At which of its points, from 1.
        at: usize,
        /// It has come there.
        is_stopped: bool,
        /// Who of the others goes on.
        random: Random,
    },
    /// One process dies at a point of its own; all take turns drawn by lot.
    Kill {
        /// Which one.
        who: usize,
        /// At which of its points, from 1.
        at: usize,
        /// It is dead.
        is_done: bool,
        /// What is drawn from.
        random: Random,
    },
}

impl Strategy {
    /// A random walk; how often it turns depends on the seed.
    pub fn walk(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let one_in = [2, 4, 10, 40][random.index(4)];
        Self::Walk { random, one_in }
    }

    /// PCT of a depth, for so many processes and about so many points.
    pub fn priorities(seed: u64, depth: usize, num_processes: usize, num_points: usize) -> Self {
        let mut random = Random::new(seed);
        let mut priorities: Vec<i64> = (1..).take(num_processes).collect();
        for at in (1..num_processes).rev() {
            priorities.swap(at, random.index(at + 1));
        }
        let falls = (1..depth).map(|_| 1 + random.index(num_points)).collect();
        Self::Priorities { priorities, falls }
    }

    /// Stops a process at its point number `at`.
    pub fn stop(who: usize, at: usize, seed: u64) -> Self {
        Self::Stop { who, at, is_stopped: false, random: Random::new(seed) }
    }

    /// Kills a process at its point number `at`.
    pub fn kill(who: usize, at: usize, seed: u64) -> Self {
        Self::Kill { who, at, is_done: false, random: Random::new(seed) }
    }

    /// Who is stopped, and taken for dead by the others.
    pub(crate) fn stopped(&self) -> Option<usize> {
        match self {
            Self::Stop { who, is_stopped: true, .. } => Some(*who),
            Self::Stop { .. }
            | Self::Walk { .. }
            | Self::Priorities { .. }
            | Self::Preempt { .. }
            | Self::Kill { .. } => None,
        }
    }

    /// Says whether a point that it names did not come.
    pub fn is_left_over(&self) -> bool {
        match self {
            Self::Preempt { at, num_done, .. } => *num_done < at.len(),
            Self::Stop { is_stopped, .. } => !is_stopped,
            Self::Kill { is_done, .. } => !is_done,
            Self::Walk { .. } | Self::Priorities { .. } => false,
        }
    }

    pub(crate) fn choose(&mut self, view: &View<'_>) -> Choice {
        let drawn = |random: &mut Random, of: &[usize]| of.get(random.index(of.len())).copied();
        let stays = view.who.or(view.can_run.first().copied()).unwrap_or(0);
        Choice::Go(match self {
            Self::Walk { random, one_in } => {
                let turns = view.who.is_none() || random.index(*one_in) == 0;
                if turns { drawn(random, view.can_run).unwrap_or(stays) } else { stays }
            }
            Self::Priorities { priorities, falls } => {
                if let Some(who) = view.who
                    && falls.contains(&view.point)
                {
                    priorities[who] = -i64::try_from(view.point).unwrap_or(i64::MAX);
                }
                view.can_run.iter().copied().max_by_key(|who| priorities[*who]).unwrap_or(stays)
            }
            Self::Preempt { first, at, num_done } => {
                let next = |after: usize| {
                    let behind = view.can_run.iter().find(|who| **who > after);
                    behind.or(view.can_run.first()).copied().unwrap_or(after)
                };
                match view.who {
                    None if view.point == 0 && view.can_run.contains(first) => *first,
                    None => view.can_run.first().copied().unwrap_or(0),
                    Some(who) if at.get(*num_done) == Some(&view.point) => {
                        *num_done += 1;
                        next(who)
                    }
                    Some(who) => who,
                }
            }
            Self::Stop { who, at, is_stopped, random } => {
                if !*is_stopped && view.steps[*who] < *at && view.can_run.contains(who) {
                    return Choice::Go(*who);
                }
                *is_stopped = *is_stopped || view.steps[*who] >= *at;
                let others: Vec<usize> = view.can_run.iter().copied().filter(|other| other != who).collect();
                match view.who {
                    Some(running) if running != *who && random.index(8) != 0 => running,
                    _ => drawn(random, &others).unwrap_or(*who),
                }
            }
            Self::Kill { who, at, is_done, random } => {
                if view.who == Some(*who) && view.steps[*who] == *at {
                    *is_done = true;
                    return Choice::Kill;
                }
                let turns = view.who.is_none() || random.index(6) == 0;
                if turns { drawn(random, view.can_run).unwrap_or(stays) } else { stays }
            }
        })
    }
}
