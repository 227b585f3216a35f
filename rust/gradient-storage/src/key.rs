//! Keys: a fixed folder and a name under a grammar.
//!
//! A name is 1 to [`NAME_BYTES_MAX`] of `a-z 0-9 . _ -` and does not start with a dot, so it is one path component on
//! every system and can be neither `..` nor hidden. What lies in a repository by another name is nobody's key: it can
//! not be read, replaced or removed through a storage.

use std::fmt;

use crate::StorageError;

/// Longest name of a key.
pub const NAME_BYTES_MAX: usize = 128;

/// The fixed folders of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `.gradient-repo` itself: `format`, `config.json`.
    Root,
    /// Operations, the truth about refs.
    Ops,
    /// Sealed packs.
    Packs,
    /// Writers that say they are alive.
    Leases,
    /// Files in the making.
    Tmp,
    /// Packs that were condemned.
    Trash,
    /// What repair moved aside.
    LostFound,
    /// What can be rebuilt.
    Cache,
    /// The folder that holds `.gradient-repo`, and of it only `manifest.json`.
    Beside,
}

impl Folder {
    /// The folders below [`Folder::Root`], in the order in which they are made.
    pub const FIXED: [Self; 7] =
        [Self::Ops, Self::Packs, Self::Leases, Self::Tmp, Self::Trash, Self::LostFound, Self::Cache];

    /// Returns its name on disk: empty for the root, `..` for the folder beside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Ops => "ops",
            Self::Packs => "packs",
            Self::Leases => "leases",
            Self::Tmp => "tmp",
            Self::Trash => "trash",
            Self::LostFound => "lost+found",
            Self::Cache => "cache",
            Self::Beside => "..",
        }
    }
}

impl fmt::Display for Folder {
    /// Writes `packs/`; the root is `./`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("./"),
            Self::Ops
            | Self::Packs
            | Self::Leases
            | Self::Tmp
            | Self::Trash
            | Self::LostFound
            | Self::Cache
            | Self::Beside => write!(f, "{}/", self.name()),
        }
    }
}

/// The name of one file of a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    folder: Folder,
    name: String,
}

impl Key {
    /// Makes a key.
    ///
    /// # Errors
    /// [`StorageError::BadName`]: the name is outside the grammar, or outside the repository and not the manifest.
    pub fn new(folder: Folder, name: &str) -> Result<Self, StorageError> {
        let grammatical = (1..=NAME_BYTES_MAX).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if !grammatical || (folder == Folder::Beside && name != MANIFEST) {
            return Err(StorageError::BadName { name: name.to_owned() });
        }
        Ok(Self { folder, name: name.to_owned() })
    }

    /// Operation `n`: `ops/` and 20 digits.
    pub fn operation(n: u64) -> Self {
        Self { folder: Folder::Ops, name: format!("{n:020}") }
    }

    /// The operations up to `n`, folded: `ops/folded-` and 20 digits.
    pub fn folded(n: u64) -> Self {
        Self { folder: Folder::Ops, name: format!("folded-{n:020}") }
    }

    /// A sealed pack: `packs/<32 hexadecimal digits>.pack`.
    pub fn pack(id: &[u8; 16]) -> Self {
        Self { folder: Folder::Packs, name: hex(id) + ".pack" }
    }

    /// A condemned pack: `trash/<32 hexadecimal digits>.pack`.
    pub fn trash_pack(id: &[u8; 16]) -> Self {
        Self { folder: Folder::Trash, name: hex(id) + ".pack" }
    }

    /// A lease: `leases/<32 hexadecimal digits>`.
    pub fn lease(nonce: &[u8; 16]) -> Self {
        Self { folder: Folder::Leases, name: hex(nonce) }
    }

    /// The `format` file.
    pub fn format() -> Self {
        Self { folder: Folder::Root, name: "format".to_owned() }
    }

    /// The settings that people edit, `config.json`.
    pub fn config() -> Self {
        Self { folder: Folder::Root, name: "config.json".to_owned() }
    }

    /// The summary for dashboards, `manifest.json` beside the repository folder.
    pub fn manifest() -> Self {
        Self { folder: Folder::Beside, name: MANIFEST.to_owned() }
    }

