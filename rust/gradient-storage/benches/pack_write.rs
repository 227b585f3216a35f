//! How fast a pack becomes durable, against other ways to write the same bytes, and how fast it is read again.
//!
//! `cargo bench -p gradient-storage --bench pack_write [folder [MB [busy threads]]]`. The folder must lie on the disk that
//! is meant, so not on a tmpfs. All take turns, fifteen times each; 204 MB is the state of the lab run, and two busy
//! threads are what codes it on two cores.
//!
//! | row               | what it does                                                                           |
//! |-------------------|----------------------------------------------------------------------------------------|
//! | pack, sealed      | `PackWriter`, batches of 16 MiB as the object database appends them                    |
//! | pack, cached      | the same, told to expect less than what goes past the page cache                       |
//! | write and fsync   | plain writes, one sync at the end                                                      |
//! | past the cache    | `O_DIRECT` from two aligned pieces of 2 MiB, filled here and written by another thread |
//!
//! Processor time is that of the whole process, so of little use beside busy threads.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gradient_storage::{LocalStorage, Storage};
use rustix::fs::OFlags;

const CHUNK_BYTES: usize = 1 << 20;
const BATCH_CHUNKS: usize = 16;
const NUM_SAMPLES: u8 = 15;

/// What `O_DIRECT` wants of addresses, offsets and lengths, on any file system in use.
const ALIGNMENT: usize = 4096;
const PIECE_BYTES: usize = 2 << 20;
/// A pack that is expected to be this long goes through the page cache.
const CACHED_BYTES: usize = 31 << 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What one file took.
struct Sample {
    /// Until it was durable.
    written: Duration,
    /// The same, of the processor.
    processor: Duration,
    /// To read it once more.
    read: Duration,
}

/// When a file was begun.
struct Clock {
    started: Instant,
    processor: Duration,
}

impl Clock {
    fn start() -> Outcome<Self> {
        Ok(Self { started: Instant::now(), processor: processor_time()? })
    }

    /// Reads the file, which is durable now, and removes it.
    fn read_and_remove(&self, path: &Path) -> Outcome<Sample> {
        let (written, processor) = (self.started.elapsed(), processor_time()?.saturating_sub(self.processor));
        let mut buf = vec![0; CHUNK_BYTES];
        let mut file = std::fs::File::open(path)?;
        let start = Instant::now();
        while file.read(&mut buf)? > 0 {}
        let read = start.elapsed();
        std::fs::remove_file(path)?;
        Ok(Sample { written, processor, read })
    }
}

/// Returns how long processors have worked for this process.
fn processor_time() -> Outcome<Duration> {
    Ok(rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into()?)
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let folder = args.next().unwrap_or_else(|| ".".to_owned());
    let num_chunks = args.next().map_or(Ok(204), |arg| arg.parse())? * 1_000_000_usize / CHUNK_BYTES + 1;
    let num_busy: usize = args.next().map_or(Ok(0), |arg| arg.parse())?;
    let dir = tempfile::tempdir_in(folder)?;
    let storage = LocalStorage::create(&dir.path().join("repo"))?;
    storage.create_folders()?;
    let mut seed = 1_u64;
    let chunk: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    })
    .take(CHUNK_BYTES)
    .collect();

    let [mut packs, mut cached, mut plain, mut direct] = [const { Vec::new() }; 4];
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome<()> {
        for _ in 0..num_busy {
            scope.spawn(|| stay_busy(&chunk, &is_done));
        }
        let outcome = (0..NUM_SAMPLES).try_for_each(|sample| {
            let path = dir.path().join("file");
            let folder = dir.path().join("repo/packs");
            packs.push(pack(&storage, &folder, [sample; 16], &chunk, num_chunks, usize::MAX)?);
            cached.push(pack(&storage, &folder, [sample; 16], &chunk, num_chunks, CACHED_BYTES)?);
            plain.push(file(&path, &chunk, num_chunks)?);
            direct.extend(past_the_cache(&path, &chunk, num_chunks)?);
            Ok(())
        });
        is_done.store(true, Ordering::Relaxed);
        outcome
    })?;
    println!("{}, {num_chunks} chunks of {CHUNK_BYTES} bytes, {num_busy} busy threads", storage.location());
    let len = num_chunks * CHUNK_BYTES;
    print("pack, sealed   ", &packs, len);
    print("pack, cached   ", &cached, len);
    print("write and fsync", &plain, len);
    print("past the cache ", &direct, len);
    Ok(())
}

/// Takes a core, as coding does.
fn stay_busy(chunk: &[u8], is_done: &AtomicBool) {
    let mut copy = chunk.to_vec();
    while !is_done.load(Ordering::Relaxed) {
        for byte in &mut copy {
            *byte = byte.rotate_left(1);
        }
        std::hint::black_box(&mut copy);
    }
}

