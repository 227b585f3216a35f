//! Reversible byte transforms: bytes in, bytes out.
//!
//! A chunk is stored as it is or through a *pipeline* of codecs. Decoding gives back exactly the bytes that went in, or
//! an error; a payload that was made to do harm costs an error too, never more memory than was asked for.
//!
//! | part                 | what it does                                                        |
//! |----------------------|---------------------------------------------------------------------|
//! | [`encode_best`]      | finds out what pays for a chunk, cheaply, and does it               |
//! | [`decode`]           | runs a pipeline backwards, into memory that the caller has          |
//! | [`patch`]            | the same, where a base lies already and little differs              |
//! | [`codecs`]           | the table; one file a codec                                         |
//! | [`encode_metadata`]  | one zstd frame, for blocks of trees and commits                     |
//! | [`quantize`]         | the one part that is lossy, which nothing here calls                |
//!
//! What lies on disk is specified in `docs/format/pack.md`. No ids, no files here.
#![deny(unsafe_code)]

mod choose;
mod codecs;
mod error;
mod few;
mod fse;
mod gaps;
mod literals;
mod means;
mod members;
mod metadata;
mod numbers;
mod output;
mod parts;
mod pipeline;
mod processor;
pub mod quantize;
mod sample;
mod split;

pub use choose::{Base, DeltaGain, ElementClass, Encoded, Layout, Scratch, encode_best};
pub use codecs::{Codec, DeltaCodec, codecs, find_codec};
pub use error::CodecError;
pub use metadata::{decode_metadata, encode_metadata, metadata_encoded_len, metadata_raw_len};
pub use pipeline::{Stage, decode, decodes_to, is_patch, patch};
pub use processor::with_ieee_floats;
