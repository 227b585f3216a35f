//! `tests/vectors/caches.json`: the merged index and the commit rows.

use gradient_object::CommitId;
use gradient_storage::Key;
use serde_json::Value as Json;

use super::packs::store;
use super::{array, bytes, list, named, number, pack_id, refused_bytes, text, vectors};
use crate::cache::commits::{CommitCache, encode};
use crate::cache::merged::MergedIndex;
use crate::index::Row;
use crate::{Kind, Odb, PackId};

const FILE: &str = "caches.json";

fn index_row(json: &Json) -> ([u8; 32], Row) {
    let row = Row {
        offset: number(&json[1]),
        raw_len: number(&json[2]),
        extent: number(&json[3]),
        pack: number(&json[4]),
        header_len: number(&json[5]),
        kind: Kind::from_number(number(&json[6])).unwrap(),
        num_bases: number(&json[7]),
    };
    (array(&json[0]), row)
}

#[test]
fn the_merged_index_has_the_bytes_of_the_page_in_both_directions() {
    for vector in vectors(FILE, "index") {
        let (name, file) = (&vector["name"], bytes(&vector["hex"]));
        let packs: Vec<(PackId, u64)> =
            list(&vector["packs"]).iter().map(|pack| (pack_id(&pack[0]), number(&pack[1]))).collect();
        let rows: Vec<_> = list(&vector["rows"]).iter().map(index_row).collect();
        assert!(MergedIndex::build(&packs, &rows).bytes() == file, "{name}: other bytes were written");
        let index = MergedIndex::load(file).unwrap_or_else(|what| panic!("{name}: {what}"));
        assert_eq!(index.packs().collect::<Vec<_>>(), packs, "{name}");
        assert_eq!(index.rows_from(&[0; 32]).collect::<Vec<_>>(), rows, "{name}");
        for (id, row) in rows {
            assert_eq!(index.find(&id), Some(row), "{name}");
        }
        assert_eq!(index.find(&[0xaa; 32]), None, "{name}");
    }
}

#[test]
fn ignores_the_merged_indexes_that_the_page_refuses_and_says_why() {
    let good = vectors(FILE, "index");
    for vector in vectors(FILE, "refused_index") {
        let loaded = MergedIndex::load(refused_bytes(&vector, &good));
        assert_eq!(loaded.err(), Some(text(&vector["what"])), "{}", vector["why"]);
    }
}

#[test]
fn commit_rows_have_the_bytes_of_the_page_in_both_directions() {
    for vector in vectors(FILE, "commits") {
        let (name, file) = (&vector["name"], bytes(&vector["hex"]));
        let packs: Vec<PackId> = list(&vector["packs"]).iter().map(pack_id).collect();
        let commits: Vec<(CommitId, u64, Vec<u8>)> = list(&vector["commits"])
            .iter()
            .map(|row| (CommitId::from_bytes(array(&row[0])), number(&row[1]), bytes(&row[2])))
            .collect();
        let rows: Vec<_> = commits.iter().map(|(id, added_len, bytes)| (*id, *added_len, &bytes[..])).collect();
        assert_eq!(encode(&packs, &rows), file, "{name}");
        let cache = CommitCache::load(file).unwrap_or_else(|what| panic!("{name}: {what}"));
        assert_eq!(cache.packs(), packs, "{name}");
        assert_eq!(cache.iter().collect::<Vec<_>>(), rows, "{name}");
        for (id, added_len, bytes) in &rows {
            assert_eq!(cache.find(id), Some((*added_len, *bytes)), "{name}");
        }
    }
}

#[test]
fn ignores_the_commit_rows_that_the_page_refuses_and_says_why() {
    let good = vectors(FILE, "commits");
    for vector in vectors(FILE, "refused_commits") {
        let loaded = CommitCache::load(refused_bytes(&vector, &good));
        assert_eq!(loaded.err(), Some(text(&vector["what"])), "{}", vector["why"]);
    }
}

#[test]
fn the_caches_of_the_packs_of_the_page_are_those_of_the_page() {
    let packs = vectors("pack.json", "packs");
    for (group, file_name) in [("index", "index"), ("commits", "commits")] {
        let good = vectors(FILE, group);
        let vector = named(&good, &"the packs of pack.json".into());
        let of: Vec<(PackId, Vec<u8>)> = list(&vector["of"])
            .iter()
            .map(|name| named(&packs, name))
            .map(|pack| (pack_id(&pack["pack"]), bytes(&pack["hex"])))
            .collect();
        let borrowed: Vec<(PackId, &[u8])> = of.iter().map(|(pack, file)| (*pack, &file[..])).collect();
        let storage = store(&borrowed);
        Odb::open(storage.clone()).unwrap().write_caches().unwrap();
        let written = storage.read(&Key::cache(file_name).unwrap(), u64::MAX).unwrap();
        assert!(written == bytes(&vector["hex"]), "{file_name}: other bytes were written");
    }
}
