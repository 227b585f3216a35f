//! Bytes to begin with: the golden vectors, good and refused, and the files of a small repository.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use gradient_codec::{Stage, find_codec};
use gradient_object::{Flavor, Mapping, Tensor, Value};
use gradient_repo::{ByteSource, CommitRequest, Progress, Repository, Staged};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};
use serde_json::Value as Json;

use super::coded::Coded;

/// All vectors of a page.
fn page(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name);
    let text = std::fs::read_to_string(path).expect("the vectors");
    serde_json::from_str(&text).expect("their JSON")
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn plain_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

/// Hex, or a list of hex and `[hex, times]`.
fn bytes(json: &Json) -> Vec<u8> {
    let part = |part: &Json| match part {
        Json::String(hex) => plain_hex(hex),
        repeated => {
            let times = repeated[1].as_u64().unwrap_or(0).min(1 << 20) as usize;
            plain_hex(repeated[0].as_str().unwrap_or_default()).repeat(times)
        }
    };
    match json {
        Json::String(hex) => plain_hex(hex),
        parts => list(parts).iter().flat_map(part).collect(),
    }
}

/// The bytes of the good vectors of a group, and those of the refused ones, which may be changes of good ones.
fn group(page_name: &str, good: &str, refused: &str) -> Vec<Vec<u8>> {
    let page = page(page_name);
    let good = list(&page[good]);
    let mut seeds: Vec<Vec<u8>> = good.iter().map(|vector| bytes(&vector["hex"])).collect();
    for vector in list(&page[refused]) {
        let index = |json: &Json| json.as_u64().and_then(|at| usize::try_from(at).ok());
        if !vector["hex"].is_null() {
            seeds.push(bytes(&vector["hex"]));
            continue;
        }
        let Some(base) = good.iter().find(|one| one["name"] == vector["of"]) else { continue };
        let mut changed = bytes(&base["hex"]);
        for change in list(&vector["changes"]) {
            let (at, new) = (index(&change[0]).unwrap_or(usize::MAX), bytes(&change[1]));
            if let Some(place) = at.checked_add(new.len()).and_then(|end| changed.get_mut(at..end)) {
                place.copy_from_slice(&new);
            }
        }
        changed.truncate(index(&vector["len"]).unwrap_or(usize::MAX));
        changed.extend(bytes(&vector["more"]));
        seeds.push(changed);
    }
    // Long ones are slow and find nothing more.
    seeds.retain(|seed| seed.len() <= 64 << 10);
    assert!(!seeds.is_empty(), "{page_name} has no vectors of that name");
    seeds
}

pub(super) fn values() -> Vec<Vec<u8>> {
    group("objects.json", "values", "refused")
}

pub(super) fn trees() -> Vec<Vec<u8>> {
    [group("objects.json", "trees", "refused"), group("objects.json", "roots", "")].concat()
}

pub(super) fn commits() -> Vec<Vec<u8>> {
    group("objects.json", "commits", "refused")
}

pub(super) fn operations() -> Vec<Vec<u8>> {
    group("operations.json", "operations", "refused_operations")
}

pub(super) fn folded() -> Vec<Vec<u8>> {
    group("operations.json", "folded", "refused_folded")
}

pub(super) fn formats() -> Vec<Vec<u8>> {
    group("repository.json", "formats", "refused_formats")
}

pub(super) fn leases() -> Vec<Vec<u8>> {
    group("repository.json", "leases", "refused_leases")
}

pub(super) fn entries() -> Vec<Vec<u8>> {
    group("pack.json", "entries", "refused_entries")
}

pub(super) fn packs() -> Vec<Vec<u8>> {
    group("pack.json", "packs", "refused_packs")
}

pub(super) fn commit_rows() -> Vec<Vec<u8>> {
    group("caches.json", "commits", "refused_commits")
}

/// The whole fan-out of each, 262,144 bytes: few.
pub(super) fn merged_indexes() -> Vec<Vec<u8>> {
    list(&page("caches.json")["index"]).iter().map(|vector| bytes(&vector["hex"])).collect()
}

