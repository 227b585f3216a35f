//! The frame that small files share: magic, version, length, payload, BLAKE3 (`docs/format/README.md`).

use gradient_storage::{Key, Storage, StorageError};

use crate::error::{RepoError, Result};

/// Version of the format that this release writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes around a payload.
pub(crate) const ENVELOPE_BYTES: usize = 48;

const HEADER: usize = 16;

/// Frames `payload` under `magic`.
pub(crate) fn wrap(magic: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + ENVELOPE_BYTES);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(payload);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// Reads a file of which a reader takes at most `max_len` bytes: a longer one was not written by us, nor was a link.
///
/// # Errors
/// - [`RepoError::Damaged`]: it is longer, and nothing was allocated for it; or it is no regular file.
/// - Storage errors.
pub(crate) fn read(storage: &dyn Storage, key: &Key, max_len: u64) -> Result<Vec<u8>> {
    storage.read(key, max_len).map_err(|error| match error {
        StorageError::TooLarge { key, len, max } => {
            RepoError::Damaged { file: key, reason: format!("it is {len} bytes long, and may be {max}") }
        }
        StorageError::NotAFile { key, found } => {
            RepoError::Damaged { file: key, reason: format!("it is no regular file but a {found}") }
        }
        other => other.into(),
    })
}

/// Returns the payload of `bytes`, checked.
///
/// # Errors
/// - [`RepoError::Damaged`]: wrong magic, length or hash.
/// - [`RepoError::Unsupported`]: intact, but of a version this release does not know.
pub(crate) fn unwrap<'a>(magic: [u8; 4], bytes: &'a [u8], file: &str) -> Result<&'a [u8]> {
    let damaged = |reason: &str| RepoError::Damaged { file: file.to_owned(), reason: reason.to_owned() };
    let (body, hash) = bytes.split_last_chunk::<32>().ok_or_else(|| damaged("it is too short"))?;
    let (header, payload) = body.split_first_chunk::<HEADER>().ok_or_else(|| damaged("it is too short"))?;
    let [m0, m1, m2, m3, v0, v1, v2, v3, length @ ..] = *header;
    if [m0, m1, m2, m3] != magic {
        return Err(damaged("its magic is wrong"));
    }
    if blake3::hash(body).as_bytes() != hash {
        return Err(damaged("its checksum is wrong"));
    }
    let version = u32::from_le_bytes([v0, v1, v2, v3]);
    if version != FORMAT_VERSION {
        return Err(RepoError::Unsupported {
            file: file.to_owned(),
            found: format!("format version {version}"),
            supported: format!("format version {FORMAT_VERSION}"),
        });
    }
    if u64::from_le_bytes(length) != payload.len() as u64 {
        return Err(damaged("its length is wrong"));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let whole = wrap(*b"GROP", b"payload");
        assert_eq!(unwrap(*b"GROP", &whole, "ops/1").expect("intact"), b"payload");
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                assert!(unwrap(*b"GROP", &flipped, "ops/1").is_err(), "byte {at} bit {bit}");
            }
            assert!(unwrap(*b"GROP", &whole[..at], "ops/1").is_err(), "cut at {at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(unwrap(*b"GROP", &longer, "ops/1").is_err());
    }

    #[test]
    fn an_intact_file_of_a_newer_version_is_unsupported_and_not_damaged() {
        let mut body = wrap(*b"GROP", b"x");
        body.truncate(body.len() - 32);
        body[4] = 2;
        let hash = blake3::hash(&body);
        body.extend_from_slice(hash.as_bytes());
        assert!(matches!(unwrap(*b"GROP", &body, "ops/1"), Err(RepoError::Unsupported { .. })));
    }
}