    /// A cache by its name (`index`, `commits`).
    ///
    /// # Errors
    /// [`StorageError::BadName`]: the name is outside the grammar.
    pub fn cache(name: &str) -> Result<Self, StorageError> {
        Self::new(Folder::Cache, name)
    }

    /// Where a file goes that is moved aside: `lost+found/<folder>-<name>`, with `.<attempt>` behind it after the first.
    ///
    /// # Errors
    /// [`StorageError::BadName`]: the file is none that may be moved aside, or its name is too long for that.
    pub fn aside(key: &Self, attempt: u64) -> Result<Self, StorageError> {
        match key.folder {
            Folder::Ops | Folder::Packs | Folder::Leases | Folder::Cache => {}
            Folder::Root | Folder::Tmp | Folder::Trash | Folder::LostFound | Folder::Beside => {
                return Err(StorageError::BadName { name: key.to_string() });
            }
        }
        let name = format!("{}-{}", key.folder.name(), key.name);
        if attempt == 0 {
            Self::new(Folder::LostFound, &name)
        } else {
            Self::new(Folder::LostFound, &format!("{name}.{attempt}"))
        }
    }

    /// What a repair that was cut off was going to publish as operation `n`: `lost+found/pending-<n>`.
    pub fn pending(n: u64) -> Self {
        Self { folder: Folder::LostFound, name: format!("pending-{n:020}") }
    }

    /// A file in the making: `tmp/<32 hexadecimal digits>.tmp`.
    pub(crate) fn temporary(nonce: &[u8; 16]) -> Self {
        Self { folder: Folder::Tmp, name: hex(nonce) + ".tmp" }
    }

    /// Returns the folder.
    pub const fn folder(&self) -> Folder {
        self.folder
    }

    /// Returns the name in the folder.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Key {
    /// Writes `packs/<name>`, or the bare name in the root.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder {
            Folder::Root => f.write_str(&self.name),
            Folder::Ops
            | Folder::Packs
            | Folder::Leases
            | Folder::Tmp
            | Folder::Trash
            | Folder::LostFound
            | Folder::Cache
            | Folder::Beside => write!(f, "{}{}", self.folder, self.name),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The one file that lies outside `.gradient-repo`.
const MANIFEST: &str = "manifest.json";

/// Writes bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|&b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_every_name_that_is_not_one_plain_lower_case_component() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "../format",
            "A",
            "a b",
            "a\\b",
            "a\0",
            "a\n",
            "c:d",
            "\u{e4}",
            "*",
            &long,
        ] {
            let key = Key::new(Folder::Packs, name);
            assert!(matches!(key, Err(StorageError::BadName { name: n }) if n == name), "{name:?} was accepted");
        }
        for name in ["a", "0", "_", "-", "config.json", "a..b", &long[1..]] {
            assert_eq!(Key::new(Folder::Cache, name).expect("is in the grammar").name(), name);
        }
    }

    #[test]
    fn names_nothing_outside_the_repository_but_the_manifest() {
        assert!(Key::new(Folder::Beside, "train.py").is_err());
        assert_eq!(Key::new(Folder::Beside, "manifest.json").expect("is the manifest"), Key::manifest());
    }

    #[test]
    fn constructors_give_the_names_of_the_format() {
        let id = [0xab, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xef];
        let digits = "ab000102030405060708090a0b0c0def";
        assert_eq!(Key::operation(7).to_string(), "ops/00000000000000000007");
        assert_eq!(Key::operation(u64::MAX).to_string(), "ops/18446744073709551615");
        assert_eq!(Key::folded(64).to_string(), "ops/folded-00000000000000000064");
        assert_eq!(Key::pack(&id).to_string(), format!("packs/{digits}.pack"));
        assert_eq!(Key::trash_pack(&id).to_string(), format!("trash/{digits}.pack"));
        assert_eq!(Key::lease(&id).to_string(), format!("leases/{digits}"));
        assert_eq!(Key::temporary(&id).to_string(), format!("tmp/{digits}.tmp"));
        assert_eq!(Key::format().to_string(), "format");
        assert_eq!(Key::config().to_string(), "config.json");
        assert_eq!(Key::manifest().to_string(), "../manifest.json");
        for key in [Key::operation(7), Key::folded(64), Key::pack(&id), Key::lease(&id), Key::temporary(&id)] {
            assert_eq!(Key::new(key.folder(), key.name()).expect("constructors stay in the grammar"), key);
        }
    }
}
