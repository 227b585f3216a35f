//! Measures commit and restore of a state of noise, beside what the machine can do at best.
//!
//! `cargo run --release -p gradient-odb --example hot_path -- FOLDER [MEGABYTES] [ROUNDS]`
//!
//! FOLDER lies on the file system to measure and must not hold a repository. Each round: BLAKE3 alone on as many
//! threads as rayon has, a first commit (another state each time), a commit of the unchanged state in the same process
//! and in a new one, a restore into existing memory with the files cached.
#![expect(clippy::unwrap_used, clippy::cast_precision_loss, reason = "an example, and its numbers are small")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gradient_object::{CHUNK_BYTES, ChunkId, Flavor, Tensor, TensorData};
use gradient_odb::{ByteSink, Odb, Progress, Source};
use gradient_storage::{LocalStorage, Storage};
use rayon::prelude::*;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("a folder"));
    let megabytes: usize = args.next().map_or(204, |text| text.parse().unwrap());
    let rounds: u64 = args.next().map_or(7, |text| text.parse().unwrap());
    let len = megabytes * 1_000_000;
    let threads = rayon::current_num_threads();
    println!("{megabytes} MB, {threads} threads, {}", folder.display());

    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::create(&folder).unwrap());
    storage.create_folders().unwrap();
    let odb = Odb::open(Arc::clone(&storage)).unwrap();
    let mut state = vec![0; len];
    let sink = Sink::new(len);
    let mut samples: [Vec<(f64, f64)>; 6] = Default::default();
    for round in 0..rounds {
        fill(&mut state, round);
        samples[0].push(timed(|| {
            state.par_chunks(CHUNK_BYTES).for_each(|chunk| {
                std::hint::black_box(ChunkId::of(chunk));
            });
        }));
        let mut chunks = Vec::new();
        samples[1].push(timed(|| chunks = commit(&odb, &state)));
        samples[2].push(timed(|| drop(commit(&odb, &state))));
        let other = Odb::open(Arc::clone(&storage)).unwrap();
        samples[3].push(timed(|| drop(commit(&other, &state))));
        let tensor = Tensor {
            flavor: Flavor::Torch,
            dtype: "float32".to_owned(),
            shape: vec![len as u64 / 4],
            order: None,
            data: TensorData::Chunks(chunks),
        };
        samples[4].push(timed(|| odb.read_tensors(&[(&tensor, &sink)], &Progress::new()).unwrap()));
        assert!(sink.holds(&state), "the state came back otherwise");
        let path = folder.join("plain");
        samples[5].push(timed(|| {
            std::fs::write(&path, &state).unwrap();
            std::fs::File::open(&path).unwrap().sync_all().unwrap();
        }));
        std::fs::remove_file(&path).unwrap();
    }
    let names = [
        "BLAKE3 alone",
        "first commit, durable",
        "unchanged commit",
        "unchanged, new process",
        "verified restore",
        "plain write + fsync",
    ];
    for (name, mut times) in names.iter().zip(samples) {
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let median = times[times.len() / 2].0;
        let speed = len as f64 / median / 1e9;
        let (low, high) = (times[0].0 * 1e3, times[times.len() - 1].0 * 1e3);
        let processor = times.iter().map(|(_, processor)| processor).sum::<f64>() / times.len() as f64 * 1e3;
        println!(
            "{name:24} {:8.1} ms ({low:6.1} to {high:6.1}) {speed:6.2} GB/s  {processor:6.1} ms of processor",
            median * 1e3
        );
    }
}

fn commit(odb: &Odb, state: &[u8]) -> Vec<ChunkId> {
    let mut transaction = odb.begin();
    let chunks = transaction.add_sources(&[Source::plain(&state)], None, &Progress::new()).unwrap().remove(0);
    transaction.seal(&Progress::new()).unwrap();
    chunks
}

/// Returns seconds of wall clock and of processor.
fn timed(work: impl FnOnce()) -> (f64, f64) {
    let (start, processor) = (Instant::now(), processor_seconds());
    work();
    (start.elapsed().as_secs_f64(), processor_seconds() - processor)
}

/// What all threads of this process have used, in hundredths; 0 where the system does not say.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Like weights: small floats, of which only the exponents could be compressed.
fn fill(state: &mut [u8], round: u64) {
    state.par_chunks_mut(CHUNK_BYTES).enumerate().for_each(|(number, chunk)| {
        let mut seed = (round << 32 | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for value in chunk.chunks_mut(4) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let uniform = |bits: u64| (bits & 0xff_ffff) as f32 / 16_777_216.0;
            let sum = uniform(seed) + uniform(seed >> 20) + uniform(seed >> 40) - 1.5;
            value.copy_from_slice(&(sum * 0.02).to_le_bytes()[..value.len()]);
        }
    });
}

/// Memory that many threads write: a lock for each chunk.
struct Sink {
    len: usize,
    chunks: Vec<Mutex<Vec<u8>>>,
}

impl Sink {
    fn new(len: usize) -> Self {
        let chunks = (0..len).step_by(CHUNK_BYTES);
        Self { len, chunks: chunks.map(|at| Mutex::new(vec![1; CHUNK_BYTES.min(len - at)])).collect() }
    }

    fn holds(&self, state: &[u8]) -> bool {
        state.chunks(CHUNK_BYTES).zip(&self.chunks).all(|(chunk, ours)| *ours.lock().unwrap() == chunk)
    }
}

impl ByteSink for Sink {
    fn len(&self) -> usize {
        self.len
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset.is_multiple_of(CHUNK_BYTES));
        self.chunks[offset / CHUNK_BYTES].lock().unwrap().copy_from_slice(bytes);
    }
}
