//! For each failure: its class, its kebab-case code, a hint that can be acted on, and facts.

use gradient_object::CommitId;
use gradient_odb::OdbError;
use gradient_storage::StorageError;

use crate::error::{ErrorClass, Facts, RepoError};

const OLDER: &str = "other commits may be whole: gradient log --all, then gradient resume ID -- CMD";
const SHORTAGE: &str = "nothing is damaged: free some memory, then try again";
const OUT_OF_MEMORY: (ErrorClass, &str) = (ErrorClass::Storage, "out-of-memory");
// The number is that of Linux and macOS alike.
const ENOMEM: i32 = 12;

impl RepoError {
    /// What a caller would do next.
    pub fn class(&self) -> ErrorClass {
        self.kind().0
    }

    /// The code: kebab-case, never changed once released.
    pub fn code(&self) -> &'static str {
        self.kind().1
    }

    fn kind(&self) -> (ErrorClass, &'static str) {
        match self {
            Self::NotARepository { .. } => (ErrorClass::NotFound, "not-a-repository"),
            Self::RefNotFound { .. } => (ErrorClass::NotFound, "ref-not-found"),
            Self::EmptyBranch { .. } => (ErrorClass::NotFound, "empty-branch"),
            Self::LineBroken { .. } => (ErrorClass::Corruption, "broken-line"),
            Self::ComponentNotFound { .. } => (ErrorClass::NotFound, "component-not-found"),
            Self::AmbiguousPrefix { .. } => (ErrorClass::InvalidInput, "ambiguous-id"),
            Self::RefExists { .. } => (ErrorClass::AlreadyExists, "ref-exists"),
            Self::CaseCollision { .. } => (ErrorClass::AlreadyExists, "case-collision"),
            Self::BadName { .. } => (ErrorClass::InvalidInput, "bad-name"),
            Self::DeletesHead { .. } => (ErrorClass::Conflict, "deletes-head"),
            Self::NothingTo { .. } => (ErrorClass::NotFound, "nothing-to-do"),
            Self::MovedSince { .. } => (ErrorClass::Conflict, "moved-since"),
            Self::Invalid { .. } => (ErrorClass::InvalidInput, "invalid-input"),
            Self::DamagedHead { .. } => (ErrorClass::Corruption, "damaged-head"),
            Self::Damaged { .. } => (ErrorClass::Corruption, "damaged-file"),
            Self::Unsupported { .. } => (ErrorClass::Format, "unsupported-format"),
            Self::Busy { .. } => (ErrorClass::Conflict, "busy"),
            Self::Closed => (ErrorClass::InvalidInput, "closed"),
            Self::Forked => (ErrorClass::InvalidInput, "forked"),
            Self::Odb(error) => odb_kind(error),
            Self::Object(_) => (ErrorClass::InvalidInput, "invalid-value"),
            Self::Storage(error) => storage_kind(error),
        }
    }

    /// What to do, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotARepository { .. } => Some("gradient repo init NAME".into()),
            Self::RefNotFound { .. } | Self::EmptyBranch { .. } => Some("gradient log --all --oneline".into()),
            Self::ComponentNotFound { .. } => Some("gradient show REF".into()),
            Self::AmbiguousPrefix { .. } => Some("give more digits".into()),
            Self::RefExists { kind, .. } => Some(format!("gradient {kind} --list")),
            Self::CaseCollision { .. } => Some("choose a name that differs in more than case".into()),
            Self::BadName { .. } => Some("letters, digits, - _ . and / between components make good names".into()),
            Self::DeletesHead { .. } => Some("gradient checkout another branch first".into()),
            Self::NothingTo { .. } | Self::MovedSince { .. } => Some("gradient ops".into()),
            Self::Invalid { hint, .. } => hint.clone(),
            Self::DamagedHead { number, readable, file, .. } => Some(damaged_head_hint(*number, *readable, file)),
            Self::Damaged { file, .. } if file == "ops" || file == "packs" => {
                Some(format!("put the folder {file} back from a copy of the repository"))
            }
            Self::Damaged { file, .. } if file.starts_with("ops") => {
                Some(format!("put {file} back from a copy of the repository; no commit is lost with it"))
            }
            Self::Damaged { file, .. } if file == "format" => Some(
                "put it back from a copy of the repository: nothing works without it, and no commit lies in it".into(),
            ),
            Self::Damaged { .. } | Self::LineBroken { .. } | Self::Odb(OdbError::NotFound { .. }) => Some(OLDER.into()),
            Self::Unsupported { .. } | Self::Odb(OdbError::Unsupported { .. }) => {
                Some("pip install --upgrade gradient-store".into())
            }
            Self::Busy { .. } => Some("try again".into()),
            Self::Closed => Some("open the repository again".into()),
            Self::Forked => Some("open it in the process that uses it".into()),
            Self::Odb(error) if error.is_damage() => Some(OLDER.into()),
            Self::Odb(OdbError::Storage(error)) | Self::Storage(error) => storage_hint(error),
            Self::Odb(OdbError::Codec(error)) if error.is_shortage() => Some(SHORTAGE.into()),
            Self::Odb(OdbError::CodingNotReversible { .. }) => {
                Some("test the memory of this machine; compression=\"off\" stores what can not be coded".into())
            }
            Self::Odb(_) | Self::Object(_) => None,
        }
    }

    /// Facts for the exception's attributes.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        match self {
            Self::Odb(OdbError::ObjectDamaged { object, pack, .. }) => {
                facts.object_id = Some(CommitId::from_bytes(object.id).to_hex());
                facts.path = Some(format!("packs/{pack}.pack"));
            }
            Self::LineBroken { commit, .. } => facts.object_id = Some(commit.to_hex()),
            Self::Odb(OdbError::PackDamaged { pack, .. }) => facts.path = Some(format!("packs/{pack}.pack")),
            Self::Odb(OdbError::NotFound { object }) => {
                facts.object_id = Some(CommitId::from_bytes(object.id).to_hex());
            }
            Self::Odb(OdbError::Unsupported { found, supported, .. }) => {
                facts.found = Some(found.to_string());
                facts.supported = Some(supported.to_string());
            }
            Self::Damaged { file, .. } | Self::DamagedHead { file, .. } => facts.path = Some(file.clone()),
            Self::Unsupported { found, supported, file } => {
                facts.found = Some(found.clone());
                facts.supported = Some(supported.clone());
                facts.path = Some(file.clone());
            }
            Self::Odb(OdbError::Codec(error)) if error.is_shortage() => facts.errno = Some(ENOMEM),
            Self::Odb(OdbError::Storage(error)) | Self::Storage(error) => {
                facts.errno = error.errno();
                facts.path = Some(error.key().to_owned());
            }
            _ => {}
        }
        facts
    }
}

