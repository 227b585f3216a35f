//! A repository: one model's history.
//!
//! | part                    | what it is                                                            |
//! |-------------------------|-----------------------------------------------------------------------|
//! | [`Repository`]          | the handle: init, open, refresh, close                                 |
//! | [`Repository::commit`]  | the transaction: stage, hash, one pack, one operation                  |
//! | [`OperationLog`]        | the only truth about refs: publish by put-if-absent, fold              |
//! | [`Repository::resolve`] | what `branch@step`, a branch, a tag, `latest`, an id prefix mean       |
//! | [`Repository::history`] | commits in topological order; [`render`] makes text of them            |
//! | [`Repository::undo`]    | taking back any move of a ref                                          |
//! | [`fsck`]                | a check of everything, which changes nothing                           |
//! | [`repair`]              | moves aside what is damaged and can be done without                     |
//!
//! What a training state is, this crate does not know: it gets values and bytes, and gives them back.
//! Specified in `docs/format/operations.md` and `docs/format/repository.md`.
#![forbid(unsafe_code)]

mod class;
mod clock;
mod commit;
mod envelope;
mod error;
mod folded;
mod format_file;
mod fsck;
mod history;
mod lease;
mod line;
mod names;
mod operation;
mod oplog;
mod read;
#[cfg(feature = "simulated")]
pub mod readers;
mod record;
mod refs;
mod render;
mod repair;
mod replay;
mod repository;
mod resolve;
mod undo;
mod upkeep;

pub use clock::{iso8601, now_ns, relative};
pub use commit::{CommitOutcome, CommitRequest, Staged};
pub use error::{ErrorClass, Facts, RepoError, Result};
pub use format_file::{Config, FormatFile};
pub use fsck::{Finding, FsckLevel, FsckOptions, FsckReport, Severity, fsck};
pub use history::{LogQuery, LogRow, Unreadable};
pub use names::{check_name, nearest};
pub use operation::{By, Head, Operation, OperationKind, RefTable, Refs, Subject, Target};
pub use oplog::{HeadState, OperationLog, Published, UnreadableHead};
pub use read::tensor_digest;
pub use refs::Checkout;
pub use render::{LogFormat, LogStyle, render, size};
pub use repair::{Move, Repair, repair};
pub use replay::{RefChange, Replayed};
pub use repository::Repository;
pub use resolve::Resolved;
pub use undo::OperationRow;
pub use upkeep::UpkeepLimits;

pub use gradient_odb::{ByteSink, ByteSource, Coding, Compression, Deltas, Progress};
pub use line::Storing;
