//! Random values come back, random bytes never panic, and a CBOR reader that is not ours agrees with what we write.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradient_object::{
    ChunkId, Commit, CommitId, CommitKind, Flavor, Int, Key, Mapping, Metric, ObjectError, RootTree, SECTIONS, Tensor,
    TensorData, Tree, TreeId, Value, decode, decode_trusted, encode,
};
use minicbor::data::Type;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Floats by bits, NaNs with payloads among them.
fn float() -> impl Strategy<Value = f64> {
    let bits = prop_oneof![
        any::<u64>(),
        Just(f64::NAN.to_bits()),
        (0..1_u64 << 52).prop_map(|payload| 0x7ff0 << 48 | payload)
    ];
    bits.prop_map(f64::from_bits)
}

fn int() -> impl Strategy<Value = Int> {
    prop_oneof![
        any::<i64>().prop_map(Int::from),
        any::<u64>().prop_map(Int::from),
        (-30_i64..30).prop_map(Int::from),
        (any::<bool>(), vec(any::<u8>(), 0..20))
            .prop_map(|(negative, bytes)| Int::from_sign_magnitude(negative, &bytes)),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,3}", "\\PC{0,30}"]
}

fn key() -> impl Strategy<Value = Key> {
    let leaf = prop_oneof![
        Just(Key::None),
        any::<bool>().prop_map(Key::Bool),
        int().prop_map(Key::Int),
        float().prop_map(Key::Float),
        (float(), float()).prop_map(|(real, imaginary)| Key::Complex(real, imaginary)),
        text().prop_map(Key::Text),
        vec(any::<u8>(), 0..30).prop_map(Key::Bytes),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| vec(inner, 0..3).prop_map(Key::Tuple))
}

fn key_as_value(key: Key) -> Value {
    match key {
        Key::None => Value::None,
        Key::Bool(bool) => Value::Bool(bool),
        Key::Int(int) => Value::Int(int),
        Key::Float(float) => Value::Float(float),
        Key::Complex(real, imaginary) => Value::Complex(real, imaginary),
        Key::Text(text) => Value::Text(text),
        Key::Bytes(bytes) => Value::Bytes(bytes),
        Key::Tuple(keys) => Value::Tuple(keys.into_iter().map(key_as_value).collect()),
    }
}

fn set() -> impl Strategy<Value = Value> {
    (any::<bool>(), vec(key(), 0..6)).prop_map(|(frozen, mut keys)| {
        let mut seen = Vec::new();
        keys.retain(|key| {
            let new = !seen.contains(key);
            seen.push(key.clone());
            new
        });
        let items = keys.into_iter().map(key_as_value).collect();
        Value::Set { frozen, items }
    })
}

fn tensor() -> impl Strategy<Value = Value> {
    let dtypes = [(Flavor::Torch, "bfloat16", 2), (Flavor::Torch, "uint8", 1), (Flavor::Numpy, "<f8", 8)];
    let shape = prop_oneof![vec(0_u64..5, 0..5), vec(100_u64..2000, 1..3)];
    (proptest::sample::select(dtypes.to_vec()), shape, any::<u64>()).prop_perturb(
        |((flavor, dtype, width), shape, seed), mut random| {
            let mut order: Vec<u32> = (0..u32::try_from(shape.len()).unwrap()).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, random.random_range(0..=i));
            }
            let raw_len = usize::try_from(shape.iter().product::<u64>() * width).unwrap();
            let data = if raw_len <= 255 {
                TensorData::Inline(vec![seed.to_le_bytes()[0]; raw_len])
            } else {
                let ids = (0..raw_len.div_ceil(1 << 20)).map(|i| ChunkId::of(&(seed ^ i as u64).to_le_bytes()));
                TensorData::Chunks(ids.collect())
            };
            Value::Tensor(Tensor {
                flavor,
                dtype: dtype.to_owned(),
                shape,
                order: (!order.is_sorted()).then_some(order),
                data,
            })
        },
    )
}

fn mapping_of(entries: Vec<(Key, Value)>) -> Mapping {
    let mut mapping = Mapping::new();
    for (key, value) in entries {
        // A key that is there already stays as it was.
        let is_new = mapping.get_key(&key).is_none();
        assert_eq!(mapping.insert(key, value).is_ok(), is_new);
    }
    mapping
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => key().prop_map(key_as_value),
        1 => set(),
        2 => tensor(),
        1 => vec(key(), 1..4).prop_map(Value::Alias),
        1 => any::<[u8; 32]>().prop_map(|bytes| Value::Subtree(TreeId::from_bytes(bytes))),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let mapping = vec((key(), inner.clone()), 0..6).prop_map(mapping_of).boxed();
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            vec(inner, 0..6).prop_map(Value::Tuple),
            mapping.clone().prop_map(Value::Map),
            mapping.prop_map(|mapping| Value::Named {
                name: gradient_object::Name::OrderedDict,
                value: Box::new(Value::Map(mapping)),
                extra: Box::new(Value::None),
            }),
        ]
    })
}

