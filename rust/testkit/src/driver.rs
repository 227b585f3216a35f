//! Runs the program `drive` as a process of its own, under the shim that numbers, fails and kills its system calls.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use gradient_storage::Folder;

use crate::check::{check_live, refs_of};
use crate::disk::{Disk, RealDisk};
use crate::model::Model;
use crate::play::Told;
use crate::replay::Replay;
use crate::scenarios::Scenario;

/// Kills by the shim, and by the shim's clock.
const SIGKILL: i32 = 9;
const SIGALRM: i32 = 14;

/// The program and the shim, both built.
#[derive(Debug)]
pub struct Driver {
    /// The program.
    pub program: PathBuf,
    /// The library to load before all others.
    pub shim: PathBuf,
    runs: PathBuf,
}

/// A scenario that can be played again and again in new folders.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What is played.
    pub scenario: Scenario,
    model: Model,
    files: Vec<(Folder, String, Vec<u8>)>,
}

/// What is done to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It is killed before, after or in the middle of a call.
    Kill(When, usize),
    /// A call fails once, or it and all after it.
    Fail {
        /// Which.
        at: usize,
        /// With which number.
        errno: i32,
        /// All after it too.
        ever: bool,
    },
}

/// When it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the call.
    Before,
    /// Once the call has been made.
    After,
    /// When a write has written half.
    Half,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(When::Before, at) => write!(f, "before:{at}"),
            Self::Kill(When::After, at) => write!(f, "after:{at}"),
            Self::Kill(When::Half, at) => write!(f, "half:{at}"),
            Self::Fail { at, errno, ever } => write!(f, "{at}:{errno}:{}", if *ever { "ever" } else { "once" }),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// What the system says.
    pub status: ExitStatus,
    /// What was told, and the model of it.
    pub replay: Replay,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Says whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.status.signal() == Some(SIGKILL)
    }
}

impl Ready {
    /// Prepares a scenario.
    ///
    /// # Errors
    /// A text for people.
    pub fn new(scenario: &Scenario) -> Result<Self, String> {
        let (disk, model) = scenario.prepare()?;
        let mut files = Vec::new();
        for folder in [Folder::Root].into_iter().chain(Folder::FIXED) {
            let found = disk.files_in(folder);
            files.extend(found.into_iter().map(|(name, bytes)| (folder, name, bytes)));
        }
        Ok(Self { scenario: scenario.clone(), model, files })
    }

    /// Puts what the scenario begins with into a folder.
    ///
    /// # Errors
    /// A text for people.
    pub fn lay_out(&self, dir: &Path) -> Result<RealDisk, String> {
        let disk = RealDisk::new(dir);
        disk.take(&self.files).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(disk)
    }

    /// Follows a run of the scenario.
    pub fn replay(&self) -> Replay {
        Replay::new(&self.scenario, self.model.clone())
    }

    /// The newest commit that the scenario begins with.
    pub fn newest(&self) -> Option<gradient_object::CommitId> {
        self.model.newest
    }
}

impl Driver {
    /// Builds the program, with system calls that go through the C library, and the shim. `tmp` is the folder that
    /// cargo gives to tests; what is built lies beside it and is kept.
    ///
    /// # Errors
    /// A text for people: something is missing or does not build.
    pub fn build(tmp: &Path) -> Result<Self, String> {
        let target = tmp.parent().unwrap_or(tmp).join("rustix-libc");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--offline", "--package", "gradient-testkit", "--bin", "drive"]);
        cargo.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        cargo.arg("--target-dir").arg(&target).env("RUSTFLAGS", "--cfg=rustix_use_libc");
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        if profile == "release" {
            cargo.arg("--release");
        } else {
            // Everything is built once more for it, and it has little to do: that takes a third of the time this way.
            cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
        }
        succeed(&mut cargo, "cargo is needed to build the program that is killed")?;

        let shim = target.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/shim.c");
        // Under its own name first: another test may be about to load it.
        let made = target.join(format!("shim.{}.so", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&made).arg(source).arg("-ldl");
        succeed(&mut cc, "a C compiler by the name of cc is needed to build the shim between program and system")?;
        std::fs::rename(&made, &shim).map_err(|error| format!("{}: {error}", shim.display()))?;

        Ok(Self { program: target.join(profile).join("drive"), shim, runs: runs_folder(tmp) })
    }

    /// Lets `work` have a new folder, and removes it afterwards.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn with_folder<T>(&self, work: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let dir = self.runs.join(format!("gradient-kill-{}-{number}", std::process::id()));
        let outcome = work(&dir);
        let _ = std::fs::remove_dir_all(&dir);
        outcome
    }

