//! What must hold of every reader of bytes, whatever the bytes: one table for the fuzz targets (`rust/fuzz`) and for
//! `cargo test` (`tests/readers.rs`), which replays the seeds and some thousand changes of them.
//!
//! | file         | what it is                                                          |
//! |--------------|---------------------------------------------------------------------|
//! | `checks.rs`  | what is checked; that of packs and caches is in `gradient-odb`       |
//! | `coded.rs`   | the same of codecs: every one alone, and pipelines of them          |
//! | `seeds.rs`   | bytes to begin with: those of the golden vectors (`tests/vectors`)  |
//! | `mutate.rs`  | changes of them, the same ones in every run                         |
//!
//! Beside never panicking: what is accepted is written again byte for byte (by a codec: to bytes that mean the same), what was written is read again as it was,
//! and nothing costs more memory than the format's limits.

mod checks;
mod coded;
mod mutate;
mod seeds;

pub use mutate::Mutations;

/// A reader of bytes.
pub struct Reader {
    /// Its name, also that of its fuzz target.
    pub name: &'static str,
    /// Gives it bytes; panics if it does what no reader may.
    pub check: fn(&[u8]),
    /// Bytes to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every reader.
pub const READERS: &[Reader] = &[
    Reader { name: "branch_name", check: checks::branch_name, seeds: seeds::branch_names },
    Reader { name: "cbor", check: checks::cbor, seeds: seeds::values },
    Reader { name: "chunk", check: coded::chunk, seeds: seeds::chunks },
    Reader { name: "codec", check: coded::codec, seeds: seeds::coded },
    Reader {
        name: "codec_changes",
        check: |bytes| coded::codec_of("changes", bytes),
        seeds: || seeds::coded_by("changes"),
    },
    Reader {
        name: "codec_difference",
        check: |bytes| coded::codec_of("difference", bytes),
        seeds: || seeds::coded_by("difference"),
    },
    Reader { name: "codec_lz4", check: |bytes| coded::codec_of("lz4", bytes), seeds: || seeds::coded_by("lz4") },
    Reader {
        name: "codec_planes",
        check: |bytes| coded::codec_of("planes", bytes),
        seeds: || seeds::coded_by("planes"),
    },
    Reader {
        name: "codec_sparse",
        check: |bytes| coded::codec_of("sparse", bytes),
        seeds: || seeds::coded_by("sparse"),
    },
    Reader { name: "codec_xor", check: |bytes| coded::codec_of("xor", bytes), seeds: || seeds::coded_by("xor") },
    Reader { name: "codec_zstd", check: |bytes| coded::codec_of("zstd", bytes), seeds: || seeds::coded_by("zstd") },
    Reader { name: "commit", check: checks::commit, seeds: seeds::commits },
    Reader { name: "commit_rows", check: gradient_odb::readers::commit_rows, seeds: seeds::commit_rows },
    Reader { name: "config", check: checks::config, seeds: seeds::configs },
    Reader { name: "entry", check: gradient_odb::readers::entry, seeds: seeds::entries },
    Reader { name: "file_name", check: checks::file_name, seeds: seeds::file_names },
    Reader { name: "folded", check: checks::folded, seeds: seeds::folded },
    Reader { name: "format", check: checks::format, seeds: seeds::formats },
    Reader { name: "lease", check: checks::lease, seeds: seeds::leases },
    Reader { name: "merged_index", check: gradient_odb::readers::merged_index, seeds: seeds::merged_indexes },
    Reader { name: "metadata_block", check: gradient_odb::readers::block, seeds: seeds::blocks },
    Reader { name: "operation", check: checks::operation, seeds: seeds::operations },
    Reader { name: "pack", check: gradient_odb::readers::pack, seeds: seeds::packs },
    Reader { name: "pack_index", check: gradient_odb::readers::pack_index, seeds: seeds::pack_indexes },
    Reader { name: "repository", check: checks::repository, seeds: seeds::repositories },
    Reader { name: "tree", check: checks::tree, seeds: seeds::trees },
];

/// Gives bytes to the reader of that name.
pub fn check(name: &str, bytes: &[u8]) {
    let reader = READERS.iter().find(|reader| reader.name == name).expect("a reader of the table");
    (reader.check)(bytes);
}
