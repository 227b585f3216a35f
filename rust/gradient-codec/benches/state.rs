//! What state costs to store: ratio and speed of each kind of tensor, with and without a base, and what was chosen.
//!
//! `cargo bench -p gradient-codec --bench state -- FOLDER STEP [BASE [any]]`, where FOLDER is what `benches/coding.py`
//! writes: the tensors of one kind one after the other in `<kind><step>.bin`, and `index<step>.txt` with a line a tensor:
//! kind, name, shape, dtype. With `any` every delta is taken that helps, else those that save a tenth. One core, the
//! fastest of five runs of each chunk; decoded and compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use gradient_codec::{Base, DeltaGain, ElementClass, Encoded, Layout, Scratch, Stage, decode, encode_best};

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
    /// Chunks of each pipeline.
    pipelines: BTreeMap<String, usize>,
    /// Planes, and parts like them, of each coder.
    coders: BTreeMap<String, usize>,
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
        let (width, class) = elements(dtype).ok_or_else(|| format!("no tensor of {dtype} is measured here"))?;
        let len = shape.iter().product::<usize>() * width;
        let row_len = if let [_, .., last] = shape[..] { last } else { 0 };
        let sum = sums.entry(kind.to_owned()).or_default();
        for offset in (0..len).step_by(CHUNK_BYTES) {
            let range = *at + offset..*at + len.min(offset + CHUNK_BYTES);
            let row_offset = if row_len == 0 { 0 } else { offset / width % row_len };
            let layout = Layout { width, class, row_len, row_offset };
            let base = base.as_ref().map(|base| &base[range.clone()]);
            measure(&bytes[range], &layout, base, gain, &mut scratch, (&mut payload, &mut out), sum)?;
        }
        *at += len;
    }
    print(&sums);
    Ok(())
}

/// Width and class of the elements, as the object database tells them.
fn elements(dtype: &str) -> Option<(usize, ElementClass)> {
    Some(match dtype {
        "torch.float32" => (4, ElementClass::Float),
        "torch.bfloat16" | "torch.float16" => (2, ElementClass::Float),
        "torch.int64" => (8, ElementClass::Integer),
        "torch.int32" => (4, ElementClass::Integer),
        "torch.uint8" | "torch.int8" => (1, ElementClass::Integer),
        "torch.bool" => (1, ElementClass::Bytes),
        _ => return None,
    })
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
    let names: Vec<String> = pipeline.iter().map(name).collect();
    for coder in coders(pipeline.last(), payload) {
        *sum.coders.entry(coder).or_default() += 1;
    }
    *sum.pipelines.entry(if names.is_empty() { "raw".to_owned() } else { names.join("+") }).or_default() += 1;
    Ok(())
}

fn name(stage: &Stage) -> String {
    let name = gradient_codec::find_codec(stage.codec).map_or("?", |codec| codec.name());
    let with_means = name == "planes" && stage.params.get(1).is_some_and(|flags| flags & 2 != 0);
    if with_means { format!("{name} with means") } else { name.to_owned() }
}

/// Reads which coder each plane has, and the gaps of what is sparse, as `docs/format/pack.md` lays it out.
fn coders(last: Option<&Stage>, payload: &[u8]) -> Vec<String> {
    const ROW_BYTES: usize = 5;
    let Some(stage) = last else { return Vec::new() };
    let mut rows = Vec::new();
    let planes_at = match gradient_codec::find_codec(stage.codec).map_or("?", |codec| codec.name()) {
        "planes" => 0,
        "sparse" => {
            rows.push(payload[8]);
            let gaps: [u8; 4] = payload[9..13].try_into().expect("because these are four bytes");
            8 + ROW_BYTES + u32::from_le_bytes(gaps) as usize
        }
        _ => return Vec::new(),
    };
    let width = usize::from(stage.params[0]);
    rows.extend(payload[planes_at + 4..].chunks(ROW_BYTES).take(width).map(|row| row[0]));
    let name = |coder: &u8| match coder {
        0 => "raw".to_owned(),
        1 => "zstd".to_owned(),
        2 => "lz4".to_owned(),
        3 => "constant".to_owned(),
        4 => "septets".to_owned(),
        5 => "few".to_owned(),
        other => format!("coder {other}"),
    };
    rows.iter().map(name).collect()
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
    println!(
        "  {:12} {:>9} {:>9} {:>14} {:>14}   chunks of each pipeline | planes of each coder",
        "", "MB", "ratio", "encode", "decode"
    );
    let mut all = Sum::default();
    for (kind, sum) in sums {
        print_one(kind, sum);
        all.raw += sum.raw;
        all.stored += sum.stored;
        all.encode += sum.encode;
        all.decode += sum.decode;
        for (into, from) in [(&mut all.pipelines, &sum.pipelines), (&mut all.coders, &sum.coders)] {
            for (name, num) in from {
                *into.entry(name.clone()).or_default() += num;
            }
        }
    }
    print_one("all", &all);
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print_one(kind: &str, sum: &Sum) {
    let speed = |time: Duration| sum.raw as f64 / 1e9 / time.as_secs_f64();
    let counts = |of: &BTreeMap<String, usize>| {
        let each: Vec<String> = of.iter().map(|(name, num)| format!("{name} {num}")).collect();
        if each.is_empty() { "-".to_owned() } else { each.join(", ") }
    };
    println!(
        "  {kind:12} {:9.3} {:9.4} {:9.2} GB/s {:9.2} GB/s   {} | {}",
        sum.raw as f64 / 1e6,
        sum.raw as f64 / sum.stored as f64,
        speed(sum.encode),
        speed(sum.decode),
        counts(&sum.pipelines),
        counts(&sum.coders)
    );
}
