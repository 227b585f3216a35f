//! Where the files of a repository lie: on the simulated disk, or in a folder of this machine.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gradient_storage::sim::SimFs;
use gradient_storage::{Folder, LocalStorage, Storage, StorageError};

use crate::leases::{bury, is_readable};
use crate::process::DIR;

/// What a process and a check ask of a disk.
pub trait Disk: Debug + Send + Sync {
    /// Another way to the same disk.
    fn share(&self) -> Box<dyn Disk>;

    /// Opens the folder of the repository.
    ///
    /// # Errors
    /// As [`LocalStorage::open`].
    fn open(&self) -> Result<Arc<dyn Storage>, StorageError>;

    /// Makes the folder of the repository.
    ///
    /// # Errors
    /// As [`LocalStorage::create`].
    fn create(&self) -> Result<Arc<dyn Storage>, StorageError>;

    /// Names and bytes of the files in a folder of the repository; none if there is no such folder.
    fn files_in(&self, folder: Folder) -> Vec<(String, Vec<u8>)>;

    /// Removes a file behind everybody's back.
    fn remove(&self, folder: Folder, name: &str);

    /// Lets the leases be those of the dead; returns the names of those that can not be read.
    fn bury(&self) -> Vec<String>;
}

fn path_in(folder: Folder) -> PathBuf {
    Path::new(DIR).join(folder.name())
}

impl Disk for SimFs {
    fn share(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(Arc::new(LocalStorage::open_on(self.clone(), Path::new(DIR))?))
    }

    fn create(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(Arc::new(LocalStorage::create_on(self.clone(), Path::new(DIR))?))
    }

    fn files_in(&self, folder: Folder) -> Vec<(String, Vec<u8>)> {
        self.files(&path_in(folder))
    }

    fn remove(&self, folder: Folder, name: &str) {
        self.tamper(&path_in(folder), name, None);
    }

    fn bury(&self) -> Vec<String> {
        bury(self)
    }
}

/// A repository in a folder of this machine. Its processes are processes of the system, so their leases need no burial.
#[derive(Clone, Debug)]
pub struct RealDisk {
    /// The folder that holds `.gradient-repo` and nothing else.
    pub dir: PathBuf,
}

impl RealDisk {
    /// The repository in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn repo(&self) -> PathBuf {
        self.dir.join(".gradient-repo")
    }

    /// Puts a copy of a simulated repository there.
    ///
    /// # Errors
    /// What the system says.
    pub fn take(&self, files: &[(Folder, String, Vec<u8>)]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        if files.is_empty() {
            return Ok(());
        }
        for folder in Folder::FIXED {
            std::fs::create_dir_all(self.repo().join(folder.name()))?;
        }
        files
            .iter()
            .try_for_each(|(folder, name, bytes)| std::fs::write(self.repo().join(folder.name()).join(name), bytes))
    }

    /// Says what lies beside the repository and should not.
    ///
    /// # Errors
    /// A text for people.
    pub fn is_alone(&self) -> Result<(), String> {
        for entry in std::fs::read_dir(&self.dir).map_err(|error| error.to_string())?.flatten() {
            if entry.file_name() != ".gradient-repo" {
                return Err(format!("{} was made outside the repository", entry.path().display()));
            }
        }
        Ok(())
    }
}

impl Disk for RealDisk {
    fn share(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(Arc::new(LocalStorage::open(&self.repo())?))
    }

    fn create(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(Arc::new(LocalStorage::create(&self.repo())?))
    }

    fn files_in(&self, folder: Folder) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.repo().join(folder.name())).into_iter().flatten().flatten();
        let file =
            |entry: std::fs::DirEntry| Some((entry.file_name().into_string().ok()?, std::fs::read(entry.path()).ok()?));
        let mut files: Vec<_> = entries.filter_map(file).collect();
        files.sort_unstable();
        files
    }

    fn remove(&self, folder: Folder, name: &str) {
        // What is still there afterwards is what the check then finds.
        let _ = std::fs::remove_file(self.repo().join(folder.name()).join(name));
    }

    fn bury(&self) -> Vec<String> {
        let leases = self.files_in(Folder::Leases).into_iter();
        leases.filter(|(_, bytes)| !is_readable(bytes)).map(|(name, _)| name).collect()
    }
}
