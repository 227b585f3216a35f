//! `format` and `config.json`.

use gradient_storage::Storage;

use super::{FsckReport, Severity};
use crate::error::{RepoError, Result};
use crate::format_file::{Config, FormatFile};

pub(super) fn check(storage: &dyn Storage, report: &mut FsckReport) -> Result<()> {
    let format = FormatFile::read(storage);
    report.take(format)?;
    match Config::read(storage) {
        Ok(_) => Ok(()),
        // People edit it: not what it was, perhaps, but not what it must be.
        Err(error @ RepoError::Invalid { .. }) => {
            let what = format!("{error}; mend or delete it: no commit needs it");
            report.add(Severity::Error, "config.json", what);
            Ok(())
        }
        Err(error) => report.take::<Config>(Err(error)).map(drop),
    }
}
