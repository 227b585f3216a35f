//! `tests/vectors/pack.json`: entries, whole packs, and what is wrong with others.

use std::collections::BTreeMap;
use std::sync::Arc;

use gradient_codec::{CodecError, Stage};
use gradient_object::{ChunkId, Commit, CommitId, RootTree, Tree};
use gradient_storage::{Durability, MemoryStorage, Storage};
use serde_json::Value as Json;

use super::{array, bytes, list, named, number, pack_id, refused_bytes, text, vectors};
use crate::arena::Arena;
use crate::pack::blocks::{BlockBuilder, Blocks};
use crate::pack::entry::{EntryHeader, encode_header, entry_crc};
use crate::pack::index::{BlockRow, ObjectRow};
use crate::pack::tail::Tail;
use crate::pack::writer::{NewEntry, PackBuilder, Payload};
use crate::{Kind, ObjectName, Odb, OdbError, PackId, Progress, VerifyLevel};

const FILE: &str = "pack.json";

fn chunk_ids(json: &Json) -> Vec<ChunkId> {
    list(json).iter().map(|id| ChunkId::from_bytes(array(id))).collect()
}

fn pipeline(json: &Json) -> Vec<Stage> {
    list(json).iter().map(|stage| Stage { codec: number(&stage[0]), params: bytes(&stage[1]) }).collect()
}

/// The variant, as the vectors name it.
fn codec_variant(error: &CodecError) -> String {
    format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned()
}

#[test]
fn entries_have_the_bytes_of_the_page_in_both_directions() {
    for vector in vectors(FILE, "entries") {
        let (name, entry, payload) = (&vector["name"], bytes(&vector["hex"]), bytes(&vector["payload"]));
        let id = ChunkId::from_bytes(array(&vector["id"]));
        let (raw_len, bases) = (number(&vector["raw_len"]), chunk_ids(&vector["bases"]));
        let pipeline = pipeline(&vector["pipeline"]);

        let header = encode_header(&id, raw_len, &bases, &pipeline, &payload).unwrap();
        assert_eq!([&header[..], &payload[..]].concat(), entry, "{name}");

        let read = EntryHeader::decode(&entry).unwrap_or_else(|what| panic!("{name}: {what}"));
        assert_eq!((read.id, read.raw_len, read.encoded_len), (id, raw_len, payload.len()), "{name}");
        assert_eq!((&read.bases, &read.pipeline), (&bases, &pipeline), "{name}");
        assert_eq!(format!("{:08x}", read.crc), text(&vector["crc"]), "{name}");
        let (head, rest) = entry.split_at(read.header_len);
        assert_eq!((entry_crc(head, rest), rest), (read.crc, &payload[..]), "{name}");

        let bases: Vec<&[u8]> = bases.iter().map(|_| &b"base"[..]).collect();
        let mut out = vec![0; raw_len];
        match gradient_codec::decode(&pipeline, rest, raw_len, &bases, &mut out) {
            Ok(()) => {
                assert!(out == bytes(&vector["raw"]), "{name}");
                assert_eq!(ChunkId::of(&out), id, "{name}");
            }
            Err(error) => assert_eq!(codec_variant(&error), text(&vector["error"]), "{name}: {error}"),
        }
    }
}

#[test]
fn refuses_the_entries_that_the_page_refuses_and_says_why() {
    let good = vectors(FILE, "entries");
    for vector in vectors(FILE, "refused_entries") {
        let read = EntryHeader::decode(&refused_bytes(&vector, &good));
        assert_eq!(read.err(), vector["what"].as_str(), "{}", vector["why"]);
    }
}

fn object(kind: &Json, id: &Json) -> ObjectName {
    let kind = [Kind::Chunk, Kind::Tree, Kind::Commit].into_iter().find(|known| known.name() == text(kind));
    ObjectName { kind: kind.unwrap(), id: array(id) }
}

fn object_row(json: &Json) -> ObjectRow {
    ObjectRow {
        name: object(&json[0], &json[1]),
        offset: number(&json[2]),
        raw_len: number(&json[3]),
        encoded_len: number(&json[4]),
        crc: number(&json[5]),
        block: number(&json[6]),
        header_len: number(&json[7]),
        codec: number(&json[8]),
        num_bases: number(&json[9]),
    }
}

/// What objects of a pack hold; none for a chunk of a codec that is not known.
fn contents(vector: &Json) -> BTreeMap<ObjectName, Option<Vec<u8>>> {
    let chunks = list(&vector["chunks"]).iter().map(|chunk| {
        let raw = (!chunk["raw"].is_null()).then(|| bytes(&chunk["raw"]));
        (ObjectName { kind: Kind::Chunk, id: array(&chunk["id"]) }, raw)
    });
    let metadata = list(&vector["blocks"]).iter().flat_map(|block| list(&block["objects"]));
    chunks.chain(metadata.map(|json| (object(&json[0], &json[1]), Some(bytes(&json[2]))))).collect()
}

