//! The promises of a codec, kept by every row of the table, with all of its good parameters and against any base.
//!
//! A new codec needs nothing here, unless it has parameters: then `params_of` names the good ones, the width of its
//! elements first.

use std::collections::BTreeSet;

use gradient_codec::{Codec, CodecError, Scratch, Stage, codecs, decode, find_codec, is_patch, patch};
use proptest::prelude::*;

const WIDTHS: [u8; 4] = [1, 2, 4, 8];

/// Good parameters for a codec: all sorts.
fn params_of(codec: &dyn Codec) -> Vec<Vec<u8>> {
    let with_flag = |flags: &[u8]| -> Vec<Vec<u8>> {
        WIDTHS.iter().flat_map(|width| flags.iter().map(|flag| vec![*width, *flag])).collect()
    };
    match codec.name() {
        "planes" => {
            let rows = |row_len: u32, offset: u32| [row_len.to_le_bytes(), offset.to_le_bytes()].concat();
            let with_means = [rows(1, 0), rows(7, 0), rows(7, 3), rows(40, 39)];
            let of_rows = |rows: &Vec<u8>| -> Vec<Vec<u8>> {
                with_flag(&[2, 3]).into_iter().map(|params| [params, rows.clone()].concat()).collect()
            };
            with_means.iter().flat_map(of_rows).chain(with_flag(&[0, 1])).collect()
        }
        "difference" => with_flag(&[0, 1]),
        "changes" => {
            let kinds = [[0, 127], [0, 0], [1, 255], [3, 200]];
            let of_width = |width: &u8| kinds.map(|[shift, top]| vec![*width, shift, top]);
            WIDTHS.iter().flat_map(of_width).collect()
        }
        "sparse" => WIDTHS.iter().map(|width| vec![*width]).collect(),
        _ => vec![Vec::new()],
    }
}

/// A codec with parameters, as a stage; all that there are.
fn stages() -> Vec<Stage> {
    let of_codec =
        |codec: &'static dyn Codec| params_of(codec).into_iter().map(move |params| Stage { codec: codec.id(), params });
    codecs().iter().copied().flat_map(of_codec).collect()
}

fn codec_of(stage: &Stage) -> &'static dyn Codec {
    find_codec(stage.codec).expect("is in the table")
}

fn width_of(stage: &Stage) -> usize {
    stage.params.first().map_or(1, |width| usize::from(*width))
}

/// Says whether it takes so many bytes: whole elements, and of those not fewer than would have means.
fn takes(stage: &Stage, len: usize) -> bool {
    let [_, 2 | 3, row_len @ .., _, _, _, _] = &stage.params[..] else { return len.is_multiple_of(width_of(stage)) };
    let row_len = u32::from_le_bytes(row_len.try_into().expect("four bytes")) as usize;
    let offset = usize::from(stage.params[6]);
    let n = len / width_of(stage);
    let num_rows = if n == 0 { 0 } else { (offset + n).div_ceil(row_len) };
    len.is_multiple_of(width_of(stage)) && row_len + num_rows <= len + 2
}

/// Whole elements.
fn cut<'a>(stage: &Stage, raw: &'a [u8]) -> &'a [u8] {
    &raw[..raw.len() / width_of(stage) * width_of(stage)]
}

/// Bases that it may be coded against: the same, close to it, shorter, longer, none at all, of nothing like it.
fn bases_of(stage: &Stage, raw: &[u8]) -> Vec<Vec<Vec<u8>>> {
    if !codec_of(stage).wants_bases() {
        return vec![Vec::new()];
    }
    let close = raw.iter().enumerate().map(|(i, byte)| byte.wrapping_add(u8::from(i % 5 == 0)));
    let unlike = (0..raw.len()).map(|i| (i * i % 251) as u8 ^ 0xff);
    [
        raw.to_vec(),
        close.collect(),
        raw[..raw.len() * 2 / 3].to_vec(),
        raw[..raw.len().min(3)].to_vec(),
        [raw, b"and more"].concat(),
        Vec::new(),
        unlike.collect(),
    ]
    .map(|base| vec![base])
    .to_vec()
}

