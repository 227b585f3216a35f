//! Plays a scenario on a real folder, and writes a line to standard output for each thing that it has acknowledged.
//!
//! ```text
//! drive play DIR SCENARIO NEWEST     plays; NEWEST is the newest commit there, or -
//! drive full DIR SCENARIO KIND NUM STEP   plays NUM times on a file system that is full but for 0, STEP, ... bytes or inodes
//! drive clean DIR SCENARIO           sweeps on a file system that is full
//! ```
//!
//! It is a program of its own so that it can be killed, limited and shut into a file system of its own.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use gradient_object::CommitId;
use gradient_testkit::{Kind, Player, RealDisk, Scenario, clean, scenarios, sweep};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(6),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<bool, String> {
    match arguments {
        ["play", dir, name, newest] => {
            let newest = CommitId::from_hex(newest);
            // A line leaves in one piece, before the next thing begins.
            let tell = |told| writeln!(std::io::stdout(), "{told}").unwrap_or_default();
            Player::new(&RealDisk::new(Path::new(dir)), newest, Arc::new(tell)).play(&scenario(name)?)
        }
        ["full", dir, name, kind, num, step] => {
            let number = |text: &str| text.parse::<usize>().map_err(|error| format!("{text}: {error}"));
            let kind = Kind::parse(kind).ok_or("bytes or inodes")?;
            let tally = sweep(Path::new(dir), &scenario(name)?, kind, number(num)?, number(step)?)?;
            println!("{tally}");
            Ok(true)
        }
        ["clean", dir, name] => clean(Path::new(dir), &scenario(name)?).map(|()| true),
        _ => Err("drive play DIR SCENARIO NEWEST | drive full DIR SCENARIO bytes|inodes NUM STEP".to_owned()),
    }
}

fn scenario(name: &str) -> Result<Scenario, String> {
    scenarios().into_iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("no scenario {name:?}"))
}
