//! What becomes of whole chunks and blocks: the choice, the limits, and payloads that lie.

use gradient_codec::{
    Base, CodecError, DeltaGain, ElementClass, Encoded, Layout, Scratch, Stage, decode, decode_metadata, encode_best,
    encode_metadata, find_codec, is_patch, metadata_raw_len, patch,
};
use proptest::prelude::*;
use zstd::zstd_safe::{CCtx, CParameter};

const CHUNK_BYTES: usize = 1 << 20;

const FP32: Layout = Layout { width: 4, class: ElementClass::Float, row_len: 0, row_offset: 0 };

fn zstd_stage() -> Vec<Stage> {
    vec![Stage { codec: 1, params: Vec::new() }]
}

/// Numbers without a pattern, the same ones in every run.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Values as weights have them: bell-shaped around zero, every mantissa bit noise.
fn weights(num: usize, seed: u64) -> Vec<f32> {
    let mut next = numbers(seed);
    let mut uniform = || f32::from((next() >> 48) as u16) / 65_536.0 + f32::from(next() as u16) / 4_294_967_296.0;
    std::iter::repeat_with(|| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 0.02).take(num).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Of so many in a thousand, the last `bits` bits become others.
fn changed(raw: &[u8], width: usize, per_mille: u64, bits: u32) -> Vec<u8> {
    let mut next = numbers(77);
    let mut changed = raw.to_vec();
    for element in changed.chunks_exact_mut(width) {
        let (other, is_one) = (next() >> (64 - bits), next() % 1000 < per_mille);
        if is_one {
            for (byte, of_other) in element.iter_mut().zip(other.to_le_bytes()) {
                *byte ^= of_other;
            }
        }
    }
    changed
}

/// Chooses, and checks what must hold of any choice: it is shorter than raw or raw, it comes back, also as a patch, and
/// it is the same again.
fn choose(raw: &[u8], layout: &Layout, base: Option<&Base<'_>>, gain: DeltaGain, scratch: &mut Scratch) -> Encoded {
    let mut payload = vec![0x55; raw.len() + 7];
    let encoded = encode_best(raw, layout, base, gain, scratch, &mut payload).expect("encodes");
    let mut again = vec![0xaa; raw.len() + 7];
    let second = encode_best(raw, layout, base, gain, &mut Scratch::new(), &mut again).expect("encodes");
    assert_eq!(second, encoded, "the same arguments give the same result");

    assert_eq!(encoded.pipeline.is_empty(), encoded.len.is_none());
    assert!(encoded.len.is_none_or(|len| len < raw.len()), "{encoded:?} of {} bytes", raw.len());
    assert!(!encoded.is_delta || base.is_some());
    let wants = |stage: &Stage| find_codec(stage.codec).expect("is in the table").wants_bases();
    assert_eq!(encoded.pipeline.iter().any(wants), encoded.is_delta, "{encoded:?}");

    let bases: Vec<&[u8]> = base.iter().map(|base| base.bytes).filter(|_| encoded.is_delta).collect();
    let payload = encoded.len.map_or(raw, |len| &payload[..len]);
    assert!(encoded.len.is_none_or(|len| payload == &again[..len]), "the same arguments give the same payload");
    let mut out = vec![0xaa; raw.len()];
    decode(&encoded.pipeline, payload, raw.len(), &bases, &mut out).expect("was just encoded");
    assert!(out == raw, "{encoded:?} of {layout:?} gave back other bytes");
    if is_patch(&encoded.pipeline) {
        let mut patched = bases[0].to_vec();
        patched.resize(raw.len(), 0);
        patch(&encoded.pipeline, payload, &mut patched).expect("was just encoded");
        assert!(patched == raw, "{encoded:?} of {layout:?} patched other bytes");
    }
    encoded
}

/// Without a base, how long it is stored.
fn anchor_len(raw: &[u8], layout: &Layout, scratch: &mut Scratch) -> usize {
    choose(raw, layout, None, DeltaGain::Tenth, scratch).len.unwrap_or(raw.len())
}

fn names(encoded: &Encoded) -> Vec<&'static str> {
    encoded.pipeline.iter().map(|stage| find_codec(stage.codec).expect("is in the table").name()).collect()
}