/// The parts of the packs: counts, offsets and tables.
pub(super) fn pack_indexes() -> Vec<Vec<u8>> {
    let tables = |pack: Vec<u8>| {
        let foot = pack.len().checked_sub(128)?;
        let at = |at: usize| pack.get(foot + at..foot + at + 8).and_then(|bytes| bytes.try_into().ok());
        let index = usize::try_from(u64::from_le_bytes(at(8)?)).ok()?;
        let counts = pack.get(foot + 16..foot + 32)?;
        Some([counts, pack.get(foot..foot + 16)?, pack.get(index..foot)?].concat())
    };
    packs().into_iter().filter_map(tables).collect()
}

/// The metadata blocks of the packs, each after its raw length.
pub(super) fn blocks() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 4] = [b"", b"a", &[7; 5000], b"trees and commits, one behind the other"];
    texts
        .into_iter()
        .map(|raw| {
            let encoded = gradient_codec::encode_metadata(raw).expect("memory");
            [&(raw.len() as u32).to_le_bytes()[..], &encoded].concat()
        })
        .collect()
}

/// The payloads of the page, good and refused.
pub(super) fn coded() -> Vec<Vec<u8>> {
    all_coded().iter().map(Coded::write).collect()
}

/// Those of pipelines with that codec.
pub(super) fn coded_by(name: &str) -> Vec<Vec<u8>> {
    let has =
        |coded: &Coded| coded.pipeline.iter().any(|stage| find_codec(stage.codec).is_ok_and(|c| c.name() == name));
    all_coded().iter().filter(|coded| has(coded)).map(Coded::write).collect()
}

fn all_coded() -> Vec<Coded> {
    let page = page("pack.json");
    let stage = |stage: &Json| Stage { codec: stage[0].as_u64().unwrap_or(0) as u8, params: bytes(&stage[1]) };
    let read = |vector: &Json| Coded {
        raw_len: vector["raw_len"].as_u64().map_or_else(|| bytes(&vector["raw"]).len(), |len| len as usize),
        pipeline: list(&vector["pipeline"]).iter().map(stage).collect(),
        bases: list(&vector["bases"]).iter().map(bytes).collect(),
        payload: bytes(&vector["payload"]),
    };
    let mut coded: Vec<Coded> =
        ["codecs", "refused_codecs"].iter().flat_map(|group| list(&page[*group])).map(read).collect();
    coded.retain(|coded| coded.raw_len <= 64 << 10 && coded.payload.len() <= 64 << 10);
    assert!(coded.len() > 200, "pack.json has no vectors of codecs");
    coded
}

