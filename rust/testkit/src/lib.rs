//! Whole repositories on a disk that fails: what the crash tests are made of. No release has it.
//!
//! | file           | what it is                                                                       |
//! |----------------|----------------------------------------------------------------------------------|
//! | `process.rs`   | one process: a handle on a repository of a simulated disk, and its line of commits |
//! | `model.rs`     | what a repository should be, as plain tables; knows nothing of files               |
//! | `session.rs`   | processes and the model side by side; when which change was acknowledged           |
//! | `scenarios.rs` | what is tried                                                                    |
//! | `check.rs`     | what must hold of a disk afterwards (`reliability.md`, section 1)                  |
//! | `leases.rs`    | makes the leases on a disk those of the dead                                       |
//! | `explore.rs`   | goes through all crashes of a session                                              |
//! | `faulty.rs`    | plays a scenario on a disk of which a call fails                                   |
//!
//! A scenario is played once and recorded; every crash of it is then made from the record. What must be there after a
//! crash follows from the model and from how far the record had come when each change was acknowledged.
//!
//! `GRADIENT_CRASH_STATES` sets how many states are tried after each change, `GRADIENT_CRASH_ONLY` which scenarios.
#![forbid(unsafe_code)]

mod check;
mod explore;
mod faulty;
mod leases;
mod model;
mod process;
mod scenarios;
mod session;

pub use check::{Allowed, check, check_live, refs_of};
pub use explore::{Tally, crashes, explore, explore_next, in_parallel, is_wanted, names_in_doubt, num_states, recover};
pub use faulty::{Faulty, Outcome};
pub use leases::bury;
pub use model::{Model, Refused, World};
pub use process::{Action, DIR, Goto, Performed, Process, content, limits, open_storage};
pub use scenarios::{Scenario, scenarios, sequences};
pub use session::{Moment, Move, Session};