/// The one that is close to it, where one is taken.
fn close_base(stage: &Stage, raw: &[u8]) -> Vec<Vec<u8>> {
    bases_of(stage, raw).into_iter().take(2).next_back().unwrap_or_default()
}

fn borrowed(bases: &[Vec<u8>]) -> Vec<&[u8]> {
    bases.iter().map(Vec::as_slice).collect()
}

fn encode(stage: &Stage, raw: &[u8], bases: &[Vec<u8>], scratch: &mut Scratch) -> Vec<u8> {
    let mut encoded = b"left over from before".to_vec();
    codec_of(stage)
        .encode(&stage.params, &borrowed(bases), raw, scratch, &mut encoded)
        .expect("every codec encodes all whole elements");
    encoded
}

/// Decodes by the pipeline of this one codec.
fn decode_one(stage: &Stage, bases: &[Vec<u8>], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    decode(std::slice::from_ref(stage), encoded, out.len(), &borrowed(bases), out)
}

/// Bytes of many kinds: none, few, runs, noise, floats that hardly differ, few that are not zero.
fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let edge = prop::sample::select(vec![0x8000_0000_u32, 0x7fff_ffff, 0xffff_ffff, 0x7f80_0000, 0xffc0_1234, 1, 0]);
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 1000..10_000),
        (any::<u8>(), 1..20_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        proptest::collection::vec((any::<u8>(), 1..1000_usize), 0..20)
            .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| std::iter::repeat_n(byte, len)).collect()),
        proptest::collection::vec(-1.0..1.0_f32, 0..4000)
            .prop_map(|values| values.into_iter().flat_map(f32::to_le_bytes).collect()),
        proptest::collection::vec((0..600_usize, any::<[u8; 8]>()), 0..20).prop_map(|parts| {
            parts.into_iter().flat_map(|(zeros, element)| [vec![0; 8 * zeros], element.to_vec()].concat()).collect()
        }),
        proptest::collection::vec(edge, 0..200)
            .prop_map(|values| values.into_iter().flat_map(u32::to_le_bytes).collect()),
        (any::<u16>(), 0..5000_u32)
            .prop_map(|(step, n)| (0..n).flat_map(|i| (i * u32::from(step)).to_le_bytes()).collect()),
    ]
}

#[test]
fn numbers_and_names_are_used_once_and_zero_is_raw() {
    let ids: Vec<u8> = codecs().iter().map(|codec| codec.id()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(!ids.contains(&0));
    let names: BTreeSet<&str> = codecs().iter().map(|codec| codec.name()).collect();
    assert_eq!(names.len(), ids.len());
    for &id in &ids {
        assert_eq!(find_codec(id).expect("is in the table").id(), id);
    }
}

#[test]
fn keeps_the_number_of_the_format_document() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format/pack.md");
    let document = std::fs::read_to_string(document).expect("the format is documented");
    for codec in codecs() {
        let row = format!("| {} | {} | {} |", codec.id(), codec.name(), if codec.wants_bases() { "one" } else { "no" });
        assert!(document.contains(&row), "docs/format/pack.md lacks the row {row}");
    }
}

