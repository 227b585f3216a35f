//! How fast a pack becomes durable, against other ways to write the same bytes, and how fast it is read again.
//!
//! `cargo bench -p gradient-storage --bench pack_write [folder [MB [busy threads]]]`. The folder must lie on the disk that
//! is meant, so not on a tmpfs. All take turns, fifteen times each; 204 MB is the state of the lab run, and two busy
//! threads are what codes it on two cores.
//!
//! | row               | what it does                                                                           |
//! |-------------------|----------------------------------------------------------------------------------------|
//! | pack, sealed      | `PackWriter`, batches of 16 MiB as the object database appends them                    |
//! | write and fsync   | plain writes, one sync at the end                                                      |
//! | past the cache    | `O_DIRECT` from two aligned pieces of 2 MiB, filled here and written by another thread |

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

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Time until the file was durable, and until it was read once more.
type Sample = (Duration, Duration);

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

    let (mut packs, mut plain, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome<()> {
        for _ in 0..num_busy {
            scope.spawn(|| stay_busy(&chunk, &is_done));
        }
        let outcome = (0..NUM_SAMPLES).try_for_each(|sample| {
            let path = dir.path().join("file");
            packs.push(pack(&storage, &dir.path().join("repo/packs"), [sample; 16], &chunk, num_chunks)?);
            plain.push(file(&path, &chunk, num_chunks)?);
            direct.extend(past_the_cache(&path, &chunk, num_chunks)?);
            Ok(())
        });
        is_done.store(true, Ordering::Relaxed);
        outcome
    })?;
    println!("{}, {num_chunks} chunks of {CHUNK_BYTES} bytes, {num_busy} busy threads", storage.location());
    let len = num_chunks * CHUNK_BYTES;
    print("pack, sealed   ", packs, len);
    print("write and fsync", plain, len);
    print("past the cache ", direct, len);
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
fn pack(storage: &LocalStorage, packs: &Path, id: [u8; 16], chunk: &[u8], num_chunks: usize) -> Outcome<Sample> {
    let start = Instant::now();
    let mut pack = storage.create_pack(&id, (num_chunks * (CHUNK_BYTES + 88)) as u64)?;
    let entry: [&[u8]; 3] = [&[1; 80], chunk, &[0; 8]];
    for done in (0..num_chunks).step_by(BATCH_CHUNKS) {
        pack.append(&entry.repeat(BATCH_CHUNKS.min(num_chunks - done)))?;
    }
    pack.seal()?;
    let written = start.elapsed();
    let entry = std::fs::read_dir(packs)?.next().ok_or("the pack is gone")??;
    read_and_remove(&entry.path(), written)
}

/// Writes the same chunks to a plain file and syncs it once.
fn file(path: &Path, chunk: &[u8], num_chunks: usize) -> Outcome<Sample> {
    let start = Instant::now();
    let mut file = std::fs::File::create_new(path)?;
    for _ in 0..num_chunks {
        file.write_all(chunk)?;
    }
    file.sync_all()?;
    read_and_remove(path, start.elapsed())
}

/// Writes the same chunks past the page cache; none where the file system does not have that.
#[cfg(target_os = "linux")]
fn past_the_cache(path: &Path, chunk: &[u8], num_chunks: usize) -> Outcome<Option<Sample>> {
    let start = Instant::now();
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
    read_and_remove(path, start.elapsed()).map(Some)
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

/// Reads the file once and removes it.
fn read_and_remove(path: &Path, written: Duration) -> Outcome<Sample> {
    let mut buf = vec![0; CHUNK_BYTES];
    let mut file = std::fs::File::open(path)?;
    let start = Instant::now();
    while file.read(&mut buf)? > 0 {}
    let read = start.elapsed();
    std::fs::remove_file(path)?;
    Ok((written, read))
}

/// Prints the median, the fastest and the slowest.
#[expect(clippy::cast_precision_loss, reason = "no file here has 2^52 bytes")]
fn print(name: &str, mut samples: Vec<Sample>, len: usize) {
    let mut reads: Vec<Duration> = samples.iter().map(|sample| sample.1).collect();
    samples.sort_unstable();
    reads.sort_unstable();
    let ms = |duration: &Duration| duration.as_secs_f64() * 1e3;
    let speed = |duration: &Duration| len as f64 / duration.as_secs_f64() / 1e9;
    let (Some((fastest, _)), Some((slowest, _))) = (samples.first(), samples.last()) else {
        return println!("{name}  not on this file system");
    };
    let ((median, _), read) = (&samples[samples.len() / 2], &reads[reads.len() / 2]);
    println!(
        "{name}  median {:.1} ms ({:.2} GB/s), {:.1} to {:.1} ms; read again in {:.1} ms ({:.2} GB/s)",
        ms(median),
        speed(median),
        ms(fastest),
        ms(slowest),
        ms(read),
        speed(read),
    );
}