fn commit() -> impl Strategy<Value = Commit> {
    let metric = prop_oneof![any::<i64>().prop_map(Metric::Int), float().prop_map(Metric::Float)];
    let names = ("[a-z/]{1,20}", text(), "exact|int8");
    let error = proptest::option::of(vec((text(), float()), 0..4));
    let numbers = (any::<u64>(), any::<i64>(), any::<bool>());
    (names, numbers, vec(any::<[u8; 32]>(), 2..5), vec((text(), metric), 0..8), error).prop_map(
        |((branch, message, mode), (step, time_ns, is_anchor), ids, mut metrics, error)| {
            let mut seen = Vec::new();
            metrics.retain(|(name, _)| {
                let new = !seen.contains(name);
                seen.push(name.clone());
                new
            });
            Commit {
                tree: TreeId::from_bytes(ids[0]),
                environment: TreeId::from_bytes(ids[1]),
                parents: ids[2..].iter().map(|id| CommitId::from_bytes(*id)).collect(),
                branch,
                step,
                message,
                metrics,
                time_ns,
                kind: if is_anchor { CommitKind::Anchor } else { CommitKind::Delta },
                mode,
                error: error.map(|entries| {
                    mapping_of(entries.into_iter().map(|(key, float)| (key.into(), float.into())).collect())
                }),
            }
        },
    )
}

/// Reads every decoder with the same bytes; each must say no in its own way or read what encodes to the same bytes.
fn decode_as_everything(bytes: &[u8]) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(encode(&value).as_deref(), Ok(bytes));
        assert_eq!(decode_trusted(bytes), Ok(value));
    }
    if let Ok(tree) = Tree::decode(bytes) {
        assert_eq!(tree.encode().as_deref(), Ok(bytes));
    }
    if let Ok(root) = RootTree::decode(bytes) {
        assert_eq!(root.encode().as_deref(), Ok(bytes));
    }
    if let Ok(commit) = Commit::decode(bytes) {
        assert_eq!(commit.encode().as_deref(), Ok(bytes));
    }
}

/// Writes the tokens that minicbor reads; it writes shortest heads alone.
fn through_minicbor(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut out = minicbor::Encoder::new(Vec::new());
    while decoder.position() < bytes.len() {
        match decoder.datatype().unwrap() {
            Type::Null => decoder.null().map(|()| out.null().unwrap()),
            Type::Bool => decoder.bool().map(|bool| out.bool(bool).unwrap()),
            Type::F64 => decoder.f64().map(|float| out.f64(float).unwrap()),
            Type::Bytes => decoder.bytes().map(|bytes| out.bytes(bytes).unwrap()),
            Type::String => decoder.str().map(|text| out.str(text).unwrap()),
            Type::Array => decoder.array().map(|len| out.array(len.unwrap()).unwrap()),
            Type::Map => decoder.map().map(|len| out.map(len.unwrap()).unwrap()),
            Type::Tag => decoder.tag().map(|tag| out.tag(tag).unwrap()),
            _ => decoder.int().map(|int| out.int(int).unwrap()),
        }
        .unwrap();
    }
    out.into_writer()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_comes_back_equal_and_encodes_to_the_same_bytes(value in value()) {
        let bytes = encode(&value).unwrap();
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(encode(&read).unwrap(), bytes);
    }

    #[test]
    fn minicbor_reads_the_tokens_that_we_write(value in value()) {
        let bytes = encode(&value).unwrap();
        prop_assert_eq!(through_minicbor(&bytes), bytes);
    }

    #[test]
    fn a_commit_comes_back_equal(commit in commit()) {
        let bytes = commit.encode().unwrap();
        prop_assert_eq!(Commit::decode(&bytes).unwrap(), commit);
    }

    #[test]
    fn a_root_tree_comes_back_equal(names in btree_map(0..SECTIONS.len(), btree_map("\\PC{0,20}", any::<[u8; 32]>(), 1..5), 0..8)) {
        let component = |(name, id)| (name, TreeId::from_bytes(id));
        let section = |(i, components): (usize, std::collections::BTreeMap<String, [u8; 32]>)| {
            (SECTIONS[i].to_owned(), components.into_iter().map(component).collect())
        };
        let root = RootTree { sections: names.into_iter().map(section).collect() };
        let bytes = root.encode().unwrap();
        prop_assert_eq!(RootTree::decode(&bytes).unwrap(), root);
    }

    #[test]
    fn keys_sort_as_their_canonical_bytes(a in key(), b in key()) {
        let bytes = |key: &Key| encode(&key_as_value(key.clone())).unwrap();
        prop_assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)));
    }

    #[test]
    fn integers_keep_sign_and_magnitude(negative: bool, bytes in vec(any::<u8>(), 0..20)) {
        let int = Int::from_sign_magnitude(negative, &bytes);
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        prop_assert_eq!(int.magnitude(), &bytes[zeros..]);
        prop_assert_eq!(int.is_negative(), negative && zeros < bytes.len());
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn a_flipped_byte_never_panics_and_never_reads_as_the_same_value(value in value(), at: prop::sample::Index, flip in 1..=255_u8) {
        let mut bytes = encode(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        decode_as_everything(&bytes);
        prop_assert_ne!(decode_trusted(&bytes), Ok(value));
    }

    #[test]
    fn a_cut_or_longer_value_is_refused(value in value(), at: prop::sample::Index) {
        let mut bytes = encode(&value).unwrap();
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert!(decode_trusted(cut).is_err());
        bytes.push(0xf6);
        let is_malformed = matches!(decode_trusted(&bytes), Err(ObjectError::Malformed { .. }));
        prop_assert!(is_malformed);
    }

    #[test]
    fn a_flipped_byte_of_a_commit_never_panics(commit in commit(), at: prop::sample::Index, flip in 1..=255_u8) {
        let mut bytes = commit.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        decode_as_everything(&bytes);
        prop_assert_ne!(Commit::decode_trusted(&bytes), Ok(commit));
    }
}
