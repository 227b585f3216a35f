//! Whole repositories on a disk that fails: what the crash tests are made of. No release has it.
//!
//! | file           | what it is                                                                         |
//! |----------------|------------------------------------------------------------------------------------|
//! | `disk.rs`      | where a repository lies: on a simulated disk or in a real folder                     |
//! | `process.rs`   | one process: a handle on a repository, and its line of commits                       |
//! | `attempt.rs`   | one thing that a process tries, and what the model makes of what came of it          |
//! | `model.rs`     | what a repository should be, as plain tables; knows nothing of files                 |
//! | `session.rs`   | processes and the model side by side; when which change was acknowledged             |
//! | `scenarios.rs` | what is tried                                                                        |
//! | `check.rs`     | what must hold of a disk afterwards (`reliability.md`, section 1)                    |
//! | `leases.rs`    | makes the leases on a disk those of the dead                                         |
//! | `explore.rs`   | goes through all crashes of a session                                                |
//! | `faulty.rs`    | plays a scenario on a disk of which a call fails                                     |
//! | `interleave.rs`| processes of which one goes on at a time: a baton                                  |
//! | `strategy.rs`  | who goes on at each point of a schedule                                            |
//! | `race.rs`      | what several processes do at once, played to one schedule                          |
//! | `races.rs`     | the races that are tried                                                           |
//! | `judge.rs`     | holds a race to the model: every deed has its place among the operations           |
//! | `collector.rs` | a collector of garbage, for tests only                                             |
//! | `readers/`     | what must hold of every reader of bytes; fuzzed, and replayed by `cargo test`        |
//!
//! A scenario is played once and recorded; every crash of it is then made from the record. What must be there after a
//! crash follows from the model and from how far the record had come when each change was acknowledged.
//!
//! The same scenarios are played by a process that really dies:
//!
//! | file               | what it is                                                                     |
//! |--------------------|--------------------------------------------------------------------------------|
//! | `bin/drive.rs`     | the process: plays in a folder, tells what it has acknowledged                   |
//! | `play.rs`          | how it plays, and the lines that it tells                                        |
//! | `racing.rs`        | lets another process come first just before it publishes                         |
//! | `replay.rs`        | the model of what was told                                                       |
//! | `driver.rs`        | builds and runs it, under `shim/shim.c`: numbered system calls that fail or kill |
//! | `full.rs`          | plays on a file system that is really full                                       |
//!
//! `GRADIENT_CRASH_STATES` sets how many states are tried after each change, `GRADIENT_SCHEDULES` how many
//! schedules of each race, `GRADIENT_CRASH_ONLY` which scenarios and races;
//! `GRADIENT_KILL=all` lets all scenarios be killed, on a disk.
#![forbid(unsafe_code)]

mod attempt;
mod check;
mod collector;
mod disk;
mod driver;
mod explore;
mod faulty;
mod full;
mod interleave;
mod judge;
mod leases;
mod model;
mod play;
mod process;
mod race;
mod races;
mod racing;
pub mod readers;
mod replay;
mod scenarios;
mod session;
mod strategy;

pub use attempt::{Attempt, Came, Line};
pub use check::{Allowed, check, check_live, refs_of};
pub use collector::{Collected, Greed, collect};
pub use disk::{Disk, RealDisk};
pub use driver::{Driver, Ended, Harm, Ready, When, check_after, is_all_wanted, tally};
pub use explore::{Tally, crashes, explore, explore_next, in_parallel, is_wanted, names_in_doubt, num_states, recover};
pub use faulty::{Faulty, Outcome};
pub use full::{Kind, clean, sweep};
pub use interleave::{Interleaver, Points, Publishers, newest_operation};
pub use judge::judge;
pub use leases::bury;
pub use model::{Made, Model, Refused, World};
pub use play::{Failed, Player, Tell, Told};
pub use process::{Action, DIR, Goto, Performed, Process, content, limits, open_storage};
pub use race::{Broken, Crew, Deed, Done, Fate, Played, Race, Script, tear_newest_operations};
pub use races::{ORPHAN, races, torn_head};
pub use replay::Replay;
pub use scenarios::{Scenario, scenarios, sequences};
pub use session::{Moment, Move, Session};
pub use strategy::{Choice, Strategy, View};
