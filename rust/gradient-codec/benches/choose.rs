//! What it costs to find out that a chunk is noise, and to encode and decode one that is not.
//!
//! `cargo bench -p gradient-codec --bench choose`

use std::time::{Duration, Instant};

use gradient_codec::{Scratch, decode, encode_best};

const CHUNK_BYTES: u32 = 1 << 20;
const NUM_CHUNKS: u32 = 195;

fn main() -> Result<(), gradient_codec::CodecError> {
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 32) as u32
    };
    // The exponent of a number near one, every other bit noise; and one value in sixteen not zero.
    let noise: Vec<u8> = (0..CHUNK_BYTES / 4).flat_map(|_| (0x3c00_0000 | (next() >> 4)).to_le_bytes()).collect();
    let sparse: Vec<u8> =
        (0..CHUNK_BYTES / 4).flat_map(|_| if next() >> 28 == 0 { next().to_le_bytes() } else { [0; 4] }).collect();
    let mut scratch = Scratch::new();
    for (name, chunk) in [("noise ", noise), ("sparse", sparse)] {
        let encoded = encode_best(&chunk, &mut scratch)?;
        let payload = encoded.bytes.as_deref().unwrap_or(&chunk);
        let mut out = vec![0; chunk.len()];
        let choosing = measure(|| encode_best(&chunk, &mut scratch).map(drop))?;
        let decoding = measure(|| decode(&encoded.pipeline, payload, chunk.len(), &[], &mut out))?;
        println!("{name}  {} to {} bytes, encode {choosing}, decode {decoding}", chunk.len(), payload.len());
    }
    Ok(())
}

/// Runs as often as a state of 204 MB would, and says how long it took.
fn measure<E>(mut work: impl FnMut() -> Result<(), E>) -> Result<String, E> {
    let start = Instant::now();
    for _ in 0..NUM_CHUNKS {
        work()?;
    }
    let elapsed: Duration = start.elapsed();
    let bytes = f64::from(NUM_CHUNKS) * f64::from(CHUNK_BYTES);
    Ok(format!("{:.1} ms for 204 MB ({:.2} GB/s)", elapsed.as_secs_f64() * 1e3, bytes / elapsed.as_secs_f64() / 1e9))
}
