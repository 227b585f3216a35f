//! Rows 8 and 9 of `reliability.md`: a file system that is really full, and files that may not grow.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Instant;

use gradient_testkit::{Driver, Ready, Scenario, check_after, is_all_wanted, is_wanted, scenarios};

/// What a process that exceeds its limit dies of.
const SIGXFSZ: i32 = 25;
/// What it is told if it does not die.
const EFBIG: i32 = 27;

fn driver() -> &'static Driver {
    static DRIVER: LazyLock<Driver> =
        LazyLock::new(|| Driver::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("what is needed is there"));
    &DRIVER
}

/// Where two processes meet, either may fail and the other go on: those are for the simulated disk.
fn wanted() -> Vec<Scenario> {
    let is_usual = |name: &str| SCENARIOS.iter().any(|(usual, _)| *usual == name);
    let is_chosen = |name: &str| is_wanted(name) && (is_all_wanted() || is_usual(name));
    scenarios().into_iter().filter(|scenario| is_chosen(scenario.name) && !scenario.is_raced()).collect()
}

/// Runs `drive` in a mount namespace of its own; returns what it says.
fn in_a_namespace(driver: &Driver, canary: Option<&str>, arguments: &[&str]) -> Result<String, String> {
    driver.with_folder(|dir| {
        std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        // Who is not root is the root of a user namespace; there, mounting is allowed as well.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "env"]).env("RAYON_NUM_THREADS", "1");
        if let Some(canary) = canary {
            command.arg(format!("LD_PRELOAD={}", driver.shim.display())).arg(format!("GRADIENT_SHIM_CANARY={canary}"));
        }
        command.arg(&driver.program).arg(arguments[0]).arg(dir).args(&arguments[1..]);
        let output = command.output().map_err(|error| format!("unshare is needed: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

/// The numbers in what `drive full` says: sizes, refused, commits by the same handle, of them after a refusal.
fn numbers(told: &str) -> [usize; 4] {
    let mut numbers = told.split_whitespace().filter_map(|word| word.parse().ok());
    [(); 4].map(|()| numbers.next().expect("four numbers are told"))
}

/// What is tried in `make test`, and how many pages of 4 KiB more there are each time: a commit reserves 1 MiB.
const SCENARIOS: [(&str, usize); 2] = [("commit of many tensors", 16), ("rename branches", 1)];

#[test]
fn a_full_disk_is_told_loses_nothing_and_is_forgotten_once_there_is_room() {
    let (driver, start) = (driver(), Instant::now());
    let mut total = [0; 4];
    for scenario in wanted() {
        let step = SCENARIOS.into_iter().find_map(|(name, step)| (name == scenario.name).then_some(step));
        let sweeps = if is_all_wanted() {
            [("bytes", 200, 2), ("inodes", 50, 1)]
        } else {
            [("bytes", 20, step.unwrap_or(1)), ("inodes", 10, 1)]
        };
        for (kind, num, step) in sweeps {
            let told =
                in_a_namespace(driver, None, &["full", scenario.name, kind, &num.to_string(), &step.to_string()]);
            let found = numbers(&told.expect("what must hold of a full disk"));
            assert_eq!(found[0], num, "{}, {kind}", scenario.name);
            total = [0, 1, 2, 3].map(|at| total[at] + found[at]);
        }
    }
    let [sizes, refused, same, recovered] = total;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "row 8: {sizes} sizes, {refused} refused, {same} went on with the same handle, {recovered} of them refused before, \
         {seconds:.1} s"
    );
    assert!(refused > 20 && refused < sizes && 2 * same > sizes);
    assert!(4 * recovered > 3 * refused, "whoever was refused goes on once there is room");
}

#[test]
fn what_a_killed_process_left_is_swept_from_a_full_disk() {
    in_a_namespace(driver(), None, &["clean", "sweep"]).expect("sweeping needs no room");
}

#[test]
fn a_full_disk_that_is_ignored_turns_row_8_red() {
    let driver = driver();
    let arguments = ["full", "rename branches", "bytes", "20", "1"];
    let error = in_a_namespace(driver, Some("ignore-full"), &arguments).expect_err("bytes are missing");
    assert!(error.contains("with room for"), "{error}");
}

#[test]
fn a_file_that_may_not_grow_kills_or_is_told_and_nothing_is_lost() {
    let (driver, start) = (driver(), Instant::now());
    // In blocks of 512 bytes; a pack in the making has over 2,048.
    let limits: Vec<usize> =
        if is_all_wanted() { (0..20).map(|at| at * at * 10).collect() } else { vec![0, 1, 4, 400, 4000] };
    let (mut num_killed, mut num_told, mut num_done) = (0, 0, 0);
    for scenario in wanted() {
        let ready = Ready::new(&scenario).expect("it can be prepared");
        for limit in &limits {
            for is_ignored in [false, true] {
                let ended = limited(driver, &ready, *limit, is_ignored);
                let ended = ended
                    .map_err(|error| format!("{}, {limit}, {is_ignored}: {error}", scenario.name))
                    .expect("what must hold");
                *[&mut num_killed, &mut num_told, &mut num_done][ended] += 1;
            }
        }
    }
    let (all, seconds) = (num_killed + num_told + num_done, start.elapsed().as_secs_f64());
    eprintln!("row 9: {all} limits, {num_killed} killed, {num_told} told, {num_done} not met, {seconds:.1} s");
    assert!(num_killed > 2 && num_told > 2 && num_done > 1);
}

/// Plays with a limit to the length of files, in blocks of 512 bytes: 0 if it was killed, 1 if told, 2 if not met.
fn limited(driver: &Driver, ready: &Ready, limit: usize, is_ignored: bool) -> Result<usize, String> {
    use std::os::unix::process::ExitStatusExt;
    driver.with_folder(|dir| {
        let disk = ready.lay_out(dir)?;
        let ignore = if is_ignored { "trap '' XFSZ; " } else { "" };
        let mut command = Command::new("sh");
        // prlimit counts in bytes, where ulimit means something else in each shell.
        command.arg("-c").arg(format!("{ignore}exec prlimit --fsize={} -- \"$@\"", limit * 512)).arg("sh");
        command.args(driver.plays(ready, dir));
        let ended = driver.follow(&mut command, ready)?;
        check_after(&disk, &ended.replay)?;
        match &ended.replay.failed {
            None if ended.status.signal() == Some(SIGXFSZ) && !is_ignored => Ok(0),
            Some(failed) if is_ignored && failed.names_a_file_and(&[EFBIG]) => Ok(1),
            None if ended.status.success() && ended.replay.is_over() => Ok(2),
            other => Err(format!("it ends with {:?}: {other:?}", ended.status)),
        }
    })
}