/// Raw bytes of a chunk, after what is said of them: what compresses, what does not, floats, few that are not zero, and
/// lengths around those at which something changes.
pub(super) fn chunks() -> Vec<Vec<u8>> {
    let noise = |len: u32| (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>();
    let element = |i: u32| (0x3d00_0000 | i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes();
    let floats = (0..6000).flat_map(element).collect::<Vec<u8>>();
    let few = (0..6000).flat_map(|i| if i % 90 == 7 { element(i) } else { [0; 4] }).collect();
    let plain =
        [vec![0; 16_384], vec![0; 16_385], noise(1), noise(4096), noise(20_000), [noise(300), vec![1; 700]].concat()];
    let all = plain.into_iter().chain([floats, few]);
    // Width as a power of two, class, gain, base.
    let kind = |[width, class, gain, base]: [u8; 4]| width | class << 2 | gain << 4 | base << 5;
    let kinds =
        [[2, 0, 0, 2], [2, 0, 0, 1], [2, 0, 0, 0], [1, 1, 1, 6], [3, 0, 1, 3], [0, 2, 0, 4], [2, 1, 1, 2]].map(kind);
    let seeds = all.zip(kinds.into_iter().cycle());
    seeds.map(|(raw, kind)| [&[kind, 64, 0, 5, 0], raw.as_slice()].concat()).collect()
}

pub(super) fn branch_names() -> Vec<Vec<u8>> {
    let names = "main feature/a exp.2 \u{fc}ber a..b ../x /etc .x -x x.lock HEAD latest deadbeef con com1.txt a//b x@3";
    let mut seeds: Vec<Vec<u8>> = names.split(' ').map(|name| name.as_bytes().to_vec()).collect();
    seeds.extend([vec![b'a'; 255], vec![b'a'; 256], b"e\xcc\x81".to_vec(), b"a\rb".to_vec(), b"a\0b".to_vec()]);
    seeds
}

pub(super) fn file_names() -> Vec<Vec<u8>> {
    let id = "0123456789abcdef0123456789abcdef";
    let names = [
        format!("{id}.pack"),
        format!("{id}.tmp"),
        id.to_owned(),
        "00000000000000000007".to_owned(),
        "folded-00000000000000000007".to_owned(),
        "index".to_owned(),
        "../index".to_owned(),
        ".".to_owned(),
        "ops-00000000000000000007.1".to_owned(),
    ];
    names.into_iter().map(String::into_bytes).chain((1..=3).map(|kind| vec![kind])).collect()
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    let texts = [
        "{}",
        r#"{"name":"gpt","description":"","created_at":"2026-01-01T00:00:00Z"}"#,
        r#"{"name":"gpt","retention":{"keep":[1,2.5,null,true,{"a":"\u0000"}]}}"#,
        r#"{"hooks":"rm -rf"}"#,
        "[]",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push([vec![b'['; 2000], vec![b']'; 2000]].concat());
    seeds
}

/// A file that takes the place of one of the small repository.
pub(super) struct PlacedFile {
    pub(super) key: Key,
    pub(super) file: Vec<u8>,
}

impl PlacedFile {
    /// Reads which file, and what it holds.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (number, file) = bytes.split_first()?;
        let files = files();
        let (key, _) = &files[usize::from(*number) % files.len()];
        Some(Self { key: key.clone(), file: file.to_vec() })
    }
}

pub(super) fn repositories() -> Vec<Vec<u8>> {
    let numbered = (0..).zip(files());
    numbered.map(|(number, (_, file))| [&[number], file.as_slice()].concat()).collect()
}

/// A repository of two commits, two branches and a tag, with caches; a new one each time.
pub(super) fn small_repository() -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders in memory");
    for (key, file) in files() {
        storage.replace(key, file, Durability::Unsynced).expect("a file in memory");
    }
    Arc::new(storage)
}

fn files() -> &'static [(Key, Vec<u8>)] {
    static FILES: OnceLock<Vec<(Key, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let storage = Arc::new(MemoryStorage::new());
        make(Arc::clone(&storage) as Arc<dyn Storage>);
        let mut files = Vec::new();
        for folder in [Folder::Root, Folder::Ops, Folder::Packs, Folder::Cache] {
            for listed in storage.list(folder).expect("listed") {
                let key = Key::new(folder, &listed.name).expect("was listed");
                let file = storage.read(&key, u64::MAX).expect("was listed");
                // The fan-out of the index alone is longer than all others together.
                if file.len() < 100_000 {
                    files.push((key, file));
                }
            }
        }
        files
    })
}

fn make(storage: Arc<dyn Storage>) {
    let repo = Repository::init(storage, "gpt", "").expect("a new repository").0;
    let mut base = None;
    for step in 1..=2_u64 {
        let sources = [vec![step as u8; 700], vec![9; 300], vec![3; 8]];
        let mut tensors: Mapping<usize> = Mapping::new();
        for (data, source) in sources.iter().enumerate() {
            let shape = vec![source.len() as u64 / 4];
            let tensor = Tensor { flavor: Flavor::Torch, dtype: "float32".to_owned(), shape, order: None, data };
            tensors.insert(format!("t{data}").as_str(), Value::Tensor(tensor)).expect("a new name");
        }
        let mut model: Mapping<usize> = Mapping::new();
        model.insert("tensors", Value::Map(tensors)).expect("a new name");
        let model: Staged = Value::Map(model);
        let request = CommitRequest {
            branch: "main".to_owned(),
            base,
            first: base.is_none(),
            create: false,
            step,
            message: format!("step {step}"),
            metrics: Vec::new(),
            environment: Mapping::new(),
            sections: BTreeMap::from([("model".to_owned(), BTreeMap::from([("main".to_owned(), model)]))]),
            sources: sources.iter().map(|source| source as &dyn ByteSource).collect(),
            storing: gradient_repo::Storing::default(),
        };
        base = Some(repo.commit(&request, &Progress::new()).expect("a commit").commit);
    }
    if let Some(tip) = base {
        repo.create_branch("exp", tip, "").expect("a branch");
        repo.create_tag("v1", tip).expect("a tag");
    }
    repo.close().expect("closed");
}
