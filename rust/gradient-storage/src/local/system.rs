//! What a repository folder asks of an operating system.
//!
//! One method is one system call, so whoever stands in for the system (the simulated file system of the crash tests)
//! sees every single thing that can go wrong. Nothing is tried again down here and nothing decided: both is done by what
//! calls these methods, and is the same on every system.

use std::fmt::Debug;
use std::io::IoSlice;
use std::path::Path;

use rustix::io::Errno;

/// How often a call that a signal interrupted is made again, before that counts as its failure.
const INTERRUPTS_MAX: u32 = 10_000;

/// The calls. `folder` is always an open folder, and a name is one component that is looked up in it, never followed.
pub trait System: Debug + Send + Sync + 'static {
    /// An open folder or file.
    type Handle: Debug + Send + Sync + 'static;

    /// Opens a folder by its path. A link in the last component is not followed.
    ///
    /// # Errors
    /// What the system says, here as everywhere below.
    fn open_root(&self, path: &Path) -> Result<Self::Handle, Errno>;

    /// Opens a folder by its path, through whatever links.
    ///
    /// # Errors
    /// What the system says.
    fn open_path(&self, path: &Path) -> Result<Self::Handle, Errno>;

    /// Makes a folder by its path.
    ///
    /// # Errors
    /// What the system says.
    fn make_path(&self, path: &Path) -> Result<(), Errno>;

    /// Looks at what lies at a path.
    ///
    /// # Errors
    /// What the system says.
    fn stat_path(&self, path: &Path) -> Result<Stat, Errno>;

    /// Opens the folder itself once more (`.`), or the one above it (`..`).
    ///
    /// # Errors
    /// What the system says.
    fn open_near(&self, folder: &Self::Handle, name: &str) -> Result<Self::Handle, Errno>;

    /// Opens a folder in a folder.
    ///
    /// # Errors
    /// What the system says.
    fn open_folder(&self, folder: &Self::Handle, name: &str) -> Result<Self::Handle, Errno>;

    /// Opens a file in a folder, without waiting for the other end of a pipe.
    ///
    /// # Errors
    /// What the system says.
    fn open_file(&self, folder: &Self::Handle, name: &str, access: Access) -> Result<Self::Handle, Errno>;

    /// Makes a file in a folder and opens it for reading and writing. `EXIST` if the name is taken.
    ///
    /// # Errors
    /// What the system says.
    fn create_file(&self, folder: &Self::Handle, name: &str) -> Result<Self::Handle, Errno>;

    /// Makes a folder in a folder. `EXIST` if the name is taken.
    ///
    /// # Errors
    /// What the system says.
    fn make_folder(&self, folder: &Self::Handle, name: &str) -> Result<(), Errno>;

    /// Looks at what has a name.
    ///
    /// # Errors
    /// What the system says.
    fn stat(&self, folder: &Self::Handle, name: &str) -> Result<Stat, Errno>;

    /// Looks at an open file.
    ///
    /// # Errors
    /// What the system says.
    fn stat_open(&self, file: &Self::Handle) -> Result<Stat, Errno>;

    /// Reads bytes at `offset` into `buf`; says how many. None: the file ends there.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, file: &Self::Handle, buf: &mut [u8], offset: u64) -> Result<usize, Errno>;

    /// Reads bytes at `offset` into the room that `bytes` has left; says how many. None: the file ends there.
    ///
    /// # Errors
    /// What the system says.
    fn read_into(&self, file: &Self::Handle, bytes: &mut Vec<u8>, offset: u64) -> Result<usize, Errno>;

    /// Writes pieces one after the other from `offset` on; says how many bytes were taken.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, file: &Self::Handle, pieces: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno>;

    /// Gives a file a length.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&self, file: &Self::Handle, len: u64) -> Result<(), Errno>;

    /// Reserves the first bytes of a file, which then is that long. `OPNOTSUPP`, `NOSYS` or `INVAL` where files can not
    /// be reserved.
    ///
    /// # Errors
    /// What the system says.
    fn reserve(&self, file: &Self::Handle, len: u64) -> Result<(), Errno>;

    /// Lets what is written from now on go past the page cache, or through it again. Past it, offsets, lengths and
    /// addresses are multiples of a block of the file system, else a write is `INVAL`.
    ///
    /// # Errors
    /// What the system says.
    fn set_direct(&self, file: &Self::Handle, is_direct: bool) -> Result<(), Errno>;

    /// How many bytes go past the page cache at once.
    fn direct_bytes(&self) -> usize {
        4 << 20
    }

    /// Asks for these bytes to be written to the disk soon. A hint.
    fn start_write_back(&self, file: &Self::Handle, offset: u64, len: u64);

    /// Waits until a file's bytes, or a folder's entries, would survive a power cut.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self, handle: &Self::Handle) -> Result<(), Errno>;

    /// Renames without ever replacing: `EXIST` if the new name is taken. `INVAL`, `NOSYS` or `NOTSUP` where that does
    /// not exist.
    ///
    /// # Errors
    /// What the system says.
    fn rename_no_replace(&self, from: &Self::Handle, old: &str, to: &Self::Handle, new: &str) -> Result<(), Errno>;

    /// Renames, in place of what has the new name.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Self::Handle, old: &str, to: &Self::Handle, new: &str) -> Result<(), Errno>;

    /// Gives a file a second name. `EXIST` if that is taken.
    ///
    /// # Errors
    /// What the system says.
    fn link(&self, from: &Self::Handle, old: &str, to: &Self::Handle, new: &str) -> Result<(), Errno>;

    /// Removes a name of a file.
    ///
    /// # Errors
    /// What the system says.
    fn unlink(&self, folder: &Self::Handle, name: &str) -> Result<(), Errno>;

    /// Returns the names in a folder, in any order; what is not UTF-8 in them as U+FFFD, which no key has.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, folder: &Self::Handle) -> Result<Vec<String>, Errno>;

    /// Says whether a test has asked for a rule to be broken.
    #[cfg(feature = "simulated")]
    fn has_canary(&self, _canary: crate::sim::Canary) -> bool {
        false
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing over what is there.
    Write,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    Pipe,
    Socket,
    Device,
    Unknown,
}

impl Kind {
    /// Says it in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Link => "symbolic link",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
            Self::Device => "device",
            Self::Unknown => "thing of unknown kind",
        }
    }
}

/// What a look at a file or folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes, if it is a file.
    pub len: u64,
    /// Whether it has one name and no second one.
    pub has_one_name: bool,
    /// Device and number on it: equal for two names of one file.
    pub identity: (i128, i128),
}

/// Makes a call again that a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..INTERRUPTS_MAX {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
    call()
}
