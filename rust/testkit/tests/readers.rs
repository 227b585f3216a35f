//! Row 23 of `reliability.md`, without a fuzzer: every reader of bytes is given its seeds and changes of them, the same
//! ones in every run. `make fuzz` looks further.
#![cfg(target_os = "linux")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use gradient_testkit::readers::{Mutations, READERS, Reader};

/// Changed seeds of each reader; fewer of those that take long.
const CHANGES: usize = 20_000;
/// At least so many, however long they take.
const CHANGES_MIN: usize = 500;
/// For one reader.
const TIME: Duration = Duration::from_millis(1500);
const MEMORY_MAX: u64 = 256 << 20;

fn try_one(reader: &Reader, bytes: &[u8]) {
    let caught = catch_unwind(AssertUnwindSafe(|| (reader.check)(bytes)));
    let shown = &bytes[..bytes.len().min(4096)];
    let hex = shown.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert!(caught.is_ok(), "reader {} does what no reader may, given {} bytes: {hex}", reader.name, bytes.len());
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("its own status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib << 10
}

#[test]
fn no_reader_panics_accepts_what_it_would_write_otherwise_or_takes_much_memory() {
    let before = peak();
    let mut total = 0;
    for reader in READERS {
        let seeds = (reader.seeds)();
        assert!(!seeds.is_empty(), "{}", reader.name);
        for seed in &seeds {
            try_one(reader, seed);
        }
        let (began, mut tried) = (Instant::now(), seeds.len());
        for changed in Mutations::new(seeds, 0x9E37_79B9_7F4A_7C15).take(CHANGES) {
            try_one(reader, &changed);
            tried += 1;
            if began.elapsed() > TIME && tried >= CHANGES_MIN {
                break;
            }
        }
        println!("{}: {tried}", reader.name);
        total += tried;
    }
    let taken = peak().saturating_sub(before);
    println!("{total} inputs in all, {} MiB", taken >> 20);
    assert!(taken < MEMORY_MAX, "the readers took {} MiB", taken >> 20);
}

#[test]
fn every_codec_has_a_reader_of_its_own() {
    for codec in gradient_codec::codecs() {
        let name = format!("codec_{}", codec.name());
        assert!(READERS.iter().any(|reader| reader.name == name), "{name}");
    }
}

#[test]
fn every_reader_has_a_fuzz_target_and_every_target_a_reader() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut files: Vec<String> = std::fs::read_dir(folder.join("fuzz_targets"))
        .expect("the targets")
        .map(|entry| entry.expect("listed").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    let names: Vec<String> = READERS.iter().map(|reader| format!("{}.rs", reader.name)).collect();
    assert_eq!(files, names);
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("its manifest");
    for reader in READERS {
        let source = std::fs::read_to_string(folder.join("fuzz_targets").join(format!("{}.rs", reader.name)));
        assert!(source.expect("was listed").contains(&format!("check(\"{}\", bytes)", reader.name)));
        assert!(manifest.contains(&format!("name = \"{}\"\n", reader.name)), "{}", reader.name);
    }
}
