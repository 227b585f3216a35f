//! What is just allowed, what is just not, and what a hostile object can cost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use gradient_object::{
    Commit, ELEMENTS_MAX, Flavor, Int, Key, METADATA_BYTES_MAX, Mapping, NESTING_MAX, Name, ObjectError, RootTree,
    Tensor, TensorData, Tree, TreeId, Value, decode, decode_trusted, encode,
};

/// Runs on a thread with a stack of 512 KiB.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 << 10);
    thread.spawn(test).unwrap().join().unwrap();
}

fn bytes_tensor(raw_len: u64, order: Option<Vec<u32>>, data: TensorData) -> Value {
    Value::Tensor(Tensor { flavor: Flavor::Torch, dtype: "uint8".to_owned(), shape: vec![raw_len], order, data })
}

/// `depth` lists, tuples and reordered mappings in one another.
fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::None, |inner, level| match level % 3 {
        0 => Value::List(vec![inner]),
        1 => Value::Tuple(vec![Value::Bool(true), inner]),
        _ => {
            let mut mapping = Mapping::new();
            mapping.insert("b", Value::None).unwrap();
            mapping.insert("a", inner).unwrap();
            Value::Map(mapping)
        }
    })
}

#[test]
fn the_deepest_value_comes_back_on_a_small_stack() {
    on_a_small_stack(|| {
        let value = nested(NESTING_MAX);
        let bytes = encode(&value).unwrap();
        let read = decode(&bytes).unwrap();
        assert_eq!(read, value);
        assert_eq!(encode(&read.clone()).unwrap(), bytes);
        let mapped: Result<Value<()>, ()> = read.map_data(&mut |_, _| Ok(()));
        assert!(format!("{:?}", mapped.unwrap()).len() > NESTING_MAX);
        assert_eq!(encode(&nested(NESTING_MAX + 1)), Err(ObjectError::TooDeep { max: NESTING_MAX }));
    });
}

#[test]
fn the_deepest_key_set_and_named_value_come_back_on_a_small_stack() {
    on_a_small_stack(|| {
        let key = (1..NESTING_MAX).fold(Key::None, |inner, _| Key::Tuple(vec![inner]));
        let mut mapping = Mapping::new();
        mapping.insert(key, Value::None).unwrap();
        let mut set = Value::None;
        let mut named = bytes_tensor(0, None, TensorData::Inline(vec![]));
        for _ in 0..NESTING_MAX {
            set = Value::Set { frozen: true, items: vec![set] };
        }
        for _ in 0..NESTING_MAX / 2 {
            named = Value::Named {
                name: Name::Deque,
                value: Box::new(Value::List(vec![named])),
                extra: Box::new(Value::None),
            };
        }
        for value in [Value::Map(mapping), set, named] {
            let bytes = encode(&value).unwrap();
            assert_eq!(decode(&bytes).unwrap(), value);
            assert_eq!(encode(&Value::List(vec![value])), Err(ObjectError::TooDeep { max: NESTING_MAX }));
        }
    });
}

#[test]
fn a_bomb_of_any_container_is_refused_on_a_small_stack() {
    on_a_small_stack(|| {
        let heads: [&[u8]; 6] = [
            &[0x81],
            &[0xa1, 0x00],
            &[0xd9, 0xea, 0x62, 0x81],
            &[0xd9, 0xea, 0x64, 0x81],
            &[0xd9, 0xea, 0x61, 0x82, 0xa1, 0x00],
            &[0xd9, 0xea, 0x69, 0x83, 0x65, b'd', b'e', b'q', b'u', b'e', 0x81],
        ];
        for head in heads {
            assert_eq!(decode(&head.repeat(200_000)), Err(ObjectError::TooDeep { max: NESTING_MAX }), "{head:02x?}");
        }
    });
}

