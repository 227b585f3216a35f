//! A file system that is really full: plays a scenario on it, with a little more room each time.
//!
//! It mounts file systems, so it runs in a process that has a mount namespace of its own (`unshare`), which takes them
//! along when it ends.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use crate::attempt::{Attempt, Came};
use crate::check::{check_live, found_of, refs_of, restores};
use crate::disk::RealDisk;
use crate::driver::Ready;
use crate::model::Model;
use crate::play::{Failed, Player, Tell, Told};
use crate::process::{Action, Process};
use crate::replay::Replay;
use crate::scenarios::Scenario;

/// `ENOSPC`, on every system.
const NO_SPACE: i32 = 28;
/// What tmpfs counts in.
const PAGE: u64 = 4096;
/// What only the commit after the flood holds.
const NEW_TENSOR: u64 = 1 << 41;

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pages.
    Bytes,
    /// Files.
    Inodes,
}

impl Kind {
    /// Reads `bytes` or `inodes`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bytes" => Some(Self::Bytes),
            "inodes" => Some(Self::Inodes),
            _ => None,
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Bytes => "size=4m",
            Self::Inodes => "size=64m,nr_inodes=400",
        }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    sizes: usize,
    refused: usize,
    same_handle: usize,
    /// Refused, and went on by the same handle.
    recovered: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sizes, refused, same_handle, recovered } = self;
        write!(f, "{sizes} sizes {refused} refused {same_handle} by the same handle {recovered} recovered")
    }
}

/// Mounts a file system on `dir` and plays the scenario `num` times: with no room, with `step` pages or files, ...
///
/// # Errors
/// A text for people: what does not hold.
pub fn sweep(dir: &Path, scenario: &Scenario, kind: Kind, num: usize, step: usize) -> Result<Tally, String> {
    let ready = Ready::new(scenario)?;
    mount(dir, kind)?;
    let mut tally = Tally::default();
    for room in (0..num).map(|at| at * step) {
        let named = |error| format!("{}: with room for {room} {kind:?}: {error}", scenario.name);
        play(&ready, dir, kind, room, &mut tally).map_err(named)?;
    }
    Ok(tally)
}

/// Mounts a file system on `dir`, fills it to the last byte beside what a killed process left in `tmp/`, and sweeps:
/// that must need no room, and make some.
///
/// # Errors
/// A text for people: what does not hold.
pub fn clean(dir: &Path, scenario: &Scenario) -> Result<(), String> {
    let ready = Ready::new(scenario)?;
    mount(dir, Kind::Bytes)?;
    let disk = ready.lay_out(&dir.join("run"))?;
    let ballast = Ballast::fill(dir, Kind::Bytes, 0)?;
    let mut process = Process::open(&disk).map_err(|error| format!("it does not open: {error}"))?;
    let mut model = found_of(&process, &[Arc::new(ready.replay().model)])?;
    let newest = model.newest.ok_or("the scenario begins with no commit")?;
    let tag = Attempt { action: Action::Tag("full".to_owned()), line: process.line(), newest, step: 0 };
    match process.attempt(&tag).map_err(|error| Failed::of(&error)) {
        Err(failed) if failed.names_a_file_and(&[NO_SPACE]) => {}
        other => return Err(format!("a tag on a full disk: {other:?}")),
    }
    process.repo.maintain().map_err(|error| format!("upkeep on a full disk: {error}"))?;
    let came = process.attempt(&tag).map_err(|error| format!("a tag in the room that was made: {error}"))?;
    tag.hold(&mut model, &came)?;
    drop(process);
    ballast.remove()?;
    check_live(&disk, &[Arc::new(model)]).map(drop)
}