fn odb_kind(error: &OdbError) -> (ErrorClass, &'static str) {
    match error {
        OdbError::ObjectDamaged { .. } => (ErrorClass::Corruption, "damaged-object"),
        OdbError::PackDamaged { .. } => (ErrorClass::Corruption, "damaged-pack"),
        OdbError::ChainTooLong { .. } => (ErrorClass::Corruption, "chain-too-long"),
        OdbError::NotFound { .. } => (ErrorClass::Corruption, "missing-object"),
        OdbError::Codec(error) if error.is_shortage() => OUT_OF_MEMORY,
        OdbError::Object(_) | OdbError::Codec(_) => (ErrorClass::Corruption, "malformed-object"),
        OdbError::Unsupported { .. } => (ErrorClass::Format, "unsupported-format"),
        OdbError::WrongLength { .. } => (ErrorClass::InvalidInput, "wrong-length"),
        OdbError::TooLarge { .. } => (ErrorClass::InvalidInput, "too-large"),
        OdbError::Cancelled => (ErrorClass::Cancelled, "cancelled"),
        OdbError::Storage(error) => storage_kind(error),
        OdbError::CodingNotReversible { .. } => (ErrorClass::Internal, "coding-not-reversible"),
        _ => (ErrorClass::Internal, "internal"),
    }
}

fn storage_kind(error: &StorageError) -> (ErrorClass, &'static str) {
    match error {
        StorageError::NotFound { .. } => (ErrorClass::Storage, "file-not-found"),
        StorageError::Truncated { .. } | StorageError::TooLarge { .. } => (ErrorClass::Corruption, "wrong-file-length"),
        StorageError::NotAFile { .. } | StorageError::NotAFolder { .. } => (ErrorClass::Corruption, "not-a-file"),
        StorageError::Poisoned { .. } => (ErrorClass::Storage, "poisoned"),
        StorageError::BadName { .. } => (ErrorClass::InvalidInput, "bad-file-name"),
        error if error.errno() == Some(ENOMEM) => OUT_OF_MEMORY,
        _ => (ErrorClass::Storage, "storage"),
    }
}

fn damaged_head_hint(number: u64, readable: u64, file: &str) -> String {
    let first = readable + 1;
    if first == number {
        return format!(
            "gradient repair --apply moves ops/{number:020} aside; without --apply it shows what it would do"
        );
    }
    format!(
        "put {file} back from a copy of the repository; without one, gradient repair --apply moves ops/{first:020} to \
         ops/{number:020} aside and keeps the refs that they led to"
    )
}

fn storage_hint(error: &StorageError) -> Option<String> {
    match error {
        StorageError::Poisoned { .. } => return Some("check the disk, then open the repository again".into()),
        StorageError::NotFound { key } if key.ends_with('/') => {
            return Some("open the repository again, which makes it anew; gradient fsck says what else is gone".into());
        }
        StorageError::NotAFile { .. } | StorageError::NotAFolder { .. } => {
            return Some("somebody put it there: take it away, then gradient fsck says what is missing".into());
        }
        _ => {}
    }
    // Numbers are those of Linux and macOS alike: EPERM, EACCES, ENOSPC, EROFS.
    match error.errno()? {
        ENOMEM => Some(SHORTAGE.into()),
        1 | 13 => Some("check the permissions of the repository's folder".into()),
        28 => Some("free some space; nothing of the repository was lost".into()),
        30 => Some("the file system is read-only: copy the repository elsewhere to write to it".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn memory_that_is_short_is_no_damage_and_no_other_failure_of_a_disk() {
        let failed = |number| {
            let source = io::Error::from_raw_os_error(number);
            RepoError::Storage(StorageError::Io { operation: "read", key: "ops/1".to_owned(), source })
        };
        let short = failed(ENOMEM);
        assert_eq!(
            (short.class(), short.code(), short.hint().as_deref()),
            (OUT_OF_MEMORY.0, OUT_OF_MEMORY.1, Some(SHORTAGE))
        );
        assert_eq!(short.facts().errno, Some(ENOMEM));
        let full = failed(28);
        assert_eq!((full.class(), full.code()), (ErrorClass::Storage, "storage"));
    }
}
