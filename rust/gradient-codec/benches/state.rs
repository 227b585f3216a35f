//! What a training state costs to store: ratio and speed of each kind of tensor, with and without a base.
//!
//! `cargo bench -p gradient-codec --bench state -- FOLDER STEP BASE`, where FOLDER is what `benches/codecs.py` writes: the
//! tensors of one kind one after the other in `<kind><step>.bin`, and `index<step>.txt` with a line a tensor: kind, name,
//! shape, dtype. One core, the fastest of five runs of each chunk; decoded and compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use gradient_codec::{Base, DeltaGain, ElementClass, Encoded, Layout, Scratch, decode, encode_best};

const CHUNK_BYTES: usize = 1 << 20;
const RUNS: usize = 5;
const HEADER_BYTES: usize = 56 + 64;

/// The tensors of one kind, and where the next one begins.
struct File {
    bytes: Vec<u8>,
    base: Option<Vec<u8>>,
    at: usize,
}

#[derive(Default)]
struct Sum {
    raw: usize,
    stored: usize,
    encode: Duration,
    decode: Duration,
    chosen: BTreeMap<String, usize>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [folder, step, rest @ ..] = &arguments[..] else {
        println!("no state to measure: cargo bench -p gradient-codec --bench state -- FOLDER STEP [BASE [any]]");
        return Ok(());
    };
    let folder = Path::new(folder);
    let gain = if rest.len() > 1 { DeltaGain::Any } else { DeltaGain::Tenth };
    let index = std::fs::read_to_string(folder.join(format!("index{step}.txt")))?;
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut scratch = Scratch::new();
    let (mut payload, mut out) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    for line in index.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [kind, _, shape, dtype] = fields[..] else { return Err(line.into()) };
        if !files.contains_key(kind) {
            let bytes = std::fs::read(folder.join(format!("{kind}{step}.bin")))?;
            let base = rest.first().map(|base| std::fs::read(folder.join(format!("{kind}{base}.bin")))).transpose()?;
            files.insert(kind.to_owned(), File { bytes, base, at: 0 });
        }
        let File { bytes, base, at } = files.get_mut(kind).ok_or("it was just read")?;
        let shape: Vec<usize> = shape.split('x').map(str::parse).collect::<Result<_, _>>()?;
        let width = match dtype {
            "torch.float32" => 4,
            "torch.bfloat16" => 2,
            other => return Err(other.into()),
        };
        let len = shape.iter().product::<usize>() * width;
        let row_len = if shape.len() > 1 { shape[1..].iter().product() } else { 0 };
        let sum = sums.entry(kind.to_owned()).or_default();
        for offset in (0..len).step_by(CHUNK_BYTES) {
            let range = *at + offset..*at + len.min(offset + CHUNK_BYTES);
            let row_offset = if row_len == 0 { 0 } else { offset / width % row_len };
            let layout = Layout { width, class: ElementClass::Float, row_len, row_offset };
            let base = base.as_ref().map(|base| &base[range.clone()]);
            measure(&bytes[range], &layout, base, gain, &mut scratch, (&mut payload, &mut out), sum)?;
        }
        *at += len;
    }
    print(&sums);
    Ok(())
}

fn measure(
    raw: &[u8],
    layout: &Layout,
    base: Option<&[u8]>,
    gain: DeltaGain,
    scratch: &mut Scratch,
    (payload, out): (&mut [u8], &mut [u8]),
    sum: &mut Sum,
) -> Result<(), gradient_codec::CodecError> {
    let anchor_len = base.map(|base| encode_best(base, layout, None, gain, scratch, payload)).transpose()?;
    let anchor_len = anchor_len.map(|anchor| anchor.len.unwrap_or(raw.len()));
    let of_base = base.map(|bytes| Base { bytes, anchor_len });
    let encode = || encode_best(raw, layout, of_base.as_ref(), gain, scratch, payload);
    let (Encoded { pipeline, len, is_delta }, took) = fastest(encode)?;
    sum.encode += took;
    let payload = len.map_or(raw, |len| &payload[..len]);
    let out = &mut out[..raw.len()];
    let bases: Vec<&[u8]> = base.into_iter().filter(|_| is_delta).collect();
    let ((), took) = fastest(|| decode(&pipeline, payload, raw.len(), &bases, out))?;
    sum.decode += took;
    assert!(out == raw, "it comes back bit for bit");
    sum.raw += raw.len();
    sum.stored += payload.len() + HEADER_BYTES;
    let name: Vec<&str> = pipeline
        .iter()
        .map(|stage| gradient_codec::find_codec(stage.codec).map_or("?", |codec| codec.name()))
        .collect();
    *sum.chosen.entry(if name.is_empty() { "raw".to_owned() } else { name.join("+") }).or_default() += 1;
    Ok(())
}

/// Runs some times; the time is that of the fastest, when the chunk is in the cache as it is right after it was hashed.
fn fastest<T, E>(mut work: impl FnMut() -> Result<T, E>) -> Result<(T, Duration), E> {
    let mut best: Option<(T, Duration)> = None;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let done = work()?;
        let took = begun.elapsed();
        if best.as_ref().is_none_or(|(_, fastest)| took < *fastest) {
            best = Some((done, took));
        }
    }
    best.map_or_else(|| work().map(|done| (done, Duration::ZERO)), Ok)
}

fn print(sums: &BTreeMap<String, Sum>) {
    let (mut raw, mut stored, mut encode, mut decode) = (0, 0, Duration::ZERO, Duration::ZERO);
    for (kind, sum) in sums {
        print_one(kind, sum.raw, sum.stored, sum.encode, sum.decode, &format!("{:?}", sum.chosen));
        raw += sum.raw;
        stored += sum.stored;
        encode += sum.encode;
        decode += sum.decode;
    }
    print_one("all", raw, stored, encode, decode, "");
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print_one(kind: &str, raw: usize, stored: usize, encode: Duration, decode: Duration, chosen: &str) {
    let speed = |time: Duration| raw as f64 / 1e9 / time.as_secs_f64();
    println!(
        "{kind:4} ratio {:.4}  encode {:.2} GB/s  decode {:.2} GB/s  {chosen}",
        raw as f64 / stored as f64,
        speed(encode),
        speed(decode)
    );
}