/// Writes and seals one pack; each chunk with a header and padding, as the object database does.
fn pack(
    storage: &LocalStorage,
    packs: &Path,
    id: [u8; 16],
    chunk: &[u8],
    num_chunks: usize,
    expected_max: usize,
) -> Outcome<Sample> {
    let clock = Clock::start()?;
    let expected = expected_max.min(num_chunks * (CHUNK_BYTES + 88));
    let mut pack = storage.create_pack(&id, expected as u64)?;
    let entry: [&[u8]; 3] = [&[1; 80], chunk, &[0; 8]];
    for done in (0..num_chunks).step_by(BATCH_CHUNKS) {
        pack.append(&entry.repeat(BATCH_CHUNKS.min(num_chunks - done)))?;
    }
    pack.seal()?;
    let entry = std::fs::read_dir(packs)?.next().ok_or("the pack is gone")??;
    clock.read_and_remove(&entry.path())
}

/// Writes the same chunks to a plain file and syncs it once.
fn file(path: &Path, chunk: &[u8], num_chunks: usize) -> Outcome<Sample> {
    let clock = Clock::start()?;
    let mut file = std::fs::File::create_new(path)?;
    for _ in 0..num_chunks {
        file.write_all(chunk)?;
    }
    file.sync_all()?;
    clock.read_and_remove(path)
}

/// Writes the same chunks past the page cache; none where the file system does not have that.
#[cfg(target_os = "linux")]
fn past_the_cache(path: &Path, chunk: &[u8], num_chunks: usize) -> Outcome<Option<Sample>> {
    let clock = Clock::start()?;
    let file = std::fs::File::create_new(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, (num_chunks * CHUNK_BYTES) as u64)?;
    if rustix::fs::fcntl_setfl(&file, OFlags::DIRECT).is_err() {
        std::fs::remove_file(path)?;
        return Ok(None);
    }
    let (full, to_write) = mpsc::channel::<Vec<u8>>();
    let (give_back, empty) = mpsc::channel();
    for _ in 0..2 {
        give_back.send(vec![0; PIECE_BYTES + ALIGNMENT])?;
    }
    std::thread::scope(|scope| -> Outcome<()> {
        let mut file = &file;
        let writer = scope.spawn(move || -> std::io::Result<()> {
            for mut piece in to_write {
                file.write_all(aligned(&mut piece))?;
                // Nobody waits for the last ones.
                give_back.send(piece).ok();
            }
            Ok(())
        });
        let mut piece: Vec<u8> = empty.recv()?;
        let mut filled = 0;
        for _ in 0..num_chunks {
            aligned(&mut piece)[filled..filled + CHUNK_BYTES].copy_from_slice(chunk);
            filled += CHUNK_BYTES;
            if filled == PIECE_BYTES {
                full.send(std::mem::replace(&mut piece, empty.recv()?))?;
                filled = 0;
            }
        }
        drop(full);
        writer.join().map_err(|_| "the writer died")??;
        Ok(file.write_all(&aligned(&mut piece)[..filled])?)
    })?;
    file.sync_all()?;
    clock.read_and_remove(path).map(Some)
}

/// There is no such thing.
#[cfg(not(target_os = "linux"))]
fn past_the_cache(_path: &Path, _chunk: &[u8], _num_chunks: usize) -> Outcome<Option<Sample>> {
    Ok(None)
}

/// Returns the part of a piece that begins on a multiple of the alignment.
fn aligned(piece: &mut [u8]) -> &mut [u8] {
    let start = piece.as_ptr().align_offset(ALIGNMENT);
    &mut piece[start..start + PIECE_BYTES]
}

/// Prints the median of each, and the fastest and the slowest write.
#[expect(clippy::cast_precision_loss, reason = "no file here has 2^52 bytes")]
fn print(name: &str, samples: &[Sample], len: usize) {
    let sorted = |of: fn(&Sample) -> Duration| {
        let mut times: Vec<Duration> = samples.iter().map(of).collect();
        times.sort_unstable();
        times
    };
    let written = sorted(|sample| sample.written);
    let (Some(fastest), Some(slowest)) = (written.first(), written.last()) else {
        return println!("{name}  not on this file system");
    };
    let median = |times: &[Duration]| times[times.len() / 2].as_secs_f64();
    let (durable, read) = (median(&written), median(&sorted(|sample| sample.read)));
    println!(
        "{name}  median {:.1} ms ({:.2} GB/s), {:.1} to {:.1} ms, {:.1} ms of processor time; read again in {:.1} ms ({:.2} GB/s)",
        durable * 1e3,
        len as f64 / durable / 1e9,
        fastest.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
        median(&sorted(|sample| sample.processor)) * 1e3,
        read * 1e3,
        len as f64 / read / 1e9,
    );
}
