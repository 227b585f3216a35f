//! How fast a pack becomes durable, against plain writes and one sync of the same bytes.
//!
//! `cargo bench -p gradient-storage --bench pack_write [folder]`. The folder must lie on the disk that is meant, so not on
//! a tmpfs. Both take turns, nine times each; 204 MB is the state of the lab run.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use gradient_storage::{LocalStorage, Storage};

const CHUNK_BYTES: u32 = 1 << 20;
const NUM_CHUNKS: u32 = 195;
const NUM_SAMPLES: u8 = 9;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(folder)?;
    let storage = LocalStorage::create(&dir.path().join("repo"))?;
    storage.create_folders()?;
    let mut seed = 1_u64;
    let chunk: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    })
    .take(CHUNK_BYTES as usize)
    .collect();

    let (mut packs, mut plain) = (Vec::new(), Vec::new());
    for sample in 0..NUM_SAMPLES {
        packs.push(pack(&storage, [sample; 16], &chunk)?);
        plain.push(file(&dir.path().join(format!("plain-{sample}")), &chunk)?);
    }
    println!("{}, {NUM_CHUNKS} chunks of {CHUNK_BYTES} bytes", storage.location());
    print("pack, sealed   ", packs);
    print("write and fsync", plain);
    Ok(())
}

/// Writes and seals one pack; each chunk with a header and padding, as the object database does.
fn pack(storage: &LocalStorage, id: [u8; 16], chunk: &[u8]) -> Outcome<Duration> {
    let start = Instant::now();
    let mut pack = storage.create_pack(&id, u64::from(NUM_CHUNKS) * (u64::from(CHUNK_BYTES) + 88))?;
    for _ in 0..NUM_CHUNKS {
        pack.append(&[&[1; 80], chunk, &[0; 8]])?;
    }
    pack.seal()?;
    Ok(start.elapsed())
}

/// Writes the same chunks to a plain file and syncs it once.
fn file(path: &Path, chunk: &[u8]) -> Outcome<Duration> {
    let start = Instant::now();
    let mut file = std::fs::File::create_new(path)?;
    for _ in 0..NUM_CHUNKS {
        file.write_all(chunk)?;
    }
    file.sync_all()?;
    let elapsed = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(elapsed)
}

/// Prints the median, the fastest and the slowest.
fn print(name: &str, mut samples: Vec<Duration>) {
    samples.sort_unstable();
    let (median, fastest, slowest) = (samples[samples.len() / 2], samples[0], samples[samples.len() - 1]);
    let bytes = f64::from(NUM_CHUNKS) * f64::from(CHUNK_BYTES);
    println!(
        "{name}  median {:4} ms ({:.2} GB/s), {} to {} ms",
        median.as_millis(),
        bytes / median.as_secs_f64() / 1e9,
        fastest.as_millis(),
        slowest.as_millis()
    );
}