#[test]
fn lengths_that_lie_cost_neither_time_nor_memory() {
    let start = Instant::now();
    for major in [0x40, 0x60, 0x80, 0xa0] {
        for len in [1_u64 << 20, 1 << 32, 1 << 40, u64::MAX] {
            let mut bytes = vec![major | 0x1b];
            bytes.extend(len.to_be_bytes());
            bytes.extend([0xf6; 100]);
            assert!(decode_trusted(&bytes).is_err());
        }
    }
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn nested_claims_of_length_add_up() {
    // 60 lists in one another, each claiming half a million elements, over bytes enough for one of them.
    let mut bytes = [0x9a, 0, 8, 0, 0].repeat(60);
    bytes.extend(vec![0xf6; 1 << 19]);
    let over =
        matches!(decode_trusted(&bytes), Err(ObjectError::TooLarge { actual, .. }) if actual < 2 * ELEMENTS_MAX as u64);
    assert!(over);
}

#[test]
fn as_many_elements_as_allowed_come_back_and_one_more_does_not() {
    // The list counts too.
    let mut items = vec![Value::None; ELEMENTS_MAX - 1];
    let bytes = encode(&Value::List(items.clone())).unwrap();
    assert_eq!(decode(&bytes).unwrap(), Value::List(items.clone()));
    items.push(Value::None);
    let what = "elements of an object";
    let (actual, max) = (ELEMENTS_MAX as u64 + 1, ELEMENTS_MAX as u64);
    assert_eq!(encode(&Value::List(items)), Err(ObjectError::TooLarge { what, actual, max }));
}

#[test]
fn an_object_longer_than_the_limit_is_refused_both_ways() {
    let value = Value::Bytes(vec![0; METADATA_BYTES_MAX]);
    assert!(matches!(encode(&value), Err(ObjectError::TooLarge { .. })));
    assert!(matches!(decode(&vec![0; METADATA_BYTES_MAX + 1]), Err(ObjectError::TooLarge { .. })));
    let value = Value::Bytes(vec![7; METADATA_BYTES_MAX - 5]);
    assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
}

#[test]
fn nothing_is_encoded_that_a_reader_would_refuse() {
    let chunks = |num| TensorData::Chunks(vec![gradient_object::ChunkId::of(b""); num]);
    let inline = |len| TensorData::Inline(vec![0; len]);
    let set = |items| Value::Set { frozen: false, items };
    let named = |name, value, extra| Value::Named { name, value: Box::new(value), extra: Box::new(extra) };
    for bad in [
        bytes_tensor(255, None, chunks(1)),
        bytes_tensor(256, None, inline(256)),
        bytes_tensor(256, None, chunks(2)),
        bytes_tensor(256, Some(vec![0]), chunks(1)),
        bytes_tensor((1 << 20) + 1, None, chunks(1)),
        bytes_tensor(5, None, inline(4)),
        Value::Alias(vec![]),
        set(vec![Value::List(vec![])]),
        set(vec![bytes_tensor(0, None, inline(0))]),
        set(vec![Value::Bool(true), Value::Bool(true)]),
        named(Name::Counter, Value::None, Value::None),
        named(Name::Conjugate, Value::None, Value::None),
        named(Name::NumpyScalar, Value::Bytes(vec![0; 3]), Value::from("<f4")),
    ] {
        assert!(encode(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_component_tree_holds_no_subtree_at_any_depth() {
    let mut mapping = Mapping::new();
    let subtree = Value::Subtree(TreeId::of(b""));
    mapping.insert("a", Value::List(vec![subtree])).unwrap();
    let bytes = encode(&Value::Map(mapping.clone())).unwrap();
    let misplaced = ObjectError::Misplaced { what: "a subtree", place: "a component tree" };
    assert_eq!(Tree(mapping).encode(), Err(misplaced.clone()));
    assert_eq!(Tree::decode(&bytes), Err(misplaced));
}

#[test]
fn a_root_tree_takes_known_sections_and_names_of_255_bytes() {
    let root = |section: &str, len: usize| {
        let mut root = RootTree::default();
        let components = root.sections.entry(section.to_owned()).or_default();
        components.insert("n".repeat(len), TreeId::of(b""));
        root
    };
    assert!(root("model", 255).encode().is_ok());
    assert!(matches!(root("model", 256).encode(), Err(ObjectError::TooLarge { actual: 256, .. })));
    assert!(matches!(root("models", 1).encode(), Err(ObjectError::UnknownSection { .. })));
    let mut empty = root("model", 1);
    empty.sections.insert("rng".to_owned(), std::collections::BTreeMap::new());
    assert!(matches!(empty.encode(), Err(ObjectError::EmptySection { .. })));
}

#[test]
fn a_commit_that_says_a_metric_twice_is_not_encoded() {
    let commit = Commit {
        tree: TreeId::of(b""),
        parents: vec![],
        branch: "main".to_owned(),
        step: 0,
        message: String::new(),
        metrics: vec![
            ("loss".to_owned(), gradient_object::Metric::Int(1)),
            ("loss".to_owned(), gradient_object::Metric::Float(1.0)),
        ],
        time_ns: 0,
        environment: TreeId::of(b""),
        kind: gradient_object::CommitKind::Anchor,
        mode: "exact".to_owned(),
        error: None,
    };
    assert!(matches!(commit.encode(), Err(ObjectError::Duplicate { .. })));
}

#[test]
fn a_huge_integer_is_an_integer_like_any_other() {
    let magnitude = vec![0xff; 100_000];
    let value = Value::Int(Int::from_sign_magnitude(true, &magnitude));
    assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
}
