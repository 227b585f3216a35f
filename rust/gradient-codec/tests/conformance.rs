//! The promises of a codec, kept by every row of the table.
//!
//! A new codec needs nothing here, unless it has parameters: then `params_of` names one good set.

use std::collections::BTreeSet;

use gradient_codec::{Codec, CodecError, Scratch, Stage, codecs, decode, find_codec};
use proptest::prelude::*;

/// Good parameters for a codec.
fn params_of(codec: &dyn Codec) -> Vec<u8> {
    match codec.name() {
        "planes" => vec![1, 1],
        "difference" => vec![1, 1],
        "sparse" => vec![1],
        _ => Vec::new(),
    }
}

/// Bases for a codec that wants some: as long as the chunk, and close to it.
fn bases_of(codec: &dyn Codec, raw: &[u8]) -> Vec<Vec<u8>> {
    if codec.wants_bases() { vec![raw.iter().map(|byte| byte.wrapping_add(1)).collect()] } else { Vec::new() }
}

fn borrowed(bases: &[Vec<u8>]) -> Vec<&[u8]> {
    bases.iter().map(Vec::as_slice).collect()
}

fn encode(codec: &dyn Codec, raw: &[u8]) -> Vec<u8> {
    let mut encoded = b"left over from before".to_vec();
    let bases = bases_of(codec, raw);
    codec
        .encode(&params_of(codec), &borrowed(&bases), raw, &mut Scratch::new(), &mut encoded)
        .expect("every codec encodes all bytes");
    encoded
}

/// Decodes by the pipeline of this one codec.
fn decode_one(codec: &dyn Codec, raw: &[u8], encoded: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let bases = bases_of(codec, raw);
    let pipeline = [Stage { codec: codec.id(), params: params_of(codec) }];
    decode(&pipeline, encoded, out.len(), &borrowed(&bases), out)
}

/// Bytes of many kinds: none, few, runs, noise, floats that hardly differ.
fn chunks() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 1000..20_000),
        (any::<u8>(), 1..200_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        proptest::collection::vec((any::<u8>(), 1..3000_usize), 0..60)
            .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| std::iter::repeat_n(byte, len)).collect()),
        proptest::collection::vec(-1.0..1.0_f32, 0..20_000)
            .prop_map(|values| values.into_iter().flat_map(f32::to_le_bytes).collect()),
        (any::<u16>(), 0..60_000_u32)
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
        let row = format!("| {} | {} |", codec.id(), codec.name());
        assert!(document.contains(&row), "docs/format/pack.md lacks the row {row}");
    }
}

#[test]
fn refuses_parameters_that_it_does_not_know() {
    for codec in codecs() {
        let raw = [7; 1000];
        let encoded = encode(*codec, &raw);
        let params = [params_of(*codec), vec![0xff; 7]].concat();
        let pipeline = [Stage { codec: codec.id(), params }];
        let outcome = decode(&pipeline, &encoded, 1000, &borrowed(&bases_of(*codec, &raw)), &mut [0; 1000]);
        assert!(matches!(outcome, Err(CodecError::BadParams { .. })), "{}: {outcome:?}", codec.name());
    }
}

#[test]
fn refuses_every_truncation_and_every_byte_too_many() {
    for codec in codecs() {
        let raw: Vec<u8> = (0..2000_u32).flat_map(|i| (i / 3).to_le_bytes()).collect();
        let encoded = encode(*codec, &raw);
        let mut out = vec![0; raw.len()];
        for len in 0..encoded.len() {
            let outcome = decode_one(*codec, &raw, &encoded[..len], &mut out);
            assert!(outcome.is_err(), "{} took {len} of {} bytes", codec.name(), encoded.len());
        }
        for extra in [vec![0], vec![0xff; 100], encoded.clone()] {
            let outcome = decode_one(*codec, &raw, &[encoded.clone(), extra].concat(), &mut out);
            assert!(outcome.is_err(), "{} took bytes after its payload", codec.name());
        }
        decode_one(*codec, &raw, &encoded, &mut out).expect("is whole");
        assert!(out == raw);
    }
}

#[test]
fn refuses_a_raw_length_that_is_not_the_encoded_one() {
    for codec in codecs() {
        let raw = [7; 1000];
        let encoded = encode(*codec, &raw);
        for len in [0, 1, 999, 1001, 1 << 20] {
            assert!(decode_one(*codec, &raw, &encoded, &mut vec![0; len]).is_err(), "{}: {len}", codec.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gives_back_exactly_what_went_in(raw in chunks()) {
        for codec in codecs() {
            let encoded = encode(*codec, &raw);
            prop_assert_eq!(codec.decoded_len(&params_of(*codec), &encoded), Ok(raw.len() as u64));
            let mut out = vec![0xaa; raw.len()];
            decode_one(*codec, &raw, &encoded, &mut out).expect("was just encoded");
            prop_assert!(out == raw, "{} gave back other bytes", codec.name());
        }
    }

    #[test]
    fn gives_back_exactly_what_went_through_all_codecs_in_turn(raw in chunks()) {
        let bases: Vec<Vec<u8>> = codecs().iter().flat_map(|codec| bases_of(*codec, &raw)).take(1).collect();
        let (mut pipeline, mut payload) = (Vec::new(), raw.clone());
        for codec in codecs().iter().chain(codecs()) {
            let mut encoded = Vec::new();
            let params = params_of(*codec);
            codec.encode(&params, &borrowed(&bases), &payload, &mut Scratch::new(), &mut encoded).expect("encodes");
            pipeline.push(Stage { codec: codec.id(), params });
            payload = encoded;
        }
        let mut out = vec![0xaa; raw.len()];
        decode(&pipeline, &payload, raw.len(), &borrowed(&bases), &mut out).expect("was just encoded");
        prop_assert!(out == raw);
    }

    #[test]
    fn damaged_payloads_end_in_a_result_and_junk_in_an_error(
        raw in chunks(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
        junk in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        for codec in codecs() {
            let mut encoded = encode(*codec, &raw);
            for (at, flip) in &flips {
                let at = at.index(encoded.len());
                encoded[at] ^= flip;
            }
            // A flip among literals is for the chunk's id to find; here it must not panic, nor take memory.
            let mut out = vec![0; raw.len()];
            let _ = decode_one(*codec, &raw, &encoded, &mut out);
            let _ = codec.decoded_len(&params_of(*codec), &encoded);
            prop_assert!(decode_one(*codec, &raw, &junk, &mut out).is_err() || raw.is_empty());
        }
    }
}
