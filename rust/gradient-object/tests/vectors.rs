//! Golden vectors: `tests/vectors/objects.json`, written by hand from `docs/format/objects.md`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use gradient_object::{
    ChunkId, Commit, CommitId, CommitKind, Flavor, Int, Key, Mapping, Metric, ObjectError, RootTree, Tensor,
    TensorData, Tree, TreeId, Value, decode, decode_trusted, encode,
};
use serde_json::Value as Json;

fn vectors(group: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/objects.json");
    let text = std::fs::read_to_string(path).unwrap();
    let all: Json = serde_json::from_str(&text).unwrap();
    let vectors = all[group].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_else(|| panic!("not text: {json}"))
}

fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("not a list: {json}"))
}

fn plain_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{hex}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}

/// Hex, or a list of hex and `[hex, times]`.
fn bytes(json: &Json) -> Vec<u8> {
    match json {
        Json::String(hex) => plain_hex(hex),
        parts => {
            let part = |part: &Json| match part {
                Json::String(hex) => plain_hex(hex),
                repeated => {
                    let times = usize::try_from(repeated[1].as_u64().unwrap()).unwrap();
                    plain_hex(text(&repeated[0])).repeat(times)
                }
            };
            list(parts).iter().flat_map(part).collect()
        }
    }
}

fn float(json: &Json) -> f64 {
    f64::from_bits(u64::from_str_radix(text(json), 16).unwrap())
}

/// An integer of any size from decimal digits, one at a time.
fn int(json: &Json) -> Int {
    let digits = text(json);
    let mut magnitude: Vec<u8> = vec![0];
    for digit in digits.trim_start_matches('-').bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in magnitude.iter_mut().rev() {
            carry += u16::from(*byte) * 10;
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        if carry > 0 {
            magnitude.insert(0, carry.to_le_bytes()[0]);
        }
    }
    Int::from_sign_magnitude(digits.starts_with('-'), &magnitude)
}

fn key(json: &Json) -> Key {
    match value(json) {
        Value::None => Key::None,
        Value::Bool(bool) => Key::Bool(bool),
        Value::Int(int) => Key::Int(int),
        Value::Float(float) => Key::Float(float),
        Value::Complex(real, imaginary) => Key::Complex(real, imaginary),
        Value::Text(text) => Key::Text(text),
        Value::Bytes(bytes) => Key::Bytes(bytes),
        Value::Tuple(_) => Key::Tuple(list(&json["tuple"]).iter().map(key).collect()),
        other => panic!("not a key: {other:?}"),
    }
}

fn mapping(json: &Json) -> Mapping {
    let mut mapping = Mapping::new();
    for pair in list(json) {
        mapping.insert(key(&pair[0]), value(&pair[1])).unwrap();
    }
    mapping
}

fn tensor(flavor: Flavor, json: &Json) -> Value {
    let order = json["order"].as_array();
    Value::Tensor(Tensor {
        flavor,
        dtype: text(&json["dtype"]).to_owned(),
        shape: list(&json["shape"]).iter().map(|dim| dim.as_u64().unwrap()).collect(),
        order: order.map(|dims| dims.iter().map(|dim| u32::try_from(dim.as_u64().unwrap()).unwrap()).collect()),
        data: match &json["chunks"] {
            Json::Null => TensorData::Inline(bytes(&json["inline"])),
            ids => TensorData::Chunks(list(ids).iter().map(|id| ChunkId::from_hex(text(id)).unwrap()).collect()),
        },
    })
}

fn value(json: &Json) -> Value {
    let object = match json {
        Json::Null => return Value::None,
        Json::Bool(bool) => return Value::Bool(*bool),
        other => other.as_object().unwrap(),
    };
    let (kind, content) = object.iter().next().unwrap();
    let items = || list(content).iter().map(value).collect();
    match kind.as_str() {
        "int" => Value::Int(int(content)),
        "float" => Value::Float(float(content)),
        "complex" => Value::Complex(float(&content[0]), float(&content[1])),
        "text" => Value::Text(text(content).to_owned()),
        "bytes" => Value::Bytes(bytes(content)),
        "list" => Value::List(items()),
        "tuple" => Value::Tuple(items()),
        "set" | "frozenset" => Value::Set { frozen: kind == "frozenset", items: items() },
        "map" => Value::Map(mapping(content)),
        "torch" => tensor(Flavor::Torch, content),
        "numpy" => tensor(Flavor::Numpy, content),
        "alias" => Value::Alias(list(content).iter().map(key).collect()),
        "named" => Value::Named {
            name: text(&content["name"]).parse().unwrap(),
            value: Box::new(value(&content["value"])),
            extra: Box::new(value(&content["extra"])),
        },
        "subtree" => Value::Subtree(TreeId::from_hex(text(content)).unwrap()),
        other => panic!("unknown kind of value: {other}"),
    }
}

fn commit(json: &Json) -> Commit {
    let tree = |name: &str| TreeId::from_hex(text(&json[name])).unwrap();
    let metric = |json: &Json| match value(json) {
        Value::Int(int) => Metric::Int(int.as_i64().unwrap()),
        Value::Float(float) => Metric::Float(float),
        other => panic!("not a metric: {other:?}"),
    };
    let metrics = list(&json["metrics"]).iter();
    let parents = list(&json["parents"]).iter();
    Commit {
        tree: tree("tree"),
        parents: parents.map(|id| CommitId::from_hex(text(id)).unwrap()).collect(),
        branch: text(&json["branch"]).to_owned(),
        step: text(&json["step"]).parse().unwrap(),
        message: text(&json["message"]).to_owned(),
        metrics: metrics.map(|pair| (text(&pair[0]).to_owned(), metric(&pair[1]))).collect(),
        time_ns: text(&json["time"]).parse().unwrap(),
        environment: tree("environment"),
        kind: match text(&json["kind"]) {
            "anchor" => CommitKind::Anchor,
            "delta" => CommitKind::Delta,
            other => panic!("unknown kind of commit: {other}"),
        },
        mode: text(&json["mode"]).to_owned(),
        error: (!json["error"].is_null()).then(|| mapping(&json["error"]["map"])),
    }
}