#[test]
fn noise_stays_raw_whatever_it_is_said_to_be() {
    let (mut next, sevens) = (numbers(5), vec![7; CHUNK_BYTES]);
    let noise: Vec<u8> = (0..CHUNK_BYTES / 8).flat_map(|_| next().to_le_bytes()).collect();
    let mut scratch = Scratch::new();
    for width in [1, 2, 4, 8] {
        for class in [ElementClass::Float, ElementClass::Integer, ElementClass::Bytes] {
            let layout = Layout { width, class, row_len: 512, row_offset: 3 };
            let base = Base { bytes: &sevens, anchor_len: None };
            let encoded = choose(&noise, &layout, Some(&base), DeltaGain::Any, &mut scratch);
            assert_eq!(names(&encoded), [""; 0], "{layout:?}");
        }
    }
}

#[test]
fn of_floats_the_exponents_pay_and_of_a_matrix_its_means() {
    let mut scratch = Scratch::new();
    let values = weights(CHUNK_BYTES / 4, 1);
    let raw = bytes_of(&values);
    let plain = choose(&raw, &FP32, None, DeltaGain::Tenth, &mut scratch);
    assert_eq!(names(&plain), ["planes"]);
    assert_eq!(plain.pipeline[0].params, [4, 1]);
    assert!(plain.len.expect("was coded") * 100 < raw.len() * 86);

    // Columns of which each has its size: 512 of them, the chunk begins in the middle of a row.
    let scaled = |at: usize| values[at] * f32::from(1_u16 << ((at + 100) % 512 * 37 % 16));
    let matrix = bytes_of(&(0..values.len()).map(scaled).collect::<Vec<f32>>());
    let of_rows = Layout { row_len: 512, row_offset: 100, ..FP32 };
    let with_means = choose(&matrix, &of_rows, None, DeltaGain::Tenth, &mut scratch);
    assert_eq!(with_means.pipeline[0].params, [4, 3, 0, 2, 0, 0, 100, 0, 0, 0]);
    let without = anchor_len(&matrix, &FP32, &mut scratch);
    assert!(with_means.len.expect("was coded") * 100 < without * 97, "{with_means:?}, without means {without}");
}

#[test]
fn the_sign_of_numbers_that_are_never_negative_costs_nothing() {
    let mut scratch = Scratch::new();
    let mut next = numbers(9);
    // All but the sign is noise.
    let raw: Vec<u8> = (0..CHUNK_BYTES / 2).flat_map(|_| (next() as u16 & 0x7fff).to_le_bytes()).collect();
    let layout = Layout { width: 2, ..FP32 };
    let encoded = choose(&raw, &layout, None, DeltaGain::Tenth, &mut scratch);
    assert_eq!(names(&encoded), ["planes"]);
    assert!(encoded.len.expect("was coded") < raw.len() * 15 / 16 + 100);
}

#[test]
fn what_repeats_becomes_small_and_comes_back() {
    let mut scratch = Scratch::new();
    let sparse: Vec<u8> = (0..CHUNK_BYTES / 4)
        .flat_map(|i| if i.is_multiple_of(97) { [1, 2, 3, (i % 251) as u8] } else { [0; 4] })
        .collect();
    let text = b"step 17: loss 2.3, step 18: loss 2.2, ".repeat(CHUNK_BYTES / 38);
    let kinds = [(vec![0; CHUNK_BYTES], 200), (vec![7; 400], 64), (sparse, CHUNK_BYTES / 10), (text, CHUNK_BYTES / 20)];
    for (raw, max) in kinds {
        for layout in [FP32, Layout::BYTES, Layout { class: ElementClass::Integer, width: 8, ..FP32 }] {
            if layout.class == ElementClass::Float && raw[0] == b's' {
                continue;
            }
            let encoded = choose(&raw, &layout, None, DeltaGain::Tenth, &mut scratch);
            let len = encoded.len.unwrap_or(raw.len());
            assert!(len <= max, "{len} bytes of {} as {layout:?}: {:?}", raw.len(), names(&encoded));
        }
    }
}