/// A repository in memory that holds these bytes as a pack.
pub(super) fn store(packs: &[(PackId, &[u8])]) -> Arc<dyn Storage> {
    let storage = MemoryStorage::new();
    storage.create_folders().unwrap();
    for (pack, file) in packs {
        storage.replace(&pack.key(), file, Durability::Unsynced).unwrap();
    }
    Arc::new(storage)
}

fn damage(storage: Arc<dyn Storage>, pack: &PackId) -> Vec<String> {
    let odb = Odb::open(storage).unwrap();
    let report = odb.verify_pack(pack, VerifyLevel::Full, &Progress::new()).unwrap();
    report.damage.into_iter().map(|damage| damage.what).collect()
}

#[test]
fn packs_are_read_as_the_page_says() {
    for vector in vectors(FILE, "packs") {
        let (name, pack, file) = (&vector["name"], pack_id(&vector["pack"]), bytes(&vector["hex"]));
        let storage = store(&[(pack, &file)]);
        let tail = Tail::read(&*storage, pack, number(&vector["len"])).unwrap();
        assert_eq!(tail.footer.first_block, number::<u64>(&vector["first_block"]), "{name}");
        assert_eq!(tail.footer.index_offset, number::<u64>(&vector["index"]), "{name}");
        let rows: Vec<ObjectRow> = list(&vector["rows"]).iter().map(object_row).collect();
        assert_eq!(tail.index.objects, rows, "{name}");
        assert_eq!(tail.index.bases, chunk_ids(&vector["bases"]), "{name}");
        let commits: Vec<_> = list(&vector["commits"]).iter().map(|row| (array(&row[0]), number(&row[1]))).collect();
        let added = tail.index.commits().map(|(row, added_len)| (row.name.id, added_len));
        assert_eq!(added.collect::<Vec<_>>(), commits, "{name}");
        for (i, block) in (0..).zip(list(&vector["blocks"])) {
            let row = tail.index.blocks[i as usize];
            let [offset, encoded_len, raw_len] = ["offset", "encoded_len", "raw_len"].map(|key| &block[key]);
            assert_eq!((row.offset, row.encoded_len), (number(offset), number(encoded_len)), "{name}");
            assert_eq!(row.raw_len, number::<u32>(raw_len), "{name}");
            let raw: Vec<u8> = list(&block["objects"]).iter().flat_map(|json| bytes(&json[2])).collect();
            assert_eq!(tail.block(&*storage, i).unwrap(), raw, "{name}");
        }
        assert_eq!(tail.index.blocks.len(), list(&vector["blocks"]).len(), "{name}");

        let odb = Odb::open(Arc::clone(&storage)).unwrap();
        for (object, raw) in contents(&vector) {
            match (odb.read_object(&object), raw) {
                (Ok(read), raw) => assert!(Some(&read) == raw.as_ref(), "{name}: {object}"),
                (Err(error), None) => assert!(error.is_damage(), "{name}: {error}"),
                (Err(error), Some(_)) => panic!("{name}: {error}"),
            }
        }
        let expected: Vec<&str> = list(&vector["damage"]).iter().map(text).collect();
        assert_eq!(damage(storage, &pack), expected, "{name}");
    }
}

#[test]
fn trees_and_commits_of_a_pack_are_what_they_are_called() {
    let small = named(&vectors(FILE, "packs"), &"small".into());
    let contents = contents(&small);
    let odb = Odb::open(store(&[(pack_id(&small["pack"]), &bytes(&small["hex"]))])).unwrap();
    let (id, commit) = contents.iter().find(|(object, _)| object.kind == Kind::Commit).unwrap();
    let commit_id = CommitId::from_bytes(id.id);
    let read: Commit = odb.read_commit(&commit_id).unwrap();
    assert_eq!(Some(read.encode().unwrap()), *commit);
    let root: RootTree = odb.read_root(&read.tree).unwrap();
    let model: Tree = odb.read_tree(root.get("model", "main").unwrap()).unwrap();
    let mut num_tensors = 0;
    model.0.for_each_tensor(&mut |tensor| {
        num_tensors += 1;
        assert_eq!(odb.read_tensor_bytes(tensor).unwrap().len() as u64, tensor.raw_len().unwrap());
    });
    assert_eq!(num_tensors, 3);
    assert_eq!(odb.commits().unwrap().added_len(&commit_id), Some(number(&small["len"])));
}

fn new_entry(chunk: &Json) -> NewEntry {
    let (id, raw_len) = (ChunkId::from_bytes(array(&chunk["id"])), number(&chunk["raw_len"]));
    let (pipeline, payload) = (pipeline(&chunk["pipeline"]), bytes(&chunk["payload"]));
    let bases = chunk_ids(&chunk["bases"]);
    let mut staged = Arc::new(Arena::default()).take(payload.len());
    staged.bytes_mut().copy_from_slice(&payload);
    let payload =
        if pipeline.is_empty() { Payload::Raw(Arc::new(staged)) } else { Payload::Coded(staged, payload.len()) };
    NewEntry::new(id, raw_len, bases, &pipeline, payload).unwrap()
}