    /// The program, about to play in a folder.
    pub fn plays(&self, ready: &Ready, dir: &Path) -> Vec<String> {
        let newest = ready.newest().map_or_else(|| "-".to_owned(), |newest| newest.to_string());
        let program = self.program.display().to_string();
        vec![program, "play".to_owned(), dir.display().to_string(), ready.scenario.name.to_owned(), newest]
    }

    /// Runs a command that ends in [`plays`](Self::plays), and follows it.
    ///
    /// # Errors
    /// A text for people: what it told is not what the model says.
    pub fn follow(&self, command: &mut Command, ready: &Ready) -> Result<Ended, String> {
        // One thread, so that calls come in one order as far as can be.
        command.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.signal() == Some(SIGALRM) {
            return Err(format!("it does not end: {stderr}"));
        }
        let mut replay = ready.replay();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let told = Told::parse(line).ok_or_else(|| format!("it tells {line:?}"))?;
            replay.hear(&told)?;
        }
        if !stderr.is_empty() {
            return Err(format!("it says: {stderr}"));
        }
        Ok(Ended { status: output.status, replay, stderr })
    }

    /// Plays undisturbed; returns the names of the calls that change something, in their order.
    ///
    /// # Errors
    /// A text for people.
    pub fn count(&self, ready: &Ready) -> Result<Vec<String>, String> {
        self.with_folder(|dir| {
            let disk = ready.lay_out(dir)?;
            let counts = dir.with_extension("calls");
            let mut command = self.command(ready, dir);
            command.env("GRADIENT_SHIM_COUNT", &counts);
            let ended = self.follow(&mut command, ready)?;
            if !ended.status.success() || !ended.replay.is_over() {
                return Err(format!("undisturbed, it ends with {:?}: {:?}", ended.status, ended.replay.failed));
            }
            check_after(&disk, &ended.replay)?;
            let calls = std::fs::read_to_string(&counts).map_err(|error| format!("the shim saw nothing: {error}"))?;
            let _ = std::fs::remove_file(&counts);
            Ok(calls.lines().map(str::to_owned).collect())
        })
    }

    /// Plays with something done to it, and checks what is left.
    ///
    /// # Errors
    /// A text for people: what does not hold.
    pub fn harm(&self, ready: &Ready, harm: Harm, canary: Option<&str>) -> Result<Ended, String> {
        self.with_folder(|dir| {
            let disk = ready.lay_out(dir)?;
            let mut command = self.command(ready, dir);
            let variable = if matches!(harm, Harm::Kill(..)) { "GRADIENT_SHIM_KILL" } else { "GRADIENT_SHIM_FAIL" };
            command.env(variable, harm.to_string());
            command.envs(canary.map(|canary| ("GRADIENT_SHIM_CANARY", canary)));
            let ended = self.follow(&mut command, ready)?;
            if matches!(harm, Harm::Kill(..)) && !ended.is_killed() && !ended.status.success() {
                return Err(format!("it ends with {:?}: {:?}", ended.status, ended.replay.failed));
            }
            check_after(&disk, &ended.replay)?;
            Ok(ended)
        })
    }

    /// Plays undisturbed under strace and the shim at once; returns the names of the calls that change something, as
    /// the shim saw them and as strace did.
    ///
    /// # Errors
    /// A text for people.
    pub fn traced(&self, ready: &Ready) -> Result<(Vec<String>, Vec<String>), String> {
        self.with_folder(|dir| {
            ready.lay_out(dir)?;
            let (counts, trace) = (dir.with_extension("calls"), dir.with_extension("trace"));
            let mut command = Command::new("strace");
            command
                .args(["-f", "-qq", "-y", "-s", "0", "-e", &format!("trace={}", TRACED.join(","))])
                .arg("-o")
                .arg(&trace);
            command.arg("-E").arg(format!("LD_PRELOAD={}", self.shim.display()));
            command.arg("-E").arg(format!("GRADIENT_SHIM_COUNT={}", counts.display()));
            command.args(self.plays(ready, dir));
            let ended = self.follow(&mut command, ready)?;
            if !ended.status.success() || !ended.replay.is_over() {
                return Err(format!("under strace, it ends with {:?}: {:?}", ended.status, ended.replay.failed));
            }
            let read = |path: &Path| {
                let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
                let _ = std::fs::remove_file(path);
                text
            };
            let seen = read(&counts)?.lines().map(str::to_owned).collect();
            let counts = counts.display().to_string();
            Ok((seen, read(&trace)?.lines().filter_map(|line| traced_call(line, &counts)).collect()))
        })
    }

    fn command(&self, ready: &Ready, dir: &Path) -> Command {
        let line = self.plays(ready, dir);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env("LD_PRELOAD", &self.shim);
        command
    }
}