#[test]
fn what_did_not_change_is_almost_nothing_and_what_hardly_changed_is_a_patch() {
    let mut scratch = Scratch::new();
    let raw = bytes_of(&weights(CHUNK_BYTES / 4, 1));
    for (per_mille, max) in [(0, 200), (1, 4000), (10, 24_000), (50, 90_000)] {
        let base = changed(&raw, 4, per_mille, 12);
        let base = Base { bytes: &base, anchor_len: None };
        let encoded = choose(&raw, &FP32, Some(&base), DeltaGain::Tenth, &mut scratch);
        assert!(is_patch(&encoded.pipeline), "{encoded:?}");
        assert!(encoded.len.expect("was coded") < max, "{per_mille} in a thousand: {encoded:?}");
    }
}

/// Floats of 16 bits whose exponents end at `bias` and get rarer below it, and what they are after steps that all are
/// about as long: of the largest a few in a thousand change, by one, of the smallest nearly all.
fn stepped(bias: u16, mantissa_bits: u16) -> (Vec<u8>, Vec<u8>) {
    let mut next = numbers(3);
    let step = |element: u16, below: u16, draw: u64| {
        let reach = 1 + (1_u64 << (2 * below).min(20)) / 16;
        let is_changed = draw % 1000 < (4 << below).min(950);
        let by = 1 + (draw >> 20) % reach.min(4);
        if !is_changed {
            element
        } else if draw >> 40 & 1 == 0 {
            element.wrapping_add(by as u16)
        } else {
            element.wrapping_sub(by as u16)
        }
    };
    let (mut base, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..CHUNK_BYTES / 2 {
        let (draw, mantissa) = (next(), next() as u16 & ((1 << mantissa_bits) - 1) | 8);
        let below = (draw | 0x200).trailing_zeros() as u16;
        let element = (draw >> 48) as u16 & 0x8000 | (bias - below) << mantissa_bits | mantissa;
        base.extend(element.to_le_bytes());
        raw.extend(step(element, below, next()).to_le_bytes());
    }
    (base, raw)
}

#[test]
fn floats_of_which_few_changed_are_told_by_their_exponents_against_an_anchor() {
    let mut scratch = Scratch::new();
    let layout = Layout { width: 2, ..FP32 };
    for (bias, mantissa_bits) in [(0x7b, 7), (0x0c, 10)] {
        let (bytes, raw) = stepped(bias, mantissa_bits);
        let anchor = anchor_len(&bytes, &layout, &mut scratch);
        for gain in [DeltaGain::Tenth, DeltaGain::Any] {
            let base = Base { bytes: &bytes, anchor_len: Some(anchor) };
            let changes = choose(&raw, &layout, Some(&base), gain, &mut scratch);
            assert_eq!(names(&changes), ["changes"]);
            let base = Base { bytes: &bytes, anchor_len: None };
            let further = choose(&raw, &layout, Some(&base), gain, &mut scratch);
            assert_eq!(names(&further), ["difference", "sparse"], "a link further there is another look at all of it");
            let (len, sparse) = (changes.len.expect("was coded"), further.len.expect("was coded"));
            assert!(100 * len < 80 * sparse, "{len} bytes, {sparse} sparse");
        }
        let short = Base { bytes: &bytes[..CHUNK_BYTES - 1001], anchor_len: Some(anchor) };
        assert_eq!(names(&choose(&raw, &layout, Some(&short), DeltaGain::Tenth, &mut scratch)), ["changes"]);
    }
}

#[test]
fn integers_and_what_changed_by_no_exponent_are_not_told_by_one() {
    let mut scratch = Scratch::new();
    let raw = bytes_of(&weights(CHUNK_BYTES / 4, 1));
    for class in [ElementClass::Float, ElementClass::Integer, ElementClass::Bytes] {
        let bytes = changed(&raw, 4, 20, 12);
        let base = Base { bytes: &bytes, anchor_len: Some(raw.len()) };
        let encoded = choose(&raw, &Layout { class, ..FP32 }, Some(&base), DeltaGain::Tenth, &mut scratch);
        assert!(!names(&encoded).contains(&"changes"), "{class:?}: {encoded:?}");
    }
}

#[test]
fn a_delta_takes_a_tenth_off_or_is_not_taken() {
    let mut scratch = Scratch::new();
    let raw = bytes_of(&weights(CHUNK_BYTES / 16, 1));
    let anchor = anchor_len(&raw, &FP32, &mut scratch);
    let (mut num_taken, mut num_left) = (0, 0);
    for bits in (1..=32).step_by(2).chain([32]) {
        for per_mille in [20, 110, 200, 600, 800, 850, 900, 950, 1000] {
            let bytes = changed(&raw, 4, per_mille, bits);
            let base = Base { bytes: &bytes, anchor_len: (bits % 4 == 1).then_some(anchor) };
            let any = choose(&raw, &FP32, Some(&base), DeltaGain::Any, &mut scratch);
            let tenth = choose(&raw, &FP32, Some(&base), DeltaGain::Tenth, &mut scratch);
            let (any_len, len) = (any.len.unwrap_or(raw.len()), tenth.len.unwrap_or(raw.len()));
            let what = format!("{bits} bits of {per_mille} in a thousand: {any_len}, {len}, anchor {anchor}");
            // An estimate is exact to a fiftieth; what is stored is exact.
            assert!(len <= anchor && any_len <= anchor + anchor / 40, "{what}");
            if tenth.is_delta {
                assert!(100 * len <= 92 * anchor, "{what}");
                assert!(any.is_delta, "{what}");
            } else {
                assert!(!any.is_delta || 100 * any_len >= 87 * anchor, "{what}");
            }
            num_taken += usize::from(tenth.is_delta);
            num_left += usize::from(any.is_delta && !tenth.is_delta);
        }
    }
    assert!(num_taken > 30 && num_left > 5, "{num_taken} taken, {num_left} left");
}

#[test]
fn a_base_that_only_looks_close_where_one_looks_costs_nothing() {
    let mut scratch = Scratch::new();
    let raw = bytes_of(&weights(CHUNK_BYTES / 4, 1));
    let other = bytes_of(&weights(CHUNK_BYTES / 4, 2));
    let anchor = anchor_len(&raw, &FP32, &mut scratch);
    // The same in an eighth of the chunk around each place that a sample is taken from.
    for num_runs in [4, 7, 8] {
        let is_seen = |i: usize| {
            let between = CHUNK_BYTES / (num_runs - 1);
            (i + between / 16) % between < between / 8
        };
        let bytes: Vec<u8> = (0..raw.len()).map(|i| if is_seen(i) { raw[i] } else { other[i] }).collect();
        let base = Base { bytes: &bytes, anchor_len: None };
        for gain in [DeltaGain::Tenth, DeltaGain::Any] {
            let len = choose(&raw, &FP32, Some(&base), gain, &mut scratch).len.unwrap_or(raw.len());
            assert!(len <= anchor + anchor / 40, "{len} bytes, without a base {anchor}");
        }
    }
}

/// A chunk of zeros where so many rows of 64 floats are not.
fn rows_in_zeros(num_rows: u64) -> Vec<u8> {
    const ROW_BYTES: usize = 256;
    let mut next = numbers(99);
    let mut raw = vec![0; CHUNK_BYTES];
    for seed in 0..num_rows {
        let row = (next() % (CHUNK_BYTES / ROW_BYTES) as u64) as usize;
        raw[row * ROW_BYTES..][..ROW_BYTES].copy_from_slice(&bytes_of(&weights(64, seed)));
    }
    raw
}

#[test]
fn few_rows_that_come_to_few_others_cost_what_they_are() {
    let mut scratch = Scratch::new();
    for num_rows in [13, 50, 130, 400] {
        let (before, now) = (rows_in_zeros(num_rows), rows_in_zeros(num_rows + 13));
        let anchor_len = anchor_len(&before, &FP32, &mut scratch);
        for known in [None, Some(anchor_len)] {
            let base = Base { bytes: &before, anchor_len: known };
            let encoded = choose(&now, &FP32, Some(&base), DeltaGain::Tenth, &mut scratch);
            let len = encoded.len.expect("it is coded");
            // 13 rows of 256 bytes, which are noise but for their exponents.
            assert!(encoded.is_delta && len < 13 * 256 * 11 / 10, "{len} bytes after {num_rows} rows of {anchor_len}");
        }
    }
}

#[test]
fn a_chunk_that_grew_is_a_delta_to_what_it_was() {
    let mut scratch = Scratch::new();
    let raw = bytes_of(&weights(CHUNK_BYTES / 4, 1));
    for len in [CHUNK_BYTES / 2, CHUNK_BYTES - 4, CHUNK_BYTES - 7] {
        let base = Base { bytes: &raw[..len], anchor_len: Some(len * 86 / 100) };
        let encoded = choose(&raw, &FP32, Some(&base), DeltaGain::Tenth, &mut scratch);
        assert!(encoded.is_delta, "{len} of {CHUNK_BYTES}");
        let base = Base { bytes: &raw, anchor_len: Some(len * 86 / 100) };
        assert!(choose(&raw[..len], &FP32, Some(&base), DeltaGain::Tenth, &mut scratch).is_delta, "cut to {len}");
    }
}

#[test]
fn what_does_not_fit_is_raw() {
    let raw = bytes_of(&weights(CHUNK_BYTES / 4, 1));
    let close = changed(&raw, 4, 1000, 12);
    let mut scratch = Scratch::new();
    for base in [None, Some(Base { bytes: &close, anchor_len: None }), Some(Base { bytes: &raw, anchor_len: None })] {
        let mut whole = vec![0; raw.len()];
        let gain = DeltaGain::Tenth;
        let encoded = encode_best(&raw, &FP32, base.as_ref(), gain, &mut scratch, &mut whole).expect("encodes");
        let len = encoded.len.expect("was coded");
        for room in [0, 1, 5, 27, len / 2, len - 1, len, len + 1] {
            let mut out = vec![0; room];
            let result = encode_best(&raw, &FP32, base.as_ref(), gain, &mut scratch, &mut out).expect("encodes");
            assert!(result.len.is_none_or(|len| len <= room), "{room}: {result:?}");
            assert_eq!(result.is_delta, encoded.is_delta && room >= len, "{room} bytes where {len} are needed");
            if room >= len {
                assert!(result == encoded && out[..len] == whole[..len]);
            }
        }
    }
}

#[test]
fn the_raw_pipeline_copies_and_takes_no_other_length() {
    let mut out = [0; 4];
    decode(&[], b"abcd", 4, &[], &mut out).expect("is raw");
    assert_eq!(&out, b"abcd");
    assert_eq!(decode(&[], b"abc", 4, &[], &mut out), Err(CodecError::WrongLength { expected: 4, actual: 3 }));
    assert_eq!(decode(&[], b"abcde", 4, &[], &mut out), Err(CodecError::WrongLength { expected: 4, actual: 5 }));
    assert_eq!(decode(&[], b"abc", 3, &[], &mut out), Err(CodecError::WrongLength { expected: 3, actual: 4 }));
}

#[test]
fn refuses_codecs_and_bases_that_nobody_wrote() {
    for id in [0, 8, 255] {
        let pipeline = [Stage { codec: id, params: Vec::new() }];
        assert_eq!(decode(&pipeline, b"", 0, &[], &mut []), Err(CodecError::UnknownCodec { id }));
    }
    for pipeline in [Vec::new(), zstd_stage()] {
        let outcome = decode(&pipeline, b"abcd", 4, &[b"base"], &mut [0; 4]);
        assert_eq!(outcome, Err(CodecError::UnwantedBases { num_bases: 1 }));
    }
}

#[test]
fn refuses_zstd_frames_that_we_do_not_write() {
    let raw = [7; 5000];
    let good = encode_metadata(&raw).expect("encodes");
    let mut without_size = CCtx::create();
    without_size.set_parameter(CParameter::ContentSizeFlag(false)).expect("is a parameter");
    let mut unsized_frame = Vec::with_capacity(5000);
    without_size.compress2(&mut unsized_frame, &raw).expect("encodes");
    let to_skip = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];

    let mut out = [0; 5000];
    decode(&zstd_stage(), &good, 5000, &[], &mut out).expect("is ours");
    for (what, payload) in [
        ("a frame without its size", unsized_frame),
        ("a frame to be skipped before ours", [&to_skip[..], &good].concat()),
        ("a frame to be skipped after ours", [&good[..], &to_skip].concat()),
        ("two frames", [&good[..], &good].concat()),
        ("a byte after the frame", [&good[..], &[0]].concat()),
    ] {
        let outcome = decode(&zstd_stage(), &payload, 5000, &[], &mut out);
        assert!(matches!(outcome, Err(CodecError::Damaged { .. })), "{what}: {outcome:?}");
    }
    assert!(decode(&zstd_stage(), &to_skip, 0, &[], &mut []).is_err(), "a frame to be skipped alone");
}