#[test]
fn refuses_parameters_that_it_does_not_know() {
    let raw = [7; 960];
    for stage in stages() {
        let bases = &close_base(&stage, &raw);
        let encoded = encode(&stage, &raw, bases, &mut Scratch::new());
        let mut wrong = vec![[stage.params.clone(), vec![0xff; 7]].concat(), [stage.params.clone(), vec![0]].concat()];
        if let [_, rest @ ..] = &stage.params[..] {
            wrong.extend([0, 3, 5, 16, 255].map(|width| [&[width], rest].concat()));
            wrong.extend([Vec::new(), stage.params[..stage.params.len() - 1].to_vec()]);
        }
        if let [width, _, rest @ ..] = &stage.params[..] {
            wrong.extend([4, 5, 0x80].map(|flags| [&[*width, flags], rest].concat()));
        }
        if let [width, flags, row_len @ .., _, _, _, _] = &stage.params[..] {
            wrong
                .extend([vec![*width, *flags, 0, 0, 0, 0, 0, 0, 0, 0], [&[*width, *flags], row_len, row_len].concat()]);
        }
        for params in wrong {
            let stage = Stage { codec: stage.codec, params };
            let codec = codec_of(&stage);
            let outcome = decode_one(&stage, bases, &encoded, &mut [0; 960]);
            assert!(matches!(outcome, Err(CodecError::BadParams { .. })), "{}: {stage:?} {outcome:?}", codec.name());
            let outcome = codec.decoded_len(&stage.params, &encoded);
            assert!(matches!(outcome, Err(CodecError::BadParams { .. })), "{}: {stage:?} {outcome:?}", codec.name());
            let outcome = codec.encode(&stage.params, &borrowed(bases), &raw, &mut Scratch::new(), &mut Vec::new());
            assert!(matches!(outcome, Err(CodecError::BadParams { .. })), "{}: {stage:?} {outcome:?}", codec.name());
        }
    }
}

#[test]
fn refuses_another_number_of_bases_than_it_takes() {
    let raw = [7_u8; 80];
    for stage in stages() {
        let encoded = encode(&stage, &raw, &close_base(&stage, &raw), &mut Scratch::new());
        let wrong: &[usize] = if codec_of(&stage).wants_bases() { &[0, 2] } else { &[1, 2] };
        for num in wrong {
            let outcome = decode_one(&stage, &vec![raw.to_vec(); *num], &encoded, &mut [0; 80]);
            let (of_none, of_many) = (
                matches!(outcome, Err(CodecError::WrongNumberOfBases { .. })),
                matches!(outcome, Err(CodecError::UnwantedBases { .. })),
            );
            assert!(of_none || of_many, "{stage:?}, {num} bases: {outcome:?}");
        }
    }
}

#[test]
fn refuses_what_is_no_whole_number_of_elements() {
    let raw = [7; 81];
    let mut scratch = Scratch::new();
    for stage in stages().into_iter().filter(|stage| width_of(stage) > 1) {
        let bases = &close_base(&stage, &raw);
        let outcome = codec_of(&stage).encode(&stage.params, &borrowed(bases), &raw, &mut scratch, &mut Vec::new());
        assert!(outcome.is_err(), "{stage:?} encodes 81 bytes");
        for payload in [&raw[..], &encode(&stage, &raw[..80], bases, &mut scratch)] {
            assert!(decode_one(&stage, bases, payload, &mut [0; 81]).is_err(), "{stage:?} decodes to 81 bytes");
        }
    }
}

#[test]
fn refuses_every_truncation_and_every_byte_too_many() {
    let mut scratch = Scratch::new();
    // Of which planes are noise, codes, septets and constants; and few elements that are not zero.
    let noise = |i: u32| i.wrapping_mul(2_654_435_761) >> 7;
    let mixed: Vec<u8> = (0..160_u32).flat_map(|i| (0x3f00_0000 | (noise(i) & 0x00fe_ffff)).to_le_bytes()).collect();
    let few: Vec<u8> = (0..200_u64).flat_map(|i| if i % 9 == 0 { i + 1 } else { 0 }.to_le_bytes()).collect();
    for (stage, raw) in stages().iter().flat_map(|stage| [(stage, &mixed), (stage, &few)]) {
        let bases = &close_base(stage, raw);
        let encoded = encode(stage, raw, bases, &mut scratch);
        let mut out = vec![0; raw.len()];
        for len in 0..encoded.len() {
            let outcome = decode_one(stage, bases, &encoded[..len], &mut out);
            assert!(outcome.is_err(), "{stage:?} took {len} of {} bytes", encoded.len());
        }
        for extra in [vec![0], vec![0xff; 100], encoded.clone()] {
            let outcome = decode_one(stage, bases, &[encoded.clone(), extra].concat(), &mut out);
            assert!(outcome.is_err(), "{stage:?} took bytes after its payload");
        }
        decode_one(stage, bases, &encoded, &mut out).expect("is whole");
        assert!(out == *raw, "{stage:?}");
    }
}