#[test]
fn values_have_the_bytes_of_the_page_in_both_directions() {
    for vector in vectors("values") {
        let (name, value, bytes) = (&vector["name"], value(&vector["value"]), bytes(&vector["hex"]));
        assert_eq!(encode(&value).as_ref(), Ok(&bytes), "{name}");
        assert_eq!(decode(&bytes).as_ref(), Ok(&value), "{name}");
        assert_eq!(decode_trusted(&bytes).as_ref(), Ok(&value), "{name}");
    }
}

#[test]
fn chunks_have_the_ids_of_the_page() {
    for vector in vectors("chunks") {
        let id = ChunkId::of(&bytes(&vector["raw"]));
        assert_eq!(id.to_hex(), text(&vector["id"]), "{}", vector["name"]);
    }
}

#[test]
fn trees_have_the_bytes_and_ids_of_the_page() {
    for vector in vectors("trees") {
        let (name, bytes) = (&vector["name"], bytes(&vector["hex"]));
        let tree = Tree(mapping(&vector["value"]["map"]));
        assert_eq!(tree.encode().as_ref(), Ok(&bytes), "{name}");
        assert_eq!(Tree::decode(&bytes).as_ref(), Ok(&tree), "{name}");
        assert_eq!(tree.id().unwrap().to_hex(), text(&vector["id"]), "{name}");
    }
}

#[test]
fn root_trees_have_the_bytes_and_ids_of_the_page() {
    for vector in vectors("roots") {
        let (name, bytes) = (&vector["name"], bytes(&vector["hex"]));
        let mut root = RootTree::default();
        for (section, components) in vector["sections"].as_object().unwrap() {
            for (component, id) in components.as_object().unwrap() {
                let id = TreeId::from_hex(text(id)).unwrap();
                let components = root.sections.entry(section.clone()).or_default();
                components.insert(component.clone(), id);
                assert_eq!(root.get(section, component), Some(&id));
            }
        }
        assert_eq!(root.encode().as_ref(), Ok(&bytes), "{name}");
        assert_eq!(RootTree::decode(&bytes).as_ref(), Ok(&root), "{name}");
        assert_eq!(root.id().unwrap().to_hex(), text(&vector["id"]), "{name}");
        // A root tree is a value too.
        assert_eq!(decode(&bytes).and_then(|value| encode(&value)).as_ref(), Ok(&bytes), "{name}");
    }
}

#[test]
fn commits_have_the_bytes_and_ids_of_the_page() {
    for vector in vectors("commits") {
        let (name, commit, bytes) = (&vector["name"], commit(&vector["commit"]), bytes(&vector["hex"]));
        assert_eq!(commit.encode().as_ref(), Ok(&bytes), "{name}");
        assert_eq!(Commit::decode(&bytes).as_ref(), Ok(&commit), "{name}");
        assert_eq!(Commit::decode_trusted(&bytes).as_ref(), Ok(&commit), "{name}");
        assert_eq!(commit.id().unwrap().to_hex(), text(&vector["id"]), "{name}");
        // A commit is a value too, its keys in sorted order.
        assert_eq!(decode(&bytes).and_then(|value| encode(&value)).as_ref(), Ok(&bytes), "{name}");
    }
}

/// The variant, as the vectors name it.
fn variant(error: &ObjectError) -> &'static str {
    match error {
        ObjectError::Malformed { .. } => "Malformed",
        ObjectError::NotCanonical { .. } => "NotCanonical",
        ObjectError::TooLarge { .. } => "TooLarge",
        ObjectError::TooDeep { .. } => "TooDeep",
        ObjectError::BadDtype { .. } => "BadDtype",
        ObjectError::BadShape { .. } => "BadShape",
        ObjectError::BadOrder { .. } => "BadOrder",
        ObjectError::BadInline { .. } => "BadInline",
        ObjectError::LengthMismatch { .. } => "LengthMismatch",
        ObjectError::UnknownName { .. } => "UnknownName",
        ObjectError::BadNamed { .. } => "BadNamed",
        ObjectError::Duplicate { .. } => "Duplicate",
        ObjectError::Misplaced { .. } => "Misplaced",
        ObjectError::EmptyAlias => "EmptyAlias",
        ObjectError::UnknownSection { .. } => "UnknownSection",
        ObjectError::EmptySection { .. } => "EmptySection",
    }
}

#[test]
fn refuses_what_the_page_refuses_and_says_why() {
    for vector in vectors("refused") {
        let (why, bytes) = (&vector["why"], bytes(&vector["hex"]));
        let (checked, trusted) = match text(&vector["as"]) {
            "value" => (decode(&bytes).err(), decode_trusted(&bytes).err()),
            "tree" => (Tree::decode(&bytes).err(), Tree::decode_trusted(&bytes).err()),
            "root" => (RootTree::decode(&bytes).err(), RootTree::decode_trusted(&bytes).err()),
            "commit" => (Commit::decode(&bytes).err(), Commit::decode_trusted(&bytes).err()),
            other => panic!("unknown object: {other}"),
        };
        let found = checked.as_ref().map(variant);
        assert_eq!(found, Some(text(&vector["error"])), "{why}: {checked:?}");
        assert_eq!(trusted, checked, "{why}: the reader itself refuses it");
    }
}