#[test]
fn a_stage_in_the_middle_can_not_claim_much_more_than_the_chunk() {
    let bomb = encode_metadata(&vec![0; 64 << 20]).expect("encodes");
    let pipeline = [zstd_stage(), zstd_stage()].concat();
    let outcome = decode(&pipeline, &bomb, 100, &[], &mut [0; 100]);
    assert!(matches!(outcome, Err(CodecError::TooLarge { len, .. }) if len == 64 << 20), "{outcome:?}");
}

#[test]
fn metadata_is_as_long_as_declared_and_no_longer_than_allowed() {
    let raw = b"name: tensor, name: tensor, name: tensor".repeat(50);
    let block = encode_metadata(&raw).expect("encodes");
    assert!(block.len() < raw.len() / 10);
    assert_eq!(metadata_raw_len(&block), Ok(raw.len() as u64));
    assert_eq!(decode_metadata(&block, raw.len(), raw.len()).expect("is whole"), raw);
    let len = raw.len() as u64;
    assert_eq!(decode_metadata(&block, raw.len(), raw.len() - 1), Err(CodecError::TooLarge { len, max: len - 1 }));
    for declared in [0, raw.len() - 1, raw.len() + 1] {
        let outcome = decode_metadata(&block, declared, 1 << 20);
        assert_eq!(outcome, Err(CodecError::WrongLength { expected: declared as u64, actual: len }));
    }
}