/// What must hold of a folder whose process is dead; returns the state that was found, with what the check committed.
///
/// # Errors
/// A text for people: what does not hold.
pub fn check_after(disk: &RealDisk, replay: &Replay) -> Result<Model, String> {
    let found = refs_of(disk)?;
    let model = check_live(disk, &replay.allowed(&found))?;
    disk.is_alone()?;
    Ok(model)
}

/// Every call by which files change: also those that the shim would not see.
const TRACED: [&str; 41] = [
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "truncate",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "splice",
    "vmsplice",
    "tee",
    "open",
    "openat",
    "openat2",
    "creat",
    "mknod",
    "mknodat",
    "io_uring_setup",
    "io_submit",
    "chmod",
    "fchmod",
    "setxattr",
];

/// The name in a line of strace, if the call changes a file: `123 fsync(3</tmp/a>) = 0`.
fn traced_call(line: &str, counts: &str) -> Option<String> {
    let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    // The second half of a call that another thread interrupted.
    let (name, arguments) = call.split_once('(').filter(|_| !call.starts_with("<..."))?;
    let is_talk = name == "write" && (arguments.starts_with("1<") || arguments.starts_with("2<"));
    let is_look = name.starts_with("open") && !arguments.contains("O_CREAT") && !arguments.contains("O_TRUNC");
    // What the shim writes at the end, it does not count.
    let is_count = arguments.contains(counts);
    (!is_talk && !is_look && !is_count).then(|| name.to_owned())
}

/// How many of each there are.
pub fn tally(calls: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.as_str()).or_default() += 1;
    }
    counts
}

/// Whether everything is tried that there is: `GRADIENT_KILL=all`.
pub fn is_all_wanted() -> bool {
    std::env::var("GRADIENT_KILL").is_ok_and(|value| value == "all")
}

/// A kill loses nothing of what the system holds, so memory is as good a place as a disk, and faster; when everything
/// is tried, it is tried on the disk.
fn runs_folder(tmp: &Path) -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() && !is_all_wanted() { memory.to_owned() } else { tmp.to_owned() }
}

fn succeed(command: &mut Command, needed: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{needed}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{needed}: {command:?} failed: {}", String::from_utf8_lossy(&output.stderr)))
}