#[test]
fn refuses_a_raw_length_that_is_not_the_encoded_one() {
    let raw = [7; 1000];
    for stage in stages() {
        let bases = &close_base(&stage, &raw);
        let encoded = encode(&stage, &raw, bases, &mut Scratch::new());
        for len in [0, 1, 8, 992, 999, 1001, 1008, 1 << 20] {
            assert!(decode_one(&stage, bases, &encoded, &mut vec![0; len]).is_err(), "{stage:?}: {len}");
        }
    }
}

#[test]
fn lengths_of_gigabytes_cost_an_error_and_no_memory() {
    let peak = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    let before = peak();
    // Every number of a payload, and each of two neighbours, says 4 GiB.
    let huge = u32::MAX.to_le_bytes();
    for stage in stages() {
        for raw in [vec![0; 800], (0..800_u32).map(|i| (i * i % 241) as u8).collect::<Vec<u8>>()] {
            let bases = &close_base(&stage, &raw);
            let encoded = encode(&stage, &raw, bases, &mut Scratch::new());
            for at in 0..encoded.len().min(64).saturating_sub(4) {
                let mut lying = encoded.clone();
                lying[at..at + 4].copy_from_slice(&huge);
                let mut out = [0; 800];
                // Among bytes that are copied it is no length.
                drop(decode_one(&stage, bases, &lying, &mut out));
                let twice = [Stage { codec: 1, params: Vec::new() }, stage.clone()];
                drop(decode(&twice, &lying, 800, &borrowed(bases), &mut out));
            }
        }
    }
    let taken = peak().saturating_sub(before);
    assert!(taken < 64 << 10, "{taken} KiB");
}