#[test]
fn a_block_that_claims_an_exbibyte_costs_an_error() {
    // Magic, descriptor (8 byte content size, single segment), the size, one empty last block.
    let claim = (1_u64 << 60).to_le_bytes();
    let block = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &claim, &[1, 0, 0]].concat();
    assert_eq!(metadata_raw_len(&block), Ok(1 << 60));
    assert!(decode_metadata(&block, 1 << 20, 64 << 20).is_err());
    assert!(decode(&zstd_stage(), &block, 1 << 20, &[], &mut vec![0; 1 << 20]).is_err());
}

/// Bytes as chunks have them: a kind of elements, and what they are likely to be.
fn contents(width: usize, kind: u8, num: usize, seed: u64) -> Vec<u8> {
    let mut next = numbers(seed);
    let mut element = |i: usize| -> u64 {
        let noise = next();
        // Of floats, a few exponents, sign at the top.
        let bits = 8 * width as u32;
        let top = bits - 1 - 8.min(bits / 2);
        match kind {
            0 => noise,
            1 => {
                (noise & ((1 << top) - 1))
                    | (0x70 + u64::from(noise.leading_zeros())) << top
                    | noise >> 63 << (bits - 1)
            }
            2 => i as u64 * 3,
            3 => u64::from(noise.is_multiple_of(50)) * (noise >> 20),
            4 => seed,
            5 => (noise & 15) << (i % 5),
            _ => [1 << (bits - 1), u64::MAX, u64::MAX >> 1, 0, 1, noise][(noise >> 7) as usize % 6],
        }
    };
    (0..num).flat_map(|i| element(i).to_le_bytes()[..width].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_chosen_is_shorter_than_raw_and_comes_back(
        width in prop::sample::select(vec![1_usize, 2, 4, 8]),
        class in prop::sample::select(vec![ElementClass::Float, ElementClass::Integer, ElementClass::Bytes]),
        (kind, num, seed) in (0..7_u8, prop_oneof![0..40_usize, 40..3000_usize, 3000..20_000_usize], any::<u64>()),
        row_len in prop::sample::select(vec![0_usize, 1, 7, 8, 64, 300, 384, 5000, 1 << 20, usize::MAX]),
        row_offset in prop_oneof![Just(0_usize), 0..400_usize, Just(usize::MAX)],
        (of_base, per_mille, bits) in (0..7_u8, prop_oneof![0..30_u64, 0..1000_u64], 1..64_u32),
        (anchor_len, is_any) in (prop_oneof![Just(None), (0..40_000_usize).prop_map(Some)], any::<bool>()),
        more in 0..9_usize,
    ) {
        let mut raw = contents(width, kind, num, seed);
        // Sometimes no whole elements.
        raw.extend_from_slice(&[0x5a; 8][..more.saturating_sub(4) % 4]);
        let close = changed(&raw, width, per_mille, bits);
        let base = match of_base {
            0 => None,
            1 => Some(raw.clone()),
            2 => Some(close),
            3 => Some(close[..close.len() * 2 / 3].to_vec()),
            4 => Some([&close[..], &[7; 1000]].concat()),
            5 => Some(Vec::new()),
            _ => Some(contents(width, (kind + 1) % 7, num, seed ^ 1)),
        };
        let base = base.as_ref().map(|bytes| Base { bytes, anchor_len });
        let layout = Layout { width, class, row_len, row_offset };
        let gain = if is_any { DeltaGain::Any } else { DeltaGain::Tenth };
        let mut scratch = Scratch::new();
        // What others left behind makes no difference.
        drop(choose(&contents(4, 1, 5000, 3), &FP32, None, gain, &mut scratch));
        let encoded = choose(&raw, &layout, base.as_ref(), gain, &mut scratch);
        // What repeats may be shorter than its frequencies promise, so the choice can be wrong there.
        if encoded.is_delta && gain == DeltaGain::Tenth && kind < 2 {
            let without = self::anchor_len(&raw, &layout, &mut scratch);
            prop_assert!(encoded.len.is_some_and(|len| len <= without), "{encoded:?}, without a base {without}");
        }
    }

    #[test]
    fn metadata_comes_back_and_junk_is_an_error(raw in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let block = encode_metadata(&raw).expect("encodes");
        prop_assert_eq!(&decode_metadata(&block, raw.len(), 5000).expect("was just encoded"), &raw);
        prop_assert!(decode_metadata(&raw, raw.len(), 5000).is_err());
        prop_assert!(decode_metadata(&block[..block.len() - 1], raw.len(), 5000).is_err());
    }
}