/// Blocks with the objects of a vector, each in its block, and the vector's frames: another zstd writes other ones.
fn blocks(vector: &Json, own: u64) -> Blocks {
    let added: BTreeMap<[u8; 32], u64> =
        list(&vector["commits"]).iter().map(|row| (array(&row[0]), number(&row[1]))).collect();
    let mut all = Blocks::default();
    for (i, block) in (0..).zip(list(&vector["blocks"])) {
        let mut builder = BlockBuilder::default();
        for json in list(&block["objects"]) {
            let name = object(&json[0], &json[1]);
            let added_len = added.get(&name.id).copied().filter(|added_len| *added_len != own);
            builder.add(name, &bytes(&json[2]), added_len).unwrap();
        }
        let Blocks { encoded, rows, commits } = builder.finish().unwrap();
        let [(ours, raw_len)] = <[_; 1]>::try_from(encoded).unwrap();
        let row = BlockRow { offset: 0, encoded_len: ours.len() as u32, raw_len };
        let raw = crate::pack::tail::decode_block(pack_id(&vector["pack"]), &row, &ours).unwrap();
        assert_eq!(raw, list(&block["objects"]).iter().flat_map(|json| bytes(&json[2])).collect::<Vec<u8>>());
        all.encoded.push((bytes(&block["frame"]), raw_len));
        all.rows.extend(rows.into_iter().map(|row| ObjectRow { block: i, ..row }));
        all.commits.extend(commits);
    }
    all
}

#[test]
fn packs_are_written_byte_for_byte_as_the_page_says() {
    for vector in vectors(FILE, "packs") {
        let (name, pack, file) = (&vector["name"], pack_id(&vector["pack"]), bytes(&vector["hex"]));
        let storage = store(&[]);
        let mut builder = PackBuilder::create_as(pack, &*storage, 0).unwrap();
        let mut entries: Vec<NewEntry> = list(&vector["chunks"]).iter().map(new_entry).collect();
        builder.append(&mut entries).unwrap();
        let finished = builder.finish(blocks(&vector, number(&vector["len"]))).unwrap();
        assert_eq!((finished.id, finished.len), (pack, file.len() as u64), "{name}");
        assert_eq!(storage.read(&pack.key(), u64::MAX).unwrap(), file, "{name}");
        assert_eq!(finished.rows, list(&vector["rows"]).iter().map(object_row).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn refuses_the_packs_that_the_page_refuses_and_says_why() {
    let good = vectors(FILE, "packs");
    for vector in vectors(FILE, "refused_packs") {
        let (why, file) = (&vector["why"], refused_bytes(&vector, &good));
        let like = if vector["of"].is_null() { "small".into() } else { vector["of"].clone() };
        let like = named(&good, &like);
        let pack = pack_id(&like["pack"]);
        let storage = store(&[(pack, &file)]);
        let opened = Tail::read(&*storage, pack, file.len() as u64);
        if vector["error"].is_null() {
            assert!(opened.is_ok(), "{why}: {opened:?}");
            let expected: Vec<&str> = list(&vector["damage"]).iter().map(text).collect();
            assert_eq!(damage(Arc::clone(&storage), &pack), expected, "{why}");
        } else {
            let (variant, what) = match opened.unwrap_err() {
                OdbError::PackDamaged { what, .. } => ("PackDamaged", what),
                OdbError::Unsupported { found, supported: 1, .. } => ("Unsupported", format!("version {found}")),
                other => panic!("{why}: {other}"),
            };
            assert_eq!((variant, &what[..]), (text(&vector["error"]), text(&vector["what"])), "{why}");
        }
        let odb = Odb::open(storage).unwrap();
        for (object, raw) in contents(&like) {
            match odb.read_object(&object) {
                Ok(read) => assert!(Some(&read) == raw.as_ref(), "{why}: {object} was read as something else"),
                Err(error) => {
                    assert!(error.is_damage() || matches!(error, OdbError::NotFound { .. }), "{why}: {error}");
                }
            }
        }
    }
}

#[test]
fn chains_of_deltas_are_read_as_the_page_says_and_no_further() {
    for vector in vectors(FILE, "delta_packs") {
        let (pack, file) = (pack_id(&vector["pack"]), bytes(&vector["hex"]));
        let odb = Odb::open(store(&[(pack, &file)])).unwrap();
        for (at, chunk) in list(&vector["chunks"]).iter().enumerate() {
            let object = ObjectName { kind: Kind::Chunk, id: array(&chunk[0]) };
            let read = odb.read_object(&object);
            let name = format!("{}, chunk {at}", vector["name"]);
            if chunk[1].is_null() {
                let error = read.expect_err(&name);
                assert!(
                    error.is_damage() || matches!(error, OdbError::ChainTooLong { .. } | OdbError::NotFound { .. })
                );
            } else {
                assert_eq!(read.expect(&name), bytes(&chunk[1]), "{name}");
            }
        }
    }
}