#[test]
fn planes_with_more_means_than_bytes_are_not_written() {
    let stage = Stage { codec: 3, params: [&[4, 3][..], &100_u32.to_le_bytes(), &7_u32.to_le_bytes()].concat() };
    for (len, fits) in [(0, false), (96, false), (100, true), (4000, true)] {
        assert_eq!(takes(&stage, len), fits);
        let outcome = codec_of(&stage).encode(&stage.params, &[], &vec![1; len], &mut Scratch::new(), &mut Vec::new());
        assert_eq!(outcome.is_ok(), fits, "{len} bytes: {outcome:?}");
        let refused = matches!(outcome, Err(CodecError::NotEncoded { .. }));
        assert!(fits || refused, "{outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn gives_back_exactly_what_went_in(raw in chunks()) {
        let mut scratch = Scratch::new();
        for stage in stages() {
            let raw = cut(&stage, &raw);
            if !takes(&stage, raw.len()) {
                continue;
            }
            for bases in bases_of(&stage, raw) {
                let encoded = encode(&stage, raw, &bases, &mut scratch);
                prop_assert_eq!(codec_of(&stage).decoded_len(&stage.params, &encoded), Ok(raw.len() as u64));
                let mut out = vec![0xaa; raw.len()];
                decode_one(&stage, &bases, &encoded, &mut out).expect("was just encoded");
                prop_assert!(out == raw, "{:?} gave back other bytes", stage);
                if is_patch(std::slice::from_ref(&stage)) {
                    let mut patched = bases[0].clone();
                    patched.resize(raw.len(), 0);
                    patch(std::slice::from_ref(&stage), &encoded, &mut patched).expect("was just encoded");
                    prop_assert!(patched == raw, "{:?} patched other bytes", stage);
                }
            }
        }
    }

    #[test]
    fn gives_back_exactly_what_went_through_two_codecs(raw in chunks(), which in any::<prop::sample::Index>()) {
        let mut scratch = Scratch::new();
        let raw = &raw[..raw.len() / 8 * 8];
        let all = stages();
        // One of the second ones for each of the first; over the cases, all.
        for (i, first) in all.iter().enumerate() {
            let second = &all[(which.index(all.len()) + 7 * i) % all.len()];
            let too_many = codec_of(first).wants_bases() && codec_of(second).wants_bases();
            if too_many || !takes(first, raw.len()) {
                continue;
            }
            for bases in bases_of(if codec_of(second).wants_bases() { second } else { first }, raw) {
                let of = |stage: &Stage| if codec_of(stage).wants_bases() { bases.clone() } else { Vec::new() };
                let between = encode(first, raw, &of(first), &mut scratch);
                if !takes(second, between.len()) {
                    continue;
                }
                let payload = encode(second, &between, &of(second), &mut scratch);
                let pipeline = [first.clone(), second.clone()];
                let mut out = vec![0xaa; raw.len()];
                decode(&pipeline, &payload, raw.len(), &borrowed(&bases), &mut out).expect("was just encoded");
                prop_assert!(out == raw, "{:?} gave back other bytes", pipeline);
                if is_patch(&pipeline) {
                    let mut patched = bases[0].clone();
                    patched.resize(raw.len(), 0);
                    patch(&pipeline, &payload, &mut patched).expect("was just encoded");
                    prop_assert!(patched == raw, "{:?} patched other bytes", pipeline);
                }
            }
        }
    }

    #[test]
    fn gives_back_exactly_what_went_through_all_codecs_in_turn(raw in chunks()) {
        let raw = &raw[..raw.len() / 8 * 8];
        for delta in stages().into_iter().filter(|stage| codec_of(stage).wants_bases()) {
            let bases = &close_base(&delta, raw);
            let (mut pipeline, mut payload) = (Vec::new(), raw.to_vec());
            let others: Vec<Stage> = stages().into_iter().filter(|stage| !codec_of(stage).wants_bases()).collect();
            for stage in [&[delta], &others[..], &others].concat() {
                // So much more than the chunk is more than the output of a stage may be.
                if !takes(&stage, payload.len()) || pipeline.len() > 20 {
                    continue;
                }
                let of_stage = if codec_of(&stage).wants_bases() { bases.clone() } else { Vec::new() };
                payload = encode(&stage, &payload, &of_stage, &mut Scratch::new());
                pipeline.push(stage);
            }
            let mut out = vec![0xaa; raw.len()];
            decode(&pipeline, &payload, raw.len(), &borrowed(bases), &mut out).expect("was just encoded");
            prop_assert!(out == raw);
        }
    }

    #[test]
    fn damaged_payloads_end_in_a_result_and_junk_in_an_error(
        raw in chunks(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
        junk in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut scratch = Scratch::new();
        for stage in stages() {
            let raw = cut(&stage, &raw);
            if !takes(&stage, raw.len()) {
                continue;
            }
            let bases = &close_base(&stage, raw);
            let mut encoded = encode(&stage, raw, bases, &mut scratch);
            for (at, flip) in flips.iter().filter(|_| !raw.is_empty()) {
                let at = at.index(encoded.len());
                encoded[at] ^= flip;
            }
            // A flip among literals is for the chunk's id to find; here it must not panic, nor take memory.
            let mut out = vec![0; raw.len()];
            let _ = decode_one(&stage, bases, &encoded, &mut out);
            let _ = codec_of(&stage).decoded_len(&stage.params, &encoded);
            let taken = decode_one(&stage, bases, &junk, &mut out).is_ok();
            prop_assert!(!taken || raw.is_empty() || junk.len() == raw.len(), "{:?} took junk", stage);
        }
    }
}
