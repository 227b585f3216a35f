//! What becomes of whole chunks and blocks: the choice, the limits, and payloads that lie.

use gradient_codec::{
    CodecError, Scratch, Stage, decode, decode_metadata, encode_best, encode_metadata, metadata_raw_len,
};
use proptest::prelude::*;
use zstd::zstd_safe::{CCtx, CParameter};

const CHUNK_BYTES: usize = 1 << 20;

fn zstd_stage() -> Vec<Stage> {
    vec![Stage { codec: 1, params: Vec::new() }]
}

/// Values as weights have them: bell-shaped around zero, every mantissa bit noise.
fn fp32_noise(len: usize) -> Vec<u8> {
    let mut seed = 1_u64;
    let mut uniform = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from((seed >> 48) as u16) / 65_536.0 + f32::from((seed >> 32) as u16) / 4_294_967_296.0
    };
    let bell = std::iter::repeat_with(|| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 0.02);
    bell.take(len / 4).flat_map(f32::to_le_bytes).collect()
}

#[test]
fn noise_of_floats_stays_raw() {
    let encoded = encode_best(&fp32_noise(CHUNK_BYTES), &mut Scratch::new()).expect("encodes");
    assert!(encoded.pipeline.is_empty() && encoded.bytes.is_none());
}

#[test]
fn what_repeats_becomes_small_and_comes_back() {
    let mut scratch = Scratch::new();
    let sparse: Vec<u8> = (0..CHUNK_BYTES / 4)
        .flat_map(|i| if i.is_multiple_of(97) { [1, 2, 3, (i % 251) as u8] } else { [0; 4] })
        .collect();
    for (raw, max) in [(vec![0; CHUNK_BYTES], 100), (vec![7; 256], 64), (sparse, CHUNK_BYTES / 10)] {
        let encoded = encode_best(&raw, &mut scratch).expect("encodes");
        assert_eq!(encoded.pipeline, zstd_stage());
        let bytes = encoded.bytes.expect("was encoded");
        assert!(bytes.len() <= max, "{} bytes of {}", bytes.len(), raw.len());
        let mut out = vec![1; raw.len()];
        decode(&encoded.pipeline, &bytes, raw.len(), &[], &mut out).expect("was just encoded");
        assert!(out == raw);
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
    for id in [0, 2, 255] {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_chosen_is_shorter_than_raw_and_comes_back(
        runs in proptest::collection::vec((any::<u8>(), 1..20_000_usize), 0..30),
        noise in proptest::collection::vec(any::<u8>(), 0..40_000),
    ) {
        let repeated = runs.into_iter().flat_map(|(byte, len)| std::iter::repeat_n(byte, len));
        let raw: Vec<u8> = repeated.chain(noise).collect();
        let mut scratch = Scratch::new();
        let encoded = encode_best(&raw, &mut scratch).expect("encodes");
        prop_assert_eq!(&encode_best(&raw, &mut scratch).expect("encodes"), &encoded);
        let payload = encoded.bytes.as_deref().unwrap_or(&raw);
        prop_assert_eq!(encoded.pipeline.is_empty(), encoded.bytes.is_none());
        prop_assert!(payload.len() < raw.len() || encoded.pipeline.is_empty());
        let mut out = vec![0xaa; raw.len()];
        decode(&encoded.pipeline, payload, raw.len(), &[], &mut out).expect("was just encoded");
        prop_assert!(out == raw);
    }

    #[test]
    fn metadata_comes_back_and_junk_is_an_error(raw in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let block = encode_metadata(&raw).expect("encodes");
        prop_assert_eq!(&decode_metadata(&block, raw.len(), 5000).expect("was just encoded"), &raw);
        prop_assert!(decode_metadata(&raw, raw.len(), 5000).is_err());
        prop_assert!(decode_metadata(&block[..block.len() - 1], raw.len(), 5000).is_err());
    }
}
