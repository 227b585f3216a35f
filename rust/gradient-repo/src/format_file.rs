//! The files that make a folder a repository: `format`, written once, and `config.json`, which people edit.
//!
//! Specified in `docs/format/repository.md`.

use gradient_object::{Value, cbor};
use gradient_storage::{Durability, Folder, Key, Put, Storage, StorageError};
use serde::{Deserialize, Serialize};

use crate::envelope::{self, FORMAT_VERSION};
use crate::error::{RepoError, Result};
use crate::record::{Fields, bytes, int, mapping};
use crate::render::count;

/// Magic of `format`.
pub(crate) const FORMAT_MAGIC: [u8; 4] = *b"GRFM";
const SMALL_FILE_MAX: u64 = 64 << 10;

/// What `format` says: immutable after init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatFile {
    /// Random id of the repository.
    pub repo: [u8; 16],
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Features that every reader must know.
    pub mandatory: Vec<String>,
    /// Features that every writer must know.
    pub optional: Vec<String>,
}

impl FormatFile {
    /// Reads `format`.
    ///
    /// # Errors
    /// - [`RepoError::NotARepository`]: there is none, and nothing else that a repository has.
    /// - [`RepoError::Unsupported`]: an unknown version or mandatory feature.
    /// - [`RepoError::Damaged`].
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let file = match envelope::read(storage, &Key::format(), SMALL_FILE_MAX) {
            Ok(file) => file,
            Err(RepoError::Storage(StorageError::NotFound { .. })) => Self::read_again(storage)?,
            Err(error) => return Err(error),
        };
        let mut fields = Fields::parse(envelope::unwrap(FORMAT_MAGIC, &file, "format")?, "format")?;
        let version = fields.uint("version")?;
        if version != u64::from(FORMAT_VERSION) {
            return Err(unsupported(format!("format version {version}"), format!("format version {FORMAT_VERSION}")));
        }
        let this = Self {
            repo: fields.array("repo")?,
            created_ns: fields.int("created")?,
            mandatory: names(&mut fields, "mandatory")?,
            optional: names(&mut fields, "optional")?,
        };
        fields.end()?;
        if let Some(flag) = this.mandatory.first() {
            return Err(unsupported(format!("the feature {flag}"), "no features".into()));
        }
        Ok(this)
    }

    // Nothing is written before `format`: where there is something, it was lost, or written since the first look.
    fn read_again(storage: &dyn Storage) -> Result<Vec<u8>> {
        let (num_operations, num_packs) = contents(storage)?;
        match envelope::read(storage, &Key::format(), SMALL_FILE_MAX) {
            Err(RepoError::Storage(StorageError::NotFound { .. })) if num_operations + num_packs > 0 => {
                Err(RepoError::Damaged {
                    file: "format".into(),
                    reason: format!(
                        "it is missing, and there are {} and {}",
                        count(num_operations, "operation"),
                        count(num_packs, "pack")
                    ),
                })
            }
            Err(RepoError::Storage(StorageError::NotFound { .. })) => {
                Err(RepoError::NotARepository { location: storage.location() })
            }
            read => read,
        }
    }

    /// Refuses a repository that this release may only read.
    ///
    /// # Errors
    /// [`RepoError::Unsupported`] that names the feature.
    pub fn check_writable(&self) -> Result<()> {
        match self.optional.first() {
            Some(flag) => Err(unsupported(format!("the feature {flag} to write"), "reading it only".into())),
            None => Ok(()),
        }
    }

    /// Writes `format` unless there is one; returns what is there and whether this call made it.
    ///
    /// # Errors
    /// As [`FormatFile::read`]; storage errors. One that was lost is not made anew.
    pub fn create(storage: &dyn Storage, repo: [u8; 16], created_ns: i64) -> Result<(Self, bool)> {
        if contents(storage)? != (0, 0) {
            return Ok((Self::read(storage)?, false));
        }
        let record = mapping([
            ("version", int(u64::from(FORMAT_VERSION))),
            ("repo", bytes(&repo)),
            ("created", Value::Int(created_ns.into())),
            ("mandatory", Value::List(Vec::new())),
            ("optional", Value::List(Vec::new())),
        ])?;
        let file = envelope::wrap(FORMAT_MAGIC, &cbor::encode(&record)?);
        let put = storage.put_if_absent(&Key::format(), &file)?;
        Ok((Self::read(storage)?, matches!(put, Put::Done)))
    }
}

/// How many operations and packs there are.
pub(crate) fn contents(storage: &dyn Storage) -> Result<(usize, usize)> {
    let count = |folder| match storage.list(folder) {
        Ok(listed) => Ok(listed.len()),
        Err(StorageError::NotFound { .. }) => Ok(0),
        Err(error) => Err(error),
    };
    Ok((count(Folder::Ops)?, count(Folder::Packs)?))
}

fn unsupported(found: String, supported: String) -> RepoError {
    RepoError::Unsupported { file: "format".into(), found, supported }
}

fn names(fields: &mut Fields<'_>, key: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for value in fields.list(key)? {
        match value {
            Value::Text(name) => names.push(name),
            _ => return Err(fields.damaged(&format!("{key} is malformed"))),
        }
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err(fields.damaged(&format!("{key} is malformed")));
    }
    Ok(names)
}

/// Settings that people edit; never transferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the repository.
    #[serde(default)]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made, ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Config {
    /// Reads `config.json`; a repository without one has the default.
    ///
    /// # Errors
    /// [`RepoError::Invalid`] that names what is wrong with it.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let file = match storage.read(&Key::config(), SMALL_FILE_MAX) {
            Ok(file) => file,
            Err(StorageError::NotFound { .. }) => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&file).map_err(|source| {
            let message = format!("{}/config.json can not be read: {source}", storage.location());
            RepoError::invalid(message, "mend the file, or delete it: it holds only the name and the description")
        })
    }

    /// Writes `config.json`, durably.
    ///
    /// # Errors
    /// Storage errors.
    pub fn write(&self, storage: &dyn Storage) -> Result<()> {
        let mut file = serde_json::to_vec_pretty(self)
            .map_err(|source| RepoError::invalid(format!("config.json can not be written: {source}"), ""))?;
        file.push(b'\n');
        Ok(storage.replace(&Key::config(), &file, Durability::Synced)?)
    }
}