fn play(ready: &Ready, dir: &Path, kind: Kind, room: usize, tally: &mut Tally) -> Result<(), String> {
    let run = dir.join("run");
    let disk = ready.lay_out(&run)?;
    let ballast = Ballast::fill(dir, kind, room)?;
    let all: Arc<Mutex<Vec<Told>>> = Arc::default();
    let list = Arc::clone(&all);
    let tell: Tell = Arc::new(move |told| list.lock().unwrap_or_else(PoisonError::into_inner).push(told));
    let mut player = Player::new(&disk, ready.newest(), tell);
    player.play(&ready.scenario)?;
    let mut replay = ready.replay();
    for told in all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        replay.hear(told)?;
    }
    tally.sizes += 1;
    if let Some(failed) = &replay.failed {
        tally.refused += 1;
        if !failed.names_a_file_and(&[NO_SPACE]) {
            return Err(format!("it fails as {failed:?}"));
        }
    } else if !replay.is_over() {
        return Err("it stopped".to_owned());
    }
    reads(&disk, &replay).map_err(|error| format!("while it is full: {error}"))?;
    ballast.remove()?;
    let allowed = replay.allowed(&refs_of(&disk)?);
    let mut after = allowed;
    if let Some(process) = player.process() {
        let reopened = Process::open(&disk).map_err(|error| format!("it does not open: {error}"))?;
        let mut model = found_of(&reopened, &after)?;
        drop(reopened);
        match commit_beside(process, &mut model) {
            Ok(()) => {
                tally.same_handle += 1;
                tally.recovered += usize::from(replay.failed.is_some());
            }
            Err(next) if next.text.contains("is closed") => {}
            // A sync failed: only a new handle may write.
            Err(next)
                if next.text.contains("an earlier write or sync")
                    && replay.failed.as_ref().is_some_and(|failed| failed.text.contains("sync")) => {}
            Err(failed) => return Err(format!("with room again, the same handle: {failed:?}")),
        }
        after = vec![Arc::new(model)];
    }
    drop(player);
    check_live(&disk, &after)?;
    disk.is_alone()?;
    std::fs::remove_dir_all(&run).map_err(|error| error.to_string())
}

/// All that was acknowledged is read back while nothing can be written.
fn reads(disk: &RealDisk, replay: &Replay) -> Result<(), String> {
    if !replay.model.is_made {
        return Ok(());
    }
    let process = Process::open(disk).map_err(|error| format!("it does not open: {error}"))?;
    restores(&process, &replay.model)
}

/// Commits on a branch of its own.
fn commit_beside(process: &mut Process, model: &mut Model) -> Result<(), Failed> {
    let newest = model.newest.unwrap_or(crate::attempt::NOBODY);
    let known = model.newest.and_then(|newest| model.commits.get(&newest)?.tensors.first().copied());
    let actions = [Action::Line("beside".to_owned()), Action::Commit(known.into_iter().chain([NEW_TENSOR]).collect())];
    for action in actions {
        let attempt = Attempt { action, line: process.line(), newest, step: 2_000_000 };
        let came: Came = process.attempt(&attempt).map_err(|error| Failed::of(&error))?;
        let wrong = |text| Failed { class: "wrong".to_owned(), errno: None, file: None, text };
        attempt.hold(model, &came).map_err(wrong)?;
    }
    Ok(())
}

fn mount(dir: &Path, kind: Kind) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut mount = Command::new("mount");
    // The shim, where there is one, is for us alone.
    mount.env_remove("LD_PRELOAD").args(["-t", "tmpfs", "-o", kind.options(), "gradient"]).arg(dir);
    let output = mount.output().map_err(|error| format!("mount is needed: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What takes the room.
struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Takes all room but that for so many pages or files.
    fn fill(dir: &Path, kind: Kind, room: usize) -> Result<Self, String> {
        let path = dir.join("ballast");
        let done = match kind {
            Kind::Bytes => fill_bytes(&path, room as u64),
            Kind::Inodes => fill_inodes(&path, room),
        };
        done.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }

    fn remove(self) -> Result<(), String> {
        let removed =
            if self.path.is_dir() { std::fs::remove_dir_all(&self.path) } else { std::fs::remove_file(&self.path) };
        removed.map_err(|error| error.to_string())
    }
}

fn is_full(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(NO_SPACE)
}

fn fill_bytes(path: &Path, room: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let page = [0; PAGE as usize];
    let len = loop {
        match file.write_all(&page) {
            Ok(()) => {}
            Err(error) if is_full(&error) => break file.metadata()?.len(),
            Err(error) => return Err(error),
        }
    };
    file.set_len(len.saturating_sub(room * PAGE))
}

fn fill_inodes(path: &Path, room: usize) -> std::io::Result<()> {
    std::fs::create_dir(path)?;
    let mut made = Vec::new();
    loop {
        let name = path.join(made.len().to_string());
        match File::create(&name) {
            Ok(_) => made.push(name),
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error),
        }
    }
    made.iter().rev().take(room).try_for_each(std::fs::remove_file)
}
